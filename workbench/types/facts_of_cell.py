"""The facts that make one cell of an average: each with its own value."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.types.effect import EffectMap
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def facts_of_cell(effect: EffectMap, cell: Sequence[int]) -> dict[str, float]:
    """List the facts that make one cell of an average, with the value of each.

    Args:
        effect: A mean over facts that has kept their values (``per_fact``): of ``SweepResults.mean``, or of
            ``causal_trace`` or ``attribute`` over several facts.
        cell: Its index, one number an axis.

    Returns:
        Values by the fact's id, the largest first, in units of the map; their mean is the cell. A fact without a value
        there (no token of that role) is left out.

    Raises:
        ValueError: The map is no such mean, or has no such cell.

    Example:
        >>> mean = wb.attribute(model, facts[:3], "head", pool=facts, progress=False)
        >>> values = wb.facts_of_cell(mean, (1, 3))
        >>> sorted(values) == sorted(facts[:3].ids), list(values.values()) == sorted(values.values(), reverse=True)
        (True, True)
        >>> abs(sum(values.values()) / 3 - float(mean.values[1, 3])) < 1e-5
        True
    """
    if not has_facts(effect):
        raise ValueError(
            f"{effect!r} is no mean over facts that has kept their values. Take one of load_sweep(folder).mean(), or "
            "of causal_trace or attribute over several facts."
        )
    shape, place = tuple(effect.values.shape), tuple(cell)
    if len(place) != len(shape) or not all(0 <= at < size for at, size in zip(place, shape, strict=True)):
        raise ValueError(f"The map has no cell {place}: its shape is {shape}, with the axes {effect.axes}.")
    assert effect.per_fact is not None
    values = [float(value) for value in effect.per_fact[(slice(None), *place)]]
    named = [(prompt.fact_id, value) for prompt, value in zip(effect.prompts, values, strict=True) if value == value]
    return dict(sorted(named, key=lambda one: -one[1]))


def has_facts(effect: EffectMap) -> bool:
    """Whether a map is a mean over several facts and has the value of each, one text a fact."""
    return (
        effect.per_fact is not None
        and len(effect.prompts) == len(effect.per_fact) > 1
        and len({prompt.fact_id for prompt in effect.prompts}) == len(effect.prompts)
    )
