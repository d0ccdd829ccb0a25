"""A heat map as SVG with real text, for pages without scripts: the picture that ``HeatGrid`` draws in the browser.

One drawing serves both themes: every colour is a variable of the page or CSS's ``light-dark()``. Cells have their name
and value as a tooltip of the browser's own.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from workbench.plots.colour_bar import ink_on, tick_labels
from workbench.plots.colours import ColourAxis, ColourScale, colour_scale
from workbench.plots.style import short_number

FONT = 11
_ADVANCE = 6.3  # pixels that a character of the labels takes
_LONGEST = 48  # characters of a label
_WIDE, _TALL = 760, 440  # of the coloured area, pixels
_WORDS = (38.0, 84.0)  # of a cell with a word in it, pixels
_BAR, _ZONE = 180, 40
_MOST_TITLES = 4000  # cells that have a tooltip each
_LEVELS = 255


@dataclass(frozen=True)
class HeatMap:
    """What is drawn: the traits of a ``HeatGrid``.

    Args:
        values: Rows x columns; NaN is hatched.
        rows, cols: Labels.
        title, row_title, col_title, unit, kind, alt: Texts.
        axis: Where on the colours a value lies.
        naming: A cell's name from its labels, such as ``"{row}{col}"``.
        groups: Columns before which a line is drawn.
        group_name: Before the number of each group.
        marked: Columns whose label gets a star and a line.
        selected: Cells, outlined.
        row_kind: What is chosen where these are one row, no pick.
        descriptions: A name for each cell, or nothing.
        words: One written into each cell, or nothing.
        row_unit: What a row is, where whole rows are picked.
        scale: The colours in both themes.
    """

    values: np.ndarray
    rows: Sequence[str]
    cols: Sequence[str]
    title: str = ""
    row_title: str = ""
    col_title: str = ""
    unit: str = ""
    kind: str = "cell"
    alt: str = ""
    axis: ColourAxis = field(default_factory=ColourAxis)
    naming: str = "{row}, {col}"
    groups: Sequence[int] = ()
    group_name: str = ""
    row_kind: str = ""
    marked: Sequence[int] = ()
    selected: Sequence[tuple[int, int]] = ()
    descriptions: Sequence[Sequence[str]] = ()
    words: Sequence[Sequence[str]] = ()
    row_unit: str = ""
    scale: ColourScale = field(default_factory=lambda: colour_scale("RdBu"))
    cell_width: float = 0.0
    cell_height: float = 0.0

    def name(self, row: int, col: int) -> str:
        """A cell in words."""
        if self.descriptions:
            return self.descriptions[row][col]
        labels = {"{row}": _named(self.row_title, self.rows[row]), "{col}": _named(self.col_title, self.cols[col])}
        return re.sub(r"\{row\}|\{col\}", lambda part: labels[part[0]], self.naming)

    def value(self, row: int, col: int) -> str:
        """A cell's value with its unit."""
        value = float(self.values[row, col])
        return "no value" if math.isnan(value) else f"{short_number(value)} {self.unit}".rstrip()

    @property
    def status(self) -> str:
        """What is selected, and what hatching means."""
        n = len(self.selected)
        if self.row_kind:
            return f"{self.row_kind}: {self.rows[self.selected[0][0]]}" if n else ""
        cells = ", ".join(self.name(r, c) for r, c in self.selected[:40]) + (", …" if n > 40 else "")
        picked = [f"{n} {self.kind}{'' if n == 1 else 's'} selected: {cells}"] if n else []
        if n and self.row_unit:
            rows = sorted({r for r, _ in self.selected})
            names = ", ".join(self.rows[r] for r in rows)
            picked = [f"{len(rows)} {self.row_unit}{'' if len(rows) == 1 else 's'} selected, at all positions: {names}"]
        return " · ".join(picked + ["hatched: no value"] * bool(np.isnan(self.values).any()))


def heat_map_svg(heat: HeatMap, name: str) -> str:
    """Draw a map as one SVG element, to be styled by the variables ``--wb-ink``, ``--wb-muted`` and ``--wb-paper``.

    Args:
        heat: The map.
        name: Its ids begin with this; of each map on a page another.
    """
    at = _Layout(heat)
    hatching = (
        f'<defs><pattern id="{name}-h" width="5" height="5" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><path class="wbm-line" d="M0 0V5"/></pattern></defs>'
    )
    parts = [hatching, _bar(heat, at), *_cells(heat, at, name), *_words(heat, at), *_lines(heat, at)]
    parts += _row_labels(heat, at) + _column_labels(heat, at) + _selection(heat, at)
    words = heat.alt or heat.title or "Heat map"
    spoken = words + (f". {heat.status}" if heat.status else "")
    return (
        f'<svg class="wb-map" viewBox="0 0 {at.width:.0f} {at.height:.0f}" width="{at.width:.0f}" '
        f'height="{at.height:.0f}" role="img" aria-label="{_text(spoken)}">{"".join(parts)}</svg>'
    )


class _Layout:
    """Where everything is, in pixels."""

    def __init__(self, heat: HeatMap) -> None:
        n_rows, n_cols = heat.values.shape
        self.rows = [_cut(text) for text in heat.rows]
        self.cols = [("★" if c in set(heat.marked) else "") + _cut(text) for c, text in enumerate(heat.cols)]
        self.h = heat.cell_height or max(3.0, min(22.0, _TALL // n_rows))
        least, most = _WORDS if heat.words else (1.0, 60.0 if n_cols == 1 else 32.0)
        self.w = heat.cell_width or max(least, min(most, _WIDE / n_cols))
        self.row_step = _step(FONT + 2, self.h)
        longest = max(map(_width, self.cols))
        numbers = all(text.lstrip("★").lstrip("LHN·+").isdigit() for text in self.cols)
        self.rotated = longest + 6 > self.w and not numbers
        self.col_step = _step(FONT + 3, self.w) if self.rotated else _step(longest + 6, self.w)
        shown = self.cols[:: self.col_step]
        self.left = 10 + max(map(_width, self.rows[:: self.row_step])) + (FONT + 8 if heat.row_title else 0)
        slanted = max(map(_width, shown))
        if self.rotated:  # the label of the first column leans out to the left
            self.left = max(self.left, slanted * 0.5 - self.w / 2 + 4)
        else:
            self.left = max(self.left, _width(shown[0]) / 2 - self.w / 2 + 2)
        self.top = _ZONE
        self.map_w, self.map_h = self.w * n_cols, self.h * n_rows
        self.label_h = slanted * 0.87 + FONT if self.rotated else FONT + 4
        ticks = heat.axis.ticks(heat.scale.low)
        self.bar = max(min(_BAR, self.map_w), sum(_width(short_number(value)) + 12 for _, value in ticks), 90.0)
        unit = _width(heat.unit) + 12 if heat.unit else 4
        self.width = math.ceil(self.left + max(self.map_w + 14, self.bar + unit, _width(heat.col_title)))
        self.height = math.ceil(self.top + self.map_h + 6 + self.label_h + (FONT + 8 if heat.col_title else 4))


def _bar(heat: HeatMap, at: _Layout) -> str:
    """The colour bar with its ends and its middle."""
    steps, low = 60, heat.scale.low
    width = at.bar / steps
    colours = _fills(heat.scale, np.linspace(low, 1, steps))
    parts = [
        f'<rect x="{at.left + i * width:.1f}" y="4" width="{width + 0.3:.1f}" height="9" {colour}/>'
        for i, colour in enumerate(colours)
    ]
    parts.append(f'<rect class="wbm-frame" x="{at.left:.1f}" y="4" width="{at.bar:.1f}" height="9"/>')
    for x, text in tick_labels(heat.axis, low, at.bar, _width):
        parts.append(_label(at.left + x, 28, text, "start"))
    parts.append(_label(at.left + at.bar + 6, 28, heat.unit, "start") if heat.unit else "")
    return f"<g>{''.join(parts)}</g>"


def _cells(heat: HeatMap, at: _Layout, name: str) -> Iterable[str]:
    """The cells: one by one with a tooltip each, or, of large maps, one path for each colour."""
    n_rows, n_cols = heat.values.shape
    known = ~np.isnan(heat.values)
    if not known.all():
        yield (
            f'<rect x="{at.left:.1f}" y="{at.top}" width="{at.map_w:.1f}" height="{at.map_h:.1f}" '
            f'fill="url(#{name}-h)"/>'
        )
    low = heat.scale.low
    place = (np.clip(np.nan_to_num(heat.axis.place(heat.values)), low, 1) - low) / (1 - low)
    level = np.where(known, np.round(place * _LEVELS), -1).astype(int)
    colours = _fills(heat.scale, low + np.arange(_LEVELS + 1) / _LEVELS * (1 - low))
    gap = 1.0 if min(at.w, at.h) >= 8 else 0.0
    if n_rows * n_cols > _MOST_TITLES:
        for one in np.unique(level[known]):
            cells = np.argwhere(level == one)
            path = "".join(
                f"M{at.left + c * at.w:.6g} {at.top + r * at.h:.6g}h{at.w:.4g}v{at.h:.4g}h-{at.w:.4g}z"
                for r, c in cells
            )
            yield f'<path {colours[one]} d="{path}"/>'
        return
    for r in range(n_rows):
        row = [
            f'<rect x="{c * at.w:.6g}" width="{at.w - gap:.4g}" height="{at.h - gap:.4g}" '
            + (colours[level[r, c]] if known[r, c] else 'class="wbm-none"')
            + f"><title>{_text(heat.name(r, c))}: {_text(heat.value(r, c))}</title></rect>"
            for c in range(n_cols)
        ]
        yield f'<g transform="translate({at.left:.1f} {at.top + r * at.h:.6g})">{"".join(row)}</g>'


def _words(heat: HeatMap, at: _Layout) -> Iterable[str]:
    """A word in each cell that has a value, black or white: what stands out more from its colour, in both themes."""
    most = int((at.w - 5) / _ADVANCE)
    low, dark = heat.scale.low, ColourScale(heat.scale.name, heat.scale.kind, heat.scale.dark or heat.scale.stops)
    places = np.clip(np.nan_to_num(heat.axis.place(heat.values)), low, 1)
    inks = [np.vectorize(ink_on, signature="(n)->()")(of.rgb(places)) for of in (heat.scale, dark)]
    for r, row in enumerate(heat.words):
        for c, word in enumerate(row):
            if word and not math.isnan(heat.values[r, c]):
                x, y = at.left + (c + 0.5) * at.w, at.top + (r + 0.5) * at.h + 4
                shown = word if len(word) <= most else f"{word[: most - 1]}…"
                fill = f'style="fill: light-dark({inks[0][r, c]}, {inks[1][r, c]})"'
                yield _label(x, y, f"\u2068{shown}\u2069", "middle", f'class="wbm-word" {fill}')


def _lines(heat: HeatMap, at: _Layout) -> list[str]:
    """The frame, and a line before each group of columns, with its name above where there is room."""
    frame = f'<rect class="wbm-frame" x="{at.left:.1f}" y="{at.top}" width="{at.map_w:.1f}" height="{at.map_h:.1f}"/>'
    groups = [
        f'<rect class="wbm-ink" x="{at.left + c * at.w - 0.5:.1f}" y="{at.top - 2}" width="1" '
        f'height="{at.map_h + 4:.1f}"/>'
        for c in heat.groups
        if c > 0
    ]
    names = [f"{heat.group_name}{i}" for i in range(len(heat.groups))] if heat.group_name else []
    ends = [*heat.groups[1:], heat.values.shape[1]]
    spans = list(zip(names, heat.groups, ends, strict=False))
    if all(_width(name) + 6 <= (end - first) * at.w for name, first, end in spans):
        groups += [_label(at.left + (first + end) / 2 * at.w, at.top - 3, name, "middle") for name, first, end in spans]
    return [frame, *groups]


def _row_labels(heat: HeatMap, at: _Layout) -> list[str]:
    labels = [
        _label(at.left - 5, at.top + (r + 0.5) * at.h + 4, text, "end")
        for r, text in list(enumerate(at.rows))[:: at.row_step]
    ]
    if heat.row_title:
        middle = at.top + at.map_h / 2
        turned = f' transform="rotate(-90 {FONT} {middle:.1f})"'
        labels.append(_label(FONT, middle, heat.row_title, "middle", f'class="wbm-name"{turned}'))
    return labels


def _column_labels(heat: HeatMap, at: _Layout) -> list[str]:
    bottom, marked = at.top + at.map_h, set(heat.marked)
    labels: list[str] = []
    for c, text in list(enumerate(at.cols))[:: at.col_step]:
        x, y = at.left + (c + 0.5) * at.w, bottom + 6
        more = 'class="wbm-name"' if c in marked else ""
        if at.rotated:
            more += f' transform="rotate(-60 {x:.1f} {y + 6:.1f})"'
        labels.append(_label(x, y + (10 if at.rotated else FONT), text, "end" if at.rotated else "middle", more))
    labels += [
        f'<rect class="wbm-ink" x="{at.left + c * at.w:.1f}" y="{bottom + 1:.1f}" width="{max(1.0, at.w - 1):.1f}" '
        'height="3"/>'
        for c in heat.marked
    ]
    if heat.col_title:
        labels.append(_label(at.left, at.height - 4, heat.col_title, "start", 'class="wbm-name"'))
    return labels


def _selection(heat: HeatMap, at: _Layout) -> list[str]:
    """An outline and a dot, in ink on paper: seen on every colour."""
    parts: list[str] = []
    small = min(at.w, at.h)
    if heat.row_kind and heat.selected:
        y = at.top + heat.selected[0][0] * at.h
        box = f'x="{at.left:.1f}" y="{y:.1f}" width="{len(heat.cols) * at.w:.1f}" height="{at.h:.1f}"'
        return [f'<rect class="wbm-halo" {box}/>', f'<rect class="wbm-picked" {box}/>']
    for r, c in heat.selected:
        x, y = at.left + c * at.w, at.top + r * at.h
        box = f'x="{x:.1f}" y="{y:.1f}" width="{at.w:.1f}" height="{at.h:.1f}"'
        parts += [f'<rect class="wbm-halo" {box}/>', f'<rect class="wbm-picked" {box}/>']
        if small >= 7 and not heat.words:
            radius = max(1.5, min(3.0, small / 6))
            parts.append(
                f'<circle class="wbm-dot" cx="{x + at.w - radius - 3:.1f}" cy="{y + radius + 3:.1f}" r="{radius:.1f}"/>'
            )
    return parts


def _label(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{_text(text)}</text>'


def _fills(scale: ColourScale, places: np.ndarray) -> list[str]:
    """For each value, in units of the limit, the attributes that colour it in both themes."""
    dark = ColourScale(scale.name, scale.kind, scale.dark or scale.stops)
    both = zip(scale.rgb(places), dark.rgb(places), strict=True)
    pairs = (("#" + bytes(light).hex(), "#" + bytes(other).hex()) for light, other in both)
    return [f'fill="{light}" style="fill: light-dark({light}, {other})"' for light, other in pairs]


def _step(needed: float, size: float) -> int:
    """Label every n-th cell: 1, 2, 5, 10, ..."""
    n = 1
    while n * size < needed:
        n = n * 5 // 2 if str(n)[0] == "2" else n * 2
    return n


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _width(text: str) -> float:
    return _ADVANCE * len(text)


def _named(title: str, label: str) -> str:
    """A label; one that is a bare number comes with what it counts."""
    return f"{title} {label}" if title and label.isdecimal() else label


def _text(text: str) -> str:
    return html.escape(text.replace("\0", "\ufffd").encode("utf-8", "replace").decode(), quote=True)
