"""Every method in the panels: its edit is run, compared and probed by clicks, and the code repeats it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.panels import FACTS, FRANCE, control, descendants, shown, tiny
from tests.helpers.short_recipes import in_short
from tests.helpers.wire import click, enter
from workbench.types import BaseRecipe, Edit, TrainedRecipe
from workbench.widgets.compare.view import CompareView
from workbench.widgets.edit.panel import EditPanel
from workbench.widgets.probe.panel import ProbePanel
from workbench.widgets.shared.edit_words import chosen_words

RECIPES = pytest.mark.parametrize("name", wb.recipes.RECIPES)
pytestmark = pytest.mark.filterwarnings("ignore:The target vector did not move")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(wb, "load_model", lambda *_: tiny())


def short(name: str) -> BaseRecipe:
    return in_short(wb.recipes.RECIPES[name], mismatched=1, force=True, min_tokens=1)


@cache
def made(name: str) -> Edit:
    selection = "L1MLP" if wb.recipes.RECIPES[name].selects else None
    return wb.rewrite(tiny(), FRANCE, selection, recipe=short(name), pool=FACTS, progress=False)


@RECIPES
def test_run(name: str) -> None:
    recipe = short(name)
    panel = EditPanel(tiny(), FRANCE, "L1MLP" if recipe.selects else None, pool=FACTS, recipe=recipe, max_controls=1)
    click(control(panel, "Run"))
    assert panel.job is not None
    panel.job.wait(60)
    assert panel.error is None and panel.edit is not None
    edit = panel.edit
    assert edit.id == made(name).id, "clicked equals scripted"
    seen = shown(panel)
    assert ("What it wrote" in seen) == bool(edit.writes)
    assert ("Loss and KL while it was fitted" in seen) == isinstance(recipe, TrainedRecipe)
    assert ("by the default selector" in seen) == (edit.recipe.selects and edit.selector != "given")
    assert ("whole model moves" in seen) == (name in ("lora", "full")), "what is said to move is what moves"


@RECIPES
def test_compare(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    edit = made(name)
    view = CompareView(tiny(), edit, pool=FACTS)
    view.shown()
    assert view.job is not None
    view.job.wait(60)
    assert view.error is None and view.result is not None
    assert view.stage == edit.stage_names[-1]
    answered = view.ask(FRANCE.question)
    assert answered is not None
    answered.wait(60)
    expected = wb.answer_probabilities(tiny(), FRANCE, edit=edit)[f"after {view.stage}"]
    assert view.probabilities == pytest.approx(dict(expected), abs=1e-5)
    names: dict[str, Any] = {}
    exec(view.code, names)
    strength = control(view, "Strength")
    view.strength = 0.5
    if edit.recipe.trains == "nothing":
        assert strength.step == 1.0 and "A context is there or it is not" in shown(view) and not view.probabilities
        view.edit = made("learn-only")
        assert strength.step == 0.05
        view.strength = 0.7
        view.edit = edit
        assert view.strength == 0.0, "at one of its two places"
    else:
        assert strength.step == 0.05 and view.probabilities
    assert view.error is None


def test_a_control_of_a_memory_lies_in_one_other_layer() -> None:
    panel = EditPanel(tiny(), FRANCE, "L1N5 L1N6 L1N7", pool=FACTS, recipe=short("grace"), max_controls=1)
    (box,) = (w for w in descendants(panel) if "random" in str(getattr(w, "description", "")))
    enter(box, value=True)
    click(control(panel, "Run"))
    assert panel.job is not None
    panel.job.wait(60)
    assert panel.error is None and panel.control_report is not None
    names: dict[str, Any] = {}
    exec(panel.code, names)
    assert len({c.layer for c in names["drawn"]}) == 1 and names["control_report"].rows == panel.control_report.rows


def test_what_was_picked_is_picked_again() -> None:
    """Also where a method writes only some of it, or measured something beside it."""
    for name, selector in (("rome", "given, of which 1 of 2 modules"), ("int-attn", "given; balance")):
        edit = wb.rewrite(tiny(), FRANCE, "L0N5 L1N6 L1N7 L1H2", recipe=short(name), pool=FACTS, progress=False)
        assert edit.selector.startswith(selector.split(",")[0]) and edit.picked
        names: dict[str, Any] = {}
        exec(CompareView(tiny(), edit, pool=FACTS).code, names)
        assert names["edit"].id == edit.id
        assert "picked" in chosen_words(edit) and "default selector" not in chosen_words(edit)


@RECIPES
def test_probe(name: str) -> None:
    edit = made(name)
    view = ProbePanel(tiny(), edit, pool=FACTS, max_new_tokens=4, probes=("lens", "context", "strength"))
    click(control(view, "Run"))
    assert view.job is not None
    view.job.wait(60)
    assert view.error is None and view.report is not None
    assert {row.probe for row in view.report.rows} <= {"lens", "context", "strength"}
    assert ("it has no strengths" in shown(view)) == (edit.recipe.trains == "nothing")
