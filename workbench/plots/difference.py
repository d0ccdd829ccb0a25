"""Two effect maps side by side, and after minus before."""

from __future__ import annotations

from dataclasses import replace

import plotly.graph_objects as go

from workbench.plots.effect_words import describe, extremes, heading, limit_of, scale_title
from workbench.plots.heat_map import color_axis, heat_map, mark_subject
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
    allowed = (("layer", "position"), ("layer", "head"))
    if before.axes not in allowed:
        raise ValueError(f"A difference is drawn for maps with the axes {allowed}, got {before.axes}.")
    for name in ("axes", "labels", "unit", "metric"):
        one, two = getattr(before, name), getattr(after, name)
        if one != two:
            raise ValueError(
                f"The two maps differ in {name} ({one!r} and {two!r}), so their cells do not mean the same; trace both "
                "with the same prompt and options."
            )
    delta = replace(after, values=after.values - before.values, stderr=None, per_fact=None)
    maps = (before, after, delta)
    panels = [heat_map(m) for m in maps]
    none = "not computed for a difference"
    custom = [[[*cell[:2], none, cell[3]] for cell in row] for row in panels[2].customdata]
    panels[2] = replace(panels[2], customdata=custom)
    rows, columns = panels[0].size
    stacked = columns > 24
    same = bool((delta.values == 0).all())
    limits = limit_of(before, after), limit_of(delta)
    unit = scale_title(before)
    if stacked:
        width, cell_y = max(700, min(1300, 20 * columns + 190)), min(16.0, max(5.0, 330 / rows))
        plot = int(3 * cell_y * rows) + 2 * 46
        gap, share = 46 / plot, (1 - 2 * 46 / plot) / 3
        y_spans = [(1 - share, 1.0), (share + gap, 2 * share + gap), (0.0, share)]
        x_spans = [(0.0, 1.0)] * 3
        cell_x = (width - 190) / columns
        bars = [
            {"x": 1.01, "y": (y_spans[1][0] + 1) / 2, "len": 1 - y_spans[1][0]},
            {"x": 1.01, "y": share / 2, "len": share},
        ]
    else:
        cell_x, cell_y = min(40.0, max(15.0, 330 / columns)), min(24.0, max(6.0, 420 / rows))
        plot = max(200, int(cell_y * rows))
        inner = int(3 * cell_x * columns) + 24 + 120
        width = inner + 180
        one, gap, wide = cell_x * columns / inner, 24 / inner, 120 / inner
        x_spans = [(0.0, one), (one + gap, 2 * one + gap), (2 * one + gap + wide, 3 * one + gap + wide)]
        y_spans = [(0.0, 1.0)] * 3
        bars = [{"x": x_spans[1][1] + 6 / inner, "y": 0.5, "len": 1.0}, {"x": 1 + 6 / inner, "y": 0.5, "len": 1.0}]
    figure = go.Figure()
    for i, content in enumerate(panels):
        n = "" if i == 0 else str(i + 1)
        figure.add_trace(content.trace(coloraxis="coloraxis2" if i == 2 else "coloraxis", xaxis=f"x{n}", yaxis=f"y{n}"))
    card(
        figure,
        title=f"{heading(before, None)}: before, after, difference",
        notes=[
            f"before: {describe(before)[-1]}; after: {describe(after)[-1]}",
            *describe(before)[:-1],
            *(["* and bracket: subject tokens."] if panels[0].marked else []),
            *(["The two maps are equal in every cell."] if same else []),
        ],
        alt=f"Three heat maps of {rows} layers by {columns} {before.axes[1]}s. Before: {extremes(before)}. "
        f"After: {extremes(after)}. Difference: {extremes(delta)}.",
        width=width,
        plot_height=plot,
        left=70,
        right=110,
        above=46,
        bottom=panels[0].bottom if panels[0].label_width > cell_x - 4 else 60,
    )
    figure.update_layout(
        plot_bgcolor=MISSING,
        coloraxis=color_axis(limits[0], f"before, after: {unit}" if stacked else unit, yanchor="middle", **bars[0]),
        coloraxis2=color_axis(limits[1], "change" if stacked else f"change of {unit}", yanchor="middle", **bars[1]),
    )
    common = {"automargin": True, "showline": True, "linecolor": INK, "tickcolor": INK, "zeroline": False}
    for i, (content, name) in enumerate(zip(panels, ("before", "after", "after − before"), strict=True)):
        n = "" if i == 0 else str(i + 1)
        x_axis = {**common, **content.x_axis(cell_x), "domain": x_spans[i], "anchor": f"y{n}"}
        y_axis = {**common, **content.y_axis(cell_y), "domain": y_spans[i], "anchor": f"x{n}"}
        if i:
            x_axis["matches"], y_axis["matches"] = "x", "y"
        if stacked and i < 2:
            x_axis |= {"showticklabels": False, "title": {"text": ""}}
        if not stacked and i:
            y_axis |= {"showticklabels": i == 2, "title": {"text": ""}}
        figure.update_layout({f"xaxis{n}": x_axis, f"yaxis{n}": y_axis})
        top = y_spans[i][1]
        mark_subject(figure, content.marked, xref=f"x{n}", yref=f"y{n}", top=top, height=plot, label=False)
        figure.add_annotation(
            x=x_spans[i][0],
            xref="paper",
            xanchor="left",
            y=top + 12 / plot,
            yref="paper",
            yanchor="bottom",
            showarrow=False,
            text=f"<b>{name}</b>",
            font={"size": 13, "color": INK},
        )
    return figure
