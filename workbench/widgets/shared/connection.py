"""Connection: says, at the top of a panel, that no kernel listens any more; and keeps the panel's keys in the panel.

After a kernel was restarted or shut down, or in a notebook that was opened again, a panel still looks alive while none
of its buttons does anything. This says so once for the panel and all that is in it, and disables its controls; it looks
at the kernel every second, as ipywidgets notices only restarts. A map that stands alone says it by itself (grid.py).

In command mode JupyterLab binds the arrows and most letters for whatever has the focus and is not a text field: an
arrow in a list would move to another cell, and ``x`` there would cut the cell. So keys without Ctrl, Alt or Meta end at
the panel, but for Shift+Enter (run the cell), Escape and the F keys.

A button that leads on to another tab may stand far down the page: the panel's top is then brought back into sight.
"""

from __future__ import annotations

from typing import Any

import anywidget

from workbench.widgets.shared.javascript import STATIC, read_module
from workbench.widgets.shared.subshells import reach_widgets


class Connection(anywidget.AnyWidget):
    """One line, shown only while the panel is not connected to a kernel; and the panel's keyboard (connection.js)."""

    _esm = read_module("connection.js")
    _css = STATIC / "connection.css"

    def __init__(self, **traits: Any) -> None:
        reach_widgets()
        super().__init__(**traits)

    def show_top(self) -> None:
        """Scroll the page to the panel's top, where that is above what is seen."""
        self.send({"show": "top"})

    def __repr__(self) -> str:
        return "Connection()"
