"""What an edit may move, as a choice: the components picked elsewhere, or the default selector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import traitlets
from ipywidgets import HBox

from workbench.editing.methods.table import IA3
from workbench.editing.task import check_selection
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Component, Selection
from workbench.widgets.edit.recipe_controls import STYLE
from workbench.widgets.shared.controls import Dropdown
from workbench.widgets.shared.edit_words import trainable_words

NOTHING_PICKED = (
    'Nothing is picked, so nothing could move. Pick components on the maps, or choose "Default selector" under "Train".'
)


@dataclass(frozen=True)
class WhatMoves:
    """What an edit may move: equal for equal components, whatever their words.

    Args:
        words: For a line.
        components: The picked ones; None for the default.
    """

    words: str
    components: frozenset[Component] | None = None

    def __str__(self) -> str:
        return self.words


class TrainChoice(HBox):
    """A dropdown with the size of what is picked.

    Args:
        model: Whose components are counted.
        source: None (the default selector), a ``Selection``, its text, or anything with a ``selection``, such as a
            ``CircuitPicker``.

    Raises:
        ValueError: A source of another type.
    """

    def __init__(self, model: LoadedModel, source: Any = None) -> None:
        self._model, self._refreshing = model, False
        self._default = IA3.without_selection
        self._source: Any = None
        self._listeners: list[Callable[[], object]] = []
        self._menu = Dropdown(description="Train", style=STYLE, layout={"width": "420px"})
        super().__init__([self._menu])
        self.source = source
        self._menu.observe(lambda _: self._tell(), names="value")

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

    @property
    def selection(self) -> Selection | None:
        """The picked components as they are now, or None for the default selector."""
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
            return str(error)
        return ""

    @property
    def what(self) -> WhatMoves:
        """What would be trained."""
        selection = self.selection
        if selection is None:
            return WhatMoves(self._default)
        few = str(selection) if len(selection) <= 4 else f"{len(selection):,} picked components"
        return WhatMoves(few or "nothing picked", frozenset(selection))

    def show_default_of(self, recipe: BaseRecipe) -> None:
        """Say what a recipe moves where nothing is picked."""
        if recipe.without_selection != self._default:
            self._default = recipe.without_selection
            self.refresh()

    def refresh(self) -> None:
        """Show the size of what is picked now."""
        chosen, options = str(self._menu.value), [(self._default, "default")]
        if self._source is not None:
            options.insert(0, (self._words(self._picked()), "picked"))
        self._refreshing = True
        try:
            with self._menu.hold_sync():
                self._menu.options = options
                self._menu.value = chosen if chosen in dict(options).values() else options[0][1]
        finally:
            self._refreshing = False
        self._tell()

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` when another choice is made, and when what is picked was shown anew."""
        self._listeners.append(callback)

    def enable(self, enabled: bool) -> None:
        """Let the choice be changed, or not."""
        self._menu.disabled = not enabled

    def _picked(self) -> Selection:
        return self._source if isinstance(self._source, Selection) else Selection(self._source.selection)

    def _words(self, selection: Selection) -> str:
        name = "Given selection" if isinstance(self._source, Selection) else "Picked components"
        if not len(selection):
            return f"{name} (none yet)"
        try:
            return f"{name} ({len(selection)}: {trainable_words(selection.n_parameters(self._model))})"
        except ValueError:  # Run says which component the model lacks
            return f"{name} ({len(selection)})"

    def _tell(self) -> None:
        if not self._refreshing:
            for callback in self._listeners:
                callback()
