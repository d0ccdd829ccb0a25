"""Means over positions of one role."""

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
