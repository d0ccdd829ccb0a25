"""The lens by layer: probability and rank of the old answer, the new one and the refusal, one column per stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
from workbench.types import AnswerName, Lens

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
    n = len(lenses)
    gap = 0.05 if n > 1 else 0.0
    share = (1 - gap * (n - 1)) / n
    worst = max(rank for x in lenses for ranks in x.ranks.values() for rank in ranks) + 1
    place = visible(lenses[0].prompt.prefix or lenses[0].prompt.tokens[-1], 60)
    figure = go.Figure()
    card(
        figure,
        title=f"What each layer would answer: {lenses[0].prompt.fact_id}",
        notes=[
            f"after {place!r} ({lenses[0].prompt.form} form{', tuned lens' * (lenses[0].kind == 'tuned')})",
            *(f"{x.stage}: {x.verdict}." for x in lenses),
        ],
        alt="Probability and rank by layer. " + " ".join(_words(x) for x in lenses),
        width=max(560, min(1150, 330 * n + 210)),
        plot_height=430,
        left=75,
        right=150,
        above=40,
    )
    for i, reading in enumerate(lenses):
        domain = (i * (share + gap), i * (share + gap) + share)
        column = _Column(index=i, of=n, domain=domain)
        _add_lines(figure, reading, column)
        figure.update_layout(_axes(reading, column, worst))
        turn = reading.labels.index(reading.turn)
        figure.add_shape(
            type="line",
            xref=f"x{column.upper}",
            yref="paper",
            x0=turn - 0.5,
            x1=turn - 0.5,
            y0=0,
            y1=1,
            line={"color": INK, "width": 1, "dash": "dot"},
        )
        head_of_column(figure, domain[0], f"<b>{escape(reading.stage)}</b>, turns at {escape(reading.turn)}")
    figure.update_layout(
        legend={"x": 1.01, "y": 1, "xanchor": "left", "yanchor": "top", "title": {"text": "first token"}}
    )
    return figure


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One stage's place in the figure.

    Args:
        index, of: Which column, of how many.
        domain: Its share of the width.
    """

    index: int
    of: int
    domain: tuple[float, float]

    @property
    def upper(self) -> str:
        """The number of the axes of probabilities."""
        return "" if self.index == 0 else str(self.index + 1)

    @property
    def lower(self) -> str:
        """The number of the axes of ranks."""
        return str(self.of + self.index + 1)


def _add_lines(figure: go.Figure, reading: Lens, column: _Column) -> None:
    """Draw probability and rank of every answer into a column."""
    rows = range(reading.n_layers + 1)
    for j, name in enumerate(reading.names):
        label = f"{name}: {escape(visible(reading.tokens[name], 14))}"
        ranks = [rank + 1 for rank in reading.ranks[name]]
        custom = [
            [reading.labels[r], escape(visible(reading.top[r], 24)), ranks[r], reading.probabilities[name][r]]
            for r in rows
        ]
        for axis, values in ((column.upper, list(reading.probabilities[name])), (column.lower, ranks)):
            figure.add_trace(
                go.Scatter(
                    x=list(rows),
                    y=values,
                    xaxis=f"x{axis}",
                    yaxis=f"y{axis}",
                    mode="lines+markers",
                    name=label,
                    legendgroup=name,
                    showlegend=column.index == 0 and axis == column.upper,
                    line={"color": COLORS[name], "width": 2, "dash": DASHES[j]},
                    marker={"symbol": MARKERS[j], "size": 4},
                    customdata=custom,
                    hovertemplate=f"{escape(reading.stage)}, {label}<br>after %{{customdata[0]}}: "
                    "<b>P %{customdata[3]:.4f}</b>, rank %{customdata[2]}<br>likeliest: %{customdata[1]}"
                    "<extra></extra>",
                )
            )


def _axes(reading: Lens, column: _Column, worst: int) -> dict[str, Any]:
    """The four axes of a column; only the first column's are named and numbered."""
    rows = reading.n_layers + 1
    k, low, left = column.upper, column.lower, column.index == 0
    ticks = list(range(0, rows, max(1, rows // 6)))
    x_axis = {
        "range": [-0.5, rows - 0.5],
        "domain": list(column.domain),
        "showgrid": False,
        "zeroline": False,
        "linecolor": INK,
        "showline": True,
    }
    y_axis = {"showticklabels": left, "gridcolor": GRID, "zeroline": False, "showline": True}
    return {
        f"xaxis{k}": {**x_axis, "anchor": f"y{k}", "showticklabels": False},
        f"xaxis{low}": {
            **x_axis,
            "anchor": f"y{low}",
            "title": {"text": "after layer"},
            "tickvals": ticks,
            "ticktext": [reading.labels[t] for t in ticks],
            "tickangle": 0,
        },
        f"yaxis{k}": {
            "domain": [0.54, 1.0],
            "anchor": f"x{k}",
            "range": [-0.04, 1.06],
            **y_axis,
            "title": {"text": "probability" if left else ""},
        },
        f"yaxis{low}": {
            "domain": [0.0, 0.46],
            "anchor": f"x{low}",
            "type": "log",
            "range": [math.log10(max(2, worst)) + 0.1, -0.1],
            "dtick": 1,
            **y_axis,
            "title": {"text": "rank (log scale)" if left else ""},
        },
    }


def _words(reading: Lens) -> str:
    final = ", ".join(f"{name} {number(reading.probabilities[name][-1])}" for name in reading.names)
    return f"{reading.stage}: {reading.verdict}; final probabilities {final}."
