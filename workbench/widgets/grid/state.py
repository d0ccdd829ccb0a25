"""What a heat map and its cells may be: the checks behind `HeatGrid`, for values from Python and from the browser."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from traitlets import TraitError

from workbench.plots.colours import ColourScale, clip_limit


def as_values(values: Any) -> np.ndarray:
    """Rows x columns of float32, little-endian. Raises ValueError on other shapes and on infinite numbers."""
    if isinstance(values, torch.Tensor):
        values = values.detach().float().cpu().numpy()
    with np.errstate(over="ignore"):
        array = np.asarray(values, dtype="<f4")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"values must be rows x columns and not empty, not of shape {array.shape}.")
    if np.isinf(array).any():
        raise ValueError(f"values hold {int(np.isinf(array).sum())} infinite numbers; use NaN for 'no value'.")
    return array


def picture_state(
    array: np.ndarray,
    rows: Sequence[object],
    cols: Sequence[object],
    groups: Iterable[int],
    marked: Iterable[int],
    limit: float | None,
    descriptions: Sequence[Sequence[str]] | None,
    scale: ColourScale,
) -> dict[str, Any]:
    """The traits that describe a picture, checked.

    Raises:
        ValueError: Labels and values do not match, or a value is below the scale's low end for any limit.
    """
    n_rows, n_cols = array.shape
    if scale.kind == "sequential" and (array < 0).any():
        raise ValueError(
            f"{int((array < 0).sum())} values are below zero, down to {np.nanmin(array):.3g}, where the sequential "
            f"colour scale {scale.name!r} begins; show them on a diverging one."
        )
    for name, labels, n in (("rows", rows, n_rows), ("cols", cols, n_cols)):
        if len(labels) != n:
            raise ValueError(f"{name} has {len(labels)} labels, but values of shape {array.shape} need {n}.")
    columns = {"groups": sorted(set(groups)), "marked": sorted(set(marked))}
    for name, indices in columns.items():
        if outside := [i for i in indices if not 0 <= i < n_cols]:
            raise ValueError(f"{name} names columns {outside}, allowed are 0 to {n_cols - 1}.")
    names = [[_line(text) for text in row] for row in descriptions or ()]
    if names and [len(row) for row in names] != [n_cols] * n_rows:
        raise ValueError(f"descriptions must be {n_rows} rows of {n_cols} texts, like the values.")
    if limit is None:
        limit = float(np.nanmax(np.abs(array))) if not np.isnan(array).all() else 0.0
        limit = limit or 1.0  # all zero: neutral on any scale
    if not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"limit must be positive and finite, not {limit}.")
    return {
        "data": array.tobytes(),
        "shape": [n_rows, n_cols],
        "rows": [_line(label) for label in rows],
        "cols": [_line(label) for label in cols],
        "descriptions": names,
        "limit": float(limit),
        "clip": clip_limit(array, float(limit)),
        **columns,
    }


def words_state(words: Sequence[Sequence[str]], shape: Sequence[int]) -> list[list[str]]:
    """A word for each cell, checked.

    Raises:
        ValueError: They do not match the values.
    """
    written = [[_line(word) for word in row] for row in words]
    if written and [len(row) for row in written] != [shape[1]] * shape[0]:
        raise ValueError(f"words must be {shape[0]} rows of {shape[1]} texts, like the values.")
    return written


def _line(text: object) -> str:
    """One line of text, with what has no glyph (or turns the text around it) as its code: a canvas draws neither."""
    names = {"\r": "␍", "\n": "⏎", "\t": "⇥"}
    return "".join(names.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()) for c in str(text))


def alt_text(title: str, shape: Sequence[int], row_title: str, col_title: str) -> str:
    """What the picture is, in words."""
    axes = " by ".join(name for name in (row_title, col_title) if name)
    return f"{title or 'Heat map'}: {shape[0]} x {shape[1]}" + (f", {axes}" if axes else "")


def short(value: Any) -> str:
    """A value for a message, however large it is."""
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def checked_cell(value: Any, shape: Sequence[int]) -> list[int] | None:
    """A cell as ``[row, column]``, or None."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2 or any(isinstance(i, bool) for i in value):
        raise TraitError(f"A cell is [row, column] with two integers, not {short(value)}.")
    try:
        row, col = (operator.index(i) for i in value)
    except TypeError:
        raise TraitError(f"A cell is [row, column] with two integers, not {short(value)}.") from None
    if not (0 <= row < shape[0] and 0 <= col < shape[1]):
        raise TraitError(f"Cell {short([row, col])} is outside this map of {shape[0]} x {shape[1]}.")
    return [row, col]


def checked_cells(value: Any, shape: Sequence[int]) -> list[list[int]]:
    """Distinct cells in row-major order."""
    if not isinstance(value, list | tuple | set | frozenset):
        raise TraitError(f"selected must be a list of [row, column], not {short(value)}.")
    if len(value) > shape[0] * shape[1]:
        raise TraitError(f"selected has {len(value)} cells; this map has only {shape[0] * shape[1]}.")
    cells = sorted(checked_cell(each, shape) or [] for each in value)
    if [] in cells:
        raise TraitError("A cell is [row, column] with two integers, not None.")
    for first, second in pairwise(cells):
        if first == second:
            raise TraitError(f"Cell {first} is listed twice.")
    return cells
