"""How far two attributions of one fact agree, by rank."""

from __future__ import annotations

from workbench.types import EffectMap
from workbench.types.intervals import spearman
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def agreement(first: EffectMap, second: EffectMap) -> float:
    """Compute Spearman's rank correlation of two maps of one shape, such as attribution and exact patching.

    It holds for what was patched: these components of this fact in this form, not neurons, nor other facts.

    Args:
        first: A map.
        second: Another of the same shape.

    Returns:
        From -1 to 1, over all cells.

    Raises:
        ValueError: The maps have different shapes.

    Example:
        >>> exact = wb.attribute(model, fact, "head", method="patching")
        >>> round(wb.agreement(heads, exact), 1)
        0.6
    """
    if first.values.shape != second.values.shape:
        raise ValueError(f"The maps differ in shape: {tuple(first.values.shape)} and {tuple(second.values.shape)}.")
    return spearman(first.values.flatten().tolist(), second.values.flatten().tolist())
