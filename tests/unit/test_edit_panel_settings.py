"""The settings of an edit panel: what is trained and how, and what each field refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets
import pytest

import workbench
from tests.helpers.edit_panels import Picker, own_note, panel
from tests.helpers.panels import FACTS, FRANCE, QUICK, Held, control, descendants, shown, tiny
from tests.helpers.small_fits import same
from tests.helpers.wire import click, enter
from workbench.editing.methods import ia3
from workbench.editing.methods.table import Recipe
from workbench.editing.rewrite import rewrite
from workbench.editing.selector import default_selection
from workbench.types import Selection
from workbench.widgets.compare.view import CompareView
from workbench.widgets.shared import run_panel


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


# What is trained


def test_the_picked_components_are_read_when_run_is_pressed(monkeypatch: pytest.MonkeyPatch) -> None:
    held, picker = Held(monkeypatch), Picker()
    held.go.set()
    one = panel(picker)
    train = control(one, "Train")
    assert train.options[0][0] == "Picked components (none yet)" and train.value == "picked"
    picker.selection = Selection("L1H0 L2MLP")
    gates = picker.selection.n_parameters(tiny())
    assert train.options[0][0] == f"Picked components (2: {gates} gates)" and train.value == "picked"
    assert "selection = 'L1H0 L2MLP'" in one.code
    click(control(one, "Run"))
    assert one.job is not None
    one.job.wait(10)
    assert held.given[2] == Selection("L1H0 L2MLP")
    enter(train, index=1)
    assert one.selection is None and "selection = None  # None: the default selector" in one.code
    one.run().wait(10)
    assert held.given[2] is None


def test_a_fact_that_is_not_learned_is_tried_harder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The panel follows the second fit, and says what it gave; its code and its control make the same."""
    few, more = 9, 30
    monkeypatch.setitem(ia3.RECIPES, "quick", hard := replace(QUICK, draw_back=1.0))
    monkeypatch.setattr(
        ia3, "default_selection", lambda *given, k=few, **options: default_selection(*given, k=k, **options)
    )
    monkeypatch.setattr(ia3, "MORE_NEURONS", more)
    one = panel(None, recipe=hard)
    seen: list[str] = []
    monkeypatch.setattr(run_panel, "SECONDS_BETWEEN_DRAWINGS", 0)
    for area in descendants(one):
        if isinstance(area, ipywidgets.HTML):
            area.observe(
                lambda change: "while it was fitted" in change["new"] and seen.append(change["new"]), names="value"
            )
    one.random_control = True
    one.run().wait(60)
    assert one.edit is not None and one.control_report is not None
    assert one.edit.recipe.stage_steps == (3, 8) and len(one.edit.selection) == more
    live = [drawn for drawn in seen if "Loss" not in drawn]
    again = ["once more with more neurons" in drawn for drawn in live]
    assert again[0] is False and again.index(True) > 1 and sum(again) > 1, "first without, then with"
    assert all(again[again.index(True) : -1]) and not again[-1], "and in the end the edit's own"
    assert all(words in shown(one) for words in ("unlearn again", "learn again", "random control", "evaluate it"))
    assert str(one.edit.shortfall)[1:] in shown(one) and "More learn steps may teach it." in shown(one)
    names: dict[str, Any] = {}
    monkeypatch.setattr(workbench, "load_model", lambda *args: tiny())
    exec(one.code, names)
    assert same(names["edit"], one.edit)
    assert names["control"].recipe == one.edit.recipe and names["control_report"].rows == one.control_report.rows
    assert f"selection = {more}\n" in CompareView(tiny(), one.edit, pool=FACTS).code
    one.show(names["edit"], None)
    assert str(one.edit.shortfall)[1:] in shown(one) and "A first fit of 9 reached P = " in shown(one)
    # An edit that was opened leaves the settings it was asked with: Run makes the same; also with half of all neurons,
    # beside which there is just room for a random control.
    assert one.recipe == hard
    monkeypatch.setattr(ia3, "MORE_NEURONS", 8000)
    one.random_control = True
    one.run().wait(60)
    assert len(one.edit.selection) == 84 and one.control_report is not None
    assert same(one.edit, rewrite(tiny(), FRANCE, recipe=hard, pool=FACTS, progress=False))
    picked = panel(recipe=hard)
    picked.run().wait(60)
    assert picked.edit is not None
    assert "so may the default selector" in shown(picked) and picked.edit.recipe.stage_steps == (3, 4)


def test_a_picker_that_is_not_made_of_traits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        selection, told = Selection("L1H0"), None

        def on_change(self, callback: Any) -> None:
            self.told = callback

    picker = Plain()
    one = panel(picker)
    picker.selection = Selection("L1H1")
    assert picker.told is not None
    picker.told()
    assert one.selection == Selection("L1H1") and "L1H1" in shown(one)
    with pytest.raises(ValueError, match="selection_source must be"):
        one.selection_source = 3
    one.selection_source = None
    assert one.selection is None and len(control(one, "Train").options) == 1


def test_the_recipes_and_their_settings() -> None:
    one = panel(recipe="paper")
    assert one.recipe == Recipe.named("paper") and "wb.Recipe.named('paper')" in one.code
    recipes = control(one, "Recipe")
    enter(recipes, index=list(recipes.options).index("learn-only"))
    assert one.recipe == Recipe.named("learn-only")
    assert control(one, "unlearn steps").layout.display == "none" and control(one, "learn steps").layout.display is None
    enter(control(one, "learn steps"), value=9)
    assert one.recipe.stage_steps == (9,) and "wb.Recipe.named('learn-only', steps=9)" in one.code
    with pytest.raises(ValueError, match="Unknown recipe"):
        panel(recipe="none such")


# What a field refuses


@pytest.mark.parametrize(
    ("source", "settings", "words"),
    [
        ("L99MLP", {}, "the model has"),
        (Selection(), {}, "Nothing is picked"),
        ("L1MLP", {"learning rate": 0.0}, "Recipe.learning_rate must be a positive number"),
        ("L1MLP", {"learning rate": float("nan")}, "Recipe.learning_rate"),
        ("L1MLP", {"learn steps": -5}, "Recipe.steps must be whole numbers from 1"),
        (
            "L1MLP",
            {"learn steps": 10**12},
            "Learn steps must be a whole number from 1 to 100,000",
        ),
        ("L1MLP", {"seed": 10**30}, "Seed must be"),
    ],
)
def test_wrong_settings_fail_at_once_and_say_why(source: Any, settings: dict[str, float], words: str) -> None:
    one = panel(source)
    for name, value in settings.items():
        enter(control(one, name), value=value)
    assert control(one, "Run").disabled and one.problem and one.problem in own_note(one)
    with pytest.raises(ValueError, match=words):
        one.run().wait(10)
    assert words in str(one.error) and 'role="alert"' in shown(one) and not one.running
    assert one.message == one.problem and "Error" not in one.problem and "Recipe." not in one.problem
    assert one.code.startswith("# These settings do not work" if settings else "import")


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("unlearn steps", {"value": "many"}),
        ("unlearn steps", {"value": None}),
        ("learning rate", {"value": [1]}),
        ("seed", {"value": {"a": 1}}),
        ("Recipe", {"index": 99}),
        ("Train", {"index": "first"}),
    ],
)
def test_nonsense_from_the_browser_changes_nothing(name: str, state: dict[str, Any]) -> None:
    one = panel()
    before = one.recipe, one.selection, one.code
    enter(control(one, name), **state)
    assert (one.recipe, one.selection, one.code) == before


def test_every_field_answers_what_it_cannot_be_all_at_once() -> None:
    one = panel()
    wrong = {"unlearn steps": 0, "learn steps": -5, "learning rate": 0.0, "retain weight": -1.0}
    for name, value in wrong.items():
        enter(control(one, name), value=value)
        assert control(one, name).value == value, "it stays as it was typed"
    for words in (
        "Unlearn steps must be a whole number from 1 to 100,000, not 0.",
        "Learn steps must be a whole number from 1 to 100,000, not -5.",
        "Learning rate must be a number above 0, not 0.",
        "Retain weight must be a number from 0 to 1,000,000, not -1.",
    ):
        assert words in one.problem and shown(one).count(words) == 2, "at the field and beside Run"
    for name in wrong:
        enter(control(one, name), value=2)
    assert one.problem == "" and not control(one, "Run").disabled and "must be" not in shown(one)
    enter(control(one, "learning rate"), value=None)
    assert "That is no number: 2 is kept." in shown(one) and not control(one, "Run").disabled
    enter(control(one, "learning rate"), value=0.5)
    assert "no number" not in shown(one)


def test_a_field_that_the_recipe_does_not_use_stops_nothing() -> None:
    one = panel()
    enter(control(one, "unlearn steps"), value=0)
    assert control(one, "Run").disabled
    recipes = control(one, "Recipe")
    enter(recipes, index=list(recipes.options).index("learn-only"))
    assert not control(one, "Run").disabled and one.problem == ""
