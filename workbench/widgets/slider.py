"""Slider: a number between two bounds, as the browser's own range input with a label.

The slider of ipywidgets has a handle without an accessible name, which screen readers announce as nothing; the
browser's own has one, and its keys work everywhere.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import anywidget
import traitlets

_STATIC = Path(__file__).parent / "static"


class Slider(anywidget.AnyWidget):
    """A labelled slider from 0 to 1.

    Args:
        description: Its label.
        value: At first.
        step: Of the arrow keys and of the handle.
    """

    _esm = _STATIC / "slider.js"
    _css = _STATIC / "slider.css"

    description = traitlets.Unicode(help="The label.").tag(sync=True)
    value = traitlets.Float(1.0, help="0 to 1; settable, from the browser too.").tag(sync=True)
    step = traitlets.Float(0.05, help="Of the arrow keys and of the handle.").tag(sync=True)

    def __init__(self, description: str, *, value: float = 1.0, step: float = 0.05) -> None:
        super().__init__(description=description, value=value, step=step)

    def __repr__(self) -> str:
        return f"Slider({self.description}: {self.value:.2f})"

    @traitlets.validate("value")
    def _in_bounds(self, proposal: Any) -> float:
        value = proposal["value"]
        if math.isnan(value):
            raise traitlets.TraitError("value must be a number from 0 to 1, got nan.")
        return min(1.0, max(0.0, value))
