"""Corrupted runs: the same prompt with the subject made unreadable (noise) or replaced (swap)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from workbench.facts.known import known_facts
from workbench.language.contrasts import PreparedContrast, answer_steps, prepare
from workbench.language.prompt_text import context_span
from workbench.language.prompts import AnswerNotSaid, NoSwapPartner, swapped, swapped_ids, traced_prompt
from workbench.language.tokens import SubjectNotNamed
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.metric import check_whole_answers
from workbench.tracing.setup import Setup, SetupOptions
from workbench.types import Contrast, Fact, FactSet, Form, TracedPrompt

PARTNERS_ASKED = 8


def choose_partner(model: LoadedModel, fact: Fact, prompt: TracedPrompt, pool: FactSet) -> TracedPrompt:
    """The prompt of the first fact of the pool that differs from this one in the subject alone, fits, and is known to
    the base in some form; the first that fits when the base knows none of the first ``PARTNERS_ASKED``
    (``partner_known`` says which).

    Raises:
        NoSwapPartner: None fits; the message says how to give one.
    """
    base = model.base
    context = context_span(model, fact.question if prompt.form == "chat" else fact.prompt, prompt.form)
    fitting: list[TracedPrompt] = []
    for partner in pool.neighbours(fact):
        try:
            candidate = swapped(model, fact, prompt, partner)
            if candidate.token_ids != tuple(swapped_ids(model, fact, prompt.token_ids, partner, context=context)):
                continue  # worded otherwise: more than the subject would be swapped
        except ValueError:  # another token length or the same answer: try the next
            continue
        if _knows(base, partner):
            return replace(candidate, partner_known=True)
        fitting.append(replace(candidate, partner_known=_says(base, partner, prompt.form)))
        if len(fitting) == PARTNERS_ASKED:
            break
    if fitting:
        return fitting[0]
    raise NoSwapPartner(
        f"No fact of the relation {fact.relation!r} in the pool is worded as this one, with a subject of as many "
        f"tokens as {fact.subject!r} and another answer. Give one with partner=Fact(...), another pool=, or use "
        "corruption='noise'.",
        fact=fact,
    )


def with_swap(
    model: LoadedModel, fact: Fact, prompt: TracedPrompt, partner: Fact | None, pool: FactSet
) -> TracedPrompt:
    """The prompt of the partner: its own as it is written (``swapped``), or one of the pool (``choose_partner``)."""
    if partner is None:
        return choose_partner(model, fact, prompt, pool)
    candidate = swapped(model, fact, prompt, partner)
    return replace(candidate, partner_known=_knows(model.base, partner) or _says(model.base, partner, prompt.form))


def _knows(base: LoadedModel, partner: Fact) -> bool:
    """Whether the base knows a partner's fact in some form."""
    return len(known_facts(base, [partner], form="any", progress=False)) > 0


def _says(base: LoadedModel, partner: Fact, form: Form) -> bool:
    """Whether the base's own answer to a partner's prompt names its answer, which is what a traced fact needs too."""
    try:
        traced_prompt(base, partner, form=form, needs_subject=False)
    except ValueError:
        return False
    return True


def one_form(
    model: LoadedModel,
    traced: Sequence[Fact] | Sequence[Contrast],
    form: Form | None,
    token: Literal["answer", "target"],
) -> Form | None:
    """The one form in which several facts are traced, so that no mean is over both: the given one, else chat if the
    base says every answer there, else cloze. Contrasts have their own.

    Raises:
        ValueError: There is none for all of them; the message says which facts fail in which form.
    """
    facts = [one for one in traced if isinstance(one, Fact)]
    if form is not None or len(facts) < 2:
        return form
    failing: dict[Form, list[str]] = {}
    for candidate in get_args(Form):
        failing[candidate] = []
        for fact in facts:
            try:
                traced_prompt(model, fact, form=candidate, token=token)
            except (AnswerNotSaid, SubjectNotNamed):
                failing[candidate].append(fact.id)
        if not failing[candidate]:
            return candidate
    told = "; ".join(f"in {kind} form no answer, or no subject, is said of {ids}" for kind, ids in failing.items())
    raise ValueError(
        f"The base model says the answers of these {len(facts)} facts in no one form ({told}). Maps of both forms are "
        "not averaged: their texts differ. Leave facts out, or trace two groups with form='chat' and form='cloze'."
    )


def set_up(
    model: LoadedModel,
    engine: Resumable,
    traced: Fact | Contrast,
    options: SetupOptions,
    *,
    sequences: bool = False,
) -> Setup:
    """Build the clean and the corrupted input of a fact or a contrast: the one form that everything traced has.

    Args:
        model: A base or edited model.
        engine: Of the model.
        traced: The fact or contrast.
        options: See ``SetupOptions``; for a contrast ``SetupOptions(metric=...)`` is enough.
        sequences: Whether a contrast's answers may have more than one token; the setup then has ``steps``.

    Raises:
        ValueError: As ``traced_prompt`` and ``prepare``, or no swap partner fits.
    """
    if isinstance(traced, Contrast):
        return _contrasted(model, engine, traced, options, sequences)
    fact, prompt = traced, traced_prompt(model, traced, form=options.form, token=options.token)
    if options.corruption == "swap":
        return _swapped(model, engine, fact, prompt, options)
    return noised(model, engine, prompt, options)


def _swapped(model: LoadedModel, engine: Resumable, fact: Fact, prompt: TracedPrompt, options: SetupOptions) -> Setup:
    """The subject replaced by another of as many tokens, from where the two texts first differ."""
    if options.noise_positions is not None:
        raise ValueError("noise_positions= chooses where noise goes; a swap always replaces the subject.")
    new = with_swap(model, fact, prompt, options.partner, options.pool)
    return _of_texts(engine, against_partner(prompt, new), new.token_ids, options)


def _of_texts(engine: Resumable, prompt: TracedPrompt, corrupted_ids: tuple[int, ...], options: SetupOptions) -> Setup:
    """A text and another of as many tokens, from where they first differ."""
    ids = torch.tensor([prompt.token_ids, corrupted_ids])
    start = next(i for i, (a, b) in enumerate(zip(*ids.tolist(), strict=True)) if a != b)
    clean, corrupted = engine.embed(ids).split(1)
    return Setup(prompt, start, clean, corrupted[:, start:], options.metric, options.normalise, corrupted_ids)


def _contrasted(
    model: LoadedModel, engine: Resumable, contrast: Contrast, options: SetupOptions, sequences: bool
) -> Setup:
    """The runs of a contrast: texts as a swap has them, noise as on a fact's subject, or states as they are given."""
    if options.noise_positions is not None:
        raise ValueError("noise_positions= says where a fact's noise goes; a contrast says it itself, by noise_at=.")
    ready = prepare(model, contrast, sequences=sequences)
    if contrast.noise is not None:
        options = replace(options, noise=contrast.noise, corruption="noise")
    setup = _inputs(model, engine, ready, ready.prompt, (), options)
    if not ready.prompt.whole_answers or not check_whole_answers(options.metric):
        return setup
    if options.metric == "logit_diff" and ready.prompt.other_id is None:
        raise ValueError("logit_diff needs a second token to compare with: give the contrast a wrong= answer.")
    of_tokens = replace(options, metric="log_prob")
    signs = [one for one in answer_steps(model, ready.prompt) if options.metric == "logit_diff" or one[0] > 0]
    steps = tuple((sign, _inputs(model, engine, ready, text, added, of_tokens)) for sign, added, text in signs)
    return replace(setup, steps=steps)


def _inputs(
    model: LoadedModel,
    engine: Resumable,
    ready: PreparedContrast,
    prompt: TracedPrompt,
    added: tuple[int, ...],
    options: SetupOptions,
) -> Setup:
    """Both runs of a contrast, with some tokens of an answer after them, which the prompt has already."""
    if ready.corrupted is not None:
        return _of_texts(engine, prompt, (*ready.corrupted, *added), options)
    if options.corruption == "noise" and ready.contrast.noise is not None:
        return noised(model, engine, prompt, options, states=ready.states[0] if ready.states else None)
    like = engine.embed(torch.zeros(1, 1, dtype=torch.long))
    clean, corrupted = (state[None].to(like) for state in ready.states)
    start = ready.changed[0]
    return Setup(prompt, start, clean, corrupted[:, start:], options.metric, options.normalise)


def noised(
    model: LoadedModel,
    engine: Resumable,
    prompt: TracedPrompt,
    options: SetupOptions,
    *,
    states: Tensor | None = None,
) -> Setup:
    """Noise on the subject's embeddings, or on given positions, several samples of it.

    Args:
        model, engine: The model and its engine.
        prompt: The text.
        options: How much noise, and where.
        states: What enters layer 0 in the place of the text, [tokens, d_model].
    """
    samples, noise, positions = options.samples, options.noise, options.noise_positions
    where = sorted(set(prompt.subject if positions is None else positions))
    if not where or where[0] < 0 or where[-1] > prompt.position:
        raise ValueError(f"noise_positions must be within 0 to {prompt.position}, got {positions!r}.")
    start = where[0]
    if states is None:
        clean = engine.embed(torch.tensor([prompt.token_ids]))
        sigma = noise * subject_deviation(model, prompt)
    else:
        clean = states[None].to(engine.embed(torch.zeros(1, 1, dtype=torch.long)))
        sigma = noise * _checked_deviation(float(states[where].float().std()), prompt)
    generator = torch.Generator().manual_seed(options.seed)
    draw = torch.randn(samples, len(where), clean.shape[-1], generator=generator) * sigma
    corrupted = clean[:, start:].repeat(samples, 1, 1)
    corrupted[:, [w - start for w in where]] += draw.to(clean)
    return Setup(prompt, start, clean, corrupted, options.metric, options.normalise)


def subject_deviation(model: LoadedModel, prompt: TracedPrompt) -> float:
    """The standard deviation of all entries of the states of a text's subject tokens that enter layer 0 of the base
    model: of what noise is added to, with whatever the model does to its embeddings before (Gemma and Granite multiply
    them, BLOOM normalises them, GPT-2 and OPT add learned positions, which therefore count).

    Raises:
        ValueError: The states do not vary, or are not finite, so that there is no scale to measure noise in.
    """
    base = model.base

    def measure() -> float:
        with torch.no_grad(), pooled_engine(Resumable, base) as engine:
            states = engine.embed(torch.tensor([prompt.token_ids]))[0, list(prompt.subject)]
        return float(states.float().std())

    return _checked_deviation(base.cache.deviations.get_or_compute((prompt.token_ids, prompt.subject), measure), prompt)


def _checked_deviation(deviation: float, prompt: TracedPrompt) -> float:
    """A deviation of states that noise is measured in.

    Raises:
        ValueError: It is 0 or not finite.
    """
    if not 0 < deviation < float("inf"):
        raise ValueError(
            f"The states of the subject tokens of {prompt.text!r} have a standard deviation of {deviation:g} where "
            "they enter layer 0, so noise has no scale there. Use corruption='swap'."
        )
    return deviation


def against_partner(prompt: TracedPrompt, new: TracedPrompt) -> TracedPrompt:
    """The prompt, compared with the answer of the partner of a swapped one."""
    return replace(
        prompt,
        other_id=new.other_id,
        other_token=new.other_token,
        partner=new.partner,
        partner_text=new.partner_text,
        partner_known=new.partner_known,
    )
