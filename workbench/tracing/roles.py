"""Means over positions of one role, and over facts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.types import TracedPrompt
from workbench.types.roles import role_of


def by_role(values: Tensor, prompt: TracedPrompt, roles: Sequence[str]) -> Tensor:
    """Average [..., position] over the positions of each role: [..., role]; NaN where a role has no position."""
    of = [role_of(prompt, i) for i in range(len(prompt.token_ids))]
    columns = []
    for role in roles:
        at = [i for i, r in enumerate(of) if r == role]
        columns.append(values[..., at].mean(-1) if at else values[..., 0] * float("nan"))
    return torch.stack(columns, -1)


def mean_and_error(samples: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean and standard error over the first axis, NaN left out; the error is None for a single sample."""
    mean = samples.nanmean(0)
    if samples.shape[0] == 1:
        return mean, None
    n = (~samples.isnan()).sum(0)
    variance = ((samples - mean) ** 2).nansum(0) / (n - 1).clamp(min=1)
    return mean, torch.where(n > 1, (variance / n.clamp(min=1)).sqrt(), torch.nan)
