"""EditSettings: what may move, how it is trained, and whether a random control is made beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ipywidgets import Checkbox, VBox

from workbench.editing.task import check_selection
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Contrast, Edit, Fact, FactSet, Selection
from workbench.widgets.edit.job import check_control
from workbench.widgets.edit.recipe_controls import RecipeControls
from workbench.widgets.edit.timeline import Phase, phases_of, prompts_of
from workbench.widgets.edit.train_choice import NOTHING_PICKED, TrainChoice, WhatMoves
from workbench.widgets.shared.voice import person


class EditSettings(VBox):
    """The controls of an edit.

    Args:
        model: The base model.
        source: Where picked components come from, as in ``TrainChoice``.
        recipe: What is shown first, as in ``RecipeControls``.
    """

    def __init__(self, model: LoadedModel, source: Any, recipe: BaseRecipe | str | None) -> None:
        self._model = model
        self.controls = RecipeControls(recipe)
        self.train = TrainChoice(model, source, on_default=self.controls.reset)
        self._beside = Checkbox(
            description="random control",
            tooltip="The same recipe on as many random components too, for comparison: twice the time",
            indent=False,
        )
        super().__init__([self.train, self.controls, self._beside])
        self.controls.on_change(self._show_default)
        self._show_default()

    @property
    def selection(self) -> Selection | None:
        """The picked components, or None for what the recipe moves by itself."""
        return self.train.selection

    @property
    def recipe(self) -> BaseRecipe:
        """The recipe. Settable; reading raises a ValueError for what is out of range."""
        return self.controls.recipe

    @recipe.setter
    def recipe(self, recipe: BaseRecipe) -> None:
        self.controls.recipe = recipe

    def set_like(self, other: EditSettings) -> None:
        """Take over what others say; what of them is out of range is left."""
        if not other.controls.problem:
            self.recipe = other.recipe
        self.random_control = other.random_control
        if other.selection is None:
            self.train.use_default()

    @property
    def random_control(self) -> bool:
        """Whether a random control is made too. Settable."""
        return bool(self._beside.value)

    @random_control.setter
    def random_control(self, wanted: bool) -> None:
        self._beside.value = wanted

    @property
    def problem(self) -> str:
        """Why an edit cannot be made with them, all of it, for a person; empty if it can."""
        wrong = [self.train.problem, self.controls.problem]
        if self.random_control and not any(wrong):
            try:
                check_control(self._model, self.selection, self.recipe)
            except ValueError as error:
                wrong.append(person(error))
        return " ".join(filter(None, wrong))

    def checked(self) -> tuple[Selection | None, BaseRecipe]:
        """What an edit is made with.

        Raises:
            ValueError: It cannot be made.
        """
        selection, recipe = self.selection, self.recipe
        if selection is not None and not len(selection):
            raise ValueError(NOTHING_PICKED)
        check_selection(self._model, selection)
        if self.random_control:
            check_control(self._model, selection, recipe)
        return selection, recipe

    def values(self, edit: Edit | None = None) -> dict[str, Any]:
        """All of them by name, whether they work or not; with what an edit moved, if one is given."""
        control = "with a random control" if self.random_control else ""
        what = self.train.what if edit is None else WhatMoves.of(edit)
        return {"what moves": what, **self.controls.words, "random control": control}

    def phases(self, facts: FactSet, pool: FactSet | None, max_controls: int | None) -> tuple[Phase, ...]:
        """The phases of a run with them. Raises as ``recipe``."""
        recipe = self.recipe
        return phases_of(
            recipe,
            chooses=self.selection is None and recipe.selects,
            prompts=prompts_of(facts, pool, max_controls),
            random_control=self.random_control,
        )

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` after each change."""
        self.train.on_change(callback)
        self.controls.on_change(callback)
        self._beside.observe(lambda _: callback(), names="value")

    def enable(self, enabled: bool) -> None:
        """Let them be changed, or not."""
        self.train.enable(enabled)
        self.controls.enable(enabled)
        self._beside.disabled = not enabled

    def _show_default(self) -> None:
        self.train.show_default_of(self.controls.chosen)


def title_of(values: dict[str, Any]) -> str:
    """The settings that matter most, in a line."""
    shown = (values.get(name, "") for name in ("what moves", "recipe", "steps", "random control"))
    return ", ".join(filter(None, map(str, shown)))


def edited_facts(fact: Fact | FactSet | Sequence[Fact]) -> FactSet:
    """The facts that are edited together.

    Raises:
        ValueError: There is none.
        TypeError: A contrast is among them.
    """
    given: Any = [fact] if isinstance(fact, Fact | Contrast) else fact
    if any(isinstance(one, Contrast) for one in given):
        raise TypeError(
            "EditPanel needs a fact, and a Contrast is none: an edit needs to know what is asked and what is to be "
            "answered instead. Give wb.Fact(subject=, prompt=, question=, answer=, target=); what was picked for the "
            "contrast may be its selection_source."
        )
    facts = FactSet([fact] if isinstance(fact, Fact) else fact, name="edited facts")
    if not len(facts):
        raise ValueError("EditPanel needs at least one fact, got none.")
    return facts
