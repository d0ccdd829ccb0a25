"""How far two maps, or two rankings, agree: by rank, and in what comes first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from workbench.tracing.ranking import Ranked, place_of
from workbench.types import EdgeMap, EffectMap
from workbench.types.intervals import spearman
from workbench.types.plain import is_whole
from workbench.types.torch_settings import own_torch_settings

Ranking = Iterable[object]
"""The strongest first: a selection, a circuit, what ``ranked`` gives, or names."""
By = Literal["value", "abs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What two rankings have in common among their first.

    Args:
        k: How many of each were looked at.
        shared: The names of those in both, in the order of the first.
        n: Of how many they are the first; None where the rankings do not say.
    """

    k: int
    shared: tuple[str, ...]
    n: int | None = None

    @property
    def share(self) -> float:
        """Of the first ``k``, how many both have, 0 to 1."""
        return len(self.shared) / self.k

    @property
    def chance(self) -> float | None:
        """The share that two rankings in random order have on average; None where ``n`` is not known."""
        return None if self.n is None else self.k / self.n

    def __repr__(self) -> str:
        by_chance = "" if self.chance is None else f", {self.chance:.3f} by chance"
        return f"Overlap({len(self.shared)} of the first {self.k}{by_chance})"


@own_torch_settings()
def agreement(first: EffectMap | EdgeMap | Ranking, second: EffectMap | EdgeMap | Ranking) -> float:
    """Compute Spearman's rank correlation of two maps of one shape, such as attribution and exact patching, or of two
    rankings.

    It holds for what was measured: these components of this fact in this form, nothing else.

    Args:
        first: A map of effects or of edges; or a ranking, the strongest first (a selection, a circuit, what ``ranked``
            gives, names).
        second: Another of the same places, of any metric and method; or another ranking.

    Returns:
        From -1 to 1, over all cells that both have (a map of chosen components has few), or over what both rankings
        name. More is more support for the answer in both, whichever way a metric runs (``EffectMap.support``). NaN
        where that is less than two, or where all effects of a map are equal.

    Raises:
        ValueError: The maps have different places (units, axes, layers, heads or tokens), a ranking names something
            twice.
        TypeError: A map beside a ranking.

    Source: Spearman 1904.

    Example:
        >>> exact = wb.attribute(model, fact, "head", method="patching")
        >>> round(wb.agreement(heads, exact), 1)
        0.6
        >>> wb.agreement(["L0H4", "L1H3", "L0H1"], ["L0H1", "L0H4", "L1H3"])
        -0.5
    """
    if _are_maps(first, second):
        a, b = _cells(first, second)
        return spearman(a.tolist(), b.tolist())
    one, other = _names(first), _names(second)
    both = [name for name in one if name in set(other)]
    return spearman([one.index(name) for name in both], [other.index(name) for name in both])


@own_torch_settings()
def overlap(
    first: EffectMap | EdgeMap | Ranking, second: EffectMap | EdgeMap | Ranking, k: int, *, by: By = "value"
) -> Overlap:
    """Count what is among the first k of both of two maps of one shape, or of two rankings.

    Args:
        first, second: As in ``agreement``.
        k: How many of each.
        by: Of maps: ``"value"`` takes what supports the answer most (of edges: what it rests on most, the lowest
            scores), ``"abs"`` the largest effects of either sign. Equal effects stand in reading order.

    Returns:
        How many are in both and which, beside what chance gives: ``.share``, ``.chance``, ``.shared``.

    Raises:
        ValueError: k is not from 1 to the number of cells that both maps have, or to the length of the shorter
            ranking; or as ``agreement``.
        TypeError: A map beside a ranking.

    Example:
        >>> exact = wb.attribute(model, fact, "head", method="patching")
        >>> found = wb.overlap(heads, exact, 6)
        >>> found, found.shared
        (Overlap(4 of the first 6, 0.333 by chance), ('L0H4', 'L1H3', 'L2H3', 'L2H2'))
        >>> wb.overlap(heads.top(6), exact.top(6), 6).shared == found.shared
        True
    """
    if by not in get_args(By):
        raise ValueError(f"by must be one of {get_args(By)}, got {by!r}.")
    n: int | None = None
    if _are_maps(first, second):
        n = len(_cells(first, second)[0])
        _check_k(k, n, "cells that both maps have")
        one, other = (_first(a, b, k, by) for a, b in ((first, second), (second, first)))
    else:
        one, other = _names(first), _names(second)
        _check_k(k, min(len(one), len(other)), "what the shorter ranking has")
        one, other = one[:k], other[:k]
    return Overlap(k=k, shared=tuple(name for name in one if name in set(other)), n=n)


def _check_k(k: int, most: int, of: str) -> None:
    if not is_whole(k) or not 1 <= k <= most:
        raise ValueError(f"k must be a whole number from 1 to {most} ({of}), got {k!r}.")


def _are_maps(first: object, second: object) -> bool:
    """Whether both are maps.

    Raises:
        TypeError: One alone is.
    """
    are = [isinstance(one, EffectMap | EdgeMap) for one in (first, second)]
    if are[0] != are[1] or (are[0] and isinstance(first, EffectMap) != isinstance(second, EffectMap)):
        raise TypeError(
            f"Two maps of one kind, or two rankings, are compared; got {type(first).__name__} and "
            f"{type(second).__name__}. Take the ranking of a map by its top(k), or wb.ranked."
        )
    return are[0]


def _cells(first: object, second: object) -> tuple[Tensor, Tensor]:
    """How much the cells that both maps have support the answer; of edges, their values.

    Raises:
        ValueError: The maps differ in shape or in their places.
    """
    assert isinstance(first, EffectMap | EdgeMap) and isinstance(second, EffectMap | EdgeMap)
    a, b = (one.support if isinstance(one, EffectMap) else one.values for one in (first, second))
    if isinstance(first, EffectMap) and isinstance(second, EffectMap):
        _check_places(first, second)
    if a.shape != b.shape:
        raise ValueError(f"The maps differ in shape: {tuple(a.shape)} and {tuple(b.shape)}.")
    ends = [(one.senders, one.receivers) for one in (first, second) if isinstance(one, EdgeMap)]
    if ends and ends[0] != ends[1]:
        raise ValueError("The maps are of the edges of different models: their senders or receivers differ.")
    both = ~(a.isnan() | b.isnan())
    return a[both], b[both]


def _check_places(first: EffectMap, second: EffectMap) -> None:
    """Raise a ValueError for maps whose cells are not of the same places."""
    for what, one, other in (("unit", first.unit, second.unit), ("axes", first.axes, second.axes)):
        if one != other:
            raise ValueError(f"The maps differ in {what}: {one!r} and {other!r}. Compare maps of the same places.")
    for axis in first.axes:
        one, other = first.labels[axis], second.labels[axis]
        differing = [(a, b) for a, b in zip(one, other, strict=False) if a != b]
        if len(one) == len(other) and differing:
            a, b = differing[0]
            apart = f"{a!r} in one is {b!r} in the other"
            raise ValueError(f"The maps differ in their {axis}s: {apart}. Compare maps of the same places.")


def _first(of: object, beside: object, k: int, by: By) -> list[str]:
    """The names of the first k of a map's cells, of those that another map has too."""
    assert isinstance(of, EffectMap | EdgeMap) and isinstance(beside, EffectMap | EdgeMap)
    values = of.support if isinstance(of, EffectMap) else -of.values
    scores = (values.abs() if by == "abs" else values).flatten()
    scores = scores.masked_fill((of.values.isnan() | beside.values.isnan()).flatten(), float("-inf"))
    return [_name(of, flat) for flat in scores.argsort(descending=True, stable=True)[:k].tolist()]


def _name(of: EffectMap | EdgeMap, flat: int) -> str:
    """A cell as a component, with its token where a map has positions; or as an edge."""
    if isinstance(of, EdgeMap):
        receiver, sender = divmod(flat, len(of.senders))
        return f"{of.senders[sender]} -> {of.receivers[receiver]}"
    place = place_of(of, flat)
    name = "+".join(str(one) for one in of.components(place))
    if "position" not in of.axes:
        return name
    at = place[of.axes.index("position")]
    return f"{name} at {at} {of.labels['position'][at]!r}"


def _names(ranking: object) -> list[str]:
    """What a ranking names, each once.

    Raises:
        TypeError: It is none.
        ValueError: A name is there twice.
    """
    if isinstance(ranking, str) or not isinstance(ranking, Iterable):
        raise TypeError(
            f"A ranking is a selection, a circuit, what wb.ranked gives or a list of names, got {ranking!r:.60}."
        )
    every: Sequence[object] = list(ranking)
    names = [str(one.component) if isinstance(one, Ranked) else str(one) for one in every]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"A ranking names each once, got {twice} more often.")
    return names
