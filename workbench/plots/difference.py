"""Two effect maps side by side, and after minus before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go

from workbench.plots.effect_words import describe, extremes, heading, limit_of, scale_title
from workbench.plots.heat_map import HeatMap, color_axis, heat_map, mark_subject
from workbench.plots.style import INK, MISSING, card
from workbench.types import EffectMap


def difference_figure(before: EffectMap, after: EffectMap) -> go.Figure:
    """Two maps of the same places, and after minus before.

    Args:
        before, after: Maps with the axes ``("layer", "position")`` or ``("layer", "head")``.

    Returns:
        Three heat maps side by side; stacked where that would be wider than a page (long prompts). The first two share
        one colour scale, the difference has its own; both are centred at zero.

    Raises:
        ValueError: Other axes, or maps that differ in axes, labels, unit or metric.
    """
    _check(before, after)
    delta = replace(after, values=after.values - before.values, stderr=None, per_fact=None)
    maps = [heat_map(m) for m in (before, after, delta)]
    none = "not computed for a difference"
    custom = [[[*cell[:2], none, cell[3]] for cell in row] for row in maps[2].customdata]
    maps[2] = replace(maps[2], customdata=custom)
    rows, columns = maps[0].size
    layout = _stacked(rows, columns) if columns > 24 else _in_a_row(rows, columns)
    figure = go.Figure()
    for i, content in enumerate(maps):
        n = "" if i == 0 else str(i + 1)
        figure.add_trace(content.trace(coloraxis="coloraxis2" if i == 2 else "coloraxis", xaxis=f"x{n}", yaxis=f"y{n}"))
    card(
        figure,
        title=f"{heading(before, None)}: before, after, difference",
        notes=[
            f"before: {describe(before)[-1]}; after: {describe(after)[-1]}",
            *describe(before)[:-1],
            *([f"* and bracket: {maps[0].mark} tokens."] if maps[0].marked else []),
            *(["The two maps are equal in every cell."] if bool((delta.values == 0).all()) else []),
        ],
        alt=f"Three heat maps of {rows} layers by {columns} {before.axes[1]}s. Before: {extremes(before)}. "
        f"After: {extremes(after)}. Difference: {extremes(delta)}.",
        width=layout.width,
        plot_height=layout.plot,
        left=70,
        right=110,
        above=46,
        bottom=maps[0].bottom if maps[0].label_width > layout.cell_x - 4 else 60,
    )
    unit, stacked = scale_title(before), layout.stacked
    both, change = (f"before, after: {unit}", "change") if stacked else (unit, f"change of {unit}")
    figure.update_layout(
        plot_bgcolor=MISSING,
        coloraxis=color_axis(limit_of(before, after), both, yanchor="middle", **layout.bars[0]),
        coloraxis2=color_axis(limit_of(delta), change, yanchor="middle", **layout.bars[1]),
    )
    for i, (content, name) in enumerate(zip(maps, ("before", "after", "after − before"), strict=True)):
        _place(figure, content, name, layout, i)
    return figure


def _check(before: EffectMap, after: EffectMap) -> None:
    """Raise a ValueError for maps without a difference."""
    allowed = (("layer", "position"), ("layer", "head"))
    if before.axes not in allowed:
        raise ValueError(f"A difference is drawn for maps with the axes {allowed}, got {before.axes}.")
    for name in ("axes", "labels", "unit", "metric", "normalised"):
        first, second = getattr(before, name), getattr(after, name)
        if first != second:
            raise ValueError(
                f"The two maps differ in {name} ({first!r} and {second!r}), so their cells do not mean the same; trace "
                "both with the same prompt and options."
            )


Span = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where three heat maps and two colour bars go.

    Args:
        stacked: Below each other, not side by side.
        width, plot: Of the figure, and the height of its plotting area, pixels.
        cell_x, cell_y: A cell, pixels.
        x_spans, y_spans: Of each map, shares of the plotting area.
        bars: Position and length of the colour bars.
    """

    stacked: bool
    width: int
    plot: int
    cell_x: float
    cell_y: float
    x_spans: list[Span]
    y_spans: list[Span]
    bars: list[dict[str, float]]


def _stacked(rows: int, columns: int) -> _Layout:
    width, cell_y = max(700, min(1300, 20 * columns + 190)), min(16.0, max(5.0, 330 / rows))
    plot = int(3 * cell_y * rows) + 2 * 46
    gap, share = 46 / plot, (1 - 2 * 46 / plot) / 3
    y_spans = [(1 - share, 1.0), (share + gap, 2 * share + gap), (0.0, share)]
    return _Layout(
        stacked=True,
        width=width,
        plot=plot,
        cell_x=(width - 190) / columns,
        cell_y=cell_y,
        x_spans=[(0.0, 1.0)] * 3,
        y_spans=y_spans,
        bars=[
            {"x": 1.01, "y": (y_spans[1][0] + 1) / 2, "len": 1 - y_spans[1][0]},
            {"x": 1.01, "y": share / 2, "len": share},
        ],
    )


def _in_a_row(rows: int, columns: int) -> _Layout:
    cell_x, cell_y = min(40.0, max(15.0, 330 / columns)), min(24.0, max(6.0, 420 / rows))
    inner = int(3 * cell_x * columns) + 24 + 120
    each, gap, wide = cell_x * columns / inner, 24 / inner, 120 / inner
    x_spans = [(0.0, each), (each + gap, 2 * each + gap), (2 * each + gap + wide, 3 * each + gap + wide)]
    return _Layout(
        stacked=False,
        width=inner + 180,
        plot=max(200, int(cell_y * rows)),
        cell_x=cell_x,
        cell_y=cell_y,
        x_spans=x_spans,
        y_spans=[(0.0, 1.0)] * 3,
        bars=[{"x": x_spans[1][1] + 6 / inner, "y": 0.5, "len": 1.0}, {"x": 1 + 6 / inner, "y": 0.5, "len": 1.0}],
    )


def _place(figure: go.Figure, content: HeatMap, name: str, layout: _Layout, i: int) -> None:
    """Give the i-th map its axes, brackets over the subject, and its name."""
    n = "" if i == 0 else str(i + 1)
    common: dict[str, Any] = {
        "automargin": True,
        "showline": True,
        "linecolor": INK,
        "tickcolor": INK,
        "zeroline": False,
    }
    x_axis = {**common, **content.x_axis(layout.cell_x), "domain": layout.x_spans[i], "anchor": f"y{n}"}
    y_axis = {**common, **content.y_axis(layout.cell_y), "domain": layout.y_spans[i], "anchor": f"x{n}"}
    if i:
        x_axis["matches"], y_axis["matches"] = "x", "y"
    if layout.stacked and i < 2:
        x_axis |= {"showticklabels": False, "title": {"text": ""}}
    if not layout.stacked and i:
        y_axis |= {"showticklabels": i == 2, "title": {"text": ""}}
    figure.update_layout({f"xaxis{n}": x_axis, f"yaxis{n}": y_axis})
    top = layout.y_spans[i][1]
    mark_subject(figure, content.marked, xref=f"x{n}", yref=f"y{n}", top=top, height=layout.plot, label=False)
    figure.add_annotation(
        x=layout.x_spans[i][0],
        xref="paper",
        xanchor="left",
        y=top + 12 / layout.plot,
        yref="paper",
        yanchor="bottom",
        showarrow=False,
        text=f"<b>{name}</b>",
        font={"size": 13, "color": INK},
    )
