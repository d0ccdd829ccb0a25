"""What a browser sends to a widget, as the comm delivers it."""

from __future__ import annotations

from typing import Any
from unittest import mock


def message(widget: Any, data: dict[str, Any]) -> None:
    """One message with this content."""
    content = {"comm_id": widget.comm.comm_id, "data": data}
    widget.comm.handle_msg({"content": content, "buffers": [], "metadata": {}, "header": {}})


def click(button: Any) -> None:
    """A press of a button."""
    message(button, {"method": "custom", "content": {"event": "click"}})


def enter(control: Any, /, **state: Any) -> None:
    """New values of a control."""
    message(control, {"method": "update", "state": state, "buffer_paths": []})


def shown_after(control: Any, /, **state: Any) -> dict[str, Any]:
    """What the browser shows of a control once Python has answered these values: its own, then what Python sent."""
    shown = dict(state)

    def hear(_: Any, sent: dict[str, Any], buffers: Any = None) -> None:
        if sent["method"] in ("update", "echo_update"):
            shown.update({name: value for name, value in sent["state"].items() if name in state})

    with mock.patch.object(type(control), "_send", hear):
        enter(control, **state)
    return shown
