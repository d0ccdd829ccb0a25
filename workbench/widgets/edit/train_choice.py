"""What an edit may move, as a choice: the components picked elsewhere, or what the recipe moves by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import traitlets
from ipywidgets import HTML, VBox

from workbench.editing.methods.table import DEFAULT
from workbench.editing.selector import NEURONS
from workbench.editing.task import check_selection
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Component, Edit, Selection
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.controls import Dropdown
from workbench.widgets.shared.edit_words import default_words, trainable_words
from workbench.widgets.shared.sync import WholeMessages
from workbench.widgets.shared.voice import person

NOTHING_PICKED = "Nothing is picked, so nothing could move. Pick components on the maps, or use the default."


class _Menu(WholeMessages, Dropdown):
    """Its options are changed by clicks on the maps, in one thread, and by a run's end, in another."""


@dataclass(frozen=True)
class WhatMoves:
    """What an edit may move: equal for equal components, whatever their words.

    Args:
        words: For a line.
        components: The picked ones; None for what the recipe moves by itself.
    """

    words: str
    components: frozenset[Component] | None = None

    def __str__(self) -> str:
        return self.words

    @classmethod
    def picked(cls, selection: Selection) -> WhatMoves:
        """These components."""
        few = str(selection) if 0 < len(selection) <= 4 else f"{len(selection):,} picked components"
        return cls(few, frozenset(selection))

    @classmethod
    def of(cls, edit: Edit) -> WhatMoves:
        """What a fitted edit was allowed to move."""
        if edit.picked:
            return cls.picked(edit.selection)
        return cls(default_words(edit.recipe, len(edit.selection)))


class TrainChoice(VBox):
    """A menu with the size of what is picked, beside what the default would move.

    Args:
        model: Whose components are counted.
        source: None (the default selector), a ``Selection``, its text, or anything with a ``selection``, such as a
            ``Circuit``, a ``CircuitPicker`` or a ``CircuitGraph``.
        on_default: Called when the button "Use the default" is pressed.

    Raises:
        ValueError: A source of another type.
    """

    def __init__(
        self, model: LoadedModel, source: Any = None, *, on_default: Callable[[], object] | None = None
    ) -> None:
        self._on_default = on_default
        self._model, self._refreshing = model, False
        self._recipe: BaseRecipe = DEFAULT
        self._source: Any = None
        self._listeners: list[Callable[[], object]] = []
        self._menu = _Menu(
            description="Train",
            tooltip="What may move: the components picked on the maps, or what the recipe chooses",
            layout={"width": "296px"},
        )
        self._beside = HTML()
        self._default_button = layout.quiet_button(
            "Use the default",
            tooltip="Train what the recipe chooses by itself, not what is picked, with the recipe's own settings",
        )
        super().__init__([layout.fields(self._menu), self._beside, layout.row(self._default_button)])
        self.source = source
        self._menu.observe(lambda _: self._chosen(), names="value")
        self._default_button.on_click(lambda _: self._take_default())

    @property
    def source(self) -> Any:
        """Where the picked components come from. Settable; its changes are followed where it tells of them."""
        return self._source

    @source.setter
    def source(self, source: Any) -> None:
        source = Selection(source) if isinstance(source, str) else source
        if source is not None and not isinstance(source, Selection) and not hasattr(source, "selection"):
            raise ValueError(
                "selection_source must be None, a Selection, its text, or something with a .selection such as a "
                f"CircuitPicker, got {type(source).__name__}."
            )
        self._source = source
        tell: Any = getattr(source, "on_change", None)
        if isinstance(source, traitlets.HasTraits) and source.has_trait("selection"):
            source.observe(lambda _: self.refresh(), names="selection")
        elif callable(tell):
            tell(lambda *_: self.refresh())
        self.refresh()
        self._menu.value = "default" if source is None else "picked"
        self._show_beside()

    @property
    def selection(self) -> Selection | None:
        """The picked components as they are now, or None for what the recipe moves by itself."""
        return None if self._menu.value == "default" else self._picked()

    @property
    def problem(self) -> str:
        """Why what is chosen cannot be trained, for a person; empty if it can."""
        selection = self.selection
        if selection is None:
            return ""
        if not len(selection):
            return NOTHING_PICKED
        try:
            check_selection(self._model, selection)
        except ValueError as error:
            return person(error)
        return ""

    @property
    def what(self) -> WhatMoves:
        """What would be trained."""
        selection = self.selection
        return WhatMoves(self.default_words) if selection is None else WhatMoves.picked(selection)

    @property
    def default_words(self) -> str:
        """What the recipe moves by itself."""
        shape = self._model.shape
        return default_words(self._recipe, min(NEURONS, shape.n_layers * shape.d_mlp))

    @property
    def _default_size(self) -> str:
        """How much the default selector chooses: a neuron has one gate."""
        neurons = min(NEURONS, self._model.shape.n_layers * self._model.shape.d_mlp)
        return f"{neurons:,} neurons, {trainable_words(neurons, of=self._recipe.trains)}"

    def _take_default(self) -> None:
        self.use_default()
        if self._on_default is not None:
            self._on_default()

    def show_choice_of(self, edit: Edit) -> None:
        """Choose as an edit did: what is picked, if it was given what may move, else what the recipe moves."""
        picked = edit.picked and self._source is not None
        self._menu.value = "picked" if picked else "default"

    def use_default(self) -> None:
        """Choose what the recipe moves by itself."""
        self._menu.value = "default"

    def show_default_of(self, recipe: BaseRecipe) -> None:
        """Say what a recipe moves where nothing is picked, and what kind of numbers it trains."""
        before, self._recipe = self._recipe, recipe
        if (before.without_selection, before.trains) != (recipe.without_selection, recipe.trains):
            self.refresh()

    def refresh(self) -> None:
        """Show the size of what is picked now."""
        chosen, options = str(self._menu.value), [(self._recipe.without_selection, "default")]
        if self._source is not None:
            options.insert(0, (self._words(self._picked()), "picked"))
        self._refreshing = True
        try:
            with self._menu.hold_sync():
                self._menu.options = options
                self._menu.value = chosen if chosen in dict(options).values() else options[0][1]
        finally:
            self._refreshing = False
        self._chosen()

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` when another choice is made, and when what is picked was shown anew."""
        self._listeners.append(callback)

    def enable(self, enabled: bool) -> None:
        """Let the choice be changed, or not."""
        self._menu.disabled = self._default_button.disabled = not enabled

    def _picked(self) -> Selection:
        return self._source if isinstance(self._source, Selection) else Selection(self._source.selection)

    def _words(self, selection: Selection) -> str:
        name = "Given selection" if isinstance(self._source, Selection) else "Picked components"
        if not len(selection):
            return f"{name} (none yet)"
        return f"{name} ({len(selection):,}: {self._size(selection)})"

    def _size(self, selection: Selection) -> str:
        try:
            return trainable_words(selection.n_parameters(self._model), of=self._recipe.trains)
        except ValueError:  # Run says which component the model lacks
            return "not all of this model"

    def _show_beside(self) -> None:
        """What is picked beside what the default moves; where the default is chosen, how much that is."""
        selection = self.selection
        layout.show(self._default_button, selection is not None)
        if selection is None:
            self._beside.value = markup.hint(f"{self._default_size}.") if self._recipe.selects else ""
            return
        components = "component" if len(selection) == 1 else "components"
        size = f", {self._size(selection)}" if len(selection) else ""
        picked = f"{len(selection):,} {components}{size}"
        self._beside.value = markup.hint(f"{picked}. Default for comparison: {self.default_words}.")

    def _chosen(self) -> None:
        if self._refreshing:
            return
        self._show_beside()
        for callback in self._listeners:
            callback()
