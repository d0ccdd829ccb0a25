"""The mean of maps of several facts or contrasts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workbench.tracing.roles import by_role
from workbench.types import EffectMap
from workbench.types.cell_intervals import mean_and_error
from workbench.types.roles import roles_of


def mean_map(maps: Sequence[EffectMap]) -> EffectMap:
    """The mean over maps of one text each, with positions as roles; those that some texts lack are over the others.

    Args:
        maps: Of one measure and one model; at least one.
    """
    first = maps[0]
    labels = dict(first.labels)
    values = [m.values for m in maps]
    if "position" in first.axes:
        labels["position"] = roles_of(m.prompts[0] for m in maps)
        values = [by_role(m.values, m.prompts[0], labels["position"]) for m in maps]
    each = torch.stack(values)
    mean, error = mean_and_error(each)
    corrupted = [m.corrupted for m in maps if m.corrupted is not None]
    return EffectMap(
        values=mean,
        axes=first.axes,
        labels=labels,
        unit=first.unit,
        metric=first.metric,
        words=first.words,
        method=first.method,
        clean=sum(m.clean for m in maps) / len(maps),
        corrupted=sum(corrupted) / len(corrupted) if corrupted else None,
        stderr=error,
        n=len(maps),
        per_fact=each,
        prompts=tuple(m.prompts[0] for m in maps),
        corruption=first.corruption,
        normalised=first.normalised,
        base_fingerprint=first.base_fingerprint,
        provenance=first.provenance | {"facts": [m.prompts[0].fact_id for m in maps]},
    )
