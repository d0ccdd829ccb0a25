"""The logit lens as a grid: what each layer would say next at each token."""

from __future__ import annotations

import plotly.graph_objects as go

from workbench.plots.heat_map import HeatMap, mark_subject
from workbench.plots.style import BLUE, card, escape, finite, number, visible
from workbench.types import LensGrid

NAMED_IN_CELLS = 16
"""Texts of at most so many tokens have the likeliest token written into each cell."""


def lens_grid_figure(grid: LensGrid) -> go.Figure:
    """Draw a grid by layer and token, coloured by the probability of the followed token.

    Args:
        grid: The grid.

    Returns:
        A heat map, the embeddings at the bottom. A cell tells its likeliest token on hover, and short texts show it.
    """
    content = _heat_map(grid)
    rows, columns = content.size
    named = columns <= NAMED_IN_CELLS
    cell_x = min(76.0, max(46.0, 900 / columns)) if named else min(44.0, max(13.0, 900 / columns))
    width = max(560, int(cell_x * columns) + 190)
    cell_x = (width - 190) / columns
    height = max(160, int(min(26.0, max(8.0, 520 / rows)) * rows))
    followed, last = visible(grid.answer_token, 24), visible(grid.tokens[-1], 24)
    if grid.settles is None:
        finding = f"not the likeliest token after “{last}” at the end (rank {int(grid.ranks[-1, -1])})"
    else:
        finding = f"the likeliest token after “{last}” from {grid.settles} on"
    trace = content.trace(
        colorscale=[[0, "#ffffff"], [1, BLUE]],
        zmin=0,
        zmax=1,
        colorbar={"title": {"text": f"P({escape(followed)})", "side": "right"}, "thickness": 14},
        text=[[escape(visible(cell[0].token, int(cell_x / 7))) for cell in row] for row in grid.top] if named else None,
        texttemplate="%{text}" if named else None,
    )
    figure = go.Figure(trace)
    card(
        figure,
        title="What each layer would say next",
        notes=[
            f"{grid.form} form, {grid.stage}; colour: probability of “{followed}”, {finding}.",
            *(["Cells: the likeliest token."] if named else []),
            *(["* and bracket: subject tokens."] if content.marked else []),
        ],
        alt=f"Logit lens: {rows} rows by {columns} tokens; “{followed}” is {finding}.",
        width=width,
        plot_height=height,
        bottom=content.bottom if content.label_width > cell_x - 4 else 60,
        right=110,
        left=70,
        above=30 if content.marked else 8,
    )
    figure.update_xaxes(**content.x_axis(cell_x))
    figure.update_yaxes(**content.y_axis(height / rows))
    mark_subject(figure, content.marked, xref="x", yref="y", top=1.0, height=height)
    return figure


def _heat_map(grid: LensGrid) -> HeatMap:
    plain = tuple(visible(token, 18) for token in grid.tokens)
    custom = [
        [
            [
                escape(label),
                escape(visible(grid.tokens[at], 80)),
                ", ".join(f"{escape(visible(one.token, 24))} {number(one.probability)}" for one in cell),
                str(int(grid.ranks[row, at])),
                str(at),
            ]
            for at, cell in enumerate(grid.top[row])
        ]
        for row, label in enumerate(grid.labels)
    ]
    return HeatMap(
        z=finite(grid.probabilities.tolist()),
        customdata=custom,
        hovertemplate="after <b>%{customdata[0]}</b>, position %{customdata[4]}: <b>%{customdata[1]}</b><br>"
        f"likeliest: %{{customdata[2]}}<br>P({escape(visible(grid.answer_token, 24))}) <b>%{{z:.4f}}</b>, "
        "rank %{customdata[3]}<extra></extra>",
        x_title="Position (token)",
        y_title="After layer",
        x_ticks=tuple(f"<b>{escape(p)} *</b>" if i in grid.subject else escape(p) for i, p in enumerate(plain)),
        y_ticks=grid.labels,
        plain=plain,
        marked=grid.subject,
    )
