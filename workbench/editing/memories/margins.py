"""What keeps the router of a side memory apart: margins of activation distances; and how shards become one memory.

Source: WISE (Wang et al. 2024, 2405.14768) and its public code; TIES merging, Yadav et al. 2023 (2306.01708).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

OUTSIDE, APART = 0.25, 0.5
"""The published margins, 5 and 10, as shares of the third one, 20."""


@dataclass(frozen=True)
class Margins:
    """What activation distances should be: of the edit's tokens at least ``inside``, of others at most a quarter of it,
    and the difference of a pair at least half of it (the published 20, 5 and 10 in units of the model).

    Args:
        inside: In units of the module's output.
    """

    inside: float

    def loss(self, inside: Tensor, outside: Tensor) -> Tensor:
        """How far distances are from that, as a share of ``inside``: each of the three is a mean over the tokens (for
        the last one, pairs) that fall short of it, so that the last ones push as hard as the first.

        Args:
            inside: Distances of the edit's tokens, [n].
            outside: Of other tokens, [m]; the shorter of the two is repeated to make pairs.
        """
        pairs = max(len(inside), len(outside)) if len(inside) and len(outside) else 0
        a, b = (x.repeat(-(-pairs // max(len(x), 1)))[:pairs] for x in (inside, outside))
        parts = (
            outside / self.inside - OUTSIDE,
            1 - inside / self.inside,
            APART - (a - b) / self.inside,
        )
        return torch.stack([_mean_of_violators(part) for part in parts]).sum()


def _mean_of_violators(excess: Tensor) -> Tensor:
    short = excess > 0
    return (excess * short).sum() / short.sum().clamp(min=1)


def distances(states: Tensor, weights: Tensor) -> Tensor:
    """|D x| of states [n, d_in] for D [d_out, d_in], [n]; its gradient is finite where it is 0."""
    return ((states @ weights.T).square().sum(-1) + 1e-12).sqrt()


def ties_merge(shards: Tensor, density: float) -> Tensor:
    """Merge several updates of one module.

    Of each its largest entries are kept, ``density`` of those that it has; at every place the sign with the larger sum
    wins, and the entries of that sign are averaged.

    Args:
        shards: [shards, d_out, d_in]; 0 where a shard has no entry.
        density: The share that is kept, in (0, 1].

    Returns:
        [d_out, d_in].

    Example:
        >>> ties_merge(torch.tensor([[[4.0, 1.0, 0.0]], [[2.0, -3.0, 0.0]]]), 0.5)
        tensor([[ 4., -3.,  0.]])
    """
    flat = shards.flatten(1)
    kept = torch.zeros_like(flat)
    for row, out in zip(flat, kept, strict=True):
        n = round(density * int((row != 0).sum()))
        if n:
            largest = row.abs().topk(n).indices
            out[largest] = row[largest]
    sign = kept.sum(0).sign()
    agrees = (kept.sign() == sign) & (kept != 0)
    merged = (kept * agrees).sum(0) / agrees.sum(0).clamp(min=1)
    return merged.view(shards.shape[1:])
