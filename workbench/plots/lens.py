"""The lens by layer: probability and rank of the old answer, the new one and the refusal, one column per stage."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from workbench.plots.style import (
    BLUE,
    DASHES,
    GREEN,
    GRID,
    INK,
    MARKERS,
    ORANGE,
    card,
    escape,
    head_of_column,
    number,
    visible,
)
from workbench.types import ANSWER_NAMES, AnswerName, Lens

COLORS: dict[AnswerName, str] = {"old": BLUE, "new": ORANGE, "refusal": GREEN}


def lens_figure(lenses: Sequence[Lens]) -> go.Figure:
    """Probability (above) and rank (below, the likeliest on top) of each answer's first token after every layer.

    Args:
        lenses: One per stage, of one fact and one model.

    Returns:
        A column per stage. A dotted line marks the layer where the decision turns, named above it.

    Raises:
        ValueError: No lenses, or of models of different depth.
    """
    if not lenses or len({x.n_layers for x in lenses}) != 1:
        raise ValueError(
            f"lens_figure needs lenses of one model, got {[f'{x.stage}: {x.n_layers} layers' for x in lenses]}."
        )
    n, rows = len(lenses), lenses[0].n_layers + 1
    gap = 0.05 if n > 1 else 0.0
    share = (1 - gap * (n - 1)) / n
    worst = max(rank for x in lenses for ranks in x.ranks.values() for rank in ranks) + 1
    place = visible(lenses[0].prompt.prefix or lenses[0].prompt.tokens[-1], 60)
    figure = go.Figure()
    card(
        figure,
        title=f"What each layer would answer: {lenses[0].prompt.fact_id}",
        notes=[
            f"after {place!r} ({lenses[0].prompt.form} form)",
            *(f"{x.stage}: {x.verdict}." for x in lenses),
        ],
        alt="Probability and rank by layer. " + " ".join(_words(x) for x in lenses),
        width=max(560, min(1150, 330 * n + 210)),
        plot_height=430,
        left=75,
        right=150,
        above=40,
    )
    ticks = list(range(0, rows, max(1, rows // 6)))
    for i, one in enumerate(lenses):
        k = "" if i == 0 else str(i + 1)
        low = str(n + i + 1)
        domain = [i * (share + gap), i * (share + gap) + share]
        for j, name in enumerate(ANSWER_NAMES):
            label = f"{name}: {escape(visible(one.tokens[name], 14))}"
            custom = [[one.labels[r], escape(visible(one.top[r], 24)), one.ranks[name][r] + 1] for r in range(rows)]
            hover = f"{escape(one.stage)}, {label}<br>after %{{customdata[0]}}: <b>P %{{meta}}</b>"
            for axis, values in ((k, list(one.probabilities[name])), (low, [r + 1 for r in one.ranks[name]])):
                figure.add_trace(
                    go.Scatter(
                        x=list(range(rows)),
                        y=values,
                        xaxis=f"x{axis}",
                        yaxis=f"y{axis}",
                        mode="lines+markers",
                        name=label,
                        legendgroup=name,
                        showlegend=i == 0 and axis == k,
                        line={"color": COLORS[name], "width": 2, "dash": DASHES[j]},
                        marker={"symbol": MARKERS[j], "size": 4},
                        customdata=[[*c, p] for c, p in zip(custom, one.probabilities[name], strict=True)],
                        hovertemplate=hover.replace("%{meta}", "%{customdata[3]:.4f}")
                        + ", rank %{customdata[2]}<br>likeliest: %{customdata[1]}<extra></extra>",
                    )
                )
        common = {
            "range": [-0.5, rows - 0.5],
            "domain": domain,
            "showgrid": False,
            "zeroline": False,
            "linecolor": INK,
            "showline": True,
        }
        left = i == 0
        figure.update_layout(
            {
                f"xaxis{k}": {**common, "anchor": f"y{k}", "showticklabels": False},
                f"xaxis{low}": {
                    **common,
                    "anchor": f"y{low}",
                    "title": {"text": "after layer"},
                    "tickvals": ticks,
                    "ticktext": [one.labels[t] for t in ticks],
                    "tickangle": 0,
                },
                f"yaxis{k}": {
                    "domain": [0.54, 1.0],
                    "anchor": f"x{k}",
                    "range": [-0.04, 1.06],
                    "showticklabels": left,
                    "gridcolor": GRID,
                    "zeroline": False,
                    "showline": True,
                    "title": {"text": "probability" if left else ""},
                },
                f"yaxis{low}": {
                    "domain": [0.0, 0.46],
                    "anchor": f"x{low}",
                    "type": "log",
                    "range": [math.log10(max(2, worst)) + 0.1, -0.1],
                    "dtick": 1,
                    "showticklabels": left,
                    "gridcolor": GRID,
                    "zeroline": False,
                    "showline": True,
                    "title": {"text": "rank (log scale)" if left else ""},
                },
            }
        )
        turn = one.labels.index(one.turn)
        figure.add_shape(
            type="line",
            xref=f"x{k}",
            yref="paper",
            x0=turn - 0.5,
            x1=turn - 0.5,
            y0=0,
            y1=1,
            line={"color": INK, "width": 1, "dash": "dot"},
        )
        head_of_column(figure, domain[0], f"<b>{escape(one.stage)}</b>, turns at {escape(one.turn)}")
    figure.update_layout(
        legend={"x": 1.01, "y": 1, "xanchor": "left", "yanchor": "top", "title": {"text": "first token"}}
    )
    return figure


def _words(one: Lens) -> str:
    final = ", ".join(f"{name} {number(one.probabilities[name][-1])}" for name in ANSWER_NAMES)
    return f"{one.stage}: {one.verdict}; final probabilities {final}."
