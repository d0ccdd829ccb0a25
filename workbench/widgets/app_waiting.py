"""Waiting: what a tab shows that looks at an edit, as long as there is none: why, and the way to where one is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ipywidgets import HTML, VBox

from workbench.widgets.shared import layout, markup

NO_EDIT = "Run an edit first, or open a saved session."


class Waiting(VBox):
    """A line and a button.

    Args:
        editor: What runs edits, with ``busy``, ``status`` and ``on_status``; the line follows how far it is.
        go: Called by the button.
    """

    def __init__(self, editor: Any, go: Callable[[], object]) -> None:
        self._editor, self._words = editor, ""
        self._line = HTML()
        self._go = layout.quiet_button("Go to 3 Edit", icon="arrow-right", tooltip="Where edits are run")
        self._go.on_click(lambda _: go())
        super().__init__([self._line, self._go])
        self.add_class("wb-waiting")
        editor.on_status(self.refresh)
        self.refresh()

    def __repr__(self) -> str:
        return f"Waiting({self._words!r})"

    def refresh(self) -> None:
        """Say why there is nothing to see yet."""
        self._words = f"Edit running: {self._editor.status}" if self._editor.busy else NO_EDIT
        (self.add_class if self._editor.busy else self.remove_class)("wb-running")
        self._line.value = markup.STYLE + markup.alert(self._words, "info")
