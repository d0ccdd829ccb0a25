"""Circuits as figures: the largest edges as bars, and faithfulness by the number of edges."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from workbench.plots.style import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    INK,
    MARKERS,
    MONO,
    NEGATIVE,
    ORANGE,
    POSITIVE,
    PURPLE,
    card,
    escape,
    number,
    visible,
)
from workbench.types import EdgeMap, FaithfulnessCurve
from workbench.types.faithfulness import IN_WORDS
from workbench.types.faithfulness_curve import RANDOM
from workbench.types.plain import is_whole

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE)


def edges_figure(edges: EdgeMap, *, k: int = 20, title: str | None = None) -> go.Figure:
    """The largest edges of a map as bars, by absolute score, the largest at the top.

    Args:
        edges: The map.
        k: How many.
        title: In the place of its own.

    Raises:
        ValueError: ``k`` is no whole number from 1.
    """
    if not is_whole(k) or k < 1:
        raise ValueError(f"k must be a whole number from 1, got {k!r}.")
    frame = edges.to_frame().head(k).iloc[::-1]  # plotly draws the first bar at the bottom
    names, scores, errors = (frame[name].tolist() for name in ("edge", "score", "stderr"))
    several = edges.n > 1
    words, heading = edges.metric_words, title or f"Edges ({edges.method})"
    figure = go.Figure(
        go.Bar(
            x=scores,
            y=list(range(len(names))),
            orientation="h",
            marker={"color": [POSITIVE if score >= 0 else NEGATIVE for score in scores]},
            error_x={"type": "data", "array": errors, "color": INK, "thickness": 1.2, "visible": several},
            showlegend=False,
            customdata=[escape(name) for name in names],
            hovertemplate=f"<b>%{{customdata}}</b><br>change of {escape(words.title)} <b>%{{x:.4f}}</b><extra></extra>",
        )
    )
    top = ", ".join(f"{name} {number(score)}" for name, score in zip(names[::-1][:5], scores[::-1][:5], strict=True))
    card(
        figure,
        title=heading,
        notes=[
            f"Change of the {words.title} of the clean run ({number(edges.clean)}; corrupted "
            f"{number(edges.corrupted)}) where the edge alone carries the corrupted write.",
            f"The {len(names)} largest of {edges.n_edges} edges, n = {edges.n}."
            + (" Error bars: standard error." if several else ""),
        ],
        alt=f"Bars: {heading}, the {len(names)} largest edges: {top}.",
        width=620,
        plot_height=max(90, 17 * len(names)),
        left=170,
    )
    figure.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(names))),
        ticktext=[escape(name) for name in names],
        showgrid=False,
        tickfont={"family": MONO, "size": 11},
        range=[-0.6, len(names) - 0.4],
    )
    figure.update_xaxes(title={"text": f"change of {escape(words.title)}", "standoff": 8}, zeroline=True)
    return figure


def faithfulness_figure(curve: FaithfulnessCurve, *, title: str | None = None) -> go.Figure:
    """Recovery over the share of edges or nodes that are kept, a line a ranking, random ones dotted and grey.

    Args:
        curve: The curves.
        title: In the place of its own.
    """
    figure, cpr, cmd = go.Figure(), curve.cpr, curve.cmd
    for i, ranking in enumerate(curve.rankings):
        figure.add_trace(_line(curve, ranking, i))
    heading, verb = title or f"Recovery by the number of {curve.unit}s", "carry" if curve.unit == "edge" else "put out"
    areas = "; ".join(f"{name}: CPR {rate.value:.2f}, CMD {cmd[name]:.2f}" for name, rate in cpr.items())
    card(
        figure,
        title=heading,
        notes=[
            f"All other {curve.parts} {verb} {IN_WORDS[curve.ablation]} ({curve.ablation} ablation); {curve.metric}, "
            f"n = {len(curve.items)}. Error bars: 95% over items.",
            visible(areas, 300),
        ],
        alt=f"Lines: {heading}. {areas}.",
        width=640,
        plot_height=300,
        left=70,
        right=150,
    )
    figure.update_xaxes(type="log", title={"text": f"share of all {curve.parts} that are kept"}, tickformat=".1%")
    figure.update_yaxes(title={"text": "recovery (1: the whole model)"})
    figure.add_hline(y=1, line={"color": INK, "width": 1, "dash": DASHES[2]})
    figure.update_layout(legend={"x": 1.01, "y": 1, "xanchor": "left", "yanchor": "top"})
    return figure


def _line(curve: FaithfulnessCurve, ranking: str, place: int) -> Any:
    """One ranking's line."""
    rates = curve.recovery(ranking)
    values = [rate.value for rate in rates]
    known = all(rate.has_interval for rate in rates)
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [rate.high - rate.value if known else 0 for rate in rates],
        "arrayminus": [rate.value - rate.low if known else 0 for rate in rates],
        "thickness": 1,
        "width": 3,
        "visible": known,
    }
    by_chance = ranking == RANDOM
    return go.Scatter(
        x=list(curve.sizes),
        y=values,
        error_y=bars,
        mode="lines+markers",
        name=escape(visible(ranking, 24)),
        line={"color": GREY if by_chance else _COLOURS[place % 4], "width": 2, "dash": DASHES[2 if by_chance else 0]},
        marker={"symbol": MARKERS[place % len(MARKERS)], "size": 7},
        customdata=list(curve.counts),
        hovertemplate=f"{escape(visible(ranking, 40))}<br>%{{customdata}} {curve.unit}s: recovery <b>%{{y:.3f}}</b>"
        "<extra></extra>",
    )
