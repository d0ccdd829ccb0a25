"""Text fields that tell when Enter was pressed in them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ipywidgets

LATE = 0.5
"""Seconds. The browser sends Enter at once, but holds a value back while the kernel has not answered the one before:
the last letters may arrive after the Enter that followed them."""


class EnterField(ipywidgets.Text):
    """Calls what ``on_enter`` was given when Enter is pressed, and once more for letters that come late."""

    _callback: Callable[[], object] | None = None
    _entered_at = float("-inf")

    def on_enter(self, callback: Callable[[], object]) -> None:
        """Call ``callback()``, which reads the value by itself."""
        self._callback = callback

    def _handle_string_msg(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        if content.get("event") == "submit" and self._callback is not None:
            self._entered_at = time.monotonic()
            self._callback()

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take a message from the browser."""
        before = self.value
        super().set_state(sync_data)
        late = time.monotonic() - self._entered_at < LATE
        if late and self.value != before and self._callback is not None:
            self._callback()


class Combobox(EnterField, ipywidgets.Combobox):
    """The same with texts that are offered."""
