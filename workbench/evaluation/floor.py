"""The floor of every collateral rate: what any change of an edit's size does.

The edit's delta with its gates, or the input columns that it reads, permuted within each module, at the strength at
which its KL to the base is the edit's own. It is as large and knows nothing of the fact. What an edit costs beyond it
is due to where it writes; what it costs below it, its method spares.

Source: the project's own; permuted deltas of equal KL are the null of ``wb.probe`` too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from workbench.editing.applied import Dial
from workbench.evaluation.answering import Answering, Ask
from workbench.models.load import LoadedModel
from workbench.types import Edit, EditStage

FLOOR = "floor"
"""The stage of a report that it is."""
LARGEST = 16.0
"""Strength: a permuted delta that needs more to reach the edit's KL is left out."""
MATCHED = 0.1
"""A permuted delta's KL counts as the edit's within this share of it."""
HALVINGS = 12


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A permuted delta of equal KL.

    Args:
        edit: It, as an edit of one stage, already at its strength.
        strength: The strength.
        kl: Its KL, nats per token of the base's own answers.
        wanted: The edit's.
        seed: Of the permutation.
    """

    edit: Edit
    strength: float
    kl: float
    wanted: float
    seed: int


def permuted_of_equal_kl(
    model: LoadedModel,
    edit: Edit,
    asks: Sequence[Ask],
    *,
    stage: str | None = None,
    answering: Answering | None = None,
    seed: int = 0,
    matched: float = MATCHED,
) -> Floor | str:
    """Permute an edit's delta, and scale it to the edit's KL.

    Args:
        model: The edit's base model; it is not changed.
        edit: The edit.
        asks: Prompts on which the KL is measured, along the base's own answers.
        stage: Of the edit, up to this one; None for the whole.
        answering: Keeps the base's answers.
        seed: Of the permutation.
        matched: How near the KL must be, as a share of the edit's.

    Returns:
        The permuted delta, or in words why there is none: a kind that cannot be permuted (a context, whole tensors,
        a memory), or no strength at which it has that KL.

    Raises:
        ValueError: An edit of another base, or an unknown stage.

    Example:
        >>> from workbench.evaluation.answering import Ask
        >>> from workbench.evaluation.floor import permuted_of_equal_kl
        >>> floor = permuted_of_equal_kl(model, edit, [Ask("chat", f.question) for f in facts])
        >>> abs(floor.kl / floor.wanted - 1) < 0.1
        True
    """
    asking = answering or Answering(model)
    last = stage or edit.stage_names[-1]
    try:
        shuffled = edit.delta(stage).permuted(seed)
    except ValueError as error:
        if stage is not None and stage not in edit.stage_names:
            raise
        return str(error)

    def mean_kl(dial: Dial, strength: float) -> float:
        held = [value for value in asking.kl(dial.at(strength), asks) if not math.isnan(value)]
        return sum(held) / len(held) if held else math.nan

    wanted = mean_kl(Dial(model, edit, stage), 1.0)
    whole = replace(edit, stages=(EditStage(last, shuffled),))
    dial = Dial(model, whole, last)
    strength = equal_strength(lambda s: mean_kl(dial, s), wanted, matched=matched)
    if strength is None:
        return f"no strength up to {LARGEST:g} gives the permuted delta the edit's KL of {wanted:.3g} nats per token"
    scaled = replace(edit, stages=(EditStage(last, shuffled.scaled(strength)),))
    return Floor(edit=scaled, strength=strength, kl=mean_kl(dial, strength), wanted=wanted, seed=seed)


def equal_strength(
    kl: Callable[[float], float], wanted: float, *, largest: float = LARGEST, matched: float = MATCHED
) -> float | None:
    """The strength at which a delta's KL is a wanted one, by bisection.

    Args:
        kl: The KL at a strength, nats per token; it is 0 at 0.
        wanted: What it is to be.
        largest: The strength up to which is searched.
        matched: How near it must be, as a share of what is wanted.

    Returns:
        The strength; None where none was found.

    Example:
        >>> from workbench.evaluation.floor import equal_strength
        >>> equal_strength(lambda s: s**2, 4.0)
        2.0
    """
    if not wanted > 0:
        return None
    low, high = 0.0, 1.0
    reached = kl(high)
    while reached < wanted * (1 - matched) and high < largest:
        low, high = high, 2 * high
        reached = kl(high)
    for _ in range(HALVINGS):
        if abs(reached - wanted) <= matched * wanted:
            return high
        middle = (low + high) / 2
        value = kl(middle)
        if abs(value - wanted) <= matched * wanted:
            return middle
        low, high = (middle, high) if value < wanted else (low, middle)
    return None
