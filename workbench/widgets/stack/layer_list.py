"""LayerList: the edits of a stack as a list, with the tools for the one that is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ipywidgets import HTML, Checkbox, VBox

from workbench.types.stack import StackLayer
from workbench.widgets.compare.slider import Slider
from workbench.widgets.shared import controls, layout, markup
from workbench.widgets.shared.sync import WholeMessages
from workbench.widgets.stack.views import layer_words, lines

MOST_LINES = 12
_NOTHING = "No edit yet. Add one: panel.add(edit)."
_HEAD = "No   on    edit, method, strength, what it broke"


class _Lines(WholeMessages, controls.Select):
    """A list that the job's thread fills too."""


class LayerList(VBox):
    """The list and its tools; whoever shows it does what is asked, and calls ``show``.

    Args:
        toggle: Called with a place and whether it is to be on.
        scale: Called with a place and a strength.
        move: Called with a place and the place to move to.
        remove: Called with a place.
        undo: Called without arguments: bring back what was removed last.
    """

    def __init__(
        self,
        *,
        toggle: Callable[[int, bool], object],
        scale: Callable[[int, float], object],
        move: Callable[[int, int], object],
        remove: Callable[[int], object],
        undo: Callable[[], object],
    ) -> None:
        self._filling, self._layers = False, tuple[StackLayer, ...]()
        self._none, self._head = HTML(markup.hint(_NOTHING)), HTML(f'<div class="wb-listhead">{_HEAD}</div>')
        self._list = _Lines(description="Edits", options=[], rows=2, layout={"width": "100%"})
        self._list.add_class("wb-list")
        self._whole = HTML()
        self._on = Checkbox(description="On", indent=False, layout={"width": "max-content"})
        self._strength = Slider("Strength")
        self._up = layout.quiet_button("Up", icon="arrow-up", tooltip="Let the edit act earlier")
        self._down = layout.quiet_button("Down", icon="arrow-down", tooltip="Let the edit act later")
        self._remove = layout.quiet_button("Remove", icon="trash", tooltip="Take the edit out of the stack")
        self._undo = layout.quiet_button("Undo remove", icon="undo", tooltip="Bring back what was removed last")
        self._tools = layout.row(self._on, self._strength, self._up, self._down, self._remove)
        super().__init__([self._none, self._head, self._list, self._whole, self._tools, self._undo])
        self._list.observe(lambda _: self._chosen(), names="value")
        self._on.observe(lambda change: self._ask(toggle, change["new"]), names="value")
        self._strength.observe(lambda change: self._ask(scale, change["new"]), names="value")
        self._up.on_click(lambda _: self._move(move, -1))
        self._down.on_click(lambda _: self._move(move, 1))
        self._remove.on_click(lambda _: self._ask(lambda i, _: remove(i), None))
        self._undo.on_click(lambda _: undo())
        self.show((), {})

    def __repr__(self) -> str:
        return f"LayerList({len(self._layers)} edits)"

    @property
    def chosen(self) -> int | None:
        """The place of the edit that the tools are for; None without any. Settable."""
        return self._list.value

    @chosen.setter
    def chosen(self, place: int | None) -> None:
        self._list.value = place
        self._chosen()

    def show(self, layers: Sequence[StackLayer], broke: Mapping[int, str], *, undo: str = "") -> None:
        """Show these edits.

        Args:
            layers: The edits.
            broke: What each broke, in words, by place.
            undo: What would be brought back; empty for nothing.
        """
        self._layers = tuple(layers)
        options = [(line, i) for i, line in enumerate(lines(layers, broke))]
        place = self.chosen
        place = None if not layers else min(place or 0, len(layers) - 1)
        self._filling = True
        try:
            with self._list.hold_sync():
                if list(self._list.options) != options:
                    self._list.options = options
                self._list.value = place
            self._list.rows = max(2, min(len(layers), MOST_LINES))
        finally:
            self._filling = False
        self._chosen()
        layout.show(self._none, not layers)
        for widget in (self._head, self._list, self._whole, self._tools):
            layout.show(widget, bool(layers))
        layout.show(self._undo, bool(undo))
        if undo:
            self._undo.tooltip = f"Bring back {undo}"

    def _chosen(self) -> None:
        """The tools show the chosen edit."""
        place = self.chosen
        if self._filling or place is None:
            return
        layer = self._layers[place]
        self._filling = True
        try:
            self._on.value = layer.on
            self._strength.value = min(max(layer.strength, 0.0), 1.0)  # from Python it may be any number
        finally:
            self._filling = False
        name = layer_words(layer)
        self._whole.value = markup.hint(f"Chosen: {name} ({layer.edit.scope}, {layer.edit.delta(layer.stage).words()})")
        self._up.disabled, self._down.disabled = place == 0, place == len(self._layers) - 1

    def _ask(self, do: Callable[[int, Any], object], value: Any) -> None:
        if not self._filling and self.chosen is not None:
            do(self.chosen, value)

    def _move(self, move: Callable[[int, int], object], by: int) -> None:
        place = self.chosen
        if place is not None and 0 <= place + by < len(self._layers):
            move(place, place + by)
