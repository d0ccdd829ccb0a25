"""The controls of a recipe of any method: which settings are shown, read and reset."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import pytest

from tests.helpers.panels import control
from workbench.editing.methods import table
from workbench.editing.methods.table import RECIPES
from workbench.types import BaseRecipe
from workbench.types.setting import SEED, Setting
from workbench.widgets.edit.recipe_controls import RecipeControls
from workbench.widgets.edit.timeline import phases_of


@dataclass(frozen=True, kw_only=True)
class Solved(BaseRecipe):
    """A recipe without steps, with a number and a choice."""

    method: ClassVar[str] = "solved"
    trains: ClassVar[str] = "low-rank updates"
    panel_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="clamp", tip="The longest it may be", low=0, above=True),
        Setting(name="covariance", tip="Of the keys", choices=("measured", "identity")),
        SEED,
    )

    name: str = "solved"
    clamp: float = 4.0
    covariance: str = "measured"


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> RecipeControls:
    """Controls in which a method without steps can be chosen."""
    nothing: Any = None
    method = table.Method("Solved in one go", Solved, nothing, "a paper")
    monkeypatch.setitem(table.METHODS, "solved", method)
    monkeypatch.setitem(RECIPES, "solved", Solved())
    return RecipeControls("solved")


def shown(controls: RecipeControls) -> list[str]:
    """Names of the fields that are not hidden."""
    return [field.name for field in controls._all if field.layout.display != "none"]


def test_only_its_own_settings_are_shown(solved: RecipeControls) -> None:
    assert shown(solved) == ["seed", "clamp", "covariance"]
    control(solved, "Recipe").value = "unlearn-then-learn"
    assert shown(solved) == ["unlearn steps", "learn steps", "learning rate", "retain weight", "seed"]
    assert "Solved" not in solved._method.value
    control(solved, "Recipe").value = "solved"
    assert "Solved in one go, low-rank updates (a paper)." in solved._method.value


def test_numbers_and_choices_are_read_and_reset(solved: RecipeControls) -> None:
    control(solved, "clamp").value = 2.5
    control(solved, "covariance").value = "identity"
    assert solved.recipe == Solved(clamp=2.5, covariance="identity")
    assert solved.changed == "clamp 2.5, covariance identity"
    assert solved.words == {"recipe": "solved", "clamp": "2.5", "covariance": "identity", "seed": "0"}
    solved.reset()
    assert solved.recipe == Solved() and solved.changed == ""


def test_what_is_out_of_range_is_refused_in_words(solved: RecipeControls) -> None:
    control(solved, "clamp").value = 0.0
    assert solved.problem == "Clamp must be a number above 0, not 0."
    with pytest.raises(ValueError, match="Clamp must be a number above 0"):
        _ = solved.recipe


def test_a_changed_recipe_of_a_method_keeps_its_way_back(solved: RecipeControls) -> None:
    solved.recipe = Solved(clamp=3.0)
    assert (solved.name, solved.changed) == ("solved", "clamp 3")
    other = Solved(name="mine", covariance="identity")
    solved.recipe = other
    assert (solved.name, solved.changed, solved.recipe) == ("mine", "", other)


def test_a_run_without_steps_has_one_phase_of_work(solved: RecipeControls) -> None:
    assert [phase.name for phase in phases_of(solved.recipe, chooses=False, prompts=10)] == ["make", "evaluate"]
    assert [phase.kind for phase in phases_of(solved.recipe, chooses=False, prompts=10, random_control=True)] == [
        "solve",
        "prompt",
        "solve",
        "prompt",
    ]


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_fits_its_controls(name: str) -> None:
    """Each setting that a panel shows is a field of the recipe, and its own value is allowed."""
    recipe = RECIPES[name]
    own = {field.name for field in fields(recipe)}
    for setting in recipe.panel_settings:
        value = getattr(recipe, setting.name)
        assert setting.name in own and setting.tip
        assert value in setting.choices if setting.choices else setting.wrong(value) == ""
    controls = RecipeControls(name)
    assert controls.recipe == recipe and controls.changed == "" and controls.problem == ""


def test_the_menu_says_the_whole_of_what_a_recipe_moves_by_itself() -> None:
    """A longer label is cut: the menu is 296 px wide."""
    long = {name: words for name, one in RECIPES.items() if len(words := one.without_selection) > 39}
    assert not long
