"""Effect maps as figures: trace heat map, head grid, bars by layer, neuron ranking.

The layout of the trace heat map follows Meng et al. 2022 (arXiv 2202.05262, figure 2), with layers on the vertical
axis, layer 0 at the bottom, and a scale centred at zero, so that a harmful restoration looks different from none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from workbench.plots.style import (
    COLORSCALE,
    GREY,
    INK,
    MISSING,
    MONO,
    NEGATIVE,
    POSITIVE,
    card,
    escape,
    finite,
    number,
    runs,
    visible,
)
from workbench.types import EffectMap

_ROWS: dict[str, str] = {"resid": "Layer (its input)"}
_ALLOWED = "('layer', 'position'), ('layer', 'head'), ('layer', 'neuron') and ('layer',)"


def effect_figure(
    effect: EffectMap,
    *,
    title: str | None = None,
    zlim: float | None = None,
    n_neurons: int = 30,
    group_size: int | None = None,
) -> go.Figure:
    """An effect map as the figure that fits its axes.

    Args:
        effect: The map. ``("layer", "position")`` gives a heat map by layer and token, subject tokens marked;
            ``("layer", "head")`` a grid of heads; ``("layer",)`` bars; ``("layer", "neuron")`` the neurons with the
            largest effects of either sign, sorted by value.
        title: Instead of the map's own title; plain text.
        zlim: Half width of the colour scale or the value axis, in units of the metric; None takes the largest absolute
            value.
        n_neurons: How many neurons a ranking shows.
        group_size: Query heads per key-value group: draws the groups into a head grid.

    Returns:
        A figure of its own fixed size.

    Raises:
        ValueError: Axes without a figure, a limit that is not a positive number, fewer than one neuron, or a group size
            that does not divide the number of heads.
    """
    if zlim is not None and not (math.isfinite(zlim) and zlim > 0):
        raise ValueError(f"zlim must be a positive number (units of {effect.metric}) or None, got {zlim!r}.")
    if effect.axes in (("layer", "position"), ("layer", "head")):
        return _heat_map(effect, title, zlim, group_size)
    if effect.axes == ("layer",):
        return _bars(effect, title, zlim)
    if effect.axes == ("layer", "neuron"):
        return _ranking(effect, title, zlim, n_neurons)
    raise ValueError(f"No figure for a map with the axes {effect.axes}; there are figures for {_ALLOWED}.")


@dataclass(frozen=True)
class Panel:
    """What a heat map draws, so that several can stand side by side."""

    z: list[list[float | None]]
    customdata: list[list[list[str]]]
    hovertemplate: str
    x_title: str
    y_title: str
    x_ticks: tuple[str, ...]  # escaped, subject marked
    y_ticks: tuple[str, ...]
    plain: tuple[str, ...]  # the x labels as raw text
    marked: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.y_ticks), len(self.x_ticks)

    def trace(self, **options: Any) -> go.Heatmap:
        """The heat map; options add the colours and the axes."""
        return go.Heatmap(
            z=self.z,
            x=list(range(self.size[1])),
            y=list(range(self.size[0])),
            customdata=self.customdata,
            hovertemplate=self.hovertemplate,
            hoverongaps=False,
            **options,
        )

    def x_axis(self, cell: float) -> dict[str, Any]:
        """Ticks by number, so that equal tokens stay apart. Sideways when they would touch."""
        upright = self.label_width <= cell - 4
        return {
            "tickmode": "array",
            "tickvals": list(range(self.size[1])),
            "ticktext": list(self.x_ticks),
            "tickangle": 0 if upright else -90,
            "tickfont": {"family": MONO, "size": min(11, max(8, int(cell) - 2))},
            "title": {"text": self.x_title, "standoff": 10},
            "range": [-0.5, self.size[1] - 0.5],
            "showgrid": False,
            "ticks": "outside",
            "ticklen": 3,
        }

    def y_axis(self, cell: float) -> dict[str, Any]:
        """Layer 0 at the bottom."""
        step = max(1, math.ceil(11 / cell))
        rows = range(0, self.size[0], step)
        return {
            "tickmode": "array",
            "tickvals": list(rows),
            "ticktext": [self.y_ticks[r] for r in rows],
            "tickfont": {"size": 10},
            "title": {"text": self.y_title, "standoff": 8},
            "range": [-0.5, self.size[0] - 0.5],
            "showgrid": False,
            "ticks": "outside",
            "ticklen": 3,
        }

    @property
    def label_width(self) -> int:
        """Width of the longest x label in pixels, about."""
        return max(len(p) + 2 * (i in self.marked) for i, p in enumerate(self.plain)) * 7

    @property
    def bottom(self) -> int:
        """Room for ticks set sideways and the axis title, pixels."""
        return 55 + min(150, self.label_width)


def panel(effect: EffectMap) -> Panel:
    """The heat map of a ``("layer", "position")`` or ``("layer", "head")`` map."""
    column = effect.axes[1]
    limit = 24 if column == "position" and len(effect.prompts) > 1 else 18
    plain = tuple(visible(label, limit) for label in effect.labels[column])
    marked = tuple(i for i in effect.subject if 0 <= i < len(plain))
    ticks = tuple(f"<b>{escape(p)} *</b>" if i in marked else escape(p) for i, p in enumerate(plain))
    full = [
        escape(visible(label, 80)) + (" (subject)" if i in marked else "")
        for i, label in enumerate(effect.labels[column])
    ]
    layers = tuple(escape(label) for label in effect.labels["layer"])
    errors = effect.stderr.tolist() if effect.stderr is not None else None
    rows, columns = effect.values.shape
    custom = [
        [
            [layers[r], full[c], number(errors[r][c], 4) if errors else f"none, n = {effect.n}", str(c)]
            for c in range(columns)
        ]
        for r in range(rows)
    ]
    place = (
        "position %{customdata[3]}: <b>%{customdata[1]}</b>" if column == "position" else "head <b>%{customdata[1]}</b>"
    )
    noun = "token" if len(effect.prompts) <= 1 else "role"
    x_title = {"position": f"Position ({noun})", "head": "Query head"}[column]
    return Panel(
        z=finite(effect.values.tolist()),
        customdata=custom,
        hovertemplate=f"layer <b>%{{customdata[0]}}</b><br>{place}<br>{escape(effect.metric)} effect <b>%{{z:.4f}}</b>"
        "<br>standard error %{customdata[2]}<extra></extra>",
        x_title=x_title,
        y_title=_ROWS.get(effect.unit, "Layer"),
        x_ticks=ticks,
        y_ticks=layers,
        plain=plain,
        marked=marked,
    )


def scale_title(effect: EffectMap) -> str:
    """Metric and units, for a colour bar or a value axis; escaped."""
    return escape(effect.metric_words.scale)


def color_axis(limit: float, title: str, **bar: Any) -> dict[str, Any]:
    """A diverging colour axis centred at zero."""
    return {
        "colorscale": COLORSCALE,
        "cmin": -limit,
        "cmax": limit,
        "cmid": 0,
        "colorbar": {
            "title": {"text": title, "side": "right"},
            "thickness": 14,
            "outlinewidth": 1,
            "outlinecolor": INK,
            "ticks": "outside",
            "ticklen": 3,
            **bar,
        },
    }


def limit_of(*effects: EffectMap) -> float:
    """The largest finite absolute value; 1 when there is none or all are zero."""
    found = [abs(v) for e in effects for v in e.values.flatten().tolist() if math.isfinite(v)]
    return max(found, default=0.0) or 1.0


def mark_subject(
    figure: go.Figure, marked: Sequence[int], *, xref: str, yref: str, top: float, height: int, label: bool = True
) -> None:
    """Put brackets over the subject's columns, and dashed lines at their edges.

    Args:
        figure: Changed in place.
        marked: The subject's columns.
        xref, yref: The panel's axes (``"x2"``, ``"y2"``).
        top: The panel's upper edge in paper coordinates.
        height: Of the whole plotting area in pixels.
        label: Write the word over the bracket.
    """
    low, high = top + 3 / height, top + 9 / height
    for first, last in runs(marked):
        a, b = first - 0.5, last + 0.5
        figure.add_shape(
            type="path",
            xref=xref,
            yref="paper",
            line={"color": INK, "width": 2},
            path=f"M {a} {low} L {a} {high} L {b} {high} L {b} {low}",
        )
        for x in (a, b):
            figure.add_shape(
                type="line",
                xref=xref,
                yref=f"{yref} domain",
                x0=x,
                x1=x,
                y0=0,
                y1=1,
                line={"color": INK, "width": 1, "dash": "dot"},
            )
        if label:
            figure.add_annotation(
                x=(a + b) / 2,
                xref=xref,
                y=high,
                yref="paper",
                yanchor="bottom",
                showarrow=False,
                text="subject",
                font={"size": 11, "color": INK},
            )


def describe(effect: EffectMap) -> list[str]:
    """The lines below a title, raw text: what was asked, the baselines, n."""
    lines: list[str] = []
    if len(effect.prompts) == 1:
        p = effect.prompts[0]
        other = f" against “{visible(p.other_token, 24)}”" if p.other_token is not None else ""
        lines.append(f"{p.fact_id}, {p.form} form, next token “{visible(p.answer_token, 24)}”{other}")
    base = f"clean {number(effect.clean)}"
    base += f", corrupted {number(effect.corrupted)}" if effect.corrupted is not None else ", no corruption"
    lines.append(f"{base} ({effect.metric_words.unit}) · " + (f"mean of n = {effect.n}" if effect.n != 1 else "n = 1"))
    return lines


def heading(effect: EffectMap, title: str | None) -> str:
    """The title, raw text."""
    text = title if title is not None else effect.title
    return text[:1].upper() + text[1:] if title is None else text


def _place(effect: EffectMap, flat: int) -> str:
    rows = effect.values.shape[1] if effect.values.ndim == 2 else 1
    text = str(effect.labels["layer"][flat // rows])
    if effect.values.ndim == 2:
        column = effect.axes[1]
        label = visible(effect.labels[column][flat % rows], 24)
        text += f", position {flat % rows} “{label}”" if column == "position" else f" {label}"
    return text


def extremes(effect: EffectMap) -> str:
    """Largest and smallest value with their places, in words."""
    flat = [(v, i) for i, v in enumerate(effect.values.flatten().tolist()) if math.isfinite(v)]
    if not flat:
        return "no finite values"
    (high, at), (low, lowest) = max(flat, key=lambda p: p[0]), min(flat, key=lambda p: p[0])
    return f"largest {number(high)} at {_place(effect, at)}, smallest {number(low)} at {_place(effect, lowest)}"


def _clipped(effect: EffectMap, zlim: float | None) -> list[str]:
    if zlim is None or limit_of(effect) <= zlim:
        return []
    return [f"Scale cut at ±{number(zlim)}; the largest absolute value is {number(limit_of(effect))}."]


def _heat_map(effect: EffectMap, title: str | None, zlim: float | None, group_size: int | None) -> go.Figure:
    content = panel(effect)
    rows, columns = content.size
    if group_size is not None and (effect.axes[1] != "head" or group_size < 1 or columns % group_size):
        raise ValueError(
            f"group_size must divide the number of heads of a head map, got {group_size!r} for the axes {effect.axes} "
            f"with {columns} columns; leave it out, or give n_heads / n_kv_heads."
        )
    cell_x = min(44.0, max(13.0, 900 / columns))
    cell_y = min(28.0, max(6.0, 460 / rows))
    width = max(560, int(cell_x * columns) + 190)
    cell_x = (width - 190) / columns
    height = max(160, int(cell_y * rows))
    limit = zlim if zlim is not None else limit_of(effect)
    figure = go.Figure(content.trace(coloraxis="coloraxis"))
    notes = describe(effect) + _clipped(effect, zlim)
    if content.marked:
        notes.append("* and bracket: subject tokens.")
    if any(None in row for row in content.z):
        notes.append("Grey: no value.")
    if group_size is not None:
        notes.append(f"Lines part the key-value groups of {group_size} query heads each.")
    card(
        figure,
        title=heading(effect, title),
        notes=notes,
        alt=f"Heat map: {heading(effect, title)}, {rows} layers by {columns} {effect.axes[1]}s, {effect.metric}; "
        f"{extremes(effect)}.",
        width=width,
        plot_height=height,
        bottom=content.bottom if content.label_width > cell_x - 4 else 60,
        right=110,
        left=70,
        above=30 if content.marked or group_size is not None else 8,
    )
    figure.update_layout(coloraxis=color_axis(limit, scale_title(effect)), plot_bgcolor=MISSING)
    figure.update_xaxes(**content.x_axis(cell_x))
    figure.update_yaxes(**content.y_axis(height / rows))
    mark_subject(figure, content.marked, xref="x", yref="y", top=1.0, height=height)
    if group_size is not None:
        for group in range(columns // group_size):
            first = group * group_size - 0.5
            if group:
                figure.add_shape(
                    type="line",
                    xref="x",
                    yref="paper",
                    x0=first,
                    x1=first,
                    y0=0,
                    y1=1 + 20 / height,
                    line={"color": INK, "width": 2},
                )
            figure.add_annotation(
                x=first + group_size / 2,
                xref="x",
                y=1,
                yref="paper",
                yanchor="bottom",
                showarrow=False,
                text=f"KV{group}",
                font={"size": 11, "color": INK},
            )
    return figure


def _signs(values: list[float | None]) -> list[str]:
    return [GREY if v is None else POSITIVE if v >= 0 else NEGATIVE for v in values]


def _error(errors: list[float | None] | None) -> dict[str, Any]:
    if errors is None:
        return {"visible": False}
    return {"type": "data", "array": errors, "color": INK, "thickness": 1.2, "width": 3, "visible": True}


def _bars(effect: EffectMap, title: str | None, zlim: float | None) -> go.Figure:
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
            hovertemplate=f"layer <b>%{{customdata[0]}}</b><br>{escape(effect.metric)} effect <b>%{{y:.4f}}</b><br>"
            "standard error %{customdata[1]}<extra></extra>",
        )
    )
    notes = describe(effect) + _clipped(effect, zlim) + (["Error bars: standard error."] if errors else [])
    card(
        figure,
        title=heading(effect, title),
        notes=notes,
        width=width,
        plot_height=300,
        left=95,
        alt=f"Bars: {heading(effect, title)}, {len(values)} layers, {effect.metric}; {extremes(effect)}.",
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


def _ranking(effect: EffectMap, title: str | None, zlim: float | None, n_neurons: int) -> go.Figure:
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
            hovertemplate=f"<b>%{{customdata[0]}}</b><br>{escape(effect.metric)} effect <b>%{{x:.4f}}</b><br>"
            "standard error %{customdata[1]}<extra></extra>",
        )
    )
    notes = [
        *describe(effect),
        f"The {len(order)} largest of {rows * columns} by absolute value, sorted."
        + (" Error bars: standard error." if errors else ""),
        *_clipped(effect, zlim),
    ]
    top = ", ".join(f"{n} {number(v)}" for n, v in zip(names[::-1][:5], values[::-1][:5], strict=True))
    card(
        figure,
        title=heading(effect, title),
        notes=notes,
        width=620,
        plot_height=max(90, 17 * len(order)),
        left=90,
        alt=f"Ranking: {heading(effect, title)}, {effect.metric}; highest {top or 'none'}.",
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
