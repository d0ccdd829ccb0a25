"""NumberField: a number with its name above it and, where it cannot be, what is wrong with it below.

What was typed stays as it is, so that it can be mended. What is no number at all is sent back as the number before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets
from ipywidgets import HTML, VBox

from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.controls import StrictControl


class _Typed(StrictControl):
    """Tells when a message was refused, and when one was taken."""

    on_message: Callable[[Any], object] | None = None

    def set_state(self, sync_data: dict[str, Any]) -> None:
        super().set_state(sync_data)
        if self.on_message is not None and "value" in sync_data:
            self.on_message(sync_data["value"])


class _Whole(_Typed, ipywidgets.IntText):
    """A whole number, without bounds: the field answers what is out of range."""


class _Real(_Typed, ipywidgets.FloatText):
    """A number, without bounds."""


class NumberField(VBox):
    """A field for one number.

    Args:
        name: Its label, and the name by which panels find it.
        value: The number at first.
        tip: What it means, in a sentence.
        check: Gives what is wrong with a number, such as ``"must be above 0"``; empty if nothing is.
        whole: Whether it is a whole number.
    """

    def __init__(
        self, name: str, value: float, *, tip: str, check: Callable[[float], str], whole: bool = False
    ) -> None:
        self.name, self._check = name, check
        self._refused = ""
        self.control: Any = (_Whole if whole else _Real)(value, description=name, tooltip=tip)
        self.control.layout.width = "136px"
        self._message = HTML()
        self._listeners: list[Callable[[], object]] = []
        super().__init__([layout.fields(self.control), self._message])
        self.layout.width = "144px"
        self.control.observe(lambda _: self._changed(), names="value")
        self.control.on_message = self._typed

    @property
    def value(self) -> Any:
        """The number in the field. Settable."""
        return self.control.value

    @value.setter
    def value(self, value: float) -> None:
        self.control.value = value

    @property
    def problem(self) -> str:
        """What is wrong with the number, in a sentence; empty if nothing is."""
        wrong = self._check(self.value)
        return f"{self.name[:1].upper()}{self.name[1:]} {wrong}, not {self.value:,.12g}." if wrong else ""

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` after each change."""
        self._listeners.append(callback)

    def _changed(self) -> None:
        self._refused = ""
        self._draw()
        for callback in self._listeners:
            callback()

    def _typed(self, given: Any) -> None:
        """After a message from the browser: one that was refused has left the number as it was."""
        if self.control.error is not None:
            self._refused = f"That is no number: {self.value:g} is kept."
            self._draw()

    def _draw(self) -> None:
        words = self.problem or self._refused
        self._message.value = markup.block(f'<span class="wb-problem">{markup.text(words)}</span>') if words else ""
