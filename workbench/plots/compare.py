"""Stages side by side: evaluated rates, and answer probabilities."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from workbench.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    PATTERNS,
    PURPLE,
    card,
    escape,
    finite,
    interval,
    number,
    visible,
    whiskers,
)
from workbench.types import EvalReport, Rate
from workbench.types.rates import RATES

_COLORS = (GREY, ORANGE, BLUE, GREEN, PURPLE)


def rates_figure(report: EvalReport) -> go.Figure:
    """Rates of an evaluation by stage, with their 95% intervals.

    Args:
        report: The evaluation. Shown are the rates that have a ``tick`` in ``workbench.types.rate_rules.RATES``.

    Returns:
        One marker and interval per rate and stage. A rate without a value is left out and named below the title.
    """
    stages = list(report.stages)
    counted = {name for stage in stages for name in report.rates.get(stage, {})}  # older reports have fewer
    names = [name for name, rule in RATES.items() if rule.tick and (name in counted or not counted)]
    figure = go.Figure()
    absent: dict[str, list[str]] = {}
    values: list[float] = [0.0, 1.0]
    for i, stage in enumerate(stages):
        rates = report.rates.get(stage, {})
        there = {n: rates[n] for n in names if n in rates and math.isfinite(rates[n].value)}
        absent[stage] = [n for n in names if n not in there]
        values += [v for r in there.values() for v in (r.value, r.low, r.high) if math.isfinite(v)]
        offset = (i - (len(stages) - 1) / 2) * min(0.22, 0.7 / max(1, len(stages)))
        figure.add_trace(_markers(there, [names.index(n) + offset for n in there], stage, i))
    facts = f"{', '.join(report.facts[:3])}{' ...' if len(report.facts) > 3 else ''}" or "no facts named"
    notes = [f"{facts}; {len(report.rows)} answers, greedy free generation; bars: 95% interval"]
    notes += _not_shown(absent)
    last = report.rates.get(stages[-1], {}) if stages else {}
    alt = ", ".join(f"{n} {last[n]}" for n in names if n in last)
    card(
        figure,
        title="What the edit changed" if stages else "Nothing evaluated",
        notes=notes,
        width=860,
        plot_height=330,
        bottom=80,
        left=60,
        right=120,
        alt=f"Rates by stage with 95% intervals; {stages[-1] if stages else 'none'}: {alt or 'none'}.",
    )
    ticks = [f"{RATES[n].tick}{_n_line(report, n)}" for n in names]
    figure.update_xaxes(
        tickmode="array",
        tickvals=list(range(len(names))),
        ticktext=ticks,
        showgrid=False,
        range=[-0.5, len(names) - 0.5],
    )
    figure.update_yaxes(title={"text": "rate", "standoff": 6}, range=[min(values) - 0.04, max(values) + 0.04])
    for edge in range(1, len(names)):
        figure.add_shape(
            type="line",
            xref="x",
            yref="paper",
            x0=edge - 0.5,
            x1=edge - 0.5,
            y0=0,
            y1=1,
            layer="below",
            line={"color": "#d9d9d9", "width": 1},
        )
    return figure


def _markers(rates: Mapping[str, Rate], x: list[float], stage: str, i: int) -> go.Scatter:
    """The rates of the i-th stage, with their intervals."""
    color = _COLORS[i % len(_COLORS)]
    return go.Scatter(
        x=x,
        y=[r.value for r in rates.values()],
        mode="markers",
        name=escape(stage),
        hovertemplate="%{customdata[0]}, %{customdata[1]}<br><b>%{y:.3f}</b> "
        "%{customdata[2]}<br>n = %{customdata[3]}, %{customdata[4]}, %{customdata[5]} fact(s)<extra></extra>",
        customdata=[
            [n, escape(stage), interval(r.low, r.high, "no interval"), str(r.n), escape(r.method), str(r.clusters)]
            for n, r in rates.items()
        ],
        marker={
            "symbol": MARKERS[i % len(MARKERS)],
            "size": 11,
            "color": color,
            "line": {"color": INK, "width": 1},
        },
        error_y=whiskers(
            [r.low for r in rates.values()],
            [r.value for r in rates.values()],
            [r.high for r in rates.values()],
            color,
        ),
    )


def _not_shown(absent: Mapping[str, Sequence[str]]) -> list[str]:
    """A line on the rates without a value, by stage; none where all have one."""
    everywhere = [n for n in next(iter(absent.values()), ()) if all(n in names for names in absent.values())]
    parts = [", ".join(everywhere)] if everywhere else []
    for stage, names in absent.items():
        only_here = [n for n in names if n not in everywhere]
        if only_here:
            parts.append(f"{', '.join(only_here)} ({stage})")
    return [f"Not shown, no value: {'; '.join(parts)}."] if parts else []


def _n_line(report: EvalReport, name: str) -> str:
    counts = [report.rates[s][name].n for s in report.stages if name in report.rates.get(s, {})]
    ns = sorted({n for n in counts if n})
    return f"<br>n = {ns[0]}" + (f" to {ns[-1]}" if len(ns) > 1 else "") if ns else "<br>n = 0"


def probabilities_figure(probabilities: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Answer probabilities at each stage, grouped by answer.

    Args:
        probabilities: By stage in order (``"before"``, ``"unlearn"``, ``"learn"``), then by answer (``"old: Paris"``).

    Returns:
        Bars with their values; an answer that a stage lacks has no bar there.

    Raises:
        ValueError: No stages, no answers, or a value outside [0, 1].
    """
    answers = list(dict.fromkeys(a for row in probabilities.values() for a in row))
    if not answers:
        raise ValueError('probabilities is empty; give a mapping such as {"before": {"old: Paris": 0.8}}.')
    for stage, row in probabilities.items():
        for answer, p in row.items():
            if math.isfinite(p) and not -1e-6 <= p <= 1 + 1e-6:
                raise ValueError(f"The probability of {answer!r} at {stage!r} is {p!r}; it must be between 0 and 1.")
    figure = go.Figure()
    for i, (stage, row) in enumerate(probabilities.items()):
        values = finite([row.get(a, math.nan) for a in answers])
        figure.add_trace(
            go.Bar(
                x=list(range(len(answers))),
                y=values,
                name=escape(stage),
                text=["" if v is None else number(v) for v in values],
                textposition="outside",
                textangle=0,
                cliponaxis=False,
                textfont={"size": 11, "color": INK},
                marker={
                    "color": _COLORS[i % len(_COLORS)],
                    "line": {"color": INK, "width": 1},
                    "pattern": {
                        "shape": PATTERNS[i % len(PATTERNS)],
                        "fgcolor": "#ffffff",
                        "fillmode": "overlay",
                        "size": 7,
                        "solidity": 0.35,
                    },
                },
                customdata=[[escape(visible(a, 80)), escape(stage)] for a in answers],
                hovertemplate="%{customdata[1]}: <b>%{customdata[0]}</b><br>%{y:.4f}<extra></extra>",
            )
        )
    labels = [textwrap.wrap(visible(a, 60), 20) for a in answers]
    ticks = ["<br>".join(map(escape, lines)) for lines in labels]
    said = "; ".join(f"{s}: {', '.join(f'{a} {number(p)}' for a, p in r.items())}" for s, r in probabilities.items())
    per_group = max(130, 52 * len(probabilities))
    card(
        figure,
        title="Answer probabilities",
        notes=[],
        above=20,
        alt=f"Bars of answer probabilities; {said}.",
        width=max(520, per_group * len(answers) + 200),
        plot_height=300,
        bottom=40 + 16 * max(map(len, labels)),
        left=60,
        right=130,
    )
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.08)
    figure.update_xaxes(
        tickmode="array",
        tickvals=list(range(len(answers))),
        ticktext=ticks,
        showgrid=False,
        tickangle=0,
        range=[-0.5, len(answers) - 0.5],
    )
    figure.update_yaxes(title={"text": "probability", "standoff": 6}, range=[0, 1.08], tickvals=[0, 0.25, 0.5, 0.75, 1])
    return figure
