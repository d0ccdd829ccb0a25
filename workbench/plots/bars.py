"""Effects as bars: by layer, or the largest of single neurons."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go

from workbench.plots.effect_words import clipped, describe, extremes, heading, scale_title
from workbench.plots.style import GREY, INK, MONO, NEGATIVE, POSITIVE, card, escape, finite, number
from workbench.types import EffectMap


def bars_figure(effect: EffectMap, title: str | None, zlim: float | None) -> go.Figure:
    values: list[float | None] = finite(effect.values.tolist())
    errors = finite(effect.stderr.tolist()) if effect.stderr is not None else None
    layers = [escape(label) for label in effect.labels["layer"]]
    shown = [number(e, 4) for e in errors] if errors else [f"none, n = {effect.n}"] * len(values)
    width = max(520, min(1000, 26 * len(values) + 120))
    figure = go.Figure(
        go.Bar(
            x=list(range(len(values))),
            y=values,
            error_y=_error(errors),
            marker={"color": _signs(values)},
            customdata=[[a, b] for a, b in zip(layers, shown, strict=True)],
            showlegend=False,
            hovertemplate=f"layer <b>%{{customdata[0]}}</b><br>{escape(effect.value_words.noun)} <b>%{{y:.4f}}</b><br>"
            "standard error %{customdata[1]}<extra></extra>",
        )
    )
    notes = describe(effect) + clipped(effect, zlim) + (["Error bars: standard error."] if errors else [])
    card(
        figure,
        title=heading(effect, title),
        notes=notes,
        width=width,
        plot_height=300,
        left=95,
        alt=f"Bars: {heading(effect, title)}, {len(values)} layers, {effect.value_words.name}; {extremes(effect)}.",
    )
    figure.update_xaxes(
        tickmode="array",
        tickvals=list(range(len(values))),
        ticktext=layers,
        title="Layer",
        tickfont={"size": 10},
        showgrid=False,
        range=[-0.6, len(values) - 0.4],
    )
    figure.update_yaxes(
        title={"text": scale_title(effect).replace(" (", "<br>("), "standoff": 8},
        zeroline=True,
        zerolinecolor=INK,
        zerolinewidth=1,
    )
    if zlim is not None:
        figure.update_yaxes(range=[-zlim, zlim])
    return figure


def ranking_figure(effect: EffectMap, title: str | None, zlim: float | None, n_neurons: int) -> go.Figure:
    if not isinstance(n_neurons, int) or n_neurons < 1:
        raise ValueError(f"n_neurons must be a whole number from 1, got {n_neurons!r}.")
    rows, columns = effect.values.shape
    flat = effect.values.flatten().tolist()
    largest = sorted((i for i, v in enumerate(flat) if math.isfinite(v)), key=lambda i: (-abs(flat[i]), i))[:n_neurons]
    order = sorted(largest, key=lambda i: (flat[i], -i))  # plotly draws the first bar at the bottom
    names = [str(effect.components((i // columns, i % columns))[0]) for i in order]
    values: list[float | None] = [flat[i] for i in order]
    flat_errors = effect.stderr.flatten().tolist() if effect.stderr is not None else None
    errors = finite([flat_errors[i] for i in order]) if flat_errors else None
    shown = [number(e, 4) for e in errors] if errors else [f"none, n = {effect.n}"] * len(order)
    figure = go.Figure(
        go.Bar(
            x=values,
            y=list(range(len(order))),
            orientation="h",
            marker={"color": _signs(values)},
            error_x=_error(errors),
            showlegend=False,
            customdata=[[a, b] for a, b in zip(names, shown, strict=True)],
            hovertemplate=f"<b>%{{customdata[0]}}</b><br>{escape(effect.value_words.noun)} <b>%{{x:.4f}}</b><br>"
            "standard error %{customdata[1]}<extra></extra>",
        )
    )
    notes = [
        *describe(effect),
        f"The {len(order)} largest of {rows * columns} by absolute value, sorted."
        + (" Error bars: standard error." if errors else ""),
        *clipped(effect, zlim),
    ]
    top = ", ".join(f"{n} {number(v)}" for n, v in zip(names[::-1][:5], values[::-1][:5], strict=True))
    card(
        figure,
        title=heading(effect, title),
        notes=notes,
        width=620,
        plot_height=max(90, 17 * len(order)),
        left=90,
        alt=f"Ranking: {heading(effect, title)}, {effect.value_words.name}; highest {top or 'none'}.",
    )
    figure.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(order))),
        ticktext=names,
        showgrid=False,
        tickfont={"family": MONO, "size": 11},
        range=[-0.6, len(order) - 0.4],
    )
    figure.update_xaxes(title={"text": scale_title(effect), "standoff": 8}, zeroline=True, zerolinecolor=INK)
    if zlim is not None:
        figure.update_xaxes(range=[-zlim, zlim])
    return figure


def _signs(values: list[float | None]) -> list[str]:
    return [GREY if v is None else POSITIVE if v >= 0 else NEGATIVE for v in values]


def _error(errors: list[float | None] | None) -> dict[str, Any]:
    if errors is None:
        return {"visible": False}
    return {"type": "data", "array": errors, "color": INK, "thickness": 1.2, "width": 3, "visible": True}
