"""Contrasts as one model reads them: the tokens of both runs, of the answers, and of named positions.

No pass of the model is made here. Everything that does not fit is said here, since only a tokenizer can tell.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from workbench.language.answer_tokens import alike
from workbench.language.prompt_text import prompt_ids
from workbench.language.prompts import traced_prompt
from workbench.language.tokens import check_ids, decoded, following_ids, spans, token_text, token_texts, tokens_within
from workbench.models.load import LoadedModel
from workbench.types import Fact, Form, TracedPrompt
from workbench.types.contrast import Contrast, Input, Places, Token
from workbench.types.roles import AFTER_CHANGE, BEFORE_CHANGE, CHANGED, LAST_TOKEN
from workbench.types.traced_prompt import FIRST_STATES, require_text


@dataclass(frozen=True, kw_only=True)
class PreparedContrast:
    """A contrast as a model reads it. ``tracing.corruption.set_up`` makes both runs' states and the metric of it.

    Args:
        contrast: What was given.
        prompt: The clean run as results show it. Its ``subject`` are the ``changed`` positions, its ``roles`` a name
            for every position, its ``answers`` and ``others`` the ids below.
        clean, corrupted: Token ids of the two runs, equally many; None for states that were given as such, and for the
            corrupted run of noise.
        states: Of runs that were given as states: what enters layer 0, clean and corrupted (with noise the clean
            ones alone), each [tokens, d_model]; else none.
        answer_ids, wrong_ids: Token ids of the answers, of which any counts; ``wrong_ids`` may be empty.
        positions: Named positions, in the order in which they were given.
        changed: Where the two runs differ, or where noise goes.
    """

    contrast: Contrast
    prompt: TracedPrompt
    clean: tuple[int, ...] | None
    corrupted: tuple[int, ...] | None
    states: tuple[Tensor, ...] = ()
    answer_ids: tuple[int, ...]
    wrong_ids: tuple[int, ...] = ()
    positions: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    changed: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """How many tokens each run has."""
        return len(self.prompt.tokens)


def prepare(model: LoadedModel, contrast: Contrast, *, sequences: bool = False) -> PreparedContrast:
    """Read a contrast with a model's tokenizer.

    Args:
        model: The model. Texts have the context of an edited model that has one; token ids and states are read as they
            are.
        contrast: The contrast.
        sequences: Whether an answer may have more than one token; ``answer_ids`` is then its first, and the prompt has
            the rest.

    Raises:
        ValueError: The runs differ in length (the message says how they are aligned), an answer is more than one
            token, answer and wrong answer are or begin with the same token, a named position is not in the text or has
            two names, or the model cannot read a run.

    Example:
        >>> from workbench.language.contrasts import prepare
        >>> runs = {"clean": "The capital of France is", "corrupted": "The capital of Italy is"}
        >>> ready = prepare(model, wb.Contrast(**runs, answer=" Paris", wrong=" Rome", positions={"of": 2}))
        >>> ready.changed, ready.positions, ready.prompt.roles[2:]
        ((3,), {'of': (2,)}, ('of', 'changed tokens', 'last token'))
    """
    clean, corrupted = _ids(model, contrast, contrast.clean), _ids(model, contrast, contrast.corrupted)
    states = tuple(run for run in (contrast.clean, contrast.corrupted) if isinstance(run, Tensor))
    _check_states(model, states)
    length = len(states[0] if clean is None else clean)
    if clean is not None and corrupted is not None and len(clean) != len(corrupted):
        raise ValueError(_other_length(model, contrast, clean, corrupted))
    (answers, answer_rest), (wrongs, wrong_rest) = _answer_ids(model, contrast, clean, sequences)
    text = "" if clean is None else decoded(model, clean)
    named = {name: _positions(model, contrast, name, at, clean, length) for name, at in contrast.positions.items()}
    changed = _changed(model, contrast, named, clean, corrupted, states)
    prompt = TracedPrompt(
        fact_id=contrast.id,
        form=contrast.form,
        text=text,
        prefix="",
        token_ids=(FIRST_STATES,) * length if clean is None else clean,
        tokens=tuple(f"state {i}" for i in range(length)) if clean is None else token_texts(model, clean),
        subject=changed,
        answer_id=answers[0],
        answer_token=_token_words(model, answers, answer_rest),
        other_id=wrongs[0] if wrongs else None,
        other_token=_token_words(model, wrongs, wrong_rest) if wrongs else None,
        partner_text=None if corrupted is None else decoded(model, corrupted),
        answers=answers,
        others=wrongs,
        answer_rest=answer_rest,
        other_rest=wrong_rest,
        roles=_roles(named, changed, length),
    )
    return PreparedContrast(
        contrast=contrast,
        prompt=prompt,
        clean=clean,
        corrupted=corrupted,
        states=states,
        answer_ids=answers,
        wrong_ids=wrongs,
        positions=named,
        changed=changed,
    )


def _ids(model: LoadedModel, contrast: Contrast, run: Input | None) -> tuple[int, ...] | None:
    """Token ids of a run; None for states, and where there is none."""
    if run is None or isinstance(run, Tensor):
        return None
    ids = prompt_ids(model, run, contrast.form) if isinstance(run, str) else list(run)
    check_ids(model, ids, f"A run of contrast {contrast.id!r}")
    return tuple(ids)


def _check_states(model: LoadedModel, states: Sequence[Tensor]) -> None:
    """Raise a ValueError for states that do not fit the model or each other."""
    for state in states:
        if state.shape != states[0].shape or state.shape[1] != model.shape.d_model:
            shapes = " and ".join(str(tuple(one.shape)) for one in states)
            raise ValueError(
                f"States that enter layer 0 must be [tokens, {model.shape.d_model}] for this model, equally many in "
                f"both runs, got {shapes}."
            )


def _other_length(model: LoadedModel, contrast: Contrast, clean: Sequence[int], corrupted: Sequence[int]) -> str:
    """Why two runs of different lengths do not fit, and how they are aligned."""
    first = alike(clean, corrupted)
    last = min(alike(clean[::-1], corrupted[::-1]), min(len(clean), len(corrupted)) - first)
    middles = [token_texts(model, run[first : len(run) - last]) for run in (clean, corrupted)]
    return (
        f"Contrast {contrast.id!r}: the clean run has {len(clean)} tokens and the corrupted one {len(corrupted)}. "
        "Their tokens are paired by position, so both need equally many. "
        f"Their first {first} and last {last} tokens agree; between them stand {list(middles[0])} and "
        f"{list(middles[1])}. Word one of them with as many tokens as the other, or use noise=."
    )


_Ids = tuple[int, ...]


def _answer_ids(
    model: LoadedModel, contrast: Contrast, clean: Sequence[int] | None, sequences: bool
) -> tuple[tuple[_Ids, _Ids], tuple[_Ids, _Ids]]:
    """First token ids of the answers and of the wrong answers, each with what follows where there is one."""
    before = "" if clean is None else decoded(model, clean)
    spelled = {token: _spelled(model, before, token) for token in (*contrast.answers, *contrast.wrongs)}
    for right in contrast.answers:
        for wrong in contrast.wrongs:
            if (n := alike(spelled[right], spelled[wrong])) > 0:
                raise ValueError(_same_start(model, contrast, right, wrong, spelled[right][:n]))
    for token, ids in spelled.items():
        if len(ids) == 1:
            continue
        parts = list(token_texts(model, ids))
        what = f"Contrast {contrast.id!r}: {token!r} is {len(ids)} tokens here, {parts}"
        if not sequences:
            raise ValueError(
                f"{what}, and what is measured is the prediction of one. Give its first, {parts[0]!r}, or end both "
                f"runs with {''.join(parts[:-1])!r} and give {parts[-1]!r}."
            )
        if max(len(contrast.answers), len(contrast.wrongs)) > 1 or clean is None:
            raise ValueError(
                f"{what}: whole answers are measured one against one, after texts or token ids. Give one answer and "
                "one wrong answer, or the first token of each."
            )
    found = [[spelled[token] for token in of] for of in (contrast.answers, contrast.wrongs)]
    first, second = ((tuple(dict.fromkeys(ids[0] for ids in of)), of[0][1:] if len(of) == 1 else ()) for of in found)
    return first, second


def _spelled(model: LoadedModel, before: str, token: Token) -> tuple[int, ...]:
    """The token ids of an answer after a text."""
    if isinstance(token, int):
        check_ids(model, [token], "The answer")
        return (token,)
    if before[-1:].isalpha() and token[:1].isalpha():
        warnings.warn(
            f"The answer {token!r} is read as the end of the word {before.split()[-1]!r}: no space stands between "
            f"them. Give {f' {token}'!r} for a word of its own.",
            stacklevel=2,
        )
    return tuple(following_ids(model, before, token))


def _same_start(model: LoadedModel, contrast: Contrast, right: Token, wrong: Token, shared: Sequence[int]) -> str:
    """Why two answers cannot be told apart."""
    text = decoded(model, shared)
    return (
        f"Contrast {contrast.id!r}: the answer {right!r} and the wrong answer {wrong!r} both begin with the token "
        f"{text!r}, so that the next token does not tell them apart. End both runs with {text!r} and give what "
        "follows, or choose another wrong answer."
    )


def _token_words(model: LoadedModel, ids: Sequence[int], rest: Sequence[int] = ()) -> str:
    """A token, or a whole answer, or the first of several and how many more there are, for figures."""
    if rest:
        return "".join(token_texts(model, (ids[0], *rest)))
    first = token_text(model, ids[0])
    return first if len(ids) == 1 else f"{first} (or {len(ids) - 1} more)"


def answer_steps(model: LoadedModel, prompt: TracedPrompt) -> list[tuple[float, tuple[int, ...], TracedPrompt]]:
    """A prompt with whole answers as one prompt for each of their tokens: the log probability of an answer is the sum
    of those of its tokens, each after the ones before it.

    Args:
        model: The model.
        prompt: A contrast's, whose answers have more than one token.

    Returns:
        For each token its sign (-1 of the wrong answer), the tokens of the answer before it, and the text that ends
        with those, whose answer is the token.
    """
    of = [(1.0, (prompt.answer_id, *prompt.answer_rest))]
    if prompt.other_id is not None:
        of.append((-1.0, (prompt.other_id, *prompt.other_rest)))
    steps: list[tuple[float, tuple[int, ...], TracedPrompt]] = []
    for sign, ids in of:
        for n, token in enumerate(ids):
            added = ids[:n]
            text = replace(
                prompt,
                token_ids=(*prompt.token_ids, *added),
                tokens=(*prompt.tokens, *token_texts(model, added)),
                roles=(*prompt.roles, *("answer",) * n),
                answer_id=token,
                answers=(token,),
                other_id=None,
                others=(),
                answer_rest=(),
                other_rest=(),
            )
            steps.append((sign, added, text))
    return steps


def _positions(
    model: LoadedModel, contrast: Contrast, name: str, at: Places, clean: Sequence[int] | None, length: int
) -> tuple[int, ...]:
    """Indices of a named position."""
    if isinstance(at, str):
        if clean is None:
            raise ValueError(f"Positions of {name!r}: runs that are states have no text to look for {at!r} in.")
        text = decoded(model, clean)
        if text.count(at) != 1:
            found = "does not occur" if at not in text else f"occurs {text.count(at)} times"
            raise ValueError(
                f"Positions of {name!r}: {at!r} {found} in {text!r}. Give a piece that occurs once, or indices from 0 "
                f"to {length - 1}."
            )
        start = text.index(at)
        return tuple(tokens_within(spans(model, clean), start, start + len(at)))
    given = (at,) if isinstance(at, int) else at
    for i in given:
        if not -length <= i < length:
            raise ValueError(
                f"Positions of {name!r} must be from 0 to {length - 1} (or negative, from the end), got {i}."
            )
    if model.context and isinstance(contrast.clean, str) and any(i >= 0 for i in given):
        raise ValueError(
            f"Positions of {name!r}: the model reads a context before the text, which moves every token. Give a piece "
            "of the text, or negative indices."
        )
    return tuple(sorted({i % length for i in given}))


def _changed(
    model: LoadedModel,
    contrast: Contrast,
    named: dict[str, tuple[int, ...]],
    clean: Sequence[int] | None,
    corrupted: Sequence[int] | None,
    states: Sequence[Tensor],
) -> tuple[int, ...]:
    """Where two runs differ, or where noise goes."""
    if contrast.noise is not None:
        at = contrast.noise_at
        if at is None:
            return tuple(sorted({i for of in named.values() for i in of}))
        length = len(states[0] if clean is None else clean)
        if isinstance(at, str) and at in named:
            return named[at]
        return _positions(model, contrast, "noise_at", at, clean, length)
    if states:
        different = (states[0] != states[1].to(states[0])).any(-1)
        return tuple(int(i) for i in torch.nonzero(different)[:, 0])
    assert clean is not None and corrupted is not None
    changed = tuple(i for i, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b)
    if not changed:
        raise ValueError(f"Contrast {contrast.id!r}: the two texts have the same tokens, so that nothing differs.")
    return changed


def _roles(named: dict[str, tuple[int, ...]], changed: Sequence[int], length: int) -> tuple[str, ...]:
    """A name for every position: the given one, or where it stands to what changes."""
    roles = [
        LAST_TOKEN
        if i == length - 1
        else CHANGED
        if i in changed
        else BEFORE_CHANGE
        if i < changed[0]
        else AFTER_CHANGE
        for i in range(length)
    ]
    taken: dict[int, str] = {}
    for name, of in named.items():
        for i in of:
            if i in taken:
                raise ValueError(f"Position {i} is named {taken[i]!r} and {name!r}; give each position one name.")
            taken[i] = roles[i] = name
    return tuple(roles)


def text_of(
    model: LoadedModel, traced: Fact | Contrast, form: Form | None, what: str, *, sequences: bool = False
) -> TracedPrompt:
    """The text of a fact, or of a contrast's clean run, for what reads one text.

    Args:
        model: Who reads it.
        traced: The fact or contrast.
        form: Of a fact, as in ``traced_prompt``.
        what: Who reads it, in the plural, as messages begin.
        sequences: Whether a contrast's answer may have more than one token: what is read is the text alone.

    Raises:
        ValueError: ``form`` with a contrast, a contrast that was given as states, or as ``traced_prompt`` and
            ``prepare``.
    """
    prompt, states = clean_run(model, traced, form, sequences=sequences)
    if states is not None:
        require_text(prompt, what)
    return prompt


def clean_run(
    model: LoadedModel, traced: Fact | Contrast, form: Form | None, *, sequences: bool = False
) -> tuple[TracedPrompt, Tensor | None]:
    """A fact's text or a contrast's clean run, and the states that enter layer 0, [tokens, d_model], where it was given
    as states; arguments as in ``text_of``.

    Raises:
        ValueError: ``form`` with a contrast, or as ``traced_prompt`` and ``prepare``.
    """
    if isinstance(traced, Fact):
        return traced_prompt(model, traced, form=form), None
    if form is not None:
        raise ValueError("form= is for facts: a contrast has its own (Contrast(form=...)).")
    ready = prepare(model, traced, sequences=sequences)
    return ready.prompt, ready.states[0] if isinstance(traced.clean, Tensor) else None
