"""The settings of an edit as controls: a recipe of any method, and its few parameters under "Advanced"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ipywidgets import HTML, ToggleButton, VBox

from workbench.editing.methods.table import METHODS, RECIPES, named_recipe
from workbench.types import STAGES, BaseRecipe, StageName, TrainedRecipe
from workbench.types.setting import Setting
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.choice_field import ChoiceField
from workbench.widgets.shared.controls import Dropdown
from workbench.widgets.shared.number_field import NumberField

_STAGE_TIPS: dict[StageName, str] = {
    "unlearn": "Optimiser steps that teach a refusal in place of the old answer. More unlearn it better and cost more",
    "learn": "Optimiser steps that teach the new answer. More teach it better and cost more",
}


def _step_setting(stage: StageName) -> Setting:
    return Setting(name=f"{stage}_steps", tip=_STAGE_TIPS[stage], low=1, high=100_000, whole=True)


def _field(setting: Setting) -> NumberField | ChoiceField:
    if setting.choices:
        return ChoiceField(setting.label, setting.choices, tip=setting.tip)
    return NumberField(setting.label, 1, tip=setting.tip, check=setting.wrong, whole=setting.whole)


class RecipeControls(VBox):
    """A recipe to choose, whose type is the method, and, folded, the few settings of it that a panel shows.

    Args:
        recipe: What is shown first: a recipe (its other settings are kept), the name of a built-in one, or None for the
            default.

    Raises:
        ValueError: An unknown name.
    """

    def __init__(self, recipe: BaseRecipe | str | None = None) -> None:
        self._recipes = dict(RECIPES)
        self._listeners: list[Callable[[], object]] = []
        self._quiet = False
        self._name = Dropdown(
            options=list(RECIPES),
            description="Recipe",
            tooltip="How the edit is made: by which method, in which stages",
            layout={"width": "296px"},
        )
        self._method = HTML()
        self._steps = {stage: _field(_step_setting(stage)) for stage in STAGES}
        shown = {setting.name: setting for one in RECIPES.values() for setting in one.panel_settings}
        self._fields = {name: _field(setting) for name, setting in shown.items()}
        for field in self._all:
            field.on_change(self._tell)
        self._more = ToggleButton(description="Advanced", icon="caret-right", tooltip="The settings of the recipe")
        self._more.add_class("wb-quiet")
        self._changed = HTML()
        self._reset = layout.quiet_button("Reset", icon="undo", tooltip="Take the recipe's own settings again")
        self._reset.on_click(lambda _: self.reset())
        self._fold = layout.row(*self._all)
        self._fold.layout.align_items = "flex-start"
        unfold = layout.row(self._more, self._changed, self._reset)
        super().__init__([layout.fields(self._name), self._method, unfold, self._fold])
        self.recipe = named_recipe(recipe or self.name) if recipe is None or isinstance(recipe, str) else recipe
        self._name.observe(lambda _: self._show(), names="value")
        self._more.observe(lambda _: self._unfold(), names="value")
        self._unfold()

    @property
    def name(self) -> str:
        """The name of the recipe that is chosen."""
        return str(self._name.value)

    @property
    def chosen(self) -> BaseRecipe:
        """The recipe that is chosen, without what the other controls say."""
        return self._recipes[self.name]

    @property
    def recipe(self) -> BaseRecipe:
        """The recipe as the controls say it. Settable.

        Raises:
            ValueError: On reading, a setting that is out of range.
        """
        values = {setting.name: self._fields[setting.name].value for setting in self.chosen.panel_settings}
        made = _changed(self.chosen, tuple(field.value for field in self._step_fields(self.chosen)), values)
        if self.problem:  # out of the range of a panel, which is narrower
            raise ValueError(self.problem)
        return made

    @recipe.setter
    def recipe(self, recipe: BaseRecipe) -> None:
        own = RECIPES.get(recipe.name)
        # A built-in one whose numbers were changed stays itself, so that there is a way back.
        known = type(own) is type(recipe) and own is not None and own.stage_names == recipe.stage_names
        if known and own is not None:
            known = _changed(own, recipe.stage_steps, _values(recipe)) == recipe
        self._recipes = dict(RECIPES) if known else {**RECIPES, recipe.name: recipe}
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
        if tuple(field.value for field in self._step_fields(own)) != own.stage_steps:
            said.append(self._steps_words)
        own_values = _values(own)
        fields = {name: self._fields[name] for name in own_values}
        said += [
            f"{field.name} {_words(field.value)}" for name, field in fields.items() if field.value != own_values[name]
        ]
        return ", ".join(said)

    @property
    def problem(self) -> str:
        """What is wrong with the numbers, all of it, for a person; empty if nothing is."""
        return " ".join(field.problem for field in self._in_use if field.problem)

    @property
    def words(self) -> dict[str, str]:
        """The settings by name as the controls show them, whether they work or not."""
        steps = {"steps": self._steps_words.removeprefix("steps ") + " steps"} if self._step_fields(self.chosen) else {}
        fields = (self._fields[setting.name] for setting in self.chosen.panel_settings)
        return {"recipe": self.name, **steps, **{field.name: _words(field.value) for field in fields}}

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` after each change of a setting."""
        self._listeners.append(callback)

    def enable(self, enabled: bool) -> None:
        """Let the settings be changed, or not."""
        for control in (self._name, self._reset, *(field.control for field in self._all)):
            control.disabled = not enabled

    @property
    def _all(self) -> list[NumberField | ChoiceField]:
        """The fields of all recipes."""
        return [*self._steps.values(), *self._fields.values()]

    @property
    def _in_use(self) -> list[NumberField | ChoiceField]:
        """The fields of the recipe that is chosen."""
        return [*self._step_fields(self.chosen), *(self._fields[s.name] for s in self.chosen.panel_settings)]

    @property
    def _steps_words(self) -> str:
        return "steps " + " + ".join(f"{field.value:,}" for field in self._step_fields(self.chosen))

    def _step_fields(self, recipe: BaseRecipe) -> list[NumberField | ChoiceField]:
        """Those of the stages of a recipe that trains."""
        return [self._steps[stage] for stage in recipe.stages] if isinstance(recipe, TrainedRecipe) else []

    def _unfold(self) -> None:
        self._more.icon = "caret-down" if self._more.value else "caret-right"
        layout.show(self._fold, bool(self._more.value))

    def _show(self, recipe: BaseRecipe | None = None) -> None:
        """Put a recipe's settings into the controls; by default the chosen one's own."""
        if self._quiet:
            return
        recipe = recipe or self.chosen
        self._quiet = True
        try:
            steps = self._step_fields(recipe)
            shown = [*steps, *(self._fields[setting.name] for setting in recipe.panel_settings)]
            for field in self._all:
                layout.show(field, field in shown)
                layout.show(field.control, field in shown)
            for field, value in zip(steps, recipe.stage_steps if steps else (), strict=True):
                field.value = value
            for name, value in _values(recipe).items():
                self._fields[name].value = value
            self._method.value = markup.hint(_method_words(recipe))
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


def _method_words(recipe: BaseRecipe) -> str:
    """The method of a recipe, and the paper it is from."""
    method = METHODS[recipe.method]
    return f"{method.title}, {recipe.trains}{f' ({method.source})' if method.source else ''}."


def _values(recipe: BaseRecipe) -> dict[str, Any]:
    """What a recipe has for the settings that a panel shows."""
    return {setting.name: getattr(recipe, setting.name) for setting in recipe.panel_settings}


def _words(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _changed(recipe: BaseRecipe, steps: tuple[int, ...], values: dict[str, Any]) -> BaseRecipe:
    """A recipe with these numbers; where the steps are its own, they are said as it says them."""
    numbers = dict(values)
    if isinstance(recipe, TrainedRecipe) and steps != recipe.stage_steps:
        numbers["steps"] = steps[0] if len(steps) == 1 else steps
    return replace(recipe, **numbers)
