"""Messages of the browser that reach their widget, whichever thread of the kernel it was last changed from.

JupyterLab has a kernel handle widgets' messages in threads beside the one that runs cells (subshells), and ends some of
them, as after a lost connection. ipykernel 7.4 sends what comes for a widget to the thread from which that widget was
changed last, though it may have ended: then no click arrives any more, until the cell is run again. A job that goes on
while a laptop sleeps is such a case. Here the thread that the browser asked for takes the place of one that is gone.
"""

from __future__ import annotations

from typing import Any

_ROUTE = "_reply_subshell_for"


def reach_widgets() -> None:
    """Let the comms of this kernel fall back to the thread that was asked for. Done once; elsewhere it does nothing."""
    try:
        from ipykernel.comm.comm import BaseComm
    except ImportError:  # no kernel of Jupyter's
        return
    route: Any = getattr(BaseComm, _ROUTE, None)
    if route is None or getattr(route, "falls_back", False):
        return

    def route_or_asked(self: Any, data: Any, default: Any) -> Any:
        chosen = route(self, data, default)
        return chosen if chosen is None or chosen in subshells(self.kernel) else default

    route_or_asked.falls_back = True  # pyright: ignore[reportFunctionMemberAccess]
    setattr(BaseComm, _ROUTE, route_or_asked)


def subshells(kernel: Any) -> list[str]:
    """The threads of a kernel, beside the one of its cells, that are there now."""
    manager = getattr(getattr(kernel, "shell_channel_thread", None), "manager", None)
    return [] if manager is None else list(manager.list_subshell())
