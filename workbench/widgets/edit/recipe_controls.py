"""The settings of an edit as controls: a built-in recipe, and its few parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ipywidgets import BoundedFloatText, BoundedIntText, FloatText, HBox, IntText, VBox

from workbench.editing.methods.table import TRAINED, named_recipe
from workbench.types import STAGES, TrainedRecipe
from workbench.widgets.shared.controls import Dropdown

STYLE = {"description_width": "initial"}
WRAP = {"flex_flow": "row wrap"}


class RecipeControls(VBox):
    """A recipe to choose and its steps, learning rate, retain weight and seed to change.

    Args:
        recipe: What is shown first: a ``Recipe`` (its other settings are kept), the name of a built-in one, or None for
            the default.

    Raises:
        ValueError: An unknown name.
    """

    def __init__(self, recipe: TrainedRecipe | str | None = None) -> None:
        self._recipes = dict(TRAINED)
        self._listeners: list[Callable[[], object]] = []
        self._quiet = False
        self._name = Dropdown(options=list(TRAINED), description="Recipe", style=STYLE, layout={"width": "300px"})
        self._steps = {
            stage: BoundedIntText(1, min=1, max=100_000, description=f"{stage} steps", style=STYLE) for stage in STAGES
        }
        self._rate = FloatText(0.05, description="learning rate", style=STYLE)
        self._weight = BoundedFloatText(0.0, min=0, max=1e6, description="retain weight", style=STYLE)
        self._seed = IntText(0, description="seed", style=STYLE)
        numbers = [*self._steps.values(), self._rate, self._weight, self._seed]
        for box in numbers:
            box.layout.width = "180px"
            box.observe(lambda _: self._tell(), names="value")
        self._all: list[Any] = [self._name, *numbers]
        super().__init__([self._name, HBox(numbers, layout=WRAP)])
        chosen = named_recipe(recipe or self.name) if recipe is None or isinstance(recipe, str) else recipe
        assert isinstance(chosen, TrainedRecipe)
        self.recipe = chosen
        self._name.observe(lambda _: self._show(), names="value")

    @property
    def name(self) -> str:
        """The name of the recipe that is chosen."""
        return str(self._name.value)

    @property
    def chosen(self) -> TrainedRecipe:
        """The recipe that is chosen, without what the other controls say."""
        return self._recipes[self.name]

    @property
    def recipe(self) -> TrainedRecipe:
        """The recipe as the controls say it. Settable.

        Raises:
            ValueError: On reading, a setting that is out of range.
        """
        base = self._recipes[self.name]
        steps = [self._steps[stage].value for stage in base.stages]
        shown: dict[str, Any] = {
            "learning_rate": self._rate.value,
            "retain_weight": self._weight.value,
            "seed": self._seed.value,
        }
        if tuple(steps) != base.stage_steps:
            shown["steps"] = tuple(steps) if len(steps) > 1 else steps[0]
        return replace(base, **shown)

    @recipe.setter
    def recipe(self, recipe: TrainedRecipe) -> None:
        self._recipes = {**TRAINED, recipe.name: recipe}
        self._quiet = True
        try:
            self._name.options = list(self._recipes)
            self._name.value = recipe.name
        finally:
            self._quiet = False
        self._show()

    @property
    def problem(self) -> str:
        """What is wrong with the numbers, for a person; empty if nothing is."""
        wrong = []
        if not (math.isfinite(self._rate.value) and self._rate.value > 0):
            wrong.append(f"The learning rate must be a number above 0, not {self._rate.value:g}.")
        return " ".join(wrong)

    @property
    def words(self) -> dict[str, str]:
        """The settings by name as the controls show them, whether they work or not."""
        stages = self.chosen.stages
        return {
            "recipe": self.name,
            "steps": " + ".join(f"{self._steps[stage].value:,}" for stage in stages) + " steps",
            "learning rate": f"{self._rate.value:g}",
            "retain weight": f"{self._weight.value:g}",
            "seed": str(self._seed.value),
        }

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` after each change of a setting."""
        self._listeners.append(callback)

    def enable(self, enabled: bool) -> None:
        """Let the settings be changed, or not."""
        for control in self._all:
            control.disabled = not enabled

    def _show(self) -> None:
        """Put the chosen recipe's settings into the controls."""
        if self._quiet:
            return
        recipe = self._recipes[self.name]
        self._quiet = True
        try:
            for stage, box in self._steps.items():
                box.layout.display = None if stage in recipe.stages else "none"
            for stage, steps in zip(recipe.stages, recipe.stage_steps, strict=True):
                self._steps[stage].value = steps
            self._rate.value, self._weight.value = recipe.learning_rate, recipe.retain_weight
            self._seed.value = recipe.seed
        finally:
            self._quiet = False
        self._tell()

    def _tell(self) -> None:
        if not self._quiet:
            for callback in self._listeners:
                callback()
