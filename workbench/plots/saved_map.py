"""The map that a saved state of a ``HeatGrid`` describes. It is from a file of anybody's: nothing in it is trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.plots.colours import ColourAxis, ColourScale, checked_mode, colour_scale
from workbench.plots.map_svg import HeatMap


def heat_map_of(state: dict[str, Any]) -> HeatMap | None:
    """The map that a saved state of ``HeatGrid`` describes; None where it describes none.

    Args:
        state: Its traits by name; ``data`` as bytes. It may come from anywhere: nothing in it is trusted.
    """
    shape, data = state.get("shape"), state.get("data")
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)):
        return None
    if not isinstance(data, bytes) or len(data) != 4 * shape[0] * shape[1]:
        return None
    values = np.frombuffer(data, dtype="<f4").reshape(shape).astype(float)
    values = np.where(np.isfinite(values), values, np.nan)
    rows, cols = (_texts(state.get(name), n) for name, n in zip(("rows", "cols"), shape, strict=True))
    if rows is None or cols is None:
        return None
    words = {
        name: str(state[name])
        for name in (
            "title",
            "row_title",
            "col_title",
            "unit",
            "kind",
            "alt",
            "naming",
            "group_name",
            "row_kind",
            "row_unit",
        )
        if isinstance(state.get(name), str)
    }
    cells = [tuple(cell) for cell in _listed(state.get("selected")) if _is_cell(cell, shape)]
    return HeatMap(
        values,
        rows,
        cols,
        **words,
        axis=_axis(state),
        groups=_columns(state.get("groups"), shape[1]),
        marked=_columns(state.get("marked"), shape[1]),
        selected=cells,
        descriptions=_whole(state.get("descriptions"), shape),
        words=_whole(state.get("words"), shape),
        scale=_scale(state.get("colours")),
        cell_width=_size(state.get("cell_width")),
        cell_height=_size(state.get("cell_height")),
    )


def _scale(state: Any) -> ColourScale:
    """The scale that the browser was given; RdBu where it is none."""
    try:
        kind = "sequential" if state["low"] == 0 else "diverging"
        return ColourScale("saved", kind, tuple(state["light"]), tuple(state["dark"]))
    except (TypeError, KeyError, ValueError):
        return colour_scale("RdBu")


def _axis(state: dict[str, Any]) -> ColourAxis:
    """Where the values lie on the colours; a straight one to the limit where the state says something else."""
    limit, clip = (_positive(state.get(name)) for name in ("limit", "clip"))
    try:
        return ColourAxis(checked_mode(str(state.get("scale_mode", "linear"))), limit, clip)
    except ValueError:
        return ColourAxis("linear", limit)


def _positive(value: Any) -> float:
    return float(value) if _is_number(value) and value > 0 else 1.0


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: Any, n: int) -> list[str] | None:
    """So many labels; None where there are others."""
    return [str(text) for text in value] if isinstance(value, list | tuple) and len(value) == n else None


def _whole(value: Any, shape: Sequence[int]) -> Sequence[Sequence[str]]:
    """A text for each cell; nothing where one is missing."""
    rows = [_texts(row, shape[1]) for row in _listed(value)]
    return [row for row in rows if row is not None] if len(rows) == shape[0] and None not in rows else ()


def _columns(value: Any, n: int) -> list[int]:
    return [c for c in _listed(value) if type(c) is int and 0 <= c < n]


def _is_cell(value: Any, shape: Sequence[int]) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2 or any(type(i) is not int for i in value):
        return False
    return 0 <= value[0] < shape[0] and 0 <= value[1] < shape[1]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _size(value: Any) -> float:
    """A cell's width or height in pixels; 0 where it is to fit."""
    return float(value) if _is_number(value) and 1 <= value <= 200 else 0.0
