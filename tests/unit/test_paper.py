"""The paper beside ours: its lenient count by hand, and notebook 06's cell for its own model, on a small one."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import pytest

import workbench
from tests.helpers.tiny_facts import MAKERS, capitals, knowing
from workbench.editing.methods import table as recipes
from workbench.editing.selector import default_selection
from workbench.evaluation.lenient import lenient_rates
from workbench.types import AnswerRow, EvalReport, FactSet
from workbench.types import recipe as recipe_module

ROOT = Path(__file__).parents[2]
FACTS = capitals()
FRANCE, SPAIN, JAPAN = FACTS[0], FACTS[1], FACTS[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def row(fact_id: str, group: Any, text: str, stage: str = "learn", label: Any = "other") -> AnswerRow:
    given: dict[str, Any] = {"relation": "capital", "form": "chat", "nll": 1.0, "kl": None}
    return AnswerRow(fact_id=fact_id, group=group, stage=stage, prompt=text, text=text, label=label, **given)


def report(*rows: AnswerRow, facts: tuple[str, ...] = (FRANCE.id,)) -> EvalReport:
    return EvalReport(rows=rows, rates={}, stages=("base", "unlearn", "learn"), facts=facts)


def test_a_lenient_count_by_hand() -> None:
    """A target that is named beside the old answer counts, gibberish is forgotten; held-out rows and earlier stages do
    not count."""
    old, new = FRANCE.answer, FRANCE.target
    found = lenient_rates(
        report(
            row(FRANCE.id, "train", f"{new}."),
            row(FRANCE.id, "train", f"{old} or {new}", label="both"),
            row(FRANCE.id, "train", "ng ng ng ng", label="gibberish"),
            row(FRANCE.id, "train", f"{old}.", stage="unlearn"),
            row(FRANCE.id, "heldout", f"{old}."),
            row(SPAIN.id, "control", f"Not {JAPAN.answer} but {SPAIN.answer}"),
            row(JAPAN.id, "control", new),
        ),
        FACTS,
    )
    shares = {name: (rate.value, rate.n) for name, rate in found.items()}
    assert shares == {
        "new fact": (pytest.approx(2 / 3), 3),
        "forgotten": (pytest.approx(2 / 3), 3),
        "controls": (0.5, 2),
    }
    assert found["controls"].method == "wilson"


def test_what_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match=r"lacks facts that the report asked: \['spain-capital'\]"):
        lenient_rates(report(row("spain-capital", "control", "x")), FactSet([FRANCE], name="one"))
    with pytest.raises(ValueError, match="is of one edited fact"):
        lenient_rates(report(facts=(FRANCE.id, SPAIN.id)), FACTS)


def test_the_notebooks_cell_for_the_papers_own_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell that nobody without a GPU can run, on a random model of the same family and with few steps."""
    notebook = nbformat.read(ROOT / "notebooks" / "06_the_paper.ipynb", as_version=4)
    (code,) = [
        found[1]
        for cell in notebook.cells
        if cell.cell_type == "markdown" and (found := re.search(r"```python\n(.*?)```", cell.source, re.DOTALL))
    ]
    assert 'load_model("microsoft/Phi-3-mini-4k-instruct"' in code
    model = knowing(MAKERS["phi3"](), FACTS)
    monkeypatch.setattr(workbench, "load_model", lambda *_, **__: model)
    monkeypatch.setattr(workbench, "load_facts", lambda: FACTS)
    for module in ("facts.known", "evaluation.evaluate"):
        monkeypatch.setattr(f"workbench.{module}.load_facts", lambda: FACTS, raising=False)
    monkeypatch.setitem(recipes.RECIPES, "paper", replace(recipes.RECIPES["paper"], steps=(2, 3)))
    monkeypatch.setattr(recipe_module, "DEFAULT_STEPS", {"unlearn": 2, "learn": 2})
    monkeypatch.setattr("workbench.editing.methods.ia3.default_selection", partial(default_selection, k=20))
    names: dict[str, Any] = {}
    exec(code, names)
    assert set(names["reports"]) == {"paper", "default"}
    assert names["leniently"].shape == (2, 3)
    assert set(names["strictly"].index.get_level_values(0)) == {"paper", "default"}
    assert names["edits"]["paper"].recipe.name == "paper"
    assert {c.kind for c in names["edits"]["paper"].selection} == {"MLP", "GATEUP", "ATTN"}
