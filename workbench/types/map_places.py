"""Where a trace is read: the places of its position axis that a position or a role means."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from workbench.types.plain import is_whole
from workbench.types.roles import role_of
from workbench.types.traced_prompt import TracedPrompt
from workbench.types.units import Unit


def places_of(
    labels: Sequence[str],
    prompts: Sequence[TracedPrompt],
    roles: Sequence[str],
    unit: Unit,
    position: int | None,
    role: str | None,
) -> list[int] | None:
    """The places that are asked for; None for all of them.

    Args:
        labels: Of the position axis.
        prompts: The traced texts.
        roles: Those that there are.
        unit: What a cell stands for.
        position, role: What is asked for.

    Raises:
        ValueError: Both, a position or role that there is not, or neither of a residual trace.
    """
    if position is not None and role is not None:
        raise ValueError(f"Give position={position!r} or role={role!r}, not both.")
    if role is not None:
        of = [role_of(prompts[0], i) for i in range(len(labels))] if len(prompts) == 1 else labels
        if role not in of:
            raise ValueError(f"role must be one of {list(roles)} for this map, got {role!r}.")
        return [i for i, one in enumerate(of) if one == role]
    if position is not None:
        if not is_whole(position) or not -len(labels) <= position < len(labels):
            raise ValueError(f"position must be from 0 to {len(labels) - 1} for this map, got {position!r}.")
        return [position % len(labels)]
    if unit == "resid":
        raise ValueError(
            "A residual trace needs position= or role=: restoring the subject at layer 0, or the last token in "
            "late layers, brings the answer back by construction, so the largest cells of all say nothing. "
            f"Positions go from 0 to {len(labels) - 1}; roles are {list(roles)}. Or take a map of heads, MLPs "
            "or neurons (wb.attribute)."
        )
    return None


def at_places(values: Tensor | None, at: list[int]) -> Tensor | None:
    """The mean over some places of the last axis."""
    return None if values is None else values[..., at].nanmean(-1)
