"""``workbench demo --recipe NAME`` to its end for every built-in recipe, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.demos import demo_model
from tests.helpers.short_recipes import in_short
from tests.helpers.tiny_facts import capitals
from workbench import cli, demo
from workbench.models.load import LoadedModel
from workbench.plots import report_sections
from workbench.plots.report_sections import Loop

FACTS = capitals()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LoadedModel:
    """A tiny model that knows five capitals, which the demo loads, and recipes of few steps."""

    def short(recipe: Any) -> tuple[str | None, Any]:
        return "L1MLP" if recipe.selects else None, in_short(recipe, mismatched=1, force=True, min_tokens=1)

    return demo_model(monkeypatch, tmp_path, FACTS, short)


@pytest.mark.filterwarnings("ignore:The target vector did not move")
@pytest.mark.parametrize("name", wb.recipes.RECIPES)
def test_the_demo_of_every_recipe(
    name: str,
    model: LoadedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pages: list[Loop] = []
    write = report_sections.write_loop_page
    monkeypatch.setattr(demo, "write_loop_page", lambda loop, path: pages.append(loop) or write(loop, path))
    out, recipe = tmp_path / "out", wb.recipes.RECIPES[name]
    assert cli.main(["demo", "--recipe", name, "--out", str(out), "--seed", "3", "--max-controls", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("Next: ")
    summary = json.loads((out / "report.json").read_text(encoding="utf-8"))
    last = recipe.stage_names[-1]
    assert summary["recipe"]["name"] == recipe.name and summary["recipe"]["seed"] == 3
    assert summary["report"]["stages"] == ["base", last] and f"after {last}" in summary["probabilities"]
    chosen = ["select"] if recipe.selects else []
    assert list(summary["seconds"]) == ["trace", "attribute", *chosen, "fit", "evaluate", "report"]
    edit = wb.load_edit(out / "edit")
    assert edit.base_fingerprint == model.fingerprint and edit.stage_names == recipe.stage_names
    html = (out / "report.html").read_text(encoding="utf-8")
    assert ("|dW| / |W|" in html) == bool(edit.writes), "what a closed form wrote"
    course = "measured before each update and at the end of each stage" in html
    assert course == bool(edit.history), "no empty chart of a method that takes no steps"
    names: dict[str, Any] = {}
    exec(pages[0].code, names)
    assert names["edit"].id == edit.id and names["report"].rows == pages[0].report.rows
    assert dict(names["probabilities"]) == dict(pages[0].probabilities)
