"""Probe reports as figures: which there are, and what was recovered by probe and stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from workbench.plots.lens import lens_figure
from workbench.plots.probe_curves import curve_figure
from workbench.plots.probe_null import null_figure
from workbench.plots.style import (
    BLUE,
    GREEN,
    GREY,
    GRID,
    INK,
    MARKERS,
    ORANGE,
    PURPLE,
    card,
    escape,
    interval,
    visible,
    whiskers,
)
from workbench.types import Lens, ProbeReport

_PANELS = (("y", "old answer<br>recovered"), ("y2", "untouched facts<br>still right"))
_COLORS = (GREY, ORANGE, BLUE, GREEN, PURPLE)


def probe_figure(report: ProbeReport, what: str = "rates", **options: Any) -> go.Figure:
    """A figure of a probe report: ``"rates"``, ``"lens"``, or the curves of a probe, such as ``"strength"``.

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
    if what == "null":
        return null_figure(report, **options)
    return curve_figure(report, what, **options)


def _lenses(report: ProbeReport, group: str = "edited") -> list[Lens]:
    """The readings of the edited fact, or of the control."""
    fact = {"edited": report.fact, "control": report.control}.get(group)
    readings = [x for x in report.lenses if fact is not None and x.prompt.fact_id == fact.id]
    if not readings:
        raise ValueError(f"group must be 'edited' or 'control' with a lens in this report, got {group!r}.")
    return readings


def recovery_figure(report: ProbeReport) -> go.Figure:
    """By probe and stage, with 95% intervals: where the old answer was recovered (above), and where untouched facts are
    still right (below): the control fact, for priming the other questions, and other facts with the old answer.

    Only prompts on which the base model is right count, so the base stands at 1 wherever there are any.
    """
    columns = [column for p in report.rates for column in _columns(report, p)]
    figure = go.Figure()
    for panel, (axis, _) in enumerate(_PANELS):
        for i, stage in enumerate(report.stages):
            figure.add_trace(_markers(report, columns, i, stage, panel, axis))
    last = report.stages[-1]
    shares = "; ".join(
        f"{report.words_of(p).title} {by[last]['old']}" for p, by in report.rates.items() if "old" in by.get(last, {})
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
        alt=f"Share of prompts on which the old answer is recovered, by probe; {last}: {shares or 'none'}.",
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
        yaxis={"domain": [0.55, 1], "range": [-0.05, 1.05], "title": {"text": _PANELS[0][1], "standoff": 8}},
        yaxis2={
            "domain": [0, 0.45],
            "range": [-0.05, 1.05],
            "anchor": "x",
            "zeroline": False,
            "gridcolor": GRID,
            "showline": True,
            "title": {"text": _PANELS[1][1], "standoff": 8},
        },
    )
    return figure


def _markers(report: ProbeReport, columns: Sequence[_Column], i: int, stage: str, panel: int, axis: str) -> go.Scatter:
    """One stage's rates in one panel, with their intervals."""
    offset = (i - (len(report.stages) - 1) / 2) * 0.22
    color = _COLORS[i % len(_COLORS)]
    rates = [(k, report.rates[c.probe].get(stage, {}).get(c.rates[panel])) for k, c in enumerate(columns)]
    shown = [(k, r) for k, r in rates if r is not None and r.n]
    return go.Scatter(
        x=[k + offset for k, _ in shown],
        y=[r.value for _, r in shown],
        yaxis=axis,
        mode="markers",
        name=escape(stage),
        legendgroup=stage,
        showlegend=panel == 0,
        customdata=[[columns[k].title, escape(stage), interval(r.low, r.high, r.interval), r.n] for k, r in shown],
        hovertemplate="%{customdata[0]}, %{customdata[1]}<br><b>%{y:.3f}</b> %{customdata[2]}, "
        "n = %{customdata[3]}<extra></extra>",
        marker={
            "symbol": MARKERS[i % len(MARKERS)],
            "size": 10,
            "color": color,
            "line": {"color": INK, "width": 1},
        },
        error_y=whiskers([r.low for _, r in shown], [r.value for _, r in shown], [r.high for _, r in shown], color),
    )


@dataclass(frozen=True)
class _Column:
    """A place on the horizontal axis: a probe, and the rates of the upper and the lower panel (empty for none)."""

    probe: str
    title: str
    rates: tuple[str, str]


def _columns(report: ProbeReport, probe: str) -> list[_Column]:
    """A probe's columns: with its control, and one more for other facts that must stay."""
    there = {name for rates in report.rates[probe].values() for name, rate in rates.items() if rate.n}
    title = report.words_of(probe).title
    if "old" not in there and "control" not in there:
        return [_Column(probe, title, ("", "same"))] if "same" in there else []
    more = [_Column(probe, f"{title}: other facts", ("", "same"))] if "same" in there else []
    return [_Column(probe, title, ("old", "control")), *more]


def _counted(report: ProbeReport, column: _Column) -> str:
    """Rows of both panels, at most over the stages."""
    by = report.rates[column.probe].values()
    n = [max((rates[name].n for rates in by if name in rates), default=0) for name in column.rates if name]
    return " and ".join(map(str, n))
