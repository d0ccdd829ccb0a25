"""Teacher-forced scores: logits, log-probabilities and likelihoods of given continuations, batched by length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.language.padding import common_beginning, length_batches, pad, pad_token, shared_tokens
from workbench.language.tokens import check_ids
from workbench.models.cache import Ids
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.load import LoadedModel

READ_AT_ONCE = 16
"""Rows that are read in one pass: the logits of all tokens of their continuations are held."""


def _check_prompts(prompts: Sequence[Sequence[int]]) -> None:
    """Raise a ValueError for an empty one."""
    if not all(map(len, prompts)):
        raise ValueError(
            "A prompt has no tokens, so nothing predicts what follows it. Begin it with a token (BOS, say)."
        )


def read_logits(
    model: LoadedModel, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[int, Tensor]]:
    """Logits that predict each token of a given continuation, and the one after it, in passes that compute what the
    prompts of a batch begin with once.

    Yields:
        (index, [continuation tokens + 1, d_vocab]) for each row, batch by batch, so that only one batch is held.

    Raises:
        ValueError: An empty prompt: nothing predicts its continuation's first token. A text that is longer than the
            model can read.
    """
    _check_prompts(prompts)
    if not prompts:
        return
    for prompt, continuation in zip(prompts, continuations, strict=True):
        check_ids(model, [*prompt, *continuation], "A text with what follows it")
    for batch in length_batches([len(p) + len(c) for p, c in zip(prompts, continuations, strict=True)], batch_size):
        longest = max(len(continuations[i]) for i in batch)
        shared = shared_tokens(model, [tuple(prompts[i]) for i in batch], longest)
        texts = [(*prompts[i], *continuations[i]) for i in batch]
        counts = [len(continuations[i]) + 1 for i in batch]
        at = [(row, len(texts[row]) - n - shared) for row, count in enumerate(counts) for n in range(count, 0, -1)]
        row, position = torch.tensor(at, device=model.device).T
        with torch.inference_mode(), pooled_engine(Resumable, model) as engine:
            resid = engine.embed(pad(texts, pad_token(model), "right")[0])  # causal: nothing looks at the padding
            prefix = engine.resumed_keys_values(resid[:1, :shared], 0) if shared else None
            logits = engine.logits_at(resid[:, shared:], row, position, start=0, prefix=prefix)
        yield from zip(batch, logits.split(counts), strict=True)


def continuation_logprobs(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    *,
    batch_size: int = READ_AT_ONCE,
) -> Iterator[tuple[int, Tensor]]:
    """Log-probabilities of the whole vocabulary at each token of a given continuation.

    Yields:
        (index, [continuation tokens, d_vocab] float32) for each row, batch by batch, so that only one batch is held.
        Rows with an empty continuation are left out.
    """
    kept = [i for i, c in enumerate(continuations) if len(c)]
    for place, logits in read_logits(model, [prompts[i] for i in kept], [continuations[i] for i in kept], batch_size):
        yield kept[place], logits[:-1].float().log_softmax(-1)


def continuation_nll(
    model: LoadedModel, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], **options: Any
) -> list[float]:
    """Mean negative log-likelihood of each continuation, nats per token (NaN for an empty one)."""
    out = [float("nan")] * len(prompts)
    for i, logprobs in continuation_logprobs(model, prompts, continuations, **options):
        token = torch.tensor(continuations[i], device=logprobs.device)[:, None]
        out[i] = -float(logprobs.gather(1, token).mean())
    return out


def cached_nll(
    model: LoadedModel, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], **options: Any
) -> list[float]:
    """``continuation_nll`` through the model's cache: what is read with a base is needed for every edit of it."""

    def compute(missing: Sequence[tuple[Ids, Ids]]) -> list[float]:
        return continuation_nll(model, [prompt for prompt, _ in missing], [text for _, text in missing], **options)

    keys = [(tuple(prompt), tuple(text)) for prompt, text in zip(prompts, continuations, strict=True)]
    return model.cache.nll.get_or_compute_all(keys, compute)


def continuation_probabilities(model: LoadedModel, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
    """Full-sequence probability of each continuation after its prompt, for a few rows of (prompt, continuation); 1 for
    an empty one.

    A text that another begins with is read off that one (answers of one token after one prompt, say), what several
    begin with is computed once, and the last token of a row never. Below the lowest layer that an edit changes the
    states are the base's, and cached for a strength that is turned. Equal to
    ``continuation_logprobs`` up to rounding.

    Raises:
        ValueError: An empty prompt: nothing predicts its continuation's first token. A text that is longer than the
            model can read.
    """
    _check_prompts([prompt for prompt, _ in rows])
    if not any(len(continuation) for _, continuation in rows):
        return [1.0] * len(rows)
    given = [(*prompt, *continuation)[:-1] for prompt, continuation in rows]
    for text in given:
        check_ids(model, text, "A text with what follows it")
    distinct = list(dict.fromkeys(given))
    texts = tuple(t for t in distinct if not any(o != t and o[: len(t)] == t for o in distinct))
    # One text alone goes forward at once: in parts, every weight would be fetched twice.
    shared = common_beginning([prompt for prompt, _ in rows]) if len(texts) > 1 else 0
    at: list[tuple[int, int]] = []
    for text, (prompt, continuation) in zip(given, rows, strict=True):
        row = next(i for i, longer in enumerate(texts) if longer[: len(text)] == text)
        at += [(row, len(prompt) - 1 + n - shared) for n in range(len(continuation))]
    start = model.delta.lowest_layer or 0  # below it the states are the base's
    with torch.inference_mode(), pooled_engine(Resumable, model) as engine:
        resid = _entering(model.base, texts, start) if start else engine.embed(pad(texts, pad_token(model), "right")[0])
        prefix = engine.resumed_keys_values(resid[:1, :shared], start) if shared else None
        places = {place: i for i, place in enumerate(dict.fromkeys(at))}
        row, position = torch.tensor(list(places), device=model.device).T
        logits = engine.logits_at(resid[:, shared:], row, position, start=start, prefix=prefix)
        chosen = logits.float().log_softmax(-1)[[places[place] for place in at], [t for _, c in rows for t in c]]
        return [float(one.sum().exp()) for one in chosen.split([len(c) for _, c in rows])]


def _entering(base: LoadedModel, texts: tuple[tuple[int, ...], ...], layer: int) -> Tensor:
    """The residual stream of texts entering a layer of a base model, padded on the right, [texts, tokens, d_model]."""

    def compute() -> Tensor:
        ids, _ = pad(texts, pad_token(base), "right")  # causal: nothing looks at the padding
        with pooled_engine(Resumable, base) as engine:
            return engine.entering(ids, layer)

    return base.cache.states.get_or_compute((texts, layer), compute)
