"""What stands on and below colours: the labels of a colour bar, and the ink that can be read on a colour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from workbench.plots.colours import ColourAxis
from workbench.plots.style import short_number

GAP = 4
"""Pixels between two labels."""


def tick_labels(axis: ColourAxis, low: float, width: float, measure: Callable[[str], float]) -> list[tuple[float, str]]:
    """The labels below a colour bar, those of the ends and of zero first, others where they touch none.

    Args:
        axis, low: As in `ColourAxis.ticks`.
        width: Of the bar, in pixels.
        measure: The width of a text, in pixels.

    Returns:
        Left edges, in pixels from the bar's, with the texts, from left to right.
    """
    ticks = axis.ticks(low)
    first: list[tuple[float, float, str]] = []
    others: list[tuple[float, float, str]] = []
    for i, (place, value) in enumerate(ticks):
        end = i in (0, len(ticks) - 1)
        text = ("≤" if value < 0 else "≥") * (axis.cut and end and value != 0) + short_number(value)
        at, size = (place - low) / (1 - low) * width, measure(text)
        x = at if i == 0 else at - size if end else at - size / 2
        (first if end or value == 0 else others).append((x, size, text))
    written: list[tuple[float, float, str]] = []
    for x, size, text in [*first[::2], *first[1::2], *others]:  # of three the middle one is zero
        if all(x + size + GAP <= left or left + room + GAP <= x for left, room, _ in written):
            written.append((x, size, text))
    return [(x, text) for x, _, text in sorted(written)]


def ink_on(rgb: np.ndarray) -> str:
    """Black or white, whichever has more contrast (WCAG 2) on a colour.

    Args:
        rgb: Three values from 0 to 255.
    """
    part = np.asarray(rgb, dtype=float) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    light = float(linear @ [0.2126, 0.7152, 0.0722])
    return "#000" if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "#fff"
