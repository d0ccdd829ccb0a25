"""Edges before and after an edit, as two marks a row with a line between them."""

from __future__ import annotations

import plotly.graph_objects as go

from workbench.plots.style import BLUE, GREY, INK, MONO, ORANGE, card, escape, number
from workbench.types import EdgeComparison
from workbench.types.plain import is_whole


def edge_changes_figure(changes: EdgeComparison, *, k: int = 20, title: str | None = None) -> go.Figure:
    """The edges whose scores changed most, the largest change at the top: a ring before, a diamond after.

    Args:
        changes: The comparison.
        k: How many edges at most.
        title: In the place of its own.

    Raises:
        ValueError: ``k`` is no whole number from 1.
    """
    if isinstance(k, bool) or not is_whole(k) or k < 1:
        raise ValueError(f"k must be a whole number from 1, got {k!r}.")
    shown = changes.changes[:k][::-1]  # plotly draws the first row at the bottom
    rows = list(range(len(shown)))
    unit = escape(changes.before.metric_words.unit)
    names = [f"{one.edge} ({one.kind})" for one in shown]
    figure = go.Figure()
    lines = [(x, row) for row, one in zip(rows, shown, strict=True) for x in (one.before, one.after, None)]
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in lines],
            y=[row for _, row in lines],
            mode="lines",
            line={"color": GREY, "width": 2},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    for name, symbol, colour in (("before", "circle-open", BLUE), ("after", "diamond", ORANGE)):
        figure.add_trace(
            go.Scatter(
                x=[getattr(one, name) for one in shown],
                y=rows,
                mode="markers",
                name=name,
                marker={"symbol": symbol, "color": colour, "size": 9, "line": {"width": 2, "color": colour}},
                customdata=[escape(text) for text in names],
                hovertemplate=f"<b>%{{customdata}}</b><br>{name}: <b>%{{x:.4f}}</b> {unit}<extra></extra>",
            )
        )
    heading = title or f"Edges before and after {changes.stage}"
    top = "; ".join(f"{one.edge} {one.kind}, {number(one.before)} to {number(one.after)}" for one in shown[::-1][:5])
    card(
        figure,
        title=heading,
        notes=[
            changes.words,
            f"The {len(shown)} largest of {len(changes.changes)} changes, by {changes.before.method}, "
            f"n = {changes.before.n}, strength {changes.strength:g}.",
        ],
        alt=f"Rows of two marks: {heading}; {top or 'no edge changed'}.",
        width=760,
        plot_height=max(90, 19 * len(shown)),
        left=290,
        right=100,
    )
    figure.update_yaxes(
        tickmode="array",
        tickvals=rows,
        ticktext=[escape(name) for name in names],
        showgrid=False,
        tickfont={"family": MONO, "size": 11},
        range=[-0.6, max(1, len(shown)) - 0.4],
    )
    figure.update_xaxes(title={"text": f"score ({unit})", "standoff": 8}, zeroline=True, zerolinecolor=INK)
    figure.update_layout(legend={"x": 1.01, "y": 1, "xanchor": "left", "yanchor": "top"})
    return figure
