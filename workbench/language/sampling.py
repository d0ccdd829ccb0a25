"""Samples at temperature 1, each with noise of its own.

The likeliest token after Gumbel noise is added to the logits is a sample of their softmax (Gumbel 1954). The noise is
drawn from the seed, the prompt and the sample's number alone. So a sample depends neither on the batch that it comes in
nor on the other prompts, and a base and its edit are sampled with the same noise: what differs is the edit's doing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.language.generation import MAX_NEW_TOKENS, Completion, generate
from workbench.models.load import LoadedModel


class GumbelNoise:
    """Adds noise to the logits of a batch, a generator a row; a logits processor of transformers.

    Args:
        seeds: Of each row.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._draws = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        rows = [torch.empty(scores.shape[-1]).exponential_(generator=draw).log_().neg_() for draw in self._draws]
        return scores.float() + torch.stack(rows).to(scores.device)


def sample(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    n: int,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 48,
    stop: bool = True,
    seed: int = 0,
    progress: Any = None,
) -> list[list[Completion]]:
    """Sample completions of prompts given as token ids, at temperature 1, from the whole vocabulary.

    Args:
        model: A base or edited model.
        prompts: Token ids of each prompt.
        n: Samples of each prompt.
        max_new_tokens, batch_size, stop, progress: As in ``generate``.
        seed: Of the noise.

    Returns:
        For each prompt its samples.

    Raises:
        ValueError: ``n`` below 1, or what ``generate`` refuses.

    Source: the Gumbel-max trick, Gumbel 1954; the same noise for both models, Oberst and Sontag 2019 (1905.05824).

    Example:
        >>> from workbench.language.prompts import prompt_ids
        >>> from workbench.language.sampling import sample
        >>> prompt = prompt_ids(model, fact.question, "chat")
        >>> [len(samples) for samples in sample(model, [prompt], 3)]
        [3]
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more samples, got {n!r}.")
    rows = [tuple(prompt) for prompt in prompts for _ in range(n)]
    seeds = [_seed(prompt, i, seed) for prompt in prompts for i in range(n)]
    completions = generate(
        model,
        rows,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        stop=stop,
        noise=lambda batch: GumbelNoise([seeds[i] for i in batch]),
        progress=progress,
    )
    return [completions[i * n : (i + 1) * n] for i in range(len(prompts))]


def _seed(prompt: Sequence[int], number: int, seed: int) -> int:
    """Of one sample's noise."""
    digest = hashlib.sha256(repr((seed, number, tuple(prompt))).encode()).digest()
    return int.from_bytes(digest[:7], "big")
