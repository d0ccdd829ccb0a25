"""What a browser sends to a widget, as the comm delivers it."""

from __future__ import annotations

from typing import Any


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
