"""The curves of single probes: probabilities along something, values by word, and points before against after."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from workbench.plots.style import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    GRID,
    INK,
    MARKERS,
    MUTED,
    ORANGE,
    PATTERNS,
    PURPLE,
    card,
    escape,
    finite,
    head_of_column,
    number,
    visible,
)
from workbench.types import Curve, CurveWords, ProbeReport
from workbench.types.probe_parts import ANSWER_LINES, CurveFigure

_COLORS = (GREY, ORANGE, BLUE, GREEN, PURPLE)
_LINE_COLORS = {"p_old": BLUE, "p_new": ORANGE, "p_refusal": GREEN}


def curve_figure(report: ProbeReport, probe: str, **options: Any) -> go.Figure:
    """The curves of a probe that has some, as its words say (``CurveWords.figure``)."""
    words = report.words_of(probe).curve
    if words is None:
        raise ValueError(f"The report has no words for curves of {probe!r}, so they cannot be drawn.")
    return _FIGURES[words.figure](report, words, [c for c in report.curves if c.probe == probe], **options)


def lines_figure(report: ProbeReport, words: CurveWords, curves: Sequence[Curve]) -> go.Figure:
    """Probabilities along something, such as the edit's strength: the edited fact (solid) and its control (dotted), one
    column per stage."""
    stages = [s for s in report.stages if any(c.stage == s for c in curves)]
    figure = go.Figure()
    share = (1 - 0.05 * (len(stages) - 1)) / len(stages)
    control = next((visible(c.name, 24) for c in curves if c.group == "control"), None)
    card(
        figure,
        title=words.title.format(fact=visible(report.fact.id, 60), target=visible(report.fact.target, 40)),
        notes=[
            f"old {visible(report.fact.answer, 30)!r}, new {visible(report.fact.target, 30)!r}; {words.notes[0]}",
            *words.notes[1:],
            f"solid: {visible(report.fact.id, 24)}" + (f"; dotted: {control}" if control is not None else ""),
        ],
        alt=" ".join(_in_words(c) for c in curves),
        width=max(560, min(1150, 300 * len(stages) + 200)),
        plot_height=280,
        left=70,
        right=140,
        above=36,
    )
    for i, stage in enumerate(stages):
        domain = [i * (share + 0.05), i * (share + 0.05) + share]
        for curve in (c for c in curves if c.stage == stage):
            _add_lines(figure, curve, i)
        figure.update_layout(_axes(domain, i, curves[0].x_name, words.y_label))
        head_of_column(figure, domain[0], f"<b>{escape(stage)}</b>")
    figure.update_layout(legend={"x": 1.01, "y": 1, "xanchor": "left", "yanchor": "top"})
    return figure


def _add_lines(figure: go.Figure, curve: Curve, column: int) -> None:
    """Draw one curve's values into a column."""
    k = "" if column == 0 else str(column + 1)
    edited = curve.group == "edited"
    for j, (name, values) in enumerate(curve.y.items()):
        label = f"P({ANSWER_LINES[name]})" if name in ANSWER_LINES else name
        figure.add_trace(
            go.Scatter(
                x=list(curve.x),
                y=finite(list(values)),
                xaxis=f"x{k}",
                yaxis=f"y{k}",
                mode="lines+markers",
                name=label,
                legendgroup=name,
                showlegend=column == 0 and edited,
                line={"color": _LINE_COLORS.get(name, PURPLE), "width": 2, "dash": DASHES[0 if edited else 2]},
                marker={"symbol": MARKERS[j % len(MARKERS)] + ("" if edited else "-open"), "size": 7},
                hovertemplate=f"{escape(curve.stage)}, {escape(visible(curve.name, 40))}<br>{label} at {curve.x_name} "
                "%{x}: <b>%{y:.4f}</b><extra></extra>",
            )
        )


def _axes(domain: list[float], column: int, x_title: str, y_title: str) -> dict[str, Any]:
    """The axes of a column; only the first names and numbers its vertical one."""
    k = "" if column == 0 else str(column + 1)
    return {
        f"xaxis{k}": {
            "domain": domain,
            "anchor": f"y{k}",
            "title": {"text": escape(x_title)},
            "showline": True,
            "showgrid": False,
            "zeroline": False,
            "linecolor": INK,
        },
        f"yaxis{k}": {
            "anchor": f"x{k}",
            "range": [-0.04, 1.04],
            "showticklabels": column == 0,
            "showline": True,
            "zeroline": False,
            "gridcolor": GRID,
            "title": {"text": y_title if column == 0 else ""},
        },
    }


def bars_figure(report: ProbeReport, words: CurveWords, curves: Sequence[Curve]) -> go.Figure:
    """One value for each label of the edited fact, such as a word of its question, stages side by side."""
    curves = [c for c in curves if c.group == "edited"]
    labels = [visible(label, 16) for label in curves[0].labels]
    hover = words.hover.format(label="%{customdata}", value="%{y:.3f}")
    figure = go.Figure()
    for i, curve in enumerate(curves):
        figure.add_trace(
            go.Bar(
                x=list(curve.x),
                y=finite(list(next(iter(curve.y.values())))),
                name=escape(curve.stage),
                marker={
                    "color": _COLORS[i % len(_COLORS)],
                    "line": {"color": INK, "width": 1},
                    "pattern": {"shape": PATTERNS[i % len(PATTERNS)], "fgcolor": "#ffffff", "fillmode": "overlay"},
                },
                customdata=[escape(label) for label in labels],
                hovertemplate=f"{escape(curve.stage)}: {hover}<extra></extra>",
            )
        )
    card(
        figure,
        title=words.title.format(fact=visible(report.fact.id, 50), target=visible(report.fact.target, 40)),
        notes=words.notes,
        alt=" ".join(_in_words(c) for c in curves),
        width=max(520, 90 * len(labels) + 200),
        plot_height=280,
        left=70,
        right=120,
    )
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_xaxes(tickvals=list(range(len(labels))), ticktext=[escape(label) for label in labels], showgrid=False)
    figure.update_yaxes(title={"text": words.y_label})
    return figure


def points_figure(report: ProbeReport, words: CurveWords, curves: Sequence[Curve]) -> go.Figure:
    """A probability after the edit against before, such as the new answer's where it does not belong: one point for
    each label."""
    figure = go.Figure()
    shown = [c for c in curves if c.stage != "base"]
    floor = 1e-9
    for i, curve in enumerate(shown):
        figure.add_trace(
            go.Scatter(
                x=[max(v, floor) if math.isfinite(v) else None for v in curve.x],
                y=[max(v, floor) if math.isfinite(v) else None for v in _after(curve)],
                mode="markers",
                name=escape(curve.stage),
                customdata=[escape(visible(t, 90)) for t in curve.labels],
                hovertemplate="%{customdata}<br>before %{x:.2e}, after <b>%{y:.2e}</b><extra></extra>",
                marker={
                    "symbol": MARKERS[(i + 1) % len(MARKERS)],
                    "size": 9,
                    "color": _COLORS[(i + 1) % len(_COLORS)],
                    "line": {"color": INK, "width": 1},
                },
            )
        )
    values = [v for c in shown for v in (*c.x, *_after(c)) if math.isfinite(v)] or [floor, 1.0]
    low, high = math.log10(max(min(values), floor)) - 0.3, math.log10(max(*values, 10 * floor)) + 0.3
    card(
        figure,
        title=words.title.format(fact=visible(report.fact.id, 60), target=visible(report.fact.target, 40)),
        notes=words.notes,
        alt="Probability of the new answer in other questions, before and after. "
        + " ".join(
            f"{c.stage}: {sum(a > b for a, b in zip(_after(c), c.x, strict=True))} of {len(c.x)} above." for c in shown
        ),
        width=620,
        plot_height=400,
        left=80,
        right=130,
    )
    figure.add_shape(
        type="line",
        x0=10**low,
        y0=10**low,
        x1=10**high,
        y1=10**high,
        line={"color": MUTED, "width": 1, "dash": "dash"},
    )
    axis = {"type": "log", "range": [low, high], "dtick": 1, "exponentformat": "power"}
    figure.update_xaxes(**axis, title={"text": words.x_label})
    figure.update_yaxes(**axis, title={"text": words.y_label})
    return figure


def _after(curve: Curve) -> tuple[float, ...]:
    """The values over ``x``: the curve has them under one name."""
    return next(iter(curve.y.values()))


def _in_words(curve: Curve) -> str:
    ends = ", ".join(f"{name} {number(v[0])} to {number(v[-1])}" for name, v in curve.y.items() if v)
    return f"{curve.stage}, {curve.name}: {ends}."


_FIGURES: dict[CurveFigure, Callable[..., go.Figure]] = {
    "lines": lines_figure,
    "bars": bars_figure,
    "points": points_figure,
}
