"""The settings of an edit as controls: a built-in recipe, and its few parameters under "Advanced"."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ipywidgets import HTML, ToggleButton, VBox

from workbench.editing.methods.table import TRAINED, named_recipe
from workbench.types import STAGES, StageName, TrainedRecipe
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.controls import Dropdown
from workbench.widgets.shared.number_field import LARGEST, NumberField

MOST_STEPS, MOST_WEIGHT = 100_000, 1e6
_STAGE_TIPS: dict[StageName, str] = {
    "unlearn": "Optimiser steps that teach a refusal in place of the old answer. More unlearn it better and cost more",
    "learn": "Optimiser steps that teach the new answer. More teach it better and cost more",
}


def _steps(value: float) -> str:
    return "" if 1 <= value <= MOST_STEPS else f"must be a whole number from 1 to {MOST_STEPS:,}"


def _rate(value: float) -> str:
    return "" if math.isfinite(value) and value > 0 else "must be a number above 0"


def _weight(value: float) -> str:
    return "" if 0 <= value <= MOST_WEIGHT else f"must be a number from 0 to {MOST_WEIGHT:,.0f}"


def _seed(value: float) -> str:
    return "" if abs(value) <= LARGEST else f"must be a whole number of at most {LARGEST:,}"


class RecipeControls(VBox):
    """A recipe to choose and, folded, its steps, learning rate, retain weight and seed to change.

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
        self._name = Dropdown(
            options=list(TRAINED),
            description="Recipe",
            tooltip="How it is trained: which stages, by which method",
            layout={"width": "296px"},
        )
        self._steps = {
            stage: NumberField(f"{stage} steps", 1, tip=_STAGE_TIPS[stage], check=_steps, whole=True)
            for stage in STAGES
        }
        self._rate = NumberField("learning rate", 0.05, tip="Length of a step: larger moves more at once", check=_rate)
        tip = "How strongly answers to other questions are held in place while it trains; 0 does not"
        self._weight = NumberField("retain weight", 0.0, tip=tip, check=_weight)
        tip = "Of all that is drawn. The same seed gives the same edit"
        self._seed = NumberField("seed", 0, tip=tip, check=_seed, whole=True)
        self._numbers = [*self._steps.values(), self._rate, self._weight, self._seed]
        for field in self._numbers:
            field.on_change(self._tell)
        self._more = ToggleButton(
            description="Advanced", icon="caret-right", tooltip="Steps, learning rate, retain weight and seed"
        )
        self._more.add_class("wb-quiet")
        self._changed = HTML()
        self._reset = layout.quiet_button("Reset", icon="undo", tooltip="Take the recipe's own settings again")
        self._reset.on_click(lambda _: self.reset())
        self._fold = layout.row(*self._numbers)
        self._fold.layout.align_items = "flex-start"
        super().__init__([layout.fields(self._name), layout.row(self._more, self._changed, self._reset), self._fold])
        chosen = named_recipe(recipe or self.name) if recipe is None or isinstance(recipe, str) else recipe
        assert isinstance(chosen, TrainedRecipe)
        self.recipe = chosen
        self._name.observe(lambda _: self._show(), names="value")
        self._more.observe(lambda _: self._unfold(), names="value")
        self._unfold()

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
        steps = tuple(self._steps[stage].value for stage in self.chosen.stages)
        made = _changed(self.chosen, steps, self._rate.value, self._weight.value, self._seed.value)
        if self.problem:  # out of the range of a panel, which is narrower
            raise ValueError(self.problem)
        return made

    @recipe.setter
    def recipe(self, recipe: TrainedRecipe) -> None:
        own = TRAINED.get(recipe.name)
        numbers = recipe.stage_steps, recipe.learning_rate, recipe.retain_weight, recipe.seed
        # A built-in one whose numbers were changed stays itself, so that there is a way back.
        known = own is not None and own.stages == recipe.stages and _changed(own, *numbers) == recipe
        self._recipes = dict(TRAINED) if known else {**TRAINED, recipe.name: recipe}
        self._quiet = True
        try:
            self._name.options = list(self._recipes)
            self._name.value = recipe.name
        finally:
            self._quiet = False
        self._show(recipe)

    def reset(self) -> None:
        """Put the chosen recipe's own settings back."""
        self._show()

    @property
    def changed(self) -> str:
        """What differs from the chosen recipe's own settings, such as ``"steps 2 + 3, seed 1"``; empty if nothing."""
        own, said = self.chosen, list[str]()
        steps = [self._steps[stage].value for stage in own.stages]
        if tuple(steps) != own.stage_steps:
            said.append(f"steps {' + '.join(f'{n:,}' for n in steps)}")
        fields = {self._rate: own.learning_rate, self._weight: own.retain_weight, self._seed: own.seed}
        said += [f"{field.name} {field.value:g}" for field, value in fields.items() if field.value != value]
        return ", ".join(said)

    @property
    def problem(self) -> str:
        """What is wrong with the numbers, all of it, for a person; empty if nothing is."""
        return " ".join(field.problem for field in self._in_use if field.problem)

    @property
    def words(self) -> dict[str, str]:
        """The settings by name as the controls show them, whether they work or not."""
        steps = " + ".join(f"{self._steps[stage].value:,}" for stage in self.chosen.stages)
        return {
            "recipe": self.name,
            "steps": f"{steps} steps",
            **{field.name: f"{field.value:g}" for field in (self._rate, self._weight)},
            "seed": str(self._seed.value),
        }

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` after each change of a setting."""
        self._listeners.append(callback)

    def enable(self, enabled: bool) -> None:
        """Let the settings be changed, or not."""
        for control in (self._name, self._reset, *(field.control for field in self._numbers)):
            control.disabled = not enabled

    @property
    def _in_use(self) -> list[NumberField]:
        """The fields of the stages that the recipe has, and the others."""
        return [*(self._steps[stage] for stage in self.chosen.stages), self._rate, self._weight, self._seed]

    def _unfold(self) -> None:
        self._more.icon = "caret-down" if self._more.value else "caret-right"
        layout.show(self._fold, bool(self._more.value))

    def _show(self, recipe: TrainedRecipe | None = None) -> None:
        """Put a recipe's settings into the controls; by default the chosen one's own."""
        if self._quiet:
            return
        recipe = recipe or self.chosen
        self._quiet = True
        try:
            for stage, field in self._steps.items():
                layout.show(field, stage in recipe.stages)
                layout.show(field.control, stage in recipe.stages)
            for stage, steps in zip(recipe.stages, recipe.stage_steps, strict=True):
                self._steps[stage].value = steps
            self._rate.value, self._weight.value = recipe.learning_rate, recipe.retain_weight
            self._seed.value = recipe.seed
        finally:
            self._quiet = False
        self._tell()

    def _tell(self) -> None:
        if not self._quiet:
            changed = self.changed
            self._changed.value = markup.hint(f"changed: {changed}") if changed else ""
            layout.show(self._reset, bool(changed))
            for callback in self._listeners:
                callback()


def _changed(recipe: TrainedRecipe, steps: tuple[int, ...], rate: float, weight: float, seed: int) -> TrainedRecipe:
    """A recipe with these numbers; where the steps are its own, they are said as it says them."""
    numbers: dict[str, Any] = {"learning_rate": rate, "retain_weight": weight, "seed": seed}
    if steps != recipe.stage_steps:
        numbers["steps"] = steps[0] if len(steps) == 1 else steps
    return replace(recipe, **numbers)
