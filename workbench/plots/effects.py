"""Effect maps as figures: each by its axes."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from workbench.plots.bars import bars_figure, ranking_figure
from workbench.plots.colours import ScaleMode, checked_mode
from workbench.plots.heat_map import heat_map_figure
from workbench.types import EffectMap

_ALLOWED = "('layer', 'position'), ('layer', 'head'), ('layer', 'kv'), ('layer', 'neuron') and ('layer',)"


def effect_figure(
    effect: EffectMap,
    *,
    title: str | None = None,
    zlim: float | None = None,
    n_neurons: int = 30,
    group_size: int | None = None,
    scale: ScaleMode = "linear",
) -> go.Figure:
    """An effect map as the figure that fits its axes.

    Args:
        effect: The map. ``("layer", "position")`` gives a heat map by layer and token, subject tokens marked;
            ``("layer", "head")`` a grid of heads, ``("layer", "kv")`` of key-value groups; ``("layer",)`` bars;
            ``("layer", "neuron")`` the neurons with the largest effects of either sign, sorted by value.
        title: Instead of the map's own title; plain text.
        zlim: Half width of the colour scale or the value axis, in units of the metric; None takes the largest absolute
            value.
        n_neurons: How many neurons a ranking shows.
        group_size: Query heads per key-value group: draws the groups into a head grid.
        scale: Where a value of a heat map lies on the colours: ``"linear"``; ``"symlog"``, so that what is small beside
            the largest can be told apart; or ``"clip"``, which ends at the 99th percentile of the magnitudes. Hover has
            the true value in each.

    Returns:
        A figure of its own fixed size.

    Raises:
        ValueError: Axes without a figure, a limit that is not a positive number, fewer than one neuron, a group size
            that does not divide the number of heads, an unknown scale, or bars on another than the linear.
    """
    if zlim is not None and not (math.isfinite(zlim) and zlim > 0):
        raise ValueError(f"zlim must be a positive number (units of {effect.value_words.name}) or None, got {zlim!r}.")
    checked_mode(scale)
    if effect.axes in (("layer", "position"), ("layer", "head"), ("layer", "kv")):
        return heat_map_figure(effect, title, zlim, group_size, scale)
    if scale != "linear":
        raise ValueError(
            f"scale={scale!r} is for the colours of heat maps; a map with the axes {effect.axes} is drawn as bars, "
            "whose lengths are the values. Leave it out."
        )
    if effect.axes == ("layer",):
        return bars_figure(effect, title, zlim)
    if effect.axes == ("layer", "neuron"):
        return ranking_figure(effect, title, zlim, n_neurons)
    if "position" in effect.axes:
        raise ValueError(
            f"No figure for a map with the axes {effect.axes}. Read it at one token first: "
            "effects.read_at(role='last token').plot()."
        )
    raise ValueError(f"No figure for a map with the axes {effect.axes}; there are figures for {_ALLOWED}.")
