"""Attention of a packed batch: the tokens of many cells side by side, each cell with its own past.

A cell's tokens see the corrupted run's keys and values before the cell's first position, and the cell's own from there
on. Cells that begin at one position are computed together, and their common past is never copied.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

ATTENTION = "workbench_cone"
OWN_ATTENTION = ("sdpa", "eager")
"""The implementations that this one replaces: softmax of scaled products under the mask that the layer is given."""
HARMLESS = frozenset(
    [
        "cone",
        "dropout",
        "is_causal",
        "position_ids",
        "sliding_window",
        "use_cache",
        "output_attentions",
        "output_router_logits",
    ]
)
"""Options of attention that change nothing here: a window is in the mask already."""


class Pack:
    """Where the tokens of cells are in the packed batch: cell after cell, and in it sample after sample.

    Args:
        begins: The position at which each cell begins, counted among the corrupted tokens.
        samples: Corrupted runs.
        tokens: Corrupted tokens, the last of which every cell ends with.
        device: Of the indices.
        last: Only the last token of every cell is in the batch.

    Attributes:
        first: The first position of each cell that is in the batch.
        positions: The position of each packed token.
    """

    def __init__(
        self, begins: Sequence[int], samples: int, tokens: int, device: torch.device, *, last: bool = False
    ) -> None:
        self.first = [tokens - 1 if last else begin for begin in begins]
        self._rows: list[Tensor] = []
        positions: list[Tensor] = []
        members: dict[int, list[int]] = {}
        done = 0
        for i, (begin, first) in enumerate(zip(begins, self.first, strict=True)):
            length = tokens - first
            self._rows.append(torch.arange(done, done + samples * length, device=device).view(samples, length))
            positions.append(torch.arange(first, tokens, device=device).repeat(samples))
            members.setdefault(begin, []).append(i)
            done += samples * length
        self.positions = torch.cat(positions)
        self._groups = {begin: (of, torch.stack([self._rows[i] for i in of])) for begin, of in members.items()}

    def rows(self, i: int) -> Tensor:
        """Rows of one cell's tokens, [samples, tokens]."""
        return self._rows[i]

    def group(self, begin: int, joined: int) -> Tensor:
        """Rows of those of the first ``joined`` cells that begin at a position, [cells, samples, tokens]."""
        of, rows = self._groups[begin]
        return rows[: bisect_left(of, joined)]

    @property
    def begins(self) -> list[int]:
        """The positions at which cells begin."""
        return list(self._groups)


class PackedAttention:
    """Attention of the packed batch in one layer.

    Args:
        before: The corrupted runs' keys and values, each [samples, kv heads, all tokens, d_head].
        allowed: Whether a corrupted token sees another, [corrupted tokens, all tokens].
        queries: Where the tokens are that attend.
        joined: How many cells are in the batch yet.
        keys: Where the keys and values are; by default beside the queries.
        own: The cells' keys and values, each [packed tokens, kv heads, d_head]; by default the queries'.
    """

    def __init__(
        self,
        before: tuple[Tensor, Tensor],
        allowed: Tensor,
        queries: Pack,
        joined: int,
        *,
        keys: Pack | None = None,
        own: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.before, self.queries, self.keys, self.joined, self.own = before, queries, keys or queries, joined, own
        self.unseen = ~allowed
        self.prefix = allowed.shape[1] - allowed.shape[0]
        self.called = False

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Outputs [1, packed tokens, heads, d_head]; arguments [1, heads, packed tokens, d_head]."""
        self.called = True
        queries = by_token(query) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        own = self.own or (by_token(key), by_token(value))
        out = torch.empty(query.shape[2], query.shape[1], value.shape[-1], dtype=value.dtype, device=value.device)
        for begin in self.queries.begins:
            at, of = self.queries.group(begin, self.joined), self.keys.group(begin, self.joined)
            if len(at):
                before = (x[:, :, : self.prefix + begin] for x in self.before)
                out[at] = self._of_group(queries[at], *(x[of] for x in own), *before)
        return out[None]

    def _of_group(self, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Outputs [cells, samples, queries, heads, d_head] of cells that begin at one position.

        Args:
            query: [cells, samples, queries, heads, d_head], scaled.
            key, value: [cells, samples, tokens, kv heads, d_head], the cells' own.
            keys, values: [samples, kv heads, tokens before, d_head], the corrupted runs'.
        """
        cells, samples, n, _, width = query.shape
        groups, before = key.shape[3], keys.shape[2]
        # Query heads of one key-value head count as further queries, and for the tokens before so do cells.
        query = query.view(cells, samples, n, groups, -1, width).permute(1, 3, 0, 4, 2, 5)
        per_cell = query.reshape(samples, groups, cells, -1, width)
        scores = per_cell @ key.permute(1, 3, 0, 4, 2)
        if before:
            shared = query.reshape(samples, groups, -1, width) @ keys.transpose(-1, -2)
            scores = torch.cat([shared.view(*scores.shape[:-1], before), scores], -1)
        scores = scores.view(samples, groups, cells, -1, n, scores.shape[-1])
        scores.masked_fill_(self.unseen[-n:], float("-inf"))
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
        out = weights[..., before:].flatten(3, 4) @ value.permute(1, 3, 0, 2, 4)
        if before:
            out += (weights[..., :before].reshape(samples, groups, -1, before) @ values).view_as(out)
        out = out.view(samples, groups, cells, -1, n, value.shape[-1])
        return out.permute(2, 0, 4, 1, 3, 5).flatten(3, 4)


def by_token(value: Tensor) -> Tensor:
    """[1, heads, tokens, d_head] as [tokens, heads, d_head]."""
    return value[0].transpose(0, 1)


class Unsupported(Exception):
    """The model does something that this path does not know."""


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, *, scaling: Any = None, **options: Any
) -> tuple[Tensor, None]:
    """The implementation of attention that layers are given while a cone calls them."""
    unknown = [name for name, given in options.items() if name not in HARMLESS and given is not None]
    if unknown or "cone" not in options:
        raise Unsupported(f"options of attention: {unknown}")
    return options["cone"](query, key, value, scaling), None


def register() -> str:
    """Make this attention known to transformers, and return its name there."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attend)
    return ATTENTION
