"""Greedy generation and teacher-forced scoring, batched by length. Prompts are token ids, nothing is added to them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from workbench.models import LoadedModel
from workbench.resume import Resumable, past_options, read_keys_values

MAX_NEW_TOKENS = 24
READ_AT_ONCE = 16
"""Rows that are read in one pass: the logits of all tokens of their continuations are held."""


@dataclass(frozen=True)
class Completion:
    """What a model generated after a prompt: the text without special tokens, and the token ids up to the stop token
    (which is included when the model produced it)."""

    text: str
    token_ids: tuple[int, ...]


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
    """A token id to pad with (masked out everywhere, so any will do)."""
    for token in (model.tokenizer.pad_token_id, model.tokenizer.eos_token_id, 0):
        if token is not None:
            return int(token)
    raise AssertionError("unreachable")


def stop_tokens(model: LoadedModel) -> list[int]:
    """Token ids that end an answer."""
    found: set[int] = set()
    for value in (model.tokenizer.eos_token_id, getattr(model.hf.generation_config, "eos_token_id", None)):
        found.update(value if isinstance(value, (list, tuple)) else [] if value is None else [value])
    return sorted(found)


def generate(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 48,
    expected: Sequence[Sequence[int]] | None = None,
    progress: Any = None,
) -> list[Completion]:
    """Greedy completions of prompts given as token ids, in order. What the prompts of a batch begin with (a chat
    template's system prompt) is computed once.

    Args:
        model: A base or edited model.
        prompts: Token ids of each prompt.
        max_new_tokens: Longest completion.
        batch_size: Rows a batch. Padded batches differ from single rows by about 1e-4 in the logits, which can flip a
            near tie.
        expected: A guess at each completion (what the base says, for an edited model). A guess is read in one pass, and
            only what follows the first token at which the model says something else is generated: the same completions,
            near ties aside, in less time where many guesses are right.
        progress: A tqdm bar to update by the number of finished prompts, or None.

    Raises:
        ValueError: Another number of guesses than of prompts.

    Source: ``expected`` is speculative decoding (Leviathan et al. 2211.17192) with the base's answer as the draft.
    """
    if expected is not None:
        if len(expected) != len(prompts):
            raise ValueError(f"expected must hold a guess for each prompt, got {len(expected)} for {len(prompts)}.")
        return _from_guesses(model, prompts, expected, max_new_tokens, batch_size, progress)
    out: list[Completion | None] = [None] * len(prompts)
    stops = stop_tokens(model)
    for batch in length_batches([len(p) for p in prompts], batch_size):
        asked = [tuple(prompts[i]) for i in batch]
        shared = _shared_tokens(model, asked, max_new_tokens)
        first = asked[0][:shared]
        ids, mask = pad([p[shared:] for p in asked], pad_token(model), "left")
        ids = torch.cat([torch.tensor([first] * len(asked), dtype=torch.long).view(len(asked), shared), ids], 1)
        mask = torch.cat([torch.ones(len(asked), shared, dtype=mask.dtype), mask], 1)
        with torch.inference_mode():
            past = _after(model, first, len(asked)) if shared else {}
            generated = model.runner.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=pad_token(model),
                eos_token_id=stops or None,
                **past,
            )
        for i, row in zip(batch, generated[:, ids.shape[1] :].tolist(), strict=True):
            out[i] = _completion(model, row, stops)
        if progress is not None:
            progress.update(len(batch))
    return [c for c in out if c is not None]


def _completion(model: LoadedModel, tokens: Sequence[int], stops: Sequence[int]) -> Completion:
    """Generated tokens up to the first stop token."""
    end = next((n + 1 for n, token in enumerate(tokens) if token in stops), len(tokens))
    return Completion(model.tokenizer.decode(tokens[:end], skip_special_tokens=True).strip(), tuple(tokens[:end]))


def _from_guesses(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    expected: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    progress: Any,
) -> list[Completion]:
    """``generate`` with guesses."""
    stops = stop_tokens(model)
    guesses = [tuple(guess[: max_new_tokens - 1]) for guess in expected]  # reading gives one token more
    said = _first_departures(model, prompts, guesses, min(batch_size, READ_AT_ONCE))
    going_on = [i for i, s in enumerate(said) if len(s) < max_new_tokens and not set(s) & set(stops)]
    if progress is not None:
        progress.update(len(prompts) - len(going_on))
    if going_on:
        rest = generate(
            model,
            [(*prompts[i], *said[i]) for i in going_on],
            max_new_tokens=max_new_tokens - min(len(said[i]) for i in going_on),
            batch_size=batch_size,
            progress=progress,
        )
        for i, more in zip(going_on, rest, strict=True):
            said[i] = (*said[i], *more.token_ids)[:max_new_tokens]
    return [_completion(model, tokens, stops) for tokens in said]


def _first_departures(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    guesses: Sequence[tuple[int, ...]],
    batch_size: int,
) -> list[tuple[int, ...]]:
    """What the model says after each prompt for as long as that is the guess, and the first token that is not."""
    said: list[tuple[int, ...]] = [()] * len(prompts)
    for i, logits in _read(model, prompts, guesses, batch_size):
        own = logits.argmax(-1).tolist()
        agree = next((n for n, token in enumerate(guesses[i]) if token != own[n]), len(guesses[i]))
        said[i] = (*guesses[i][:agree], own[agree])
    return said


def _read(
    model: LoadedModel, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[int, Tensor]]:
    """Logits that predict each token of a given continuation, and the one after it, in passes that compute what the
    prompts of a batch begin with once.

    Yields:
        (index, [continuation tokens + 1, d_vocab]) for each row, batch by batch, so that only one batch is held.

    Raises:
        ValueError: An empty prompt: nothing predicts its continuation's first token.
    """
    if not all(map(len, prompts)):
        raise ValueError(
            "A prompt has no tokens, so nothing predicts what follows it. Begin it with a token (BOS, say)."
        )
    if not prompts:
        return
    engine = Resumable(model)
    for batch in length_batches([len(p) + len(c) for p, c in zip(prompts, continuations, strict=True)], batch_size):
        longest = max(len(continuations[i]) for i in batch)
        shared = _shared_tokens(model, [tuple(prompts[i]) for i in batch], longest)
        texts = [(*prompts[i], *continuations[i]) for i in batch]
        counts = [len(continuations[i]) + 1 for i in batch]
        at = [(row, len(texts[row]) - n - shared) for row, count in enumerate(counts) for n in range(count, 0, -1)]
        row, position = torch.tensor(at, device=model.device).T
        with torch.inference_mode():
            resid = engine.embed(pad(texts, pad_token(model), "right")[0])  # causal: nothing looks at the padding
            prefix = engine.resumed_keys_values(resid[:1, :shared], 0) if shared else None
            logits = engine.logits_at(resid[:, shared:], row, position, start=0, prefix=prefix)
        yield from zip(batch, logits.split(counts), strict=True)


def _shared_tokens(model: LoadedModel, prompts: Sequence[tuple[int, ...]], max_new_tokens: int) -> int:
    """How many first tokens prompts have in common, leaving each one of its own; 0 for a single prompt.

    0 as well if a layer's attention window could end within the texts (the padding stands between the shared tokens
    and a row's own, and the window would count it), and for a model that asks for a kind of cache of its own.
    """
    window = getattr(model.hf.config.get_text_config(), "sliding_window", None)
    too_long = window is not None and max(map(len, prompts)) + max_new_tokens > window
    own_cache = getattr(model.hf.generation_config, "cache_implementation", None) is not None
    if len(prompts) == 1 or too_long or own_cache:
        return 0
    return common_beginning(prompts)


def _after(model: LoadedModel, first: Sequence[int], rows: int) -> dict[str, Any]:
    """Forward options that put these tokens before so many rows; the model reads them once."""
    return past_options(read_keys_values(model.runner, torch.tensor([list(first)], device=model.device)), rows)


def common_beginning(texts: Sequence[Sequence[int]]) -> int:
    """How many first tokens texts have in common, leaving each at least one token of its own."""
    low, high = min(map(tuple, texts)), max(map(tuple, texts))  # in dictionary order: what these share, all share
    most = max(min(map(len, texts)) - 1, 0)
    return next((n for n in range(most) if low[n] != high[n]), most)


_SAID: WeakKeyDictionary[LoadedModel, dict[tuple[Any, ...], Completion]] = WeakKeyDictionary()


def greedy_answers(
    model: LoadedModel, prompts: Sequence[Sequence[int]], *, max_new_tokens: int = MAX_NEW_TOKENS
) -> list[Completion]:
    """``generate``, remembered for as long as the model is there: what a base says is needed for every edit of it."""
    known = _SAID.setdefault(model, {})
    keys = [(model.fingerprint, tuple(prompt), max_new_tokens) for prompt in prompts]
    todo = list(dict.fromkeys(key for key in keys if key not in known))
    made = generate(model, [prompt for _, prompt, _ in todo], max_new_tokens=max_new_tokens)
    known.update(zip(todo, made, strict=True))
    return [known[key] for key in keys]


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
    for place, logits in _read(model, [prompts[i] for i in kept], [continuations[i] for i in kept], batch_size):
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


_ENGINES: WeakKeyDictionary[Any, Resumable] = WeakKeyDictionary()
_ENTERING: WeakKeyDictionary[LoadedModel, dict[tuple[Any, ...], Tensor]] = WeakKeyDictionary()
_ENTERING_KEPT = 8
_ONE_AT_A_TIME = threading.Lock()
"""A pass that resumes changes its engine's view meanwhile, and panels ask from threads."""


def continuation_probabilities(model: LoadedModel, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
    """Full-sequence probability of each continuation after its prompt, for a few rows of (prompt, continuation).

    A text that another begins with is read off that one (answers of one token after one prompt, say), what several
    begin with is computed once, and the last token of a row never. Below the lowest gate of an edited model the states
    are the base's; those of the last few calls are kept, for a strength that is turned. Equal to
    ``continuation_logprobs`` up to rounding.
    """
    given = [(*prompt, *continuation)[:-1] for prompt, continuation in rows]
    distinct = list(dict.fromkeys(given))
    texts = tuple(t for t in distinct if not any(o != t and o[: len(t)] == t for o in distinct))
    # One text alone goes forward at once: in parts, every weight would be fetched twice.
    shared = common_beginning([prompt for prompt, _ in rows]) if len(texts) > 1 else 0
    at: list[tuple[int, int]] = []
    for text, (prompt, continuation) in zip(given, rows, strict=True):
        row = next(i for i, longer in enumerate(texts) if longer[: len(text)] == text)
        at += [(row, len(prompt) - 1 + n - shared) for n in range(len(continuation))]
    start = min((layer for layer, _ in model.gates.gates), default=0) if model.applied else 0
    with torch.inference_mode(), _ONE_AT_A_TIME:
        if (engine := _ENGINES.get(model.runner)) is None:
            engine = _ENGINES[model.runner] = Resumable(model)
        resid = _entering(model.base, texts, start) if start else engine.embed(pad(texts, pad_token(model), "right")[0])
        prefix = engine.resumed_keys_values(resid[:1, :shared], start) if shared else None
        places = {place: i for i, place in enumerate(dict.fromkeys(at))}
        row, position = torch.tensor(list(places), device=model.device).T
        logits = engine.logits_at(resid[:, shared:], row, position, start=start, prefix=prefix)
        chosen = logits.float().log_softmax(-1)[[places[place] for place in at], [t for _, c in rows for t in c]]
        return [float(one.sum().exp()) for one in chosen.split([len(c) for _, c in rows])]


def _entering(base: LoadedModel, texts: tuple[tuple[int, ...], ...], layer: int) -> Tensor:
    """The residual stream of texts entering a layer of a base model, padded on the right, [texts, tokens, d_model]."""
    known, key = _ENTERING.setdefault(base, {}), (base.fingerprint, texts, layer)
    if key not in known:
        ids, _ = pad(texts, pad_token(base), "right")  # causal: nothing looks at the padding
        known[key] = Resumable(base).entering(ids, layer)
        if len(known) > _ENTERING_KEPT:
            del known[next(iter(known))]
    return known[key]
