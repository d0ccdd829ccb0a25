"""Heat maps of effects: by layer and token, or by layer and head.

The layout of the trace heat map follows Meng et al. 2022 (arXiv 2202.05262, figure 2), with layers on the vertical
axis, layer 0 at the bottom, and a scale centred at zero, so that a harmful restoration looks different from none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.plots.colours import KNEE, ColourAxis, ScaleMode, clip_limit
from workbench.plots.effect_words import clipped, describe, extremes, heading, limit_of, scale_title
from workbench.plots.style import (
    COLORSCALE,
    INK,
    MISSING,
    MONO,
    card,
    escape,
    finite,
    number,
    runs,
    short_number,
    visible,
)
from workbench.types import EffectMap

_ROWS: dict[str, str] = {"resid": "Layer (its input)"}
_COLUMNS = {"head": ("Query head", "head"), "kv": ("Key-value group", "group")}
"""What the columns of a map without positions are called, on the axis and in hovers."""


def heat_map_figure(
    effect: EffectMap, title: str | None, zlim: float | None, group_size: int | None, scale: ScaleMode = "linear"
) -> go.Figure:
    limit = zlim if zlim is not None else limit_of(effect)
    axis = ColourAxis(scale, limit, clip_limit(effect.values.float().cpu().numpy(), limit))
    content = heat_map(effect).on(axis)
    rows, columns = content.size
    if group_size is not None and (effect.axes[1] != "head" or group_size < 1 or columns % group_size):
        raise ValueError(
            f"group_size must divide the number of heads of a head map, got {group_size!r} for the axes {effect.axes} "
            f"with {columns} columns; leave it out, or give n_heads / n_kv_heads."
        )
    cell_x = min(44.0, max(13.0, 900 / columns))
    cell_y = min(28.0, max(6.0, 460 / rows))
    width = max(560, int(cell_x * columns) + 190)
    cell_x = (width - 190) / columns
    height = max(160, int(cell_y * rows))
    figure = go.Figure(content.trace(coloraxis="coloraxis"))
    notes = describe(effect) + clipped(effect, zlim) + _scale_note(axis)
    if content.marked:
        notes.append(f"* and bracket: {content.mark} tokens.")
    if any(None in row for row in content.z):
        notes.append("Grey: no value.")
    if group_size is not None:
        notes.append(f"Lines part the key-value groups of {group_size} query heads each.")
    card(
        figure,
        title=heading(effect, title),
        notes=notes,
        alt=f"Heat map: {heading(effect, title)}, {rows} layers by {columns} {effect.axes[1]}s, "
        f"{effect.value_words.name}; {extremes(effect)}.",
        width=width,
        plot_height=height,
        bottom=content.bottom if content.label_width > cell_x - 4 else 60,
        right=110,
        left=70,
        above=30 if content.marked or group_size is not None else 8,
    )
    figure.update_layout(coloraxis=_color_axis(axis, scale_title(effect)), plot_bgcolor=MISSING)
    figure.update_xaxes(**content.x_axis(cell_x))
    figure.update_yaxes(**content.y_axis(height / rows))
    mark_subject(figure, content.marked, xref="x", yref="y", top=1.0, height=height, word=content.mark)
    if group_size is not None:
        for group in range(columns // group_size):
            first = group * group_size - 0.5
            if group:
                figure.add_shape(
                    type="line",
                    xref="x",
                    yref="paper",
                    x0=first,
                    x1=first,
                    y0=0,
                    y1=1 + 20 / height,
                    line={"color": INK, "width": 2},
                )
            figure.add_annotation(
                x=first + group_size / 2,
                xref="x",
                y=1,
                yref="paper",
                yanchor="bottom",
                showarrow=False,
                text=f"KV{group}",
                font={"size": 11, "color": INK},
            )
    return figure


@dataclass(frozen=True)
class HeatMap:
    """What a heat map draws, so that several can stand side by side."""

    z: list[list[float | None]]
    customdata: list[list[list[str]]]
    hovertemplate: str
    x_title: str
    y_title: str
    x_ticks: tuple[str, ...]  # escaped, subject marked
    y_ticks: tuple[str, ...]
    plain: tuple[str, ...]  # the x labels as raw text
    marked: tuple[int, ...]
    mark: str = "subject"  # what the marked columns are

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.y_ticks), len(self.x_ticks)

    def trace(self, **options: Any) -> go.Heatmap:
        """The heat map; options add the colours and the axes."""
        return go.Heatmap(
            z=self.z,
            x=list(range(self.size[1])),
            y=list(range(self.size[0])),
            customdata=self.customdata,
            hovertemplate=self.hovertemplate,
            hoverongaps=False,
            **options,
        )

    def on(self, axis: ColourAxis) -> HeatMap:
        """The same with its colours on an axis: on a symmetric log, ``z`` is where the values lie on it, and the hover
        has them from elsewhere."""
        if axis.mode != "symlog":
            return self
        values = np.array(self.z, dtype=float)
        custom = [
            [[*cell, "" if np.isnan(value) else f"{value:.4f}"] for cell, value in zip(cells, row, strict=True)]
            for cells, row in zip(self.customdata, values, strict=True)
        ]
        at = len(self.customdata[0][0])
        hover = self.hovertemplate.replace("%{z:.4f}", f"%{{customdata[{at}]}}")
        return replace(self, z=finite(axis.place(values).tolist()), customdata=custom, hovertemplate=hover)

    def x_axis(self, cell: float) -> dict[str, Any]:
        """Ticks by number, so that equal tokens stay apart. Sideways when they would touch."""
        upright = self.label_width <= cell - 4
        return {
            "tickmode": "array",
            "tickvals": list(range(self.size[1])),
            "ticktext": list(self.x_ticks),
            "tickangle": 0 if upright else -90,
            "tickfont": {"family": MONO, "size": min(11, max(8, int(cell) - 2))},
            "title": {"text": self.x_title, "standoff": 10},
            "range": [-0.5, self.size[1] - 0.5],
            "showgrid": False,
            "ticks": "outside",
            "ticklen": 3,
        }

    def y_axis(self, cell: float) -> dict[str, Any]:
        """Layer 0 at the bottom."""
        step = max(1, math.ceil(11 / cell))
        rows = range(0, self.size[0], step)
        return {
            "tickmode": "array",
            "tickvals": list(rows),
            "ticktext": [self.y_ticks[r] for r in rows],
            "tickfont": {"size": 10},
            "title": {"text": self.y_title, "standoff": 8},
            "range": [-0.5, self.size[0] - 0.5],
            "showgrid": False,
            "ticks": "outside",
            "ticklen": 3,
        }

    @property
    def label_width(self) -> int:
        """Width of the longest x label in pixels, about."""
        return max(len(p) + 2 * (i in self.marked) for i, p in enumerate(self.plain)) * 7

    @property
    def bottom(self) -> int:
        """Room for ticks set sideways and the axis title, pixels."""
        return 55 + min(150, self.label_width)


def heat_map(effect: EffectMap) -> HeatMap:
    """The heat map of a ``("layer", "position")`` or ``("layer", "head")`` map."""
    column = effect.axes[1]
    limit = 24 if column == "position" and len(effect.prompts) > 1 else 18
    plain = tuple(visible(label, limit) for label in effect.labels[column])
    marked = tuple(i for i in effect.subject if 0 <= i < len(plain))
    ticks = tuple(f"<b>{escape(p)} *</b>" if i in marked else escape(p) for i, p in enumerate(plain))
    mark = "changed" if any(prompt.roles for prompt in effect.prompts) else "subject"
    full = [
        escape(visible(label, 80)) + (f" ({mark})" if i in marked else "")
        for i, label in enumerate(effect.labels[column])
    ]
    layers = tuple(escape(label) for label in effect.labels["layer"])
    errors = effect.stderr.tolist() if effect.stderr is not None else None
    rows, columns = effect.values.shape
    custom = [
        [
            [layers[r], full[c], number(errors[r][c], 4) if errors else f"none, n = {effect.n}", str(c)]
            for c in range(columns)
        ]
        for r in range(rows)
    ]
    place = "position %{customdata[3]}" if column == "position" else _COLUMNS[column][1]
    place += ": <b>%{customdata[1]}</b>" if column == "position" else " <b>%{customdata[1]}</b>"
    noun = "token" if len(effect.prompts) <= 1 else "role"
    x_title = f"Position ({noun})" if column == "position" else _COLUMNS[column][0]
    return HeatMap(
        z=finite(effect.values.tolist()),
        customdata=custom,
        hovertemplate=f"layer <b>%{{customdata[0]}}</b><br>{place}<br>"
        f"{escape(effect.value_words.noun)} <b>%{{z:.4f}}</b>"
        "<br>standard error %{customdata[2]}<extra></extra>",
        x_title=x_title,
        y_title=_ROWS.get(effect.unit, "Layer"),
        x_ticks=ticks,
        y_ticks=layers,
        plain=plain,
        marked=marked,
        mark=mark,
    )


def _scale_note(axis: ColourAxis) -> list[str]:
    if axis.mode == "symlog":
        return [f"Colours on a symmetric log, linear up to ±{number(axis.limit * KNEE)}."]
    return [f"Colours end at ±{number(axis.end)}, the 99th percentile of the magnitudes."] if axis.cut else []


def _color_axis(axis: ColourAxis, title: str) -> dict[str, Any]:
    """The colour axis with the ticks of a scale that is not linear up to its limit."""
    if axis.mode == "linear":
        return color_axis(axis.limit, title)
    log, ticks = axis.mode == "symlog", axis.ticks(-1.0)
    ends = {0: "≤" * axis.cut, len(ticks) - 1: "≥" * axis.cut}
    texts = [f"{ends.get(i, '')}{short_number(value)}" for i, (_, value) in enumerate(ticks)]
    at = [place if log else value for place, value in ticks]
    return color_axis(1.0 if log else axis.end, title, tickmode="array", tickvals=at, ticktext=texts)


def color_axis(limit: float, title: str, **bar: Any) -> dict[str, Any]:
    """A diverging colour axis centred at zero."""
    return {
        "colorscale": COLORSCALE,
        "cmin": -limit,
        "cmax": limit,
        "cmid": 0,
        "colorbar": {
            "title": {"text": title, "side": "right"},
            "thickness": 14,
            "outlinewidth": 1,
            "outlinecolor": INK,
            "ticks": "outside",
            "ticklen": 3,
            **bar,
        },
    }


def mark_subject(
    figure: go.Figure,
    marked: Sequence[int],
    *,
    xref: str,
    yref: str,
    top: float,
    height: int,
    label: bool = True,
    word: str = "subject",
) -> None:
    """Put brackets over the subject's columns (of a contrast: over what changes), and dashed lines at their edges.

    Args:
        figure: Changed in place.
        marked: The subject's columns.
        xref, yref: The panel's axes (``"x2"``, ``"y2"``).
        top: The panel's upper edge in paper coordinates.
        height: Of the whole plotting area in pixels.
        label: Write the word over the bracket.
        word: That word.
    """
    low, high = top + 3 / height, top + 9 / height
    for first, last in runs(marked):
        a, b = first - 0.5, last + 0.5
        figure.add_shape(
            type="path",
            xref=xref,
            yref="paper",
            line={"color": INK, "width": 2},
            path=f"M {a} {low} L {a} {high} L {b} {high} L {b} {low}",
        )
        for x in (a, b):
            figure.add_shape(
                type="line",
                xref=xref,
                yref=f"{yref} domain",
                x0=x,
                x1=x,
                y0=0,
                y1=1,
                line={"color": INK, "width": 1, "dash": "dot"},
            )
        if label:
            figure.add_annotation(
                x=(a + b) / 2,
                xref=xref,
                y=high,
                yref="paper",
                yanchor="bottom",
                showarrow=False,
                text=word,
                font={"size": 11, "color": INK},
            )
