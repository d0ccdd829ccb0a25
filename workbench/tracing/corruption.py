"""Corrupted runs: the same prompt with the subject made unreadable (noise) or replaced (swap)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from workbench.facts.known import known_facts
from workbench.language.prompts import NoSwapPartner, swapped, traced_prompt
from workbench.models.engine import Resumable
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet, Form, TracedPrompt

Corruption = Literal["noise", "swap"]
Metric = Literal["probability", "logit_diff"]
PARTNERS_ASKED = 8


class SetupOptions(TypedDict, total=False):
    """The options that traces and attributions share; ``causal_trace`` explains them."""

    corruption: Corruption
    metric: Metric
    form: Form | None
    token: Literal["answer", "target"]
    partner: Fact | None
    pool: FactSet | None
    samples: int
    noise: float
    seed: int
    max_rows: int | None
    progress: bool


@dataclass(frozen=True)
class Setup:
    """One fact's clean and corrupted inputs.

    Args:
        prompt: The traced text; with a swap its ``other_id`` is the partner's answer.
        start: First corrupted position; before it both runs are the same, so every effect there is exactly 0.
        clean: Residual stream of the whole text entering layer 0, [1, tokens, d_model].
        corrupted: The same with the corruption, of the tokens from ``start`` on, [samples, tokens from start, d_model].
        metric: What is measured at the last position.
    """

    prompt: TracedPrompt
    start: int
    clean: Tensor
    corrupted: Tensor
    metric: Metric

    def measure(self, logits: Tensor) -> Tensor:
        """The metric of each row of last-position logits [rows, d_vocab]: a probability, or a difference of logits."""
        logits = logits.float()
        if self.metric == "probability":
            return logits.softmax(-1)[:, self.prompt.answer_id]
        if self.prompt.other_id is None:
            raise ValueError("logit_diff needs a second token to compare with.")
        return logits[:, self.prompt.answer_id] - logits[:, self.prompt.other_id]


def choose_partner(model: LoadedModel, fact: Fact, prompt: TracedPrompt, pool: FactSet) -> TracedPrompt:
    """The prompt with the first subject of the pool swapped in that fits and whose fact the base knows in some form;
    the first that fits when the base knows none of the first ``PARTNERS_ASKED``.

    Raises:
        NoSwapPartner: None fits; the message says how to give one.
    """
    fitting: list[TracedPrompt] = []
    for partner in pool.neighbours(fact):
        try:
            found = swapped(model.base, fact, prompt, partner)
        except ValueError:  # another token length or the same answer: try the next
            continue
        if len(known_facts(model.base, [partner], form="any", progress=False)):
            return found
        fitting.append(found)
        if len(fitting) == PARTNERS_ASKED:
            break
    if fitting:
        return fitting[0]
    raise NoSwapPartner(
        f"No fact of the relation {fact.relation!r} in the pool has a subject of as many tokens as {fact.subject!r} "
        "and another answer. Give one with partner=Fact(...), another pool=, or use corruption='noise'.",
        fact=fact,
    )


def check_choices(corruption: str, metric: str) -> None:
    """Raise a ValueError for an unknown corruption or metric."""
    if corruption not in get_args(Corruption):
        raise ValueError(f"corruption must be one of {get_args(Corruption)}, got {corruption!r}.")
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be one of {get_args(Metric)}, got {metric!r}.")


def set_up(
    model: LoadedModel,
    engine: Resumable,
    fact: Fact,
    *,
    corruption: Corruption,
    metric: Metric,
    form: Form | None,
    token: Literal["answer", "target"],
    partner: Fact | None,
    pool: FactSet,
    samples: int,
    noise: float,
    positions: Sequence[int] | None,
    seed: int,
) -> Setup:
    """Build the clean and the corrupted input of a fact. Arguments as in ``causal_trace``."""
    prompt = traced_prompt(model, fact, form=form, token=token)
    if corruption == "swap":
        if positions is not None:
            raise ValueError("positions= chooses where noise goes; a swap always replaces the subject.")
        new = swapped(model.base, fact, prompt, partner) if partner else choose_partner(model, fact, prompt, pool)
        ids = torch.tensor([prompt.token_ids, new.token_ids])
        start = next(i for i, (a, b) in enumerate(zip(*ids.tolist(), strict=True)) if a != b)
        clean, corrupted = engine.embed(ids).split(1)
        corrupted = corrupted[:, start:]
        prompt = _with_partner(prompt, new)
    else:
        if samples < 1 or noise <= 0:
            raise ValueError(f"noise needs samples >= 1 and noise > 0, got samples={samples!r}, noise={noise!r}.")
        where = sorted(set(prompt.subject if positions is None else positions))
        if not where or where[0] < 0 or where[-1] > prompt.position:
            raise ValueError(f"positions must be within 0 to {prompt.position}, got {positions!r}.")
        start = where[0]
        clean = engine.embed(torch.tensor([prompt.token_ids]))
        sigma = noise * _embedding_deviation(model.base)
        generator = torch.Generator().manual_seed(seed)
        draw = torch.randn(samples, len(where), clean.shape[-1], generator=generator) * sigma
        corrupted = clean[:, start:].repeat(samples, 1, 1)
        corrupted[:, [w - start for w in where]] += draw.to(clean)
    return Setup(prompt, start, clean, corrupted, metric)


_DEVIATIONS: WeakKeyDictionary[LoadedModel, tuple[tuple[int, int], float]] = WeakKeyDictionary()


def _embedding_deviation(base: LoadedModel) -> float:
    """The standard deviation of all entries of the token embeddings. Computed once, and again after an in-place
    change."""
    weight = base.hf.get_input_embeddings().weight
    version, known = (weight.data_ptr(), weight._version), _DEVIATIONS.get(base)
    if known is None or known[0] != version:
        known = _DEVIATIONS[base] = version, weight.float().std().item()
    return known[1]


def _with_partner(prompt: TracedPrompt, new: TracedPrompt) -> TracedPrompt:
    return replace(
        prompt,
        other_id=new.other_id,
        other_token=new.other_token,
        partner=new.partner,
        partner_text=new.partner_text,
    )
