"""The routers of memories: pure functions, which decide for each token by its own state."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest_key(states: Tensor, keys: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    """The key that is nearest to each state, and whether the state is within its radius.

    Args:
        states: [tokens, inputs].
        keys: [n, inputs], n from 1.
        radii: [n].

    Returns:
        Indices of keys [tokens], and whether they fire [tokens].
    """
    with torch.no_grad():
        # Not by products of matrices, which lose the digits of small distances.
        far = torch.cdist(states.detach().float(), keys, compute_mode="donot_use_mm_for_euclid_dist")
        distance, key = far.min(-1)
        return key, distance <= radii[key]


def chosen_shard(moves: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """The shard of a side memory that each state goes through, and whether it goes through any.

    Args:
        moves: D x of each shard, [shards, tokens, d_out].
        thresholds: [shards].

    Returns:
        Indices of shards [tokens], and whether one's activation distance reaches its threshold [tokens].
    """
    with torch.no_grad():
        distance = moves.detach().square().sum(-1).sqrt()
        reached = distance >= thresholds[:, None]
        return distance.masked_fill(~reached, -1.0).argmax(0), reached.any(0)
