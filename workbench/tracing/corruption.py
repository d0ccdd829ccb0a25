"""Corrupted runs: the same prompt with the subject made unreadable (noise) or replaced (swap)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, get_args

import torch
from torch import Tensor

from workbench.facts.known import known_facts
from workbench.language.prompts import AnswerNotSaid, NoSwapPartner, swapped, swapped_ids, traced_prompt
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.metric import METRICS, Metric, check_metric
from workbench.types import Fact, FactSet, Form, TracedPrompt
from workbench.types.effect import Corruption
from workbench.types.metric_words import hardly_differ

PARTNERS_ASKED = 8


class SharedKeywords(TypedDict, total=False):
    """The keywords that ``causal_trace`` and ``attribute`` share, which explain them; each has defaults of its own."""

    corruption: Corruption
    metric: Metric
    normalise: bool
    form: Form | None
    token: Literal["answer", "target"]
    partner: Fact | None
    pool: FactSet | None
    samples: int
    noise: float
    seed: int
    max_rows: int | None
    progress: bool


@dataclass(frozen=True, kw_only=True)
class SetupOptions:
    """The options that traces and attributions share; ``causal_trace`` explains them."""

    corruption: Corruption
    metric: Metric
    form: Form | None
    token: Literal["answer", "target"]
    samples: int
    noise: float
    seed: int
    partner: Fact | None
    pool: FactSet
    normalise: bool = False
    positions: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.corruption not in get_args(Corruption):
            raise ValueError(f"corruption must be one of {get_args(Corruption)}, got {self.corruption!r}.")
        if not isinstance(self.normalise, bool):
            raise ValueError(f"normalise must be True or False, got {self.normalise!r}.")
        check_metric(self.metric)

    @property
    def settings(self) -> dict[str, Any]:
        """What a result's provenance keeps of them."""
        names = ("corruption", "metric", "normalise", "form", "token", "samples", "noise", "seed")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Setup:
    """One fact's clean and corrupted inputs.

    Args:
        prompt: The traced text; with a swap its ``other_id`` is the partner's answer.
        start: First corrupted position; before it both runs are the same, so every effect there is exactly 0.
        clean: Residual stream of the whole text entering layer 0, [1, tokens, d_model].
        corrupted: The same with the corruption, of the tokens from ``start`` on, [samples, tokens from start, d_model].
        metric: What is measured at the last position.
        normalise: Whether effects are divided by what the corruption takes away.
        corrupted_ids: The corrupted text, of a swap; None for noise.
    """

    prompt: TracedPrompt
    start: int
    clean: Tensor
    corrupted: Tensor
    metric: Metric
    normalise: bool = False
    corrupted_ids: tuple[int, ...] | None = None

    def measure(self, logits: Tensor) -> Tensor:
        """The metric of each row of last-position logits [rows, d_vocab]."""
        return METRICS[self.metric].measure(logits.float(), self.prompt)

    def divisor(self, clean: float, corrupted: float) -> float:
        """What effects are divided by: the metric's clean minus its corrupted value, or 1 where they stay in its units.

        Raises:
            ValueError: The two hardly differ, so that shares of their difference would say nothing.
        """
        if not self.normalise:
            return 1.0
        if hardly_differ(clean, corrupted):
            what = "noise" if self.prompt.partner is None else f"swap for {self.prompt.partner!r}"
            raise ValueError(
                f"Fact {self.prompt.fact_id!r}: the corruption ({what}) hardly changes the "
                f"{METRICS[self.metric].words.title}, from {clean:.4g} (clean) to {corrupted:.4g} (corrupted), so "
                "there is nothing to recover. Use normalise=False, another corruption, partner or fact."
            )
        return clean - corrupted


def choose_partner(model: LoadedModel, fact: Fact, prompt: TracedPrompt, pool: FactSet) -> TracedPrompt:
    """The prompt of the first fact of the pool that differs from this one in the subject alone, fits, and is known to
    the base in some form; the first that fits when the base knows none of the first ``PARTNERS_ASKED``
    (``partner_known`` says which).

    Raises:
        NoSwapPartner: None fits; the message says how to give one.
    """
    base = model.base
    fitting: list[TracedPrompt] = []
    for partner in pool.neighbours(fact):
        try:
            candidate = swapped(base, fact, prompt, partner)
            if candidate.token_ids != tuple(swapped_ids(base, fact, prompt.token_ids, partner)):
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
    candidate = swapped(model.base, fact, prompt, partner)
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
    model: LoadedModel, facts: Sequence[Fact], form: Form | None, token: Literal["answer", "target"]
) -> Form | None:
    """The one form in which several facts are traced, so that no mean is over both: the given one, else chat if the
    base says every answer there, else cloze.

    Raises:
        ValueError: There is none for all of them; the message says which facts fail in which form.
    """
    if form is not None or len(facts) < 2:
        return form
    failing: dict[Form, list[str]] = {}
    for candidate in get_args(Form):
        failing[candidate] = []
        for fact in facts:
            try:
                traced_prompt(model, fact, form=candidate, token=token)
            except AnswerNotSaid:
                failing[candidate].append(fact.id)
        if not failing[candidate]:
            return candidate
    told = "; ".join(f"in {name} form it does not say the answer of {ids}" for name, ids in failing.items())
    raise ValueError(
        f"The base model says the answers of these {len(facts)} facts in no one form ({told}). Maps of both forms are "
        "not averaged: their texts differ. Leave facts out, or trace two groups with form='chat' and form='cloze'."
    )


def set_up(model: LoadedModel, engine: Resumable, fact: Fact, options: SetupOptions) -> Setup:
    """Build the clean and the corrupted input of a fact."""
    prompt = traced_prompt(model, fact, form=options.form, token=options.token)
    if options.corruption == "swap":
        return _swapped(model, engine, fact, prompt, options)
    return noised(model, engine, prompt, options)


def _swapped(model: LoadedModel, engine: Resumable, fact: Fact, prompt: TracedPrompt, options: SetupOptions) -> Setup:
    """The subject replaced by another of as many tokens, from where the two texts first differ."""
    if options.positions is not None:
        raise ValueError("positions= chooses where noise goes; a swap always replaces the subject.")
    new = with_swap(model, fact, prompt, options.partner, options.pool)
    ids = torch.tensor([prompt.token_ids, new.token_ids])
    start = next(i for i, (a, b) in enumerate(zip(*ids.tolist(), strict=True)) if a != b)
    clean, corrupted = engine.embed(ids).split(1)
    return Setup(
        against_partner(prompt, new),
        start,
        clean,
        corrupted[:, start:],
        options.metric,
        options.normalise,
        new.token_ids,
    )


def noised(model: LoadedModel, engine: Resumable, prompt: TracedPrompt, options: SetupOptions) -> Setup:
    """Noise on the subject's embeddings, or on given positions, several samples of it."""
    samples, noise, positions = options.samples, options.noise, options.positions
    if samples < 1 or noise <= 0:
        raise ValueError(f"noise needs samples >= 1 and noise > 0, got samples={samples!r}, noise={noise!r}.")
    where = sorted(set(prompt.subject if positions is None else positions))
    if not where or where[0] < 0 or where[-1] > prompt.position:
        raise ValueError(f"positions must be within 0 to {prompt.position}, got {positions!r}.")
    start = where[0]
    clean = engine.embed(torch.tensor([prompt.token_ids]))
    sigma = noise * subject_deviation(model, prompt)
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

    deviation = base.cache.deviations.get_or_compute((prompt.token_ids, prompt.subject), measure)
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
