"""Greedy generation, batched by length. Prompts are token ids, nothing is added to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.language.bundled_answers import AnswerKey, hashed, shipped_answers
from workbench.language.padding import length_batches, pad, pad_token, shared_tokens
from workbench.language.scoring import READ_AT_ONCE, read_logits
from workbench.language.template import THOUGHTS, turn_stops
from workbench.language.tokens import check_ids, longest_text
from workbench.models.engine import past_options, read_keys_values
from workbench.models.load import LoadedModel

MAX_NEW_TOKENS = 24
GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": None,
    "bad_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "guidance_scale": None,
    "watermarking_config": None,
    "max_time": None,
    "stop_strings": None,
    "force_words_ids": None,
    "num_return_sequences": 1,
    "prompt_lookup_num_tokens": None,
    "token_healing": False,
    "dola_layers": None,
    "return_dict_in_generate": False,
}
"""The likeliest token each time, whatever the model's own generation settings would sample, forbid or force."""


@dataclass(frozen=True)
class Completion:
    """What a model generated after a prompt: the text without special tokens, and the token ids up to the stop token
    (which is included when the model produced it)."""

    text: str
    token_ids: tuple[int, ...]


Stops = tuple[int | str, ...]
"""What ends an answer: token ids, and texts, at which it is cut."""


def stops_of(model: LoadedModel) -> Stops:
    """What ends an answer: the end-of-text tokens of tokenizer and generation settings, and what the chat template
    itself writes after a reply, as a token or as text. Without a chat template a reply ends with its line."""
    found: set[int] = set()
    turn_end = turn_stops(model)
    for value in (
        model.tokenizer.eos_token_id,
        getattr(model.hf.generation_config, "eos_token_id", None),
        [stop for stop in turn_end if isinstance(stop, int)],
    ):
        found.update(value if isinstance(value, (list, tuple)) else [] if value is None else [value])
    return (*sorted(found), *(stop for stop in turn_end if isinstance(stop, str)))


def stop_tokens(model: LoadedModel) -> list[int]:
    """Token ids that end an answer."""
    return [stop for stop in stops_of(model) if isinstance(stop, int)]


def generate(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 48,
    expected: Sequence[Sequence[int]] | None = None,
    stop: bool = True,
    noise: Callable[[Sequence[int]], Any] | None = None,
    progress: Any = None,
) -> list[Completion]:
    """Greedy completions of prompts given as token ids, in order. What the prompts of a batch begin with (a chat
    template's system prompt) is computed once. Of the model's own generation settings only the stop tokens count. A
    completion ends where the model's positions do, too.

    Args:
        model: A base or edited model.
        prompts: Token ids of each prompt.
        max_new_tokens: Longest completion.
        batch_size: Rows a batch. Padded batches differ from single rows by about 1e-4 in the logits, which can flip a
            near tie.
        expected: A guess at each completion (what the base says, for an edited model). A guess is read in one pass, and
            only what follows the first token at which the model says something else is generated: the same completions,
            near ties aside, in less time where many guesses are right.
        stop: End at a stop token; False goes on to ``max_new_tokens`` (without guesses).
        noise: What is added to the logits of a batch, given the indices of its prompts, for samples
            (``workbench.language.sampling``); not with guesses.
        progress: A tqdm bar to update by the number of finished prompts, or None.

    Raises:
        ValueError: Another number of guesses than of prompts, guesses at texts that do not stop, or a prompt that the
            model cannot read: longer than its positions, or with a token that has no embedding.

    Source: ``expected`` is speculative decoding (Leviathan et al. 2211.17192) with the base's answer as the draft.
    """
    if expected is not None:
        if not stop:
            raise ValueError("expected= is for completions that end at a stop token; leave it out with stop=False.")
        if len(expected) != len(prompts):
            raise ValueError(f"expected must hold a guess for each prompt, got {len(expected)} for {len(prompts)}.")
        return _from_guesses(model, prompts, expected, max_new_tokens, batch_size, progress)
    out: list[Completion | None] = [None] * len(prompts)
    for prompt in prompts:
        check_ids(model, prompt)
    stops = stops_of(model) if stop else ()
    for batch, most in _batches(model, prompts, batch_size, max_new_tokens):
        asked = [tuple(prompts[i]) for i in batch]
        shared = shared_tokens(model, asked, most)
        first = asked[0][:shared]
        ids, mask = pad([p[shared:] for p in asked], pad_token(model), "left")
        ids = torch.cat([torch.tensor([first] * len(asked), dtype=torch.long).view(len(asked), shared), ids], 1)
        mask = torch.cat([torch.ones(len(asked), shared, dtype=mask.dtype), mask], 1)
        with torch.inference_mode():
            past = _after(model, first, len(asked)) if shared else {}
            generated = model.runner.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=most,
                pad_token_id=pad_token(model),
                eos_token_id=[stop for stop in stops if isinstance(stop, int)] or None,
                stopping_criteria=_text_ends(model, ids.shape[1], stops),
                logits_processor=None if noise is None else [noise(batch)],
                **GREEDY,
                **past,
            )
        for i, row in zip(batch, generated[:, ids.shape[1] :].tolist(), strict=True):
            out[i] = completion_of(model, row, stops)
        if progress is not None:
            progress.update(len(batch))
    return [c for c in out if c is not None]


def _batches(
    model: LoadedModel, prompts: Sequence[Sequence[int]], batch_size: int, max_new_tokens: int
) -> Iterator[tuple[list[int], int]]:
    """Batches of prompts of similar length, longest first, and how many tokens each is given: a prompt that leaves
    fewer positions than are asked for goes alone, so that no other is cut with it."""
    room = _room(model, prompts, max_new_tokens)
    yield from (([i], most) for i, most in enumerate(room) if most < max_new_tokens)
    free = [i for i, most in enumerate(room) if most == max_new_tokens]
    for batch in length_batches([len(prompts[i]) for i in free], batch_size):
        yield [free[i] for i in batch], max_new_tokens


def _room(model: LoadedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[int]:
    """How many tokens may follow each prompt: at most as many as are asked for, and as have a position left (one, where
    the prompt takes all)."""
    longest = longest_text(model)
    return [max_new_tokens if longest is None else min(max_new_tokens, max(longest - len(p), 1)) for p in prompts]


def _text_ends(model: LoadedModel, width: int, stops: Stops) -> Any:
    """Stopping criteria for the texts that end an answer; None where there are none.

    Args:
        model: The model.
        width: Tokens of the padded prompts.
        stops: What ends an answer.
    """
    if not any(isinstance(stop, str) for stop in stops):
        return None
    from transformers import StoppingCriteria, StoppingCriteriaList

    class TextEnds(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> Any:
            rows = input_ids[:, width:].tolist()
            ended = [text_end(model, row, stops) is not None for row in rows]
            return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)

    return StoppingCriteriaList([TextEnds()])


def _raw_text(model: LoadedModel, tokens: Sequence[int]) -> str:
    """Generated tokens as text, without special tokens but those of thoughts."""
    added = getattr(model.tokenizer, "added_tokens_decoder", {})
    special = {*model.tokenizer.all_special_ids, *(t for t, token in added.items() if token.special)}
    marks = {mark for pair in THOUGHTS for mark in pair}
    names = {t: model.tokenizer.convert_ids_to_tokens([t])[0] for t in tokens if t in special}
    parts = {name for name in names.values() if any(name in mark for mark in marks)}  # a mark may be several tokens
    if not parts:
        return model.tokenizer.decode(list(tokens), skip_special_tokens=True)
    kept = [t for t in tokens if t not in special or names[t] in parts]
    return model.tokenizer.decode(kept, skip_special_tokens=False)


def _text_of(model: LoadedModel, tokens: Sequence[int]) -> str:
    """The same without white space around it."""
    return _raw_text(model, tokens).strip()


def text_end(model: LoadedModel, tokens: Sequence[int], stops: Stops) -> str | None:
    """What an answer says before the first text that ends it (``stops_of``), white space before the answer apart; None
    where none of them is in it."""
    texts = [stop for stop in stops if isinstance(stop, str)]
    said = _raw_text(model, tokens).lstrip() if texts else ""
    places = [at for stop in texts if (at := said.find(stop)) >= 0]
    return said[: min(places)].rstrip() if places else None


def _n_holding(model: LoadedModel, tokens: Sequence[int], text: str) -> int:
    """How many first tokens hold the beginning of an answer, at least."""
    held = (n for n in range(len(tokens) + 1) if _text_of(model, tokens[:n]).startswith(text))
    return next(held, len(tokens))


def completion_of(model: LoadedModel, tokens: Sequence[int], stops: Stops) -> Completion:
    """Generated tokens up to the first stop token, or up to the first text that ends an answer."""
    end = next((n + 1 for n, token in enumerate(tokens) if token in stops), len(tokens))
    said = tokens[:end]
    text = text_end(model, said, stops)
    if text is not None:
        return Completion(text, tuple(said[: _n_holding(model, said, text)]))
    return Completion(_text_of(model, said), tuple(said))


def _from_guesses(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    expected: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    progress: Any,
) -> list[Completion]:
    """``generate`` with guesses."""
    for prompt in prompts:
        check_ids(model, prompt)
    stops, room = stops_of(model), _room(model, prompts, max_new_tokens)
    # Reading gives one token more than is guessed.
    guesses = [tuple(guess[: most - 1]) for guess, most in zip(expected, room, strict=True)]
    said: list[tuple[int, ...]] = [()] * len(prompts)
    guessed = [i for i, guess in enumerate(guesses) if guess]
    found = _first_departures(
        model, [prompts[i] for i in guessed], [guesses[i] for i in guessed], min(batch_size, READ_AT_ONCE)
    )
    for i, tokens in zip(guessed, found, strict=True):
        said[i] = tokens
    going_on = [
        i
        for i, s in enumerate(said)
        if len(s) < room[i] and not set(s) & set(stops) and text_end(model, s, stops) is None
    ]
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
    return [completion_of(model, tokens, stops) for tokens in said]


def _first_departures(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    guesses: Sequence[tuple[int, ...]],
    batch_size: int,
) -> list[tuple[int, ...]]:
    """What the model says after each prompt for as long as that is the guess, and the first token that is not."""
    said: list[tuple[int, ...]] = [()] * len(prompts)
    for i, logits in read_logits(model, prompts, guesses, batch_size):
        own = logits.argmax(-1).tolist()
        agree = next((n for n, token in enumerate(guesses[i]) if token != own[n]), len(guesses[i]))
        said[i] = (*guesses[i][:agree], own[agree])
    return said


def _after(model: LoadedModel, first: Sequence[int], rows: int) -> dict[str, Any]:
    """Forward options that put these tokens before so many rows; the model reads them once."""
    return past_options(read_keys_values(model.runner, torch.tensor([list(first)], device=model.device)), rows)


def greedy_answers(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 48,
    drafts: LoadedModel | None = None,
    stop: bool = True,
    progress: Any = None,
) -> list[Completion]:
    """``generate``, through the model's cache: what a base says is needed for every edit of it, and for every
    evaluation of one. Of the bundled model some answers are shipped, whatever device it is on (near ties may fall
    otherwise there).

    Args:
        model: A base or edited model.
        prompts: Token ids of each prompt.
        max_new_tokens: Longest completion.
        batch_size: Rows a batch.
        drafts: A model whose cached answers to the same prompts are the guesses of ``generate``.
        stop: As in ``generate``; False is not for drafts.
        progress: A tqdm bar to update by the number of finished prompts, or None.
    """
    keys = _keys(model, prompts, max_new_tokens, stop)
    shipped = {} if model.edited else shipped_answers(model.fingerprint)

    def compute(missing: list[AnswerKey]) -> list[tuple[str, tuple[int, ...]]]:
        tokens = {key: shipped[name] for key in missing if (name := hashed(key)) in shipped} if shipped else {}
        made = {key: completion_of(model, ids, key[2]) for key, ids in tokens.items()}
        unknown = [key for key in missing if key not in made]
        asked = [prompt for prompt, *_ in unknown]
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "stop": stop}
        options["progress"] = progress
        if drafts is not None:
            their_keys = _keys(drafts, asked, max_new_tokens, stop)
            guesses = drafts.cache.answers.get_all(their_keys)
            options["expected"] = [guesses[key][1] if key in guesses else () for key in their_keys]
        made.update(zip(unknown, generate(model, asked, **options), strict=True))
        return [(made[key].text, made[key].token_ids) for key in missing]

    return [Completion(*answer) for answer in model.cache.answers.get_or_compute_all(keys, compute)]


def _keys(model: LoadedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: bool) -> list[AnswerKey]:
    stops = stops_of(model) if stop else ()
    return [(tuple(prompt), max_new_tokens, stops) for prompt in prompts]
