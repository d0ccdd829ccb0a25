"""Probe reports as figures: what was recovered by probe and stage, and the curves of single probes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from workbench.plots.lens import lens_figure
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
    whiskers,
)
from workbench.types import Curve, Lens, ProbeReport
from workbench.types.probe import PROBE_TITLES

_COLORS = (GREY, ORANGE, BLUE, GREEN, PURPLE)
_LINES = {"p_old": ("old", BLUE), "p_new": ("new", ORANGE), "p_refusal": ("refusal", GREEN), "accuracy": ("", PURPLE)}


def probe_figure(report: ProbeReport, what: str = "rates", **options: Any) -> go.Figure:
    """A figure of a probe report: ``"rates"``, ``"lens"``, ``"strength"``, ``"relearning"``, ``"keywords"`` or
    ``"priming"``.

    Raises:
        ValueError: There is no such figure, or nothing was measured for it; the message lists what can be drawn.
    """
    if what not in report.figures:
        why = f" {what} was skipped: {report.skipped[what]}." if what in report.skipped else ""
        raise ValueError(f"This report can draw {list(report.figures)}, got {what!r}.{why}")
    if what == "rates":
        return recovery_figure(report, **options)
    if what == "lens":
        return lens_figure(_lenses(report, **options))
    curves = [c for c in report.curves if c.probe == what]
    if what in ("strength", "relearning"):
        return curves_figure(report, curves, **options)
    if what == "keywords":
        return words_figure(report, [c for c in curves if c.group == "edited"], **options)
    return priming_figure(report, curves, **options)


def _lenses(report: ProbeReport, group: str = "edited") -> list[Lens]:
    """The readings of the edited fact, or of the control."""
    fact = {"edited": report.fact, "control": report.control}.get(group)
    found = [x for x in report.lenses if fact is not None and x.prompt.fact_id == fact.id]
    if not found:
        raise ValueError(f"group must be 'edited' or 'control' with a lens in this report, got {group!r}.")
    return found


def recovery_figure(report: ProbeReport) -> go.Figure:
    """By probe and stage, with 95% intervals: where the old answer was recovered (above), and where untouched facts are
    still right (below): the control fact, for priming the other questions, and other facts with the old answer.

    Only prompts on which the base model is right count, so the base stands at 1 wherever there are any.
    """
    columns = [column for p in report.rates for column in _columns(report, p)]
    panels = (("old answer<br>recovered", "y"), ("untouched facts<br>still right", "y2"))
    figure = go.Figure()
    for axis_index, (_, axis) in enumerate(panels):
        for i, stage in enumerate(report.stages):
            offset = (i - (len(report.stages) - 1) / 2) * 0.22
            found = [(k, report.rates[c.probe].get(stage, {}).get(c.rates[axis_index])) for k, c in enumerate(columns)]
            kept = [(k, r) for k, r in found if r is not None and r.n]
            figure.add_trace(
                go.Scatter(
                    x=[k + offset for k, _ in kept],
                    y=[r.value for _, r in kept],
                    yaxis=axis,
                    mode="markers",
                    name=escape(stage),
                    legendgroup=stage,
                    showlegend=axis_index == 0,
                    customdata=[[columns[k].title, escape(stage), number(r.low), number(r.high), r.n] for k, r in kept],
                    hovertemplate="%{customdata[0]}, %{customdata[1]}<br><b>%{y:.3f}</b> [%{customdata[2]}, "
                    "%{customdata[3]}], n = %{customdata[4]}<extra></extra>",
                    marker={
                        "symbol": MARKERS[i % len(MARKERS)],
                        "size": 10,
                        "color": _COLORS[i % len(_COLORS)],
                        "line": {"color": INK, "width": 1},
                    },
                    error_y=whiskers(
                        [r.low for _, r in kept],
                        [r.value for _, r in kept],
                        [r.high for _, r in kept],
                        _COLORS[i % len(_COLORS)],
                    ),
                )
            )
    last = report.stages[-1]
    said = "; ".join(
        f"{PROBE_TITLES[p]} {by[last]['old']}" for p, by in report.rates.items() if "old" in by.get(last, {})
    )
    control = f"control {report.control.id}" if report.control else "no control"
    notes = [
        f"{report.fact.id}; {control}; {len(report.rows)} answers, greedy free generation; bars: 95% interval",
        "Only prompts on which the base model itself is right; n above, and of the untouched facts.",
        *([f"Ended early: {report.partial}."] if report.partial else []),
    ]
    card(
        figure,
        title=f"What is left of {visible(report.fact.subject, 40)}: {visible(report.fact.answer, 40)}",
        notes=notes,
        alt=f"Share of prompts on which the old answer is recovered, by probe; {last}: {said or 'none'}.",
        width=max(620, 110 * len(columns) + 240),
        plot_height=420,
        bottom=100,
        left=80,
        right=120,
    )
    ticks = [f"{c.title.replace(' ', '<br>', 1)}<br>n = {_counted(report, c)}" for c in columns]
    figure.update_xaxes(
        tickvals=list(range(len(columns))),
        ticktext=ticks,
        tickangle=0,
        showgrid=False,
        range=[-0.5, max(1, len(columns)) - 0.5],
        anchor="y2",
    )
    figure.update_layout(
        yaxis={"domain": [0.55, 1], "range": [-0.05, 1.05], "title": {"text": panels[0][0], "standoff": 8}},
        yaxis2={
            "domain": [0, 0.45],
            "range": [-0.05, 1.05],
            "anchor": "x",
            "zeroline": False,
            "gridcolor": GRID,
            "showline": True,
            "title": {"text": panels[1][0], "standoff": 8},
        },
    )
    return figure


@dataclass(frozen=True)
class _Column:
    """A place on the horizontal axis: a probe, and the rates of the upper and the lower panel (empty for none)."""

    probe: str
    title: str
    rates: tuple[str, str]


def _columns(report: ProbeReport, probe: str) -> list[_Column]:
    """A probe's columns: with its control, and one more for other facts that must stay."""
    there = {name for rates in report.rates[probe].values() for name, rate in rates.items() if rate.n}
    title = PROBE_TITLES[probe]
    if "old" not in there and "control" not in there:
        return [_Column(probe, title, ("", "same"))] if "same" in there else []
    more = [_Column(probe, f"{title}: other facts", ("", "same"))] if "same" in there else []
    return [_Column(probe, title, ("old", "control")), *more]


def _counted(report: ProbeReport, column: _Column) -> str:
    """Rows of both panels, at most over the stages."""
    by = report.rates[column.probe].values()
    n = [max((rates[name].n for rates in by if name in rates), default=0) for name in column.rates if name]
    return " and ".join(map(str, n))


def curves_figure(report: ProbeReport, curves: list[Curve]) -> go.Figure:
    """Probabilities along the edit's strength or the steps of relearning: the edited fact (solid) and its control
    (dotted), one column per stage."""
    probe = curves[0].probe
    stages = [s for s in report.stages if any(c.stage == s for c in curves)]
    figure = go.Figure()
    share = (1 - 0.05 * (len(stages) - 1)) / len(stages)
    names = {"edited": visible(report.fact.id, 24), "control": "control"}
    control = next((c.name for c in curves if c.group == "control"), None)
    if control is not None:
        names["control"] = visible(control, 24)
    card(
        figure,
        title=f"{PROBE_TITLES[probe].capitalize()}: {visible(report.fact.id, 60)}",
        notes=[
            f"old {visible(report.fact.answer, 30)!r}, new {visible(report.fact.target, 30)!r}; full-sequence "
            "probabilities after the base model's own words"
            + ("; accuracy on held-out questions" if probe == "relearning" else ""),
            f"solid: {names['edited']}" + (f"; dotted: {names['control']}" if control else ""),
        ],
        alt=" ".join(_curve_words(c) for c in curves),
        width=max(560, min(1150, 300 * len(stages) + 200)),
        plot_height=280,
        left=70,
        right=140,
        above=36,
    )
    for i, stage in enumerate(stages):
        k = "" if i == 0 else str(i + 1)
        domain = [i * (share + 0.05), i * (share + 0.05) + share]
        for one in (c for c in curves if c.stage == stage):
            edited = one.group == "edited"
            for j, (name, values) in enumerate(one.y.items()):
                words, color = _LINES[name]
                label = f"P({words})" if words else name
                figure.add_trace(
                    go.Scatter(
                        x=list(one.x),
                        y=finite(list(values)),
                        xaxis=f"x{k}",
                        yaxis=f"y{k}",
                        mode="lines+markers",
                        name=label,
                        legendgroup=name,
                        showlegend=i == 0 and edited,
                        line={"color": color, "width": 2, "dash": DASHES[0 if edited else 2]},
                        marker={"symbol": MARKERS[j % len(MARKERS)] + ("" if edited else "-open"), "size": 7},
                        hovertemplate=f"{escape(stage)}, {escape(visible(one.name, 40))}<br>{label} at {one.x_name} "
                        "%{x}: <b>%{y:.4f}</b><extra></extra>",
                    )
                )
        figure.update_layout(
            {
                f"xaxis{k}": {
                    "domain": domain,
                    "anchor": f"y{k}",
                    "title": {"text": escape(curves[0].x_name)},
                    "showline": True,
                    "showgrid": False,
                    "zeroline": False,
                    "linecolor": INK,
                },
                f"yaxis{k}": {
                    "anchor": f"x{k}",
                    "range": [-0.04, 1.04],
                    "showticklabels": i == 0,
                    "showline": True,
                    "zeroline": False,
                    "gridcolor": GRID,
                    "title": {"text": "probability" if i == 0 else ""},
                },
            }
        )
        head_of_column(figure, domain[0], f"<b>{escape(stage)}</b>")
    figure.update_layout(legend={"x": 1.01, "y": 1, "xanchor": "left", "yanchor": "top"})
    return figure


def words_figure(report: ProbeReport, curves: list[Curve]) -> go.Figure:
    """What leaving out each word of the question takes from the old answer, stages side by side."""
    words = [visible(w, 16) for w in curves[0].labels]
    figure = go.Figure()
    for i, one in enumerate(curves):
        figure.add_trace(
            go.Bar(
                x=list(one.x),
                y=finite(list(one.y["old"])),
                name=escape(one.stage),
                marker={
                    "color": _COLORS[i % len(_COLORS)],
                    "line": {"color": INK, "width": 1},
                    "pattern": {"shape": PATTERNS[i % len(PATTERNS)], "fgcolor": "#ffffff", "fillmode": "overlay"},
                },
                customdata=[escape(w) for w in words],
                hovertemplate=f"{escape(one.stage)}: without %{{customdata}}<br><b>%{{y:.3f}}</b> nats<extra></extra>",
            )
        )
    card(
        figure,
        title=f"Words that the old answer rests on: {visible(report.fact.id, 50)}",
        notes=[
            "log P of the old answer's first token with the whole question minus without the word; above 0: the word "
            "supports the old answer"
        ],
        alt=" ".join(_curve_words(c) for c in curves),
        width=max(520, 90 * len(words) + 200),
        plot_height=280,
        left=70,
        right=120,
    )
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_xaxes(tickvals=list(range(len(words))), ticktext=[escape(w) for w in words], showgrid=False)
    figure.update_yaxes(title={"text": "effect on log P(first token), nats"})
    return figure


def priming_figure(report: ProbeReport, curves: list[Curve]) -> go.Figure:
    """The new answer's probability where it does not belong, after the edit against before, one point per question."""
    figure = go.Figure()
    shown = [c for c in curves if c.stage != "base"]
    floor = 1e-9
    for i, one in enumerate(shown):
        figure.add_trace(
            go.Scatter(
                x=[max(v, floor) if math.isfinite(v) else None for v in one.x],
                y=[max(v, floor) if math.isfinite(v) else None for v in one.y["p_after"]],
                mode="markers",
                name=escape(one.stage),
                customdata=[escape(visible(t, 90)) for t in one.labels],
                hovertemplate="%{customdata}<br>before %{x:.2e}, after <b>%{y:.2e}</b><extra></extra>",
                marker={
                    "symbol": MARKERS[(i + 1) % len(MARKERS)],
                    "size": 9,
                    "color": _COLORS[(i + 1) % len(_COLORS)],
                    "line": {"color": INK, "width": 1},
                },
            )
        )
    values = [v for c in shown for v in (*c.x, *c.y["p_after"]) if math.isfinite(v)] or [floor, 1.0]
    low, high = math.log10(max(min(values), floor)) - 0.3, math.log10(max(*values, 10 * floor)) + 0.3
    card(
        figure,
        title=f"Where {visible(report.fact.target, 40)} does not belong",
        notes=[
            "largest probability of its first token along the base model's own answers to other questions",
            "on the line: as before the edit; above it: primed",
        ],
        alt="Probability of the new answer in other questions, before and after. "
        + " ".join(
            f"{c.stage}: {sum(a > b for a, b in zip(c.y['p_after'], c.x, strict=True))} of {len(c.x)} above."
            for c in shown
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
    figure.update_xaxes(**axis, title={"text": "probability before the edit"})
    figure.update_yaxes(**axis, title={"text": "probability after"})
    return figure


def _curve_words(one: Curve) -> str:
    ends = ", ".join(f"{name} {number(v[0])} to {number(v[-1])}" for name, v in one.y.items() if v)
    return f"{one.stage}, {one.name}: {ends}."
