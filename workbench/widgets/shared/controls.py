"""Controls that answer a value they refuse with the one they keep, so that the browser never shows another than Python.

ipywidgets drops what a control may not be (an index beyond its list: a click that was sent before the list was
filtered) and sends nothing back; the browser then goes on showing it.
"""

from __future__ import annotations

from typing import Any

import ipywidgets
from traitlets import TraitError


class StrictControl(ipywidgets.Widget):
    """What the browser may not set changes nothing, is sent back as it is, and is kept on ``.error``."""

    error: Exception | None = None

    def check(self, state: dict[str, Any]) -> None:
        """Refuse a message. Raises TraitError."""

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take a message from the browser."""
        try:
            self.check(sync_data)
            super().set_state(sync_data)
            self.error = None
        except (TraitError, OverflowError) as error:
            self.error = error
            self.send_state([name for name in sync_data if name in self.keys])


class Dropdown(StrictControl, ipywidgets.Dropdown):
    """One of its options, always."""

    def check(self, state: dict[str, Any]) -> None:
        _check_index(self, state)
        if "index" in state and state["index"] is None and self._options_labels:
            raise TraitError("One of the options must be chosen.")


class Select(StrictControl, ipywidgets.Select):
    """One line of a list, or none."""

    def check(self, state: dict[str, Any]) -> None:
        _check_index(self, state)


class ToggleButtons(StrictControl, ipywidgets.ToggleButtons):
    """One of its buttons, or none where Python says so."""

    def check(self, state: dict[str, Any]) -> None:
        _check_index(self, state)


def _check_index(control: Any, state: dict[str, Any]) -> None:
    """Before ipywidgets repeats the message to every browser."""
    index, n = state.get("index"), len(control._options_labels)
    if index is not None and (type(index) is not int or not 0 <= index < n):
        raise TraitError(f"index must be an integer from 0 to {n - 1}, got {str(index)[:40]!r}.")
