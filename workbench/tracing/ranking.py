"""The strongest components of several effect maps in one list: a pure function on maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from workbench.types import Component, EffectMap, Kind
from workbench.types.metric_words import hardly_differ
from workbench.types.plain import check_count
from workbench.types.torch_settings import own_torch_settings

RankedKind = Literal["H", "MLP", "N", "ATTN"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A component with its place in a ranking.

    Args:
        rank: From 1.
        component: Which.
        value: Its effect as its map has it.
        share: The same as recovery; None where nothing was corrupted or the corruption changes nothing.
    """

    rank: int
    component: Component
    value: float
    share: float | None

    @property
    def kind(self) -> Kind:
        """The component's kind."""
        return self.component.kind


@own_torch_settings()
def ranked(
    maps: Mapping[Any, EffectMap] | Iterable[EffectMap],
    *,
    k: int = 20,
    kinds: Sequence[RankedKind] | None = None,
    by: Literal["value", "abs"] = "value",
) -> tuple[Ranked, ...]:
    """Rank the strongest components over maps of heads, MLPs, neurons and attention layers.

    Args:
        maps: Effects by one metric and corruption, a map a kind. Maps with positions and of the residual stream are
            left out: a cell of theirs is not an effect of one component.
        k: How many, or all where there are fewer.
        kinds: Only these; None for all.
        by: ``"value"`` takes what supports the answer most, ``"abs"`` the largest effects of either sign.

    Returns:
        The strongest first. Effects of different kinds are of one unit; that a neuron has less than the MLP that it is
        part of says nothing about either.

    Raises:
        ValueError: Maps by different metrics, corruptions or scales, two maps of one kind, or an option out of range.

    Example:
        >>> both = wb.attribute(model, fact, ("head", "mlp"))
        >>> [(one.rank, str(one.component), round(one.value, 1)) for one in wb.ranked(both, k=3)]
        [(1, 'L0H4', 5.3), (2, 'L1MLP', 4.8), (3, 'L1H3', 3.7)]
        >>> [str(one.component) for one in wb.ranked(both, kinds=["MLP"], k=1)]
        ['L1MLP']
    """
    check_count("k", k)
    if by not in ("value", "abs"):
        raise ValueError(f"by must be 'value' or 'abs', got {by!r}.")
    wanted = set(get_args(RankedKind)) if kinds is None else set(kinds)
    if not wanted or not wanted <= set(get_args(RankedKind)):
        raise ValueError(f"kinds must be some of {get_args(RankedKind)}, got {kinds!r}.")
    every = list(maps.values()) if isinstance(maps, Mapping) else list(maps)
    used = [effects for effects in every if "position" not in effects.axes and _kind(effects) in wanted]
    _check_alike(used)
    found: list[tuple[float, Component, float, float | None]] = []
    for effects in used:
        scores = (effects.values.abs() if by == "abs" else effects.support).nan_to_num(nan=float("-inf")).flatten()
        for flat in scores.argsort(descending=True, stable=True)[:k].tolist():
            if scores[flat] == float("-inf"):
                break
            value = float(effects.values.flatten()[flat])
            (component,) = effects.components(place_of(effects, flat))
            found.append((float(scores[flat]), component, value, _share(effects, value)))
    found.sort(key=lambda one: -one[0])
    return tuple(
        Ranked(rank=i + 1, component=component, value=value, share=share)
        for i, (_, component, value, share) in enumerate(found[:k])
    )


def _kind(effects: EffectMap) -> Kind | None:
    """Of which kind a map's cells are; None where a cell is no component of its own (the residual stream)."""
    components = effects.components((0,) * len(effects.axes))
    return components[0].kind if len(components) == 1 else None


def _share(effects: EffectMap, value: float) -> float | None:
    if effects.normalised:
        return value
    if effects.corrupted is None or hardly_differ(effects.clean, effects.corrupted):
        return None
    return value / (effects.clean - effects.corrupted)


def _check_alike(maps: Sequence[EffectMap]) -> None:
    """Raise a ValueError for maps whose effects cannot stand in one list."""
    kinds = [_kind(effects) for effects in maps]
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"ranked takes one map a kind, got maps of {[effects.unit for effects in maps]}.")
    for name in ("metric", "corruption", "normalised"):
        values = [getattr(effects, name) for effects in maps]
        if len(set(values)) > 1:
            raise ValueError(
                f"The maps differ in {name} ({', '.join(map(repr, values))}), so their effects cannot be ranked "
                "together. Compute them with the same options, or rank one kind at a time."
            )


def place_of(effects: EffectMap, flat: int) -> tuple[int, ...]:
    """The indices of a cell that is given by its number in reading order."""
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), effects.values.shape))
