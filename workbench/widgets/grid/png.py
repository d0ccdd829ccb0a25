"""A heat map as a PNG picture: what a notebook shows where no widget can run.

The picture is always on white, so that it can be read on any page.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.plots.colours import ColourAxis, ColourScale, colour_scale
from workbench.widgets.shared.pixels import ADVANCE, INK, TALL, draw_frame, draw_mask, draw_text, png_file, text_mask

_LONGEST = 48  # characters of a label
_MUTED, _PAPER, _HATCH = (80, 80, 80), (255, 255, 255), (150, 150, 150)


def heat_map_png(
    values: np.ndarray,
    *,
    rows: Sequence[str],
    cols: Sequence[str],
    title: str = "",
    row_title: str = "",
    col_title: str = "",
    unit: str = "",
    limit: float = 1.0,
    groups: Sequence[int] = (),
    marked: Sequence[int] = (),
    selected: Sequence[Sequence[int]] = (),
    scale: ColourScale | None = None,
    axis: ColourAxis | None = None,
) -> bytes:
    """Draw a heat map.

    Args:
        values: Rows x columns; NaN is hatched.
        rows, cols: Labels.
        title, row_title, col_title, unit: Texts around the map.
        limit: The colours span ``-limit`` to ``limit``, or 0 to ``limit`` where the scale is sequential.
        groups: Columns before which a thick line is drawn.
        marked: Columns whose label gets a star and a line.
        selected: Cells, outlined.
        scale: The colours. None: RdBu.
        axis: Where a value lies on the colours. None: linear up to ``limit``.

    Returns:
        An RGB picture, 8 bits a channel.
    """
    n_rows, n_cols = values.shape
    scale, axis = scale or colour_scale("RdBu"), axis or ColourAxis(limit=limit)
    wide, high = max(2, min(28, 900 // n_cols)), max(4, min(20, 560 // n_rows))
    names = [f"*{_cut(text)}" if c in set(marked) else _cut(text) for c, text in enumerate(cols)]
    across = max(map(len, names)) * ADVANCE <= wide  # labels fit side by side
    every = 1 if across else step(TALL + 4, wide)
    shown = [_cut(text) for text in rows[:: step(TALL + 2, high)]]
    left = 12 + (TALL + 8 if row_title else 0) + max(map(len, shown)) * ADVANCE + 6
    top = 10 + (TALL + 12 if title else 0)
    map_w, map_h = wide * n_cols, high * n_rows
    label_h = TALL if across else max(len(text) for text in names[::every]) * ADVANCE
    bar_y = top + map_h + 10 + label_h + (TALL + 10 if col_title else 0) + 14
    every_tick = axis.ticks(scale.low)
    places, ends = zip(*((at, _number(value)) for at, value in (every_tick[:: len(every_tick) // 2])), strict=True)
    ticks = [*ends[:2], ends[2] + ("+" if axis.cut else "") + (f" {unit}" if unit else "")]
    image_w = 12 + max(left + max(map_w, 240 + len(ticks[2]) * ADVANCE), 12 + len(title) * ADVANCE)
    image = np.full((bar_y + 14 + TALL + 14, image_w, 3), _PAPER, dtype=np.uint8)

    if title:
        draw_text(image, 12, 10, title)
    # The map: colours, hatching, group lines, selection.
    area = image[top : top + map_h, left : left + map_w]
    area[:] = np.repeat(np.repeat(scale.rgb(axis.place(values)), high, axis=0), wide, axis=1)
    y, x = np.mgrid[:map_h, :map_w]
    hatched = np.repeat(np.repeat(np.isnan(values), high, axis=0), wide, axis=1)
    area[hatched] = _PAPER
    area[hatched & ((x + y) % 6 < 2)] = _HATCH
    for c in groups:
        if c:
            image[top - 5 : top + map_h + 5, left + c * wide - 1 : left + c * wide + 2] = INK
    draw_frame(image, left - 1, top - 1, map_w + 2, map_h + 2, INK)
    for r, c in selected:
        draw_frame(image, left + c * wide, top + r * high, wide, high, INK)
        if wide >= 8 and high >= 8:
            draw_frame(image, left + c * wide + 1, top + r * high + 1, wide - 2, high - 2, _PAPER)
            image[top + r * high + 2 : top + r * high + 6, left + (c + 1) * wide - 6 : left + (c + 1) * wide - 2] = INK
    # Labels.
    for i, text in enumerate(shown):
        r = i * step(TALL + 2, high)
        draw_text(image, left - 6 - len(text) * ADVANCE, top + r * high + (high - TALL) // 2, text, _MUTED)
    for c in range(0, n_cols, every):
        text, middle = names[c], left + c * wide + wide // 2
        if across:
            draw_text(image, middle - len(text) * ADVANCE // 2, top + map_h + 8, text, _MUTED)
        else:
            dots = np.rot90(text_mask(text))
            draw_mask(image, middle - TALL // 2, top + map_h + 8, dots, INK if c in marked else _MUTED)
    for c in marked:
        image[top + map_h + 2 : top + map_h + 5, left + c * wide : left + (c + 1) * wide] = INK
    if row_title:
        dots = np.rot90(text_mask(row_title))
        draw_mask(image, 10, max(0, top + (map_h - dots.shape[0]) // 2), dots, INK)
    if col_title:
        draw_text(image, left, top + map_h + 14 + label_h, col_title)
    # The colour bar: 200 pixels with its ends and its middle.
    image[bar_y : bar_y + 12, left : left + 200] = scale.rgb(np.linspace(scale.low, 1, 200)[None])
    draw_frame(image, left - 1, bar_y - 1, 202, 14, INK)
    middle = left + round(200 * (places[1] - scale.low) / (1 - scale.low))
    middles = (left, middle - len(ends[1]) * ADVANCE // 2, left + 200 - len(ends[2]) * ADVANCE // 2)
    for text, x0 in zip(ticks, middles, strict=True):
        draw_text(image, x0, bar_y + 18, text, _MUTED)
    return png_file(image)


def step(needed: float, size: float) -> int:
    """Label every n-th cell (1, 2, 5, 10 ...), so that labels of ``needed`` pixels fit into cells of ``size``."""
    n = 1
    while n * size < needed:
        n = n * 5 // 2 if str(n)[0] == "2" else n * 2
    return n


def _number(value: float) -> str:
    return f"{value:.3g}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def with_picture(bundle: Mapping[str, Any] | None, text: str, picture: bytes) -> dict[str, Any]:
    """A widget's mime bundle with a fixed text and a PNG picture, for viewers that draw no widgets."""
    return {**(bundle or {}), "text/plain": text, "image/png": base64.b64encode(picture).decode("ascii")}
