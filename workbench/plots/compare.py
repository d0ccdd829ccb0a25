"""Stages side by side: evaluated rates, answer probabilities, two effect maps and their difference."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import replace

import plotly.graph_objects as go

from workbench.plots.effects import (
    color_axis,
    describe,
    extremes,
    heading,
    limit_of,
    mark_subject,
    panel,
    scale_title,
)
from workbench.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MARKERS,
    MISSING,
    ORANGE,
    PATTERNS,
    PURPLE,
    card,
    escape,
    finite,
    number,
    visible,
    whiskers,
)
from workbench.types import EffectMap, EvalReport
from workbench.types.rates import RATES

_COLORS = (GREY, ORANGE, BLUE, GREEN, PURPLE)


def rates_figure(report: EvalReport) -> go.Figure:
    """Rates of an evaluation by stage, with their 95% intervals.

    Args:
        report: The evaluation. Shown are the rates that have a ``tick`` in ``workbench.types.rates.RATES``.

    Returns:
        One marker and interval per rate and stage. A rate without a value is left out and named below the title.
    """
    names = [name for name, rule in RATES.items() if rule.tick]
    stages = list(report.stages)
    figure = go.Figure()
    absent: dict[str, list[str]] = {}
    values: list[float] = [0.0, 1.0]
    for i, stage in enumerate(stages):
        offset = (i - (len(stages) - 1) / 2) * min(0.22, 0.7 / max(1, len(stages)))
        rates = report.rates.get(stage, {})
        kept = [n for n in names if n in rates and math.isfinite(rates[n].value)]
        absent[stage] = [n for n in names if n not in kept]
        found = [rates[n] for n in kept]
        values += [v for r in found for v in (r.value, r.low, r.high) if math.isfinite(v)]
        figure.add_trace(
            go.Scatter(
                x=[names.index(n) + offset for n in kept],
                y=[r.value for r in found],
                mode="markers",
                name=escape(stage),
                hovertemplate="%{customdata[0]}, %{customdata[1]}<br><b>%{y:.3f}</b> "
                "[%{customdata[2]}, %{customdata[3]}]<br>n = %{customdata[4]}, %{customdata[5]}, "
                "%{customdata[6]} fact(s)<extra></extra>",
                customdata=[
                    [n, escape(stage), number(r.low), number(r.high), str(r.n), escape(r.method), str(r.clusters)]
                    for n, r in zip(kept, found, strict=True)
                ],
                marker={
                    "symbol": MARKERS[i % len(MARKERS)],
                    "size": 11,
                    "color": _COLORS[i % len(_COLORS)],
                    "line": {"color": INK, "width": 1},
                },
                error_y=whiskers(
                    [r.low for r in found],
                    [r.value for r in found],
                    [r.high for r in found],
                    _COLORS[i % len(_COLORS)],
                ),
            )
        )
    everywhere = [n for n in names if stages and all(n in absent[s] for s in stages)]
    parts = [", ".join(everywhere)] if everywhere else []
    for stage in stages:
        only_here = [n for n in absent[stage] if n not in everywhere]
        if only_here:
            parts.append(f"{', '.join(only_here)} ({stage})")
    facts = f"{', '.join(report.facts[:3])}{' ...' if len(report.facts) > 3 else ''}" or "no facts named"
    notes = [f"{facts}; {len(report.rows)} answers, greedy free generation; bars: 95% interval"]
    notes += [f"Not shown, no value: {'; '.join(parts)}."] if parts else []
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


def _n_line(report: EvalReport, name: str) -> str:
    counts = [report.rates[s][name].n for s in report.stages if name in report.rates.get(s, {})]
    found = sorted({n for n in counts if n})
    return f"<br>n = {found[0]}" + (f" to {found[-1]}" if len(found) > 1 else "") if found else "<br>n = 0"


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


def difference_figure(before: EffectMap, after: EffectMap) -> go.Figure:
    """Two maps of the same places, and after minus before.

    Args:
        before, after: Maps with the axes ``("layer", "position")`` or ``("layer", "head")``.

    Returns:
        Three heat maps side by side; stacked where that would be wider than a page (long prompts). The first two share
        one colour scale, the difference has its own; both are centred at zero.

    Raises:
        ValueError: Other axes, or maps that differ in axes, labels, unit or metric.
    """
    allowed = (("layer", "position"), ("layer", "head"))
    if before.axes not in allowed:
        raise ValueError(f"A difference is drawn for maps with the axes {allowed}, got {before.axes}.")
    for name in ("axes", "labels", "unit", "metric"):
        one, two = getattr(before, name), getattr(after, name)
        if one != two:
            raise ValueError(
                f"The two maps differ in {name} ({one!r} and {two!r}), so their cells do not mean the same; trace both "
                "with the same prompt and options."
            )
    delta = replace(after, values=after.values - before.values, stderr=None, per_fact=None)
    maps = (before, after, delta)
    panels = [panel(m) for m in maps]
    none = "not computed for a difference"
    custom = [[[*cell[:2], none, cell[3]] for cell in row] for row in panels[2].customdata]
    panels[2] = replace(panels[2], customdata=custom)
    rows, columns = panels[0].size
    stacked = columns > 24
    same = bool((delta.values == 0).all())
    limits = limit_of(before, after), limit_of(delta)
    unit = scale_title(before)
    if stacked:
        width, cell_y = max(700, min(1300, 20 * columns + 190)), min(16.0, max(5.0, 330 / rows))
        plot = int(3 * cell_y * rows) + 2 * 46
        gap, share = 46 / plot, (1 - 2 * 46 / plot) / 3
        y_spans = [(1 - share, 1.0), (share + gap, 2 * share + gap), (0.0, share)]
        x_spans = [(0.0, 1.0)] * 3
        cell_x = (width - 190) / columns
        bars = [
            {"x": 1.01, "y": (y_spans[1][0] + 1) / 2, "len": 1 - y_spans[1][0]},
            {"x": 1.01, "y": share / 2, "len": share},
        ]
    else:
        cell_x, cell_y = min(40.0, max(15.0, 330 / columns)), min(24.0, max(6.0, 420 / rows))
        plot = max(200, int(cell_y * rows))
        inner = int(3 * cell_x * columns) + 24 + 120
        width = inner + 180
        one, gap, wide = cell_x * columns / inner, 24 / inner, 120 / inner
        x_spans = [(0.0, one), (one + gap, 2 * one + gap), (2 * one + gap + wide, 3 * one + gap + wide)]
        y_spans = [(0.0, 1.0)] * 3
        bars = [{"x": x_spans[1][1] + 6 / inner, "y": 0.5, "len": 1.0}, {"x": 1 + 6 / inner, "y": 0.5, "len": 1.0}]
    figure = go.Figure()
    for i, content in enumerate(panels):
        n = "" if i == 0 else str(i + 1)
        figure.add_trace(content.trace(coloraxis="coloraxis2" if i == 2 else "coloraxis", xaxis=f"x{n}", yaxis=f"y{n}"))
    card(
        figure,
        title=f"{heading(before, None)}: before, after, difference",
        notes=[
            f"before: {describe(before)[-1]}; after: {describe(after)[-1]}",
            *describe(before)[:-1],
            *(["* and bracket: subject tokens."] if panels[0].marked else []),
            *(["The two maps are equal in every cell."] if same else []),
        ],
        alt=f"Three heat maps of {rows} layers by {columns} {before.axes[1]}s. Before: {extremes(before)}. "
        f"After: {extremes(after)}. Difference: {extremes(delta)}.",
        width=width,
        plot_height=plot,
        left=70,
        right=110,
        above=46,
        bottom=panels[0].bottom if panels[0].label_width > cell_x - 4 else 60,
    )
    figure.update_layout(
        plot_bgcolor=MISSING,
        coloraxis=color_axis(limits[0], f"before, after: {unit}" if stacked else unit, yanchor="middle", **bars[0]),
        coloraxis2=color_axis(limits[1], "change" if stacked else f"change of {unit}", yanchor="middle", **bars[1]),
    )
    common = {"automargin": True, "showline": True, "linecolor": INK, "tickcolor": INK, "zeroline": False}
    for i, (content, name) in enumerate(zip(panels, ("before", "after", "after − before"), strict=True)):
        n = "" if i == 0 else str(i + 1)
        x_axis = {**common, **content.x_axis(cell_x), "domain": x_spans[i], "anchor": f"y{n}"}
        y_axis = {**common, **content.y_axis(cell_y), "domain": y_spans[i], "anchor": f"x{n}"}
        if i:
            x_axis["matches"], y_axis["matches"] = "x", "y"
        if stacked and i < 2:
            x_axis |= {"showticklabels": False, "title": {"text": ""}}
        if not stacked and i:
            y_axis |= {"showticklabels": i == 2, "title": {"text": ""}}
        figure.update_layout({f"xaxis{n}": x_axis, f"yaxis{n}": y_axis})
        top = y_spans[i][1]
        mark_subject(figure, content.marked, xref=f"x{n}", yref=f"y{n}", top=top, height=plot, label=False)
        figure.add_annotation(
            x=x_spans[i][0],
            xref="paper",
            xanchor="left",
            y=top + 12 / plot,
            yref="paper",
            yanchor="bottom",
            showarrow=False,
            text=f"<b>{name}</b>",
            font={"size": 13, "color": INK},
        )
    return figure
