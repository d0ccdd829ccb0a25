"""Control arms side by side: what each kept of the controls, and how far it moved other answers."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from workbench.plots.style import BLUE, GREY, INK, MARKERS, ORANGE, card, escape, interval, number, whiskers
from workbench.types import ArmTable, Rate

_PANELS = (("control", "x", "controls still right"), ("kl", "x2", "KL to the base on controls (nats per token)"))
_STYLES = {"selected": (ORANGE, MARKERS[0]), "random-layers": (BLUE, MARKERS[1]), "random-anywhere": (BLUE, MARKERS[2])}


def arms_figure(table: ArmTable) -> go.Figure:
    """Control retention, and the KL to the base beside it, by arm, with 95% intervals.

    Args:
        table: The arms. Each single run is a small open marker behind its arm's mean; runs that never reached the
            threshold are on lines of their own, and not in the means.

    Returns:
        One line per arm, the first on top, in two panels. An arm without a value in a panel has no marker there.
    """
    lines: list[tuple[str, str, bool]] = []  # arm, label, reached
    for arm in table.arms:
        for reached in (True, False):
            runs = table.runs(arm, reached=reached)
            if runs:
                label = table.words_of(arm) + ("" if reached else ", not reached")
                lines.append((arm, label + (f" ({len(runs)})" if len(runs) > 1 else ""), reached))
    figure = go.Figure()
    said: list[str] = []
    kls = [1e-3]
    for at, (arm, label, reached) in enumerate(reversed(lines)):
        color, symbol = _STYLES.get(arm.rsplit(": ", 1)[-1], (GREY, MARKERS[3]))
        color = color if reached else GREY
        runs = table.runs(arm, reached=reached)
        rates = {name: table.rate(arm, name, reached=reached) for name, _, _ in _PANELS}
        said.append(f"{label}: controls {rates['control']}, KL {number(rates['kl'].value)}")
        kls += [v for v in (rates["kl"].high, *(r.rate("kl").value for r in runs)) if math.isfinite(v)]
        for name, axis, words in _PANELS:
            single = [(r, r.rate(name).value) for r in runs if math.isfinite(r.rate(name).value)]
            if len(runs) > 1:
                figure.add_trace(
                    go.Scatter(
                        x=[value for _, value in single],
                        y=[at - 0.22] * len(single),
                        xaxis=axis,
                        mode="markers",
                        showlegend=False,
                        marker={"symbol": f"{symbol}-open", "size": 7, "color": color},
                        customdata=[
                            [escape(r.fact_id), "" if r.seed is None else f", draw {r.seed}", r.step] for r, _ in single
                        ],
                        hovertemplate=f"{escape(label)}, {escape(words)}: <b>%{{x:.3f}}</b><br>%{{customdata[0]}}"
                        "%{customdata[1]}, step %{customdata[2]}<extra></extra>",
                    )
                )
            if math.isfinite(rates[name].value):
                figure.add_trace(_mean(rates[name], at, axis, f"{label}, {words}", color, symbol, reached))
    facts = f"{', '.join(table.facts[:3])}{' ...' if len(table.facts) > 3 else ''}"
    card(
        figure,
        title="Does it matter which components are trained?",
        notes=[
            f"{facts}; each arm read at the first step with {table.threshold:.0%} new answers on validation questions; "
            "bars: 95% interval, small markers: single runs",
            *table.notes,
        ],
        alt=f"Control retention and KL by arm. {'; '.join(reversed(said))}.",
        width=900,
        plot_height=max(160, 44 * len(lines)),
        left=min(420, max([200, *(7 * len(label) for _, label, _ in lines)])),
        bottom=60,
    )
    rows = {"tickmode": "array", "tickvals": list(range(len(lines))), "ticktext": [escape(x[1]) for x in lines[::-1]]}
    for (_, axis, words), domain in zip(_PANELS, ((0.0, 0.47), (0.53, 1.0)), strict=True):
        most = 1.0 if axis == "x" else max(kls)
        start = {"range": [-0.04 * most, 1.06 * most]}
        layout = {"domain": domain, "title": {"text": words, "standoff": 8}, "anchor": "y", "showline": True, **start}
        grid = {"zeroline": False, "gridcolor": "#d9d9d9", "linecolor": INK, "tickcolor": INK, "automargin": True}
        figure.update_layout({axis.replace("x", "xaxis"): {**layout, **grid}})
    figure.update_yaxes(**rows, range=[-0.6, len(lines) - 0.4], showgrid=False)
    return figure


def _mean(rate: Rate, at: float, axis: str, label: str, color: str, symbol: str, reached: bool) -> go.Scatter:
    """An arm's rate with its interval; hollow where the runs did not reach the threshold."""
    return go.Scatter(
        x=[rate.value],
        y=[at],
        xaxis=axis,
        mode="markers",
        showlegend=False,
        marker={
            "symbol": symbol if reached else f"{symbol}-open",
            "size": 11,
            "color": color,
            "line": {"color": INK if reached else color, "width": 1},
        },
        error_x=whiskers([rate.low], [rate.value], [rate.high], color),
        customdata=[[interval(rate.low, rate.high, "no interval"), str(rate.n), escape(rate.method)]],
        hovertemplate=f"{escape(label)}<br><b>%{{x:.3f}}</b> %{{customdata[0]}}<br>"
        "n = %{customdata[1]}, %{customdata[2]}<extra></extra>",
    )
