"""Slider: a number between two bounds, as the browser's own range input with a label.

The slider of ipywidgets has a handle without an accessible name, which screen readers announce as nothing; the
browser's own has one, and its keys work everywhere.
"""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from workbench.widgets.shared.controls import StrictControl
from workbench.widgets.shared.javascript import STATIC, read_module


class Slider(StrictControl, anywidget.AnyWidget):
    """A labelled slider from 0 to 1. A value that is not a number within these raises ``TraitError``; from the browser,
    it changes nothing and the browser shows Python's value again.

    Args:
        description: Its label.
        value: At first.
        step: Of the arrow keys and of the handle.
    """

    _esm = read_module("slider.js")
    _css = STATIC / "slider.css"

    description = traitlets.Unicode(help="The label.").tag(sync=True)
    value = traitlets.Float(1.0, help="0 to 1; settable, from the browser too.").tag(sync=True)
    step = traitlets.Float(0.05, help="Of the arrow keys and of the handle.").tag(sync=True)

    def __init__(self, description: str, *, value: float = 1.0, step: float = 0.05) -> None:
        super().__init__(description=description, value=value, step=step)

    def __repr__(self) -> str:
        return f"Slider({self.description}: {self.value:.2f})"

    def check(self, state: dict[str, Any]) -> None:
        """The browser may set the value, nothing else."""
        if foreign := sorted(set(state) - {"value"}):
            raise traitlets.TraitError(f"{', '.join(foreign)}: only Python sets this; the browser may set the value.")
        _check(state.get("value", self.value))

    @traitlets.validate("value")
    def _in_bounds(self, proposal: Any) -> float:
        return _check(proposal["value"])


def _check(value: Any) -> float:
    """The value, as it is. Raises TraitError where it is no number from 0 to 1."""
    if (
        isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1
    ):  # NaN is not within these either
        raise traitlets.TraitError(f"value must be a number from 0 to 1, got {str(value)[:40]}.")
    return float(value)
