"""How controls are laid out: one primary button a tab, fields in a grid under their labels, rows that wrap.

A control keeps its ``description``: ``panel.controls`` and screen readers know it by that; where the label stands is
the style's (``static/panels.css``).
"""

from __future__ import annotations

from typing import Any

from ipywidgets import Button, HBox, Widget


def primary(description: str, *, tooltip: str, icon: str = "") -> Button:
    """The filled button: what one most likely does next. One a tab."""
    button = Button(description=description, tooltip=tooltip, icon=icon)
    button.add_class("wb-primary")
    return button


def quiet_button(description: str, *, tooltip: str, icon: str = "") -> Button:
    """A button that stands back: a frame and no ground."""
    button = Button(description=description, tooltip=tooltip, icon=icon)
    button.add_class("wb-quiet")
    return button


def fields(*controls: Widget) -> HBox:
    """Controls side by side, each with its label above it; they wrap where there is no room."""
    return _box("wb-fields", controls)


def row(*widgets: Widget) -> HBox:
    """Widgets in a line that wraps."""
    return _box("wb-row", widgets)


def columns(*widgets: Widget, widths: tuple[str, ...] = ()) -> HBox:
    """Widgets side by side at the top; those without room go below.

    Args:
        widgets: From left to right.
        widths: For each the CSS ``flex`` of its column, such as ``"0 0 320px"`` or ``"1 1 400px"``; equal shares by
            default.
    """
    for widget, flex in zip(widgets, widths or ("1 1 400px",) * len(widgets), strict=True):
        layout: Any = getattr(widget, "layout", None)
        if layout is not None:
            layout.flex = flex
    return _box("wb-columns", widgets)


def show(widget: Any, shown: bool) -> None:
    """Show a widget, or take it out of the page."""
    widget.layout.display = None if shown else "none"


def _box(name: str, widgets: tuple[Widget, ...]) -> HBox:
    box = HBox(list(widgets))
    box.add_class(name)
    return box
