"""Ablations: what an answer loses without some components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Unpack, overload

import torch
from torch import Tensor

from workbench.language.contrasts import answer_steps
from workbench.language.generation import stops_of, text_end
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.ablation_texts import AblationKeywords, AblationOptions, Asked, asked_of, check_ablation
from workbench.tracing.bridge_runs import BridgeRuns, FwdHook, TraceEngine, bridge_runs
from workbench.tracing.corruption import set_up
from workbench.tracing.metric import Metric, MetricRule, check_whole_answers, rule_of
from workbench.tracing.next_tokens import likeliest
from workbench.tracing.replacements import (
    Entries,
    Filling,
    Pass,
    bridge_pass,
    corrupted_logits,
    entries_of,
    fast_pass,
    means,
    of_swapped,
    replacing,
    states_pass,
    zeros,
)
from workbench.tracing.self_check import require
from workbench.tracing.setup import SetupOptions
from workbench.types import Ablation, AblationKind, Ablations, Contrast, Fact, FactSet, Form, Selection, TracedPrompt
from workbench.types.contrast import Traced, as_traced
from workbench.types.effect import Corruption
from workbench.types.torch_settings import own_torch_settings

Step = tuple[float, tuple[int, ...], int]


@overload
def ablate(
    model: LoadedModel, fact: Fact | Contrast, selection: Selection | str, **options: Unpack[AblationKeywords]
) -> Ablation: ...


@overload
def ablate(
    model: LoadedModel,
    fact: Sequence[Fact] | Sequence[Contrast],
    selection: Selection | str,
    **options: Unpack[AblationKeywords],
) -> Ablations: ...


@own_torch_settings()
def ablate(
    model: LoadedModel,
    fact: Traced,
    selection: Selection | str,
    *,
    ablation: AblationKind = "zero",
    metric: Metric = "logit_diff",
    against: Literal["target", "partner"] | None = None,
    corruption: Corruption | None = None,
    form: Form | None = None,
    partner: Fact | None = None,
    pool: FactSet | None = None,
    references: int = 16,
    k: int = 5,
    new_tokens: int = 0,
    control: int = 0,
    samples: int = 10,
    noise: float = 3.0,
    seed: int = 0,
    engine: TraceEngine = "auto",
    fwd_hooks: Sequence[FwdHook] = (),
) -> Ablation | Ablations:
    """Measure a metric and the next tokens with the outputs of some components replaced at every position. It checks
    whether the model needs them.

    Args:
        model: A base or edited model; it is not changed.
        fact: A fact or a contrast, or several. A contrast brings its corrupted run, its answers and its form.
        selection: Query heads, MLPs, neurons, attention layers, queries (``Q``, before norms and positions) and
            key-value groups (``K``, ``V`` or ``KV``), in any mixture. Where one lies within another (a neuron and its
            MLP) the larger one counts.
        ablation: ``"zero"`` puts 0 in the place of an output; ``"mean"`` its mean over the texts of other facts;
            ``"swap"`` what it is in the run on the swapped subject, which is the same before that subject.
        metric: As in ``causal_trace``.
        against: What ``logit_diff`` compares the answer with: the fact's ``"target"``, or the answer of the swap
            ``"partner"``. None for the partner's with ``"swap"`` or where ``partner`` is given, else the target.
        corruption: Which run counts as 0 in ``left``: ``"swap"`` the one on the swapped subject, ``"noise"`` one with
            noise on the subject's embeddings, as in ``causal_trace``. None: the swapped one if there is one, else none.
        form: As in ``causal_trace``.
        partner: The fact to swap in; by default a neighbour from the pool, as in ``causal_trace``.
        pool: Where partners and reference texts come from; the bundled facts by default.
        references: Over how many texts ``"mean"`` is taken: the questions (or clozes) of facts about other subjects,
            evenly spread over the pool; of a contrast the clean runs of the others, or the pool where one is given. All
            positions count but the first of each text, whose states are unlike others.
        k: How many of the likeliest next tokens are kept.
        new_tokens: How many tokens the model goes on to say, greedily, with the outputs replaced at the new positions
            too; 0 for none. With ``"swap"`` the swapped text goes on with the same tokens.
        control: Ablate so many random selections of the same kinds and sizes as well.
        samples, noise: Of ``corruption="noise"``, as in ``causal_trace``.
        seed: Of the random selections, and of the noise.
        engine, fwd_hooks: As in ``causal_trace``. The texts of a mean are read without hooks of your own.

    Returns:
        The metric at the last position, without and with the ablation, in units of the metric, with the likeliest next
        tokens; the controls have the same but for the continuation. For several ``Ablations``: one each, and means.

    Raises:
        ValueError: An empty selection, a component without an output of its own (gate and up), no other
            components for a control, no swap partner, or an option out of range.

    Source: mean and swapped (resample) ablations as compared in Zhang and Nanda 2023 (arXiv 2309.16042).

    Example:
        >>> ablation = wb.ablate(model, fact, "L0MLP")
        >>> round(ablation.clean, 1), round(ablation.ablated, 1), round(ablation.effect, 1)
        (14.0, 0.7, 13.3)
        >>> noised = wb.ablate(model, fact, "L0MLP", corruption="noise")
        >>> noised.corruption, round((noised.ablated - noised.corrupted) / (noised.clean - noised.corrupted), 6) == (
        ...     round(noised.left, 6)
        ... )
        ('noise', True)
        >>> swapped = wb.ablate(model, fact, "L0H4 L1KV1 L2ATTN", ablation="swap", pool=facts)
        >>> swapped.prompt.partner, round(swapped.left, 2)
        ('spain-capital', 0.32)
    """
    wanted = AblationOptions(
        ablation=ablation,
        metric=metric,
        against=against,
        corruption=corruption,
        form=form,
        partner=partner,
        pool=pool,
        references=references,
        k=k,
        new_tokens=new_tokens,
        samples=samples,
        noise=noise,
        seed=seed,
    )
    chosen = check_ablation(selection, wanted, control)
    require(model, "resume")
    traced = as_traced(fact, "ablate")
    selections = [chosen, *(chosen.random_like(model, seed=seed + i) for i in range(control))]
    entries = [entries_of(model, one) for one in selections]
    bridged = bridge_runs(model, engine, fwd_hooks)
    rows: list[Ablation] = []
    with torch.no_grad(), pooled_engine(Resumable, model) as fast:
        passes = fast_pass(fast) if bridged is None else bridge_pass(model, bridged)
        for one in traced:
            asked = asked_of(model, one, wanted, traced)
            own = states_pass(passes, asked.states) if asked.states else passes
            rows.append(_ablated(model, own, fast if bridged is None else bridged, fast, asked, selections, entries))
    single = isinstance(fact, Fact | Contrast)
    return rows[0] if single else Ablations(rows=tuple(rows))


def _ablated(
    model: LoadedModel,
    passes: Pass,
    runs_of: Resumable | BridgeRuns,
    fast: Resumable,
    asked: Asked,
    selections: Sequence[Selection],
    entries: Sequence[Entries],
) -> Ablation:
    """One text with the first selection ablated, and with the others as its controls."""
    wanted, prompt = asked.wanted, asked.prompt
    places = tuple(dict.fromkeys(place for one in entries for place in one))
    if wanted.ablation == "swap":
        assert asked.swapped is not None
        filling = of_swapped(passes, asked.swapped, places)
    else:
        filling = means(model, fast, asked.texts, places) if wanted.ablation == "mean" else zeros(places)
    rule = rule_of(wanted.metric)
    whole = prompt.whole_answers and check_whole_answers(wanted.metric)
    runs = _Runs(model, passes, prompt, rule, filling, steps=_steps(model, prompt, wanted.metric) if whole else ())
    clean = runs.logits()
    runs = replace(runs, clean=clean)
    shared = Ablation(
        selection=selections[0],
        metric=runs.rule.words.name,
        clean=runs.measure(clean),
        ablated=0.0,
        prompt=prompt,
        ablation=wanted.ablation,
        corrupted=_corrupted(model, runs, runs_of, fast, asked),
        corruption=asked.kind,
        references=len(asked.texts),
        clean_next=likeliest(model, clean, wanted.k),
    )
    found: list[Ablation] = []
    for one, at in zip(selections, entries, strict=True):
        logits = runs.logits(at)
        after = likeliest(model, logits, wanted.k)
        found.append(replace(shared, selection=one, ablated=runs.measure(logits, at), ablated_next=after))
    n = wanted.new_tokens
    said = (runs.goes_on(n), runs.goes_on(n, entries[0])) if n else (None, None)
    return replace(found[0], clean_text=said[0], ablated_text=said[1], controls=tuple(found[1:]))


def _corrupted(
    model: LoadedModel, runs: _Runs, runs_of: Resumable | BridgeRuns, fast: Resumable, asked: Asked
) -> float | None:
    """The metric of the corrupted run; None without one."""
    wanted = asked.wanted
    if asked.kind == "noise":
        options = SetupOptions(
            corruption="noise", metric=wanted.metric, form=asked.prompt.form, samples=wanted.samples,
            noise=wanted.noise, seed=wanted.seed,
        )  # fmt: skip
        setup = set_up(model, fast, asked.traced, options, sequences=True)
        if setup.steps:
            parts = ((sign, step, corrupted_logits(runs_of, step)) for sign, step in setup.steps)
            return float(sum(sign * step.measure(logits).mean() for sign, step, logits in parts))
        return float(runs.values(corrupted_logits(runs_of, setup).float()).mean())
    return None if asked.swapped is None else runs.measure(runs.logits(text=asked.swapped), text=asked.swapped)


def _steps(model: LoadedModel, prompt: TracedPrompt, metric: Metric) -> tuple[Step, ...]:
    """The tokens of whole answers: a sign, the tokens before it, and itself."""
    if metric == "logit_diff" and prompt.other_id is None:
        raise ValueError("logit_diff needs a second token to compare with: give the contrast a wrong= answer.")
    steps = answer_steps(model, prompt)
    return tuple((sign, added, at.answer_id) for sign, added, at in steps if metric == "logit_diff" or sign > 0)


@dataclass(frozen=True)
class _Runs:
    """Forward passes of one text with outputs replaced."""

    model: LoadedModel
    passes: Pass
    prompt: TracedPrompt
    rule: MetricRule
    filling: Filling
    clean: Tensor | None = None
    steps: tuple[Step, ...] = ()

    def logits(
        self, entries: Entries | None = None, added: tuple[int, ...] = (), text: Sequence[int] | None = None
    ) -> Tensor:
        """Logits of the last position, [1, d_vocab], after the text and some added tokens."""
        ids = torch.tensor([[*(self.prompt.token_ids if text is None else text), *added]])
        changes = replacing(entries, self.filling(added)) if entries else {}
        return self.passes(ids, changes=changes).float()

    def values(self, logits: Tensor) -> Tensor:
        """The metric of each row."""
        return self.rule.measure(logits, self.prompt, *((self.clean,) if self.rule.against_clean else ()))

    def measure(self, logits: Tensor, entries: Entries | None = None, text: Sequence[int] | None = None) -> float:
        """The metric after the text, whose logits are there; of whole answers by more passes."""
        if not self.steps:
            return float(self.values(logits))
        of = (
            (sign, token, self.logits(entries, added, text) if added else logits) for sign, added, token in self.steps
        )
        return sum(sign * float(at.log_softmax(-1)[0, token]) for sign, token, at in of)

    def goes_on(self, most: int, entries: Entries | None = None) -> str:
        """The greedy continuation: every pass reads the whole text again, so that all positions are replaced."""
        added: tuple[int, ...] = ()
        stops = stops_of(self.model)
        for _ in range(most):
            token = int(self.logits(entries, added).argmax())
            if token in stops:
                break
            added = (*added, token)
            ended = text_end(self.model, added, stops)
            if ended is not None:
                return ended
        return self.model.tokenizer.decode(list(added), skip_special_tokens=True)
