"""The null of a probe report as a figure: the edited fact's value among what the probes find where there is nothing."""

from __future__ import annotations

from typing import get_args

import plotly.graph_objects as go

from workbench.plots.style import BLUE, GREEN, GREY, INK, MARKERS, ORANGE, card, escape, visible
from workbench.types import NullGroup, ProbeReport
from workbench.types.probe_null import GROUP_WORDS

_COLORS: dict[NullGroup, str] = {"controls": GREEN, "permuted": GREY, "never known": ORANGE}
_OFFSETS: dict[NullGroup, float] = {"controls": -0.22, "permuted": 0.0, "never known": 0.22}


def null_figure(report: ProbeReport) -> go.Figure:
    """By probe, the edited fact's value (a line) and each value of the null (points; filled: the probe finds something
    there)."""
    null = report.null
    assert null is not None
    figure = go.Figure()
    names = list(null.probes)
    titles = [report.words_of(name).title for name in names]
    for k, group in enumerate(get_args(NullGroup)):
        at = [
            (i + _OFFSETS[group] + 0.12 * (j / max(1, len(of) - 1) - 0.5), draw)
            for i, name in enumerate(names)
            for of in [null.probes[name].of(group)]
            for j, draw in enumerate(of)
        ]
        if at:
            symbols = [MARKERS[k] if draw.found else f"{MARKERS[k]}-open" for _, draw in at]
            figure.add_trace(
                go.Scatter(
                    x=[x for x, _ in at],
                    y=[draw.value for _, draw in at],
                    mode="markers",
                    name=GROUP_WORDS[group][1],
                    marker={"symbol": symbols, "size": 8, "color": _COLORS[group]},
                    customdata=[escape(visible(draw.name, 60)) for _, draw in at],
                    hovertemplate="%{customdata}<br><b>%{y:.3f}</b><extra></extra>",
                )
            )
    figure.add_trace(
        go.Scatter(
            x=[x for i in range(len(names)) for x in (i - 0.36, i + 0.36, None)],
            y=[y for name in names for y in (null.probes[name].value, null.probes[name].value, None)],
            mode="lines",
            name="the edited fact",
            line={"color": BLUE, "width": 3},
            hovertemplate="<b>%{y:.3f}</b><extra></extra>",
        )
    )
    words = " ".join(f"{title}: {null.probes[name].words}." for name, title in zip(names, titles, strict=True))
    card(
        figure,
        title=f"Against the null: {visible(report.fact.id, 60)}, {null.stage}",
        notes=[
            "line: the edited fact; points: the same measure where there is nothing to find (filled: it finds some)",
            *(f"{title}: {null.probes[name].measure}" for name, title in zip(names, titles, strict=True)),
        ],
        alt=words,
        width=max(620, 130 * len(names) + 240),
        plot_height=320,
        bottom=80,
        right=190,
    )
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=[escape(title).replace(" ", "<br>", 1) for title in titles],
        showgrid=False,
        range=[-0.5, len(names) - 0.5],
        color=INK,
    )
    figure.update_yaxes(title={"text": "value", "standoff": 8})
    figure.update_layout(legend={"x": 1.01, "y": 1, "xanchor": "left", "yanchor": "top"})
    return figure
