"""Bars and line charts that panels share, as strings of SVG. They lay out numbers and compute none; see ``markup`` for
how untrusted texts are escaped.

A chart has a fixed size in px, so that its type has one too: where there is no room it scrolls, and several wrap.
Series have the colours and marks of ``markup.badge``: the first is the old answer's, then the new one's, a refusal's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.plots.style import short_number, visible
from workbench.widgets.shared.markup import block, text

Point = tuple[float, float | None]
_DASHES = ("", "7 4", "2 4", "9 3 2 3")
LOWEST = 1e-8
"""The end of a logarithmic axis at most; what is below is drawn there."""
_BAR, _ROW_HEIGHT = 220.0, 24
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def side_by_side(*figures: str) -> str:
    """Charts side by side, wrapping when there is no room."""
    return block(f'<div class="wb-charts">{"".join(figures)}</div>')


def bars(
    values: Mapping[str, float | None],
    heading: str = "",
    *,
    limit: float = 1.0,
    reference: Mapping[str, float | None] | None = None,
    reference_name: str = "base",
) -> str:
    """Horizontal bars with their values over one axis, for probabilities.

    Args:
        values: By raw label; None or NaN shows as n/a.
        heading: Above the bars; also the accessible name.
        limit: Value of a full bar.
        reference: By the same labels, what each is compared with: a tick in the bar's line.
        reference_name: What the ticks are of.
    """
    labels = {name: visible(name, 34) for name in values}
    share, beside = limit == 1.0, reference or {}
    left, top = 14 + 7.2 * max((len(x) for x in labels.values()), default=0), 26 if heading else 6
    bottom = top + _ROW_HEIGHT * len(values)
    parts: list[str] = []
    for at in (0.0, 0.5, 1.0):
        x = left + _BAR * at
        parts.append(f'<line class="wb-grid" x1="{x:.0f}" x2="{x:.0f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.0f}" y="{bottom + 15}" text-anchor="middle">{limit * at:g}</text>')
    said: list[str] = []
    for i, (name, value) in enumerate(values.items()):
        y, length = top + i * _ROW_HEIGHT, _BAR * _part(value, limit)
        words = short_number(value, share=share)
        other = beside.get(name)
        if name in beside:
            words += f" ({reference_name} {short_number(other, share=share)})"
        said.append(f"{visible(name)}: {words}")
        end, tick = max(length, 0.0), ""
        if other is not None and math.isfinite(other):
            x = left + _BAR * _part(other, limit)
            end = max(end, x - left)
            tick = f'<path class="wb-reference" d="M{x:.1f} {y + 1}v{_ROW_HEIGHT - 2}"/>'
        parts.append(
            f"<g><title>{text(visible(name))}: {text(words)}</title>"
            f'<text x="{left - 8:.0f}" y="{y + 16}" text-anchor="end">{text(labels[name])}</text>'
            f'<rect class="wb-bar wb-s{i % 4}" x="{left:.0f}" y="{y + 5}" width="{length:.1f}" height="14"/>{tick}'
            f'<text x="{left + end + 7:.0f}" y="{y + 16}">{text(words)}</text></g>'
        )
    if beside:
        parts.append(f'<text x="{left + _BAR + 22}" y="{bottom + 15}">| {text(reference_name)}</text>')
    return _svg(left + _BAR + 170, bottom + 22, parts, heading, "; ".join(said))


def _part(value: float | None, limit: float) -> float:
    """A value as a part of the axis, from 0 to 1."""
    return min(1.0, max(0.0, value / limit)) if value is not None and math.isfinite(value) else 0.0


@dataclass(frozen=True)
class _Axis:
    """The vertical axis: from what to what, and where its lines are."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool

    @classmethod
    def linear(cls, high: float) -> _Axis:
        return cls(0.0, high, tuple((high * part, f"{high * part:g}") for part in (0.0, 0.5, 1.0)), False)

    @classmethod
    def logarithmic(cls, values: Sequence[float], high: float) -> _Axis:
        """Whole decades, down to the least of the values; those of at most five lines."""
        least = min((v for v in values if v > 0), default=0.1)
        top, end = math.ceil(math.log10(high)), math.floor(math.log10(max(least, LOWEST)))
        decades = range(min(end, top - 2), top + 1)
        every = -(-(len(decades) - 1) // 4)
        powers = [d for d in decades if (top - d) % every == 0]
        names = [f"{10.0**d:g}" if -3 <= d <= 3 else f"10{str(d).translate(_SUPERSCRIPT)}" for d in powers]
        return cls(10.0 ** decades[0], 10.0**top, tuple(zip([10.0**d for d in powers], names, strict=True)), True)

    def part(self, value: float) -> float:
        """Where a value is, from 0 at the bottom to 1; what is beyond an end is at it."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log10(value / self.low) / math.log10(self.high / self.low)
        return value / self.high


def line_chart(
    lines: Mapping[str, Sequence[Point]],
    heading: str,
    *,
    x_label: str = "step",
    x_max: float = 1.0,
    y_max: float | None = None,
    borders: Mapping[float, str] | None = None,
    log: bool = False,
) -> str:
    """Lines over steps, each labelled at its end with its last value.

    Args:
        lines: By raw label, (x, y) points; None or NaN as y leaves the point out and the line bridges it.
        heading: What is drawn, with its unit.
        x_label: Of the horizontal axis.
        x_max: End of the horizontal axis; further points extend it.
        y_max: End of the vertical axis; None: from the data.
        borders: By x, what begins there (a dashed vertical line).
        log: Whether the vertical axis is logarithmic, for probabilities; else it begins at 0.
    """
    drawn = {n: [(x, y) for x, y in points if y is not None and math.isfinite(y)] for n, points in lines.items()}
    xs = [x for points in drawn.values() for x, _ in points]
    ys = [y for points in drawn.values() for _, y in points]
    x_end, y_end = max(1.0, x_max, *xs), y_max or _round_up(max(ys, default=1.0))
    axis = _Axis.logarithmic(ys, y_end) if log else _Axis.linear(y_end)
    share = y_max == 1.0
    labels = {
        n: f"{visible(n, 22)} {short_number(points[-1][1], share=share)}" for n, points in drawn.items() if points
    }
    left, top, w, h = 56.0, 40.0, 300.0, 150.0
    width = left + w + 24 + 7.0 * max([18, *map(len, labels.values())])

    def at(x: float, y: float) -> tuple[float, float]:
        return left + w * x / x_end, top + h * (1 - axis.part(y))

    parts: list[str] = []
    for value, name in axis.ticks:
        _, y = at(0, value)
        parts.append(f'<line class="wb-grid" x1="{left}" x2="{left + w}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
    for x_tick in (0, x_end / 2, x_end) if x_end % 2 == 0 else (0, x_end):
        x, _ = at(x_tick, axis.low)
        parts.append(f'<text x="{x:.1f}" y="{top + h + 16}" text-anchor="middle">{x_tick:g}</text>')
    parts.append(f'<path class="wb-axis" d="M{left} {top}V{top + h}H{left + w}"/>')
    parts.append(f'<text x="{left + w / 2}" y="{top + h + 32}" text-anchor="middle">{text(x_label)}</text>')
    for x_border, name in (borders or {}).items():
        x, _ = at(x_border, axis.low)
        parts.append(f'<line class="wb-border" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{top + h}"/>')
        parts.append(f'<text x="{x + 3:.1f}" y="{top - 8}">{text(visible(name, 24))}</text>')
    ends = _spread([at(*drawn[n][-1])[1] for n in labels], 15.0, top + h + 4)
    for i, (n, points) in enumerate(drawn.items()):
        if points:
            label_y = ends[list(labels).index(n)]
            parts.append(_line(i, n, [at(x, y) for x, y in points], (left + w + 10, label_y), labels[n]))
    words = "; ".join(
        f"{n}: last {short_number(points[-1][1], share=share)}" if points else f"{n}: no value yet"
        for n, points in drawn.items()
    )
    return _svg(width, top + h + 40, parts, heading, words)


def _line(i: int, name: str, places: Sequence[tuple[float, float]], end: tuple[float, float], label: str) -> str:
    """A line with its marks, and its label at the right."""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    marked = places[:: max(1, -(-len(places) // 12))]
    marks = "".join(_mark(i, x, y) for x, y in marked) + _mark(i, *places[-1])
    dash = f' stroke-dasharray="{_DASHES[i % 4]}"' if i % 4 else ""
    return (
        f'<g class="wb-series wb-s{i % 4}"><title>{text(name)}</title><path d="{path}"{dash}/>{marks}'
        f"{_mark(i, *end)}</g>"
        f'<text x="{end[0] + 8}" y="{end[1] + 4:.1f}">{text(label)}</text>'
    )


def _svg(width: float, height: float, parts: Sequence[str], heading: str, words: str) -> str:
    label = text(f"{heading}. {words}" if heading else words)
    head = f'<text class="wb-head" x="4" y="16">{text(heading)}</text>' if heading else ""
    width = max(width, 8 + 7.0 * len(heading))
    size = f"width: {width:.0f}px; height: {height:.0f}px; max-width: none"
    return block(
        f'<figure class="wb-chart" tabindex="0"><svg width="{width:.0f}" height="{height:.0f}" style="{size}" '
        f'role="img" aria-label="{label}">{head}{"".join(parts)}</svg></figure>'
    )


def _mark(i: int, x: float, y: float) -> str:
    """Circle, diamond, square or triangle, as the badges of old, new and refusal have them."""
    shape = i % 4
    if shape == 0:
        return f'<circle class="wb-mark" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'
    offsets = {1: "0 -4.2l4.2 4.2l-4.2 4.2l-4.2 -4.2z", 2: "-3 -3h6v6h-6z", 3: "0 -4l4 7h-8z"}[shape]
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
