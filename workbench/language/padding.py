"""Texts of several lengths in one batch of token ids: padding, batches of similar length, common beginnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from workbench.models.load import LoadedModel


def length_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices grouped into batches of similar length, longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def pad(rows: Sequence[Sequence[int]], value: int, side: str) -> tuple[Tensor, Tensor]:
    """Pad rows of token ids to one tensor. Returns ids and attention mask, both [rows, longest]."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), value, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        span = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, span] = torch.tensor(row, dtype=torch.long)
        mask[i, span] = 1
    return ids, mask


def pad_token(model: LoadedModel) -> int:
    """A token id to pad with: masked out everywhere, so any will do that the model can embed. A pad token that was
    added to the tokenizer alone lies beyond the embedding."""
    wanted = (model.tokenizer.pad_token_id, model.tokenizer.eos_token_id)
    return next((int(token) for token in wanted if token is not None and 0 <= token < model.shape.d_vocab), 0)


def shared_tokens(model: LoadedModel, prompts: Sequence[tuple[int, ...]], max_new_tokens: int) -> int:
    """How many first tokens prompts have in common, leaving each one of its own; 0 for a single prompt.

    0 as well if a layer's attention window could end within the texts (the padding stands between the shared tokens
    and a row's own, and the window would count it), and for a model that asks for a kind of cache of its own.
    """
    window = model.architecture.traits.window
    too_long = window is not None and max(map(len, prompts)) + max_new_tokens > window
    own_cache = getattr(model.hf.generation_config, "cache_implementation", None) is not None
    if len(prompts) == 1 or too_long or own_cache:
        return 0
    return common_beginning(prompts)


def common_beginning(texts: Sequence[Sequence[int]]) -> int:
    """How many first tokens texts have in common, leaving each at least one token of its own."""
    low, high = min(map(tuple, texts)), max(map(tuple, texts))  # in dictionary order: what these share, all share
    most = max(min(map(len, texts)) - 1, 0)
    return next((n for n in range(most) if low[n] != high[n]), most)
