"""Saved controls in words: what each field, list and check box was called and what stood in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.plots.saved_widgets import SavedWidget
from workbench.plots.style import short_number

Words = Callable[[SavedWidget], str]


def field_words(widget: SavedWidget) -> tuple[str, str]:
    """A control's label and its value, as raw text.

    Example:
        >>> field_words(SavedWidget("a1", "Dropdown", {
        ...     "description": "Corrupt by", "_options_labels": ["swap", "noise"], "index": 1}))
        ('Corrupt by', 'noise')
    """
    return widget.text("description"), FIELDS[widget.name](widget)


def _value(widget: SavedWidget) -> str:
    value = widget.fields.get("value")
    if isinstance(value, list):
        return " to ".join(map(_plain, value)) if "Range" in widget.name else ", ".join(map(_plain, value))
    return _plain(value)


def _number(widget: SavedWidget) -> str:
    return _plain(widget.fields.get("value", 0))  # the default is not saved


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    return short_number(value, digits=6) if isinstance(value, int | float) else str(value)


def _strength(widget: SavedWidget) -> str:
    return f"{widget.number('value', 1.0):.2f}"


def _chosen(widget: SavedWidget) -> str:
    labels, index = widget.listed("_options_labels"), widget.fields.get("index")
    chosen = index if isinstance(index, list) else [index]
    return ", ".join(str(labels[i]) for i in chosen if type(i) is int and 0 <= i < len(labels))


def _tick(widget: SavedWidget) -> str:
    return "☑" if widget.fields.get("value") is True else "☐"


def _secret(widget: SavedWidget) -> str:
    return "•" * 8 if widget.text("value") else ""


FIELDS: dict[str, Words] = {
    **dict.fromkeys(("Text", "Textarea", "Combobox", "ColorPicker", "TagsInput", "ColorsInput"), _value),
    **dict.fromkeys(("DatePicker", "TimePicker", "NaiveDatetimePicker", "DatetimePicker"), _value),
    **dict.fromkeys(("IntRangeSlider", "FloatRangeSlider"), _value),
    **dict.fromkeys(("IntText", "FloatText", "BoundedIntText", "BoundedFloatText"), _number),
    **dict.fromkeys(("IntSlider", "FloatSlider", "FloatLogSlider"), _number),
    **dict.fromkeys(("Dropdown", "Select", "RadioButtons", "ToggleButtons", "SelectionSlider"), _chosen),
    **dict.fromkeys(("SelectMultiple", "SelectionRangeSlider"), _chosen),
    **dict.fromkeys(("Checkbox", "Valid"), _tick),
    "Slider": _strength,
    "Password": _secret,
}
"""What stood in each kind of control."""
