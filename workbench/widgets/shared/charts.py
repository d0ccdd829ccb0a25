"""Bars and line charts that panels share, as strings of SVG. They lay out numbers and compute none; see ``markup`` for
how untrusted texts are escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from workbench.plots.style import number, visible
from workbench.widgets.shared.markup import block, text

Point = tuple[float, float | None]
_DASHES = ("", "7 4", "2 4", "9 3 2 3")


def side_by_side(*figures: str) -> str:
    """Charts side by side, wrapping when there is no room."""
    return block(f'<div class="wb-charts">{"".join(figures)}</div>')


def bars(values: Mapping[str, float | None], heading: str = "", *, limit: float = 1.0) -> str:
    """Horizontal bars with their values, for probabilities.

    Args:
        values: By raw label; None or NaN shows as n/a.
        heading: Above the bars; also the accessible name.
        limit: Value of a full bar.
    """
    labels = {name: visible(name, 34) for name in values}
    left = 12 + 7.0 * max((len(x) for x in labels.values()), default=0)
    width, row, top = left + 250, 22, 24 if heading else 4
    parts: list[str] = []
    for i, (name, value) in enumerate(values.items()):
        y = top + i * row
        known = value is not None and math.isfinite(value)
        length = 180 * min(1.0, max(0.0, value / limit)) if known and value is not None else 0.0
        parts.append(
            f"<g><title>{text(name)}: {number(value)}</title>"
            f'<text x="{left - 8:.0f}" y="{y + 14}" text-anchor="end">{text(labels[name])}</text>'
            f'<rect class="wb-bar wb-s{i % 4}" x="{left:.0f}" y="{y + 3}" width="{length:.1f}" height="14"/>'
            f'<text x="{left + length + 6:.0f}" y="{y + 14}">{number(value)}</text></g>'
        )
    words = "; ".join(f"{name}: {number(value)}" for name, value in values.items())
    return _svg(width, top + row * len(values) + 4, parts, heading, words)


def line_chart(
    lines: Mapping[str, Sequence[Point]],
    heading: str,
    *,
    x_label: str = "step",
    x_max: float = 1.0,
    y_max: float | None = None,
    borders: Mapping[float, str] | None = None,
) -> str:
    """Lines over steps, from 0 on both axes, each labelled at its end with its last value.

    Args:
        lines: By raw label, (x, y) points; None or NaN as y leaves the point out and the line bridges it.
        heading: What is drawn, with its unit.
        x_label: Of the horizontal axis.
        x_max: End of the horizontal axis; further points extend it.
        y_max: End of the vertical axis; None: from the data.
        borders: By x, what begins there (a dashed vertical line).
    """
    drawn = {n: [(x, y) for x, y in points if y is not None and math.isfinite(y)] for n, points in lines.items()}
    xs = [x for points in drawn.values() for x, _ in points]
    x_end = max(1.0, x_max, *xs)
    y_end = y_max or _round_up(max((y for points in drawn.values() for _, y in points), default=1.0))
    labels = {n: f"{visible(n, 22)} {points[-1][1]:.3g}" for n, points in drawn.items() if points}
    left, top, w, h = 56.0, 40.0, 300.0, 150.0
    width = left + w + 22 + 6.6 * max([18, *map(len, labels.values())])

    def at(x: float, y: float) -> tuple[float, float]:
        return left + w * x / x_end, top + h * (1 - min(max(y, 0.0), y_end) / y_end)

    parts: list[str] = []
    for share in (0.0, 0.5, 1.0):
        _, y = at(0, y_end * share)
        parts.append(f'<line class="wb-grid" x1="{left}" x2="{left + w}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{y_end * share:g}</text>')
    for x_tick in (0, x_end / 2, x_end) if x_end % 2 == 0 else (0, x_end):
        x, _ = at(x_tick, 0)
        parts.append(f'<text x="{x:.1f}" y="{top + h + 16}" text-anchor="middle">{x_tick:g}</text>')
    parts.append(f'<path class="wb-axis" d="M{left} {top}V{top + h}H{left + w}"/>')
    parts.append(f'<text x="{left + w / 2}" y="{top + h + 32}" text-anchor="middle">{text(x_label)}</text>')
    for x_border, name in (borders or {}).items():
        x, _ = at(x_border, 0)
        parts.append(f'<line class="wb-border" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{top + h}"/>')
        parts.append(f'<text x="{x + 3:.1f}" y="{top - 8}">{text(visible(name, 24))}</text>')
    ends = _spread([at(*drawn[n][-1])[1] for n in labels], 15.0, top + h + 4)
    for i, (n, points) in enumerate(drawn.items()):
        if not points:
            continue
        places = [at(x, y) for x, y in points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        marked = places[:: max(1, -(-len(places) // 12))]
        marks = "".join(_mark(i, x, y) for x, y in marked) + _mark(i, *places[-1])
        dash = f' stroke-dasharray="{_DASHES[i % 4]}"' if i % 4 else ""
        y = ends[list(labels).index(n)]
        parts.append(
            f'<g class="wb-series wb-s{i % 4}"><title>{text(n)}</title><path d="{path}"{dash}/>{marks}'
            f"{_mark(i, left + w + 10, y)}</g>"
            f'<text x="{left + w + 18}" y="{y + 4:.1f}">{text(labels[n])}</text>'
        )
    words = "; ".join(
        f"{n}: last {number(points[-1][1])}" if points else f"{n}: no value yet" for n, points in drawn.items()
    )
    return _svg(width, top + h + 40, parts, heading, words)


def _svg(width: float, height: float, parts: Sequence[str], heading: str, words: str) -> str:
    label = text(f"{heading}. {words}" if heading else words)
    head = f'<text class="wb-head" x="4" y="16">{text(heading)}</text>' if heading else ""
    return block(
        f'<figure><svg viewBox="0 0 {width:.0f} {height:.0f}" style="max-width: {1.25 * width:.0f}px" role="img" '
        f'aria-label="{label}">{head}{"".join(parts)}</svg></figure>'
    )


def _mark(i: int, x: float, y: float) -> str:
    """Circle, square, diamond or triangle."""
    shape = i % 4
    if shape == 0:
        return f'<circle class="wb-mark" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'
    offsets = {1: "-3 -3h6v6h-6z", 2: "0 -4.2l4.2 4.2l-4.2 4.2l-4.2 -4.2z", 3: "0 -4l4 7h-8z"}[shape]
    return f'<path class="wb-mark" d="M{x:.1f} {y:.1f}m{offsets}"/>'


def _spread(wanted: Sequence[float], gap: float, lowest: float) -> list[float]:
    """Vertical places for labels, near the wanted ones, at least ``gap`` apart and none below ``lowest``."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = list(wanted)
    for before, i in zip([None, *order], order, strict=False):
        if before is not None:
            placed[i] = max(placed[i], placed[before] + gap)
    limit = lowest
    for i in reversed(order):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - gap
    return placed


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 6, 8, 10 times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(float(f"{m * power:.3g}") for m in (1, 2, 4, 6, 8, 10) if m * power >= value * (1 - 1e-9))
