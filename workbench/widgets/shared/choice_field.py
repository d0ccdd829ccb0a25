"""ChoiceField: one of a few words with its name above it, beside number fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ipywidgets import VBox

from workbench.widgets.shared import layout
from workbench.widgets.shared.controls import Dropdown


class ChoiceField(VBox):
    """A menu that answers as ``NumberField`` does.

    Args:
        name: Its label, and the name by which panels find it.
        choices: What can be chosen; the first one at first.
        tip: What it means, in a sentence.
    """

    problem = ""
    """Nothing can be wrong with a choice."""

    def __init__(self, name: str, choices: Sequence[str], *, tip: str) -> None:
        self.name = name
        self.control = Dropdown(options=list(choices), description=name, tooltip=tip)
        self.control.layout.width = "136px"
        super().__init__([layout.fields(self.control)])
        self.layout.width = "144px"

    @property
    def value(self) -> Any:
        """What is chosen. Settable."""
        return str(self.control.value)

    @value.setter
    def value(self, value: Any) -> None:
        self.control.value = value

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` after each change."""
        self.control.observe(lambda _: callback(), names="value")
