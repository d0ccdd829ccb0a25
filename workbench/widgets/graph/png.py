"""A circuit's graph as a PNG picture, for where no widget is drawn. Always on white."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.plots.graph_layout import HALF_HEIGHT
from workbench.plots.graph_svg import GraphPicture, line_width, short_name
from workbench.widgets.shared.pixels import ADVANCE, INK, TALL, Color, draw_frame, draw_text, png_file

_ABOVE, _UNDER, _MUTED, _PAPER = (178, 24, 43), (33, 102, 172), (80, 80, 80), (255, 255, 255)
_SCALE = 2.2  # the dot font is larger than the browser's
_DASH = 14  # pixels of a thin line's dash and of the gap behind it


def graph_png(graph: GraphPicture) -> bytes:
    """Draw the graph: positive scores solid and red, negative ones dashed and blue.

    Args:
        graph: What is drawn.

    Returns:
        An RGB picture, 8 bits a channel.
    """
    top = TALL + 20
    width = max(int(graph.size[0] * _SCALE), ADVANCE * len(graph.title) + 24)
    image = np.full((int(graph.size[1] * _SCALE) + top, width, 3), 255, dtype=np.uint8)
    draw_text(image, 12, 8, graph.title)
    for text, y in graph.rows:
        draw_text(image, 8, int(y * _SCALE) + top - TALL // 2, text, _MUTED)
    for name, score, curve in sorted(graph.edges, key=lambda edge: abs(edge[1])):
        wide = line_width(score, graph.limit) * _SCALE
        if name in graph.selected:
            _draw_curve(image, curve, top, wide + 10, (170, 200, 240), dashed=False)
        _draw_curve(image, curve, top, wide, _UNDER if score < 0 else _ABOVE, dashed=score < 0)
    for name, x, y in graph.nodes:
        text = short_name(name)
        half_w, half_h = ADVANCE * len(text) // 2 + 6, int(HALF_HEIGHT * _SCALE)
        left, upper = max(0, int(x * _SCALE) - half_w), max(0, int(y * _SCALE) + top - half_h)
        picked = name in graph.selected
        box = image[upper : upper + 2 * half_h, left : left + 2 * half_w]
        box[:] = INK if picked else _PAPER
        draw_frame(image, left, upper, box.shape[1], box.shape[0], INK)
        draw_text(image, left + 7, upper + half_h - TALL // 2, text, _PAPER if picked else INK)
    return png_file(image)


def _draw_curve(
    image: np.ndarray, curve: Sequence[float], top: int, wide: float, color: Color, *, dashed: bool
) -> None:
    first, second, third, last = np.asarray(curve, dtype=float).reshape(4, 2) * _SCALE
    t = np.linspace(0, 1, 1500)[:, None]
    line = (1 - t) ** 3 * first + 3 * (1 - t) ** 2 * t * second + 3 * (1 - t) * t**2 * third + t**3 * last
    if dashed:
        along = np.concatenate([[0.0], np.hypot(*np.diff(line, axis=0).T).cumsum()])
        period = _DASH + 2 * wide
        line = line[along % period < (period - wide) / 2]
    half = max(0.5, wide / 2)
    offsets = np.arange(-int(half), int(half) + 1)
    for dx in offsets:
        for dy in offsets[dx * dx + offsets**2 <= half * half + 0.5]:
            x, y = (line[:, 0] + dx).astype(int), (line[:, 1] + top + dy).astype(int)
            inside = (x >= 0) & (y >= 0) & (x < image.shape[1]) & (y < image.shape[0])
            image[y[inside], x[inside]] = color
