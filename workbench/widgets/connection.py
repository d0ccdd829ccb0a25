"""Connection: says, at the top of a panel, that no kernel listens any more.

After a kernel restart, or in a notebook that was opened again, a panel still looks alive while none of its buttons does
anything. Maps say so themselves (see grid.py); this says it for the controls around them and makes them look disabled.
"""

from __future__ import annotations

from pathlib import Path

import anywidget

_STATIC = Path(__file__).parent / "static"


class Connection(anywidget.AnyWidget):
    """One line, shown only while the panel is not connected to a kernel."""

    _esm = _STATIC / "connection.js"
    _css = _STATIC / "connection.css"

    def __repr__(self) -> str:
        return "Connection()"
