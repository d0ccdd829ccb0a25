"""Positions as roles, so that prompts of different lengths can be averaged."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.types import TracedPrompt

ROLES: tuple[str, ...] = (
    "before",
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "after",
    "last token",
)


def role_of(prompt: TracedPrompt, position: int) -> str:
    """The role of a position. A subject of one token has only a last token."""
    if position in prompt.subject:
        if position + 1 not in prompt.subject:
            return "last subject token"
        return "middle subject tokens" if position - 1 in prompt.subject else "first subject token"
    if position == prompt.position:
        return "last token"
    return "before" if position < min(prompt.subject) else "after"


def by_role(values: Tensor, prompt: TracedPrompt) -> Tensor:
    """Average [..., position] over the positions of each role: [..., role]; NaN where a role has no position."""
    roles = [role_of(prompt, i) for i in range(len(prompt.token_ids))]
    columns = []
    for role in ROLES:
        at = [i for i, r in enumerate(roles) if r == role]
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
