"""Maps of what ``attribute`` measured: means over facts, minus controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.tracing.component_units import AttributionUnit, How, Measured
from workbench.tracing.roles import by_role
from workbench.types import EffectMap
from workbench.types.cell_intervals import mean_and_error
from workbench.types.roles import role_of, roles_of
from workbench.types.units import labelled


def attribution_maps(
    measured: Sequence[Measured], n: int, how: How, common: dict[str, Any]
) -> dict[AttributionUnit, EffectMap]:
    """A map by unit.

    Args:
        measured: Of the attributed facts, and of controls after them, whose mean is subtracted.
        n: How many are attributed.
        how: What was measured.
        common: What maps of all units have in common.
    """
    of_facts = measured[:n]
    corrupted = [m.corrupted for m in of_facts if m.corrupted is not None]
    common = {
        **common,
        "clean": sum(m.clean for m in of_facts) / n,
        "corrupted": sum(corrupted) / n if corrupted else None,
        "prompts": tuple(m.prompt for m in of_facts),
    }
    if not how.per_position:
        return {unit: _map(unit, [m.effects[unit] for m in measured], n, common) for unit in how.units}
    prompts = [m.prompt for m in measured]
    # Of one fact positions are its tokens, and from each is subtracted what controls have at tokens of its role.
    own = [role_of(prompts[0], i) for i in range(len(prompts[0].tokens))]
    labels, roles = (prompts[0].tokens, own) if n == 1 else 2 * (roles_of(prompts),)
    found: dict[AttributionUnit, EffectMap] = {}
    for unit in how.units:
        values = [by_role(m.effects[unit], m.prompt, roles) for m in measured[n == 1 :]]
        values = [measured[0].effects[unit], *values] if n == 1 else values
        found[unit] = _map(unit, values, n, common, labels)
    return found


def _map(
    unit: AttributionUnit,
    values: list[Tensor],
    n: int,
    common: dict[str, Any],
    positions: tuple[str, ...] | None = None,
) -> EffectMap:
    """The mean of the first n facts' effects, minus that of the controls after them. The controls were drawn as the
    facts were, so the error of the difference has the spread of both."""
    of_facts = torch.stack(values[:n])
    mean, error = mean_and_error(of_facts)
    if len(values) > n:
        less, error_of_controls = mean_and_error(torch.stack(values[n:]))
        mean, of_facts = mean - less, of_facts - less
        error = None if error is None or error_of_controls is None else torch.hypot(error, error_of_controls)
    axes, labels = labelled(unit, mean.shape)
    if positions is not None:
        axes, labels = (*axes, "position"), {**labels, "position": positions}
    return EffectMap(
        values=mean,
        axes=axes,
        labels=labels,
        unit=unit,
        stderr=error,
        n=n,
        per_fact=of_facts if n > 1 else None,
        **common,
    )
