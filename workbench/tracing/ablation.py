"""Looking at single components: what the answer loses without some, and where a head attends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from workbench.facts.known import pool_or_bundled
from workbench.language.generation import stops_of, text_end
from workbench.language.prompts import traced_prompt
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.bridge_runs import FwdHook, TraceEngine, bridge_of, bridge_runs, checked_hooks
from workbench.tracing.corruption import SetupOptions, against_partner, set_up, with_swap
from workbench.tracing.metric import METRICS, Metric, check_metric
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
    reference_texts,
    replacing,
    zeros,
)
from workbench.tracing.self_check import require
from workbench.types import Ablation, AblationKind, Component, Fact, FactSet, Form, Selection, TracedPrompt
from workbench.types.effect import Corruption
from workbench.types.plain import is_whole
from workbench.types.torch_settings import own_torch_settings

if TYPE_CHECKING:
    import pandas as pd


@own_torch_settings()
def ablate(
    model: LoadedModel,
    fact: Fact,
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
) -> Ablation:
    """Measure a metric and the next tokens with the outputs of some components replaced at every position. It checks
    whether the model needs them.

    Args:
        model: A base or edited model; it is not changed.
        fact: The fact.
        selection: Query heads, MLPs, neurons, attention layers and key-value groups (``K``, ``V`` or ``KV``), in any
            mixture. Where one lies within another (a neuron and its MLP) the larger one counts.
        ablation: ``"zero"`` puts 0 in the place of an output; ``"mean"`` its mean over the texts of other facts;
            ``"swap"`` what it is in the run on the swapped subject, which is the same before that subject.
        metric: ``"logit_diff"`` or ``"probability"`` of the answer.
        against: What ``logit_diff`` compares the answer with: the fact's ``"target"``, or the answer of the swap
            ``"partner"``. None for the partner's with ``"swap"`` or where ``partner`` is given, else the target.
        corruption: Which run counts as 0 in ``left``: ``"swap"`` the one on the swapped subject, ``"noise"`` one with
            noise on the subject's embeddings, as in ``causal_trace``. None: the swapped one if there is one, else none.
        form: As in ``causal_trace``.
        partner: The fact to swap in; by default a neighbour from the pool, as in ``causal_trace``.
        pool: Where partners and reference texts come from; the bundled facts by default.
        references: Over how many texts ``"mean"`` is taken: the questions (or clozes) of facts about other subjects,
            evenly spread over the pool. All positions count but the first of each text, whose states are unlike others.
        k: How many of the likeliest next tokens are kept.
        new_tokens: How many tokens the model goes on to say, greedily, with the outputs replaced at the new positions
            too; 0 for none. With ``"swap"`` the swapped text goes on with the same tokens.
        control: Ablate so many random selections of the same kinds and sizes as well.
        samples, noise: Of ``corruption="noise"``, as in ``causal_trace``.
        seed: Of the random selections, and of the noise.
        engine, fwd_hooks: As in ``causal_trace``. The texts of a mean are read without hooks of your own.

    Returns:
        The metric at the last position, without and with the ablation, in units of the metric, with the likeliest next
        tokens; the controls have the same but for the continuation.

    Raises:
        ValueError: An empty selection, a component without an output of its own (query projections, gate and up), no
            other components for a control, no swap partner, or an option out of range.

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
    chosen = _check(selection, ablation, against, corruption, metric)
    require(model, "resume")
    for name, value, least in (("references", references, 1), ("k", k, 1), ("new_tokens", new_tokens, 0)):
        if not is_whole(value) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    if not is_whole(control) or control < 0:
        raise ValueError(f"control must be a whole number of random selections (0 for none), got {control!r}.")
    selections = [chosen, *(chosen.random_like(model, seed=seed + i) for i in range(control))]
    entries = [entries_of(model, one) for one in selections]
    places = tuple(dict.fromkeys(place for one in entries for place in one))
    facts = pool_or_bundled(pool)
    prompt, swapped = traced_prompt(model, fact, form=form), None
    if "swap" in (ablation, corruption) or against == "partner" or partner is not None:
        swapped = with_swap(model, fact, prompt, partner, facts)
        prompt = prompt if against == "target" else against_partner(prompt, swapped)
        prompt = replace(
            prompt, partner=swapped.partner, partner_text=swapped.partner_text, partner_known=swapped.partner_known
        )
    bridged = bridge_runs(model, engine, fwd_hooks)
    with torch.no_grad(), pooled_engine(Resumable, model) as fast:
        passes = fast_pass(fast) if bridged is None else bridge_pass(model, bridged)
        texts: list[tuple[int, ...]] = []
        if ablation == "swap":
            assert swapped is not None
            filling = of_swapped(passes, swapped.token_ids, places)
        elif ablation == "mean":
            texts = reference_texts(model, fact, prompt.form, facts, references)
            filling = means(model, fast, texts, places)
        else:
            filling = zeros(places)
        runs = _Runs(model, passes, prompt, metric, filling)
        clean, corrupted = runs.logits(), None
        kind: Corruption | None = None if corruption is None and swapped is None else corruption or "swap"
        if kind == "noise":
            given = SetupOptions(
                corruption=kind, metric=metric, form=prompt.form, token="answer", samples=samples, noise=noise,
                seed=seed, partner=None, pool=facts,
            )  # fmt: skip
            logits = corrupted_logits(fast if bridged is None else bridged, set_up(model, fast, fact, given))
            corrupted = float(METRICS[metric].measure(logits.float(), prompt).mean())
        elif swapped is not None:
            corrupted = runs.measure(runs.logits(text=swapped.token_ids))
        shared = Ablation(
            selection=chosen,
            metric=metric,
            clean=runs.measure(clean),
            ablated=0.0,
            prompt=prompt,
            ablation=ablation,
            corrupted=corrupted,
            corruption=kind,
            references=len(texts),
            clean_next=likeliest(model, clean, k),
        )
        found: list[Ablation] = []
        for one, at in zip(selections, entries, strict=True):
            logits = runs.logits(at)
            after = likeliest(model, logits, k)
            found.append(replace(shared, selection=one, ablated=runs.measure(logits), ablated_next=after))
        said = (runs.goes_on(new_tokens), runs.goes_on(new_tokens, entries[0])) if new_tokens else (None, None)
    return replace(found[0], clean_text=said[0], ablated_text=said[1], controls=tuple(found[1:]))


def _check(
    selection: Selection | str, ablation: str, against: str | None, corruption: str | None, metric: str
) -> Selection:
    """The selection, if these options go together; else a ValueError."""
    check_metric(metric)
    if ablation not in get_args(AblationKind):
        raise ValueError(f"ablation must be one of {get_args(AblationKind)}, got {ablation!r}.")
    if against not in (None, "target", "partner"):
        raise ValueError(f"against must be 'target', 'partner' or None, got {against!r}.")
    if corruption not in (None, *get_args(Corruption)):
        raise ValueError(f"corruption must be one of {get_args(Corruption)} or None, got {corruption!r}.")
    chosen = Selection(selection) if isinstance(selection, str) else selection
    if not len(chosen):
        raise ValueError("The selection is empty: there is nothing to ablate.")
    return chosen


@dataclass(frozen=True)
class _Runs:
    """Forward passes of one text with outputs replaced."""

    model: LoadedModel
    passes: Pass
    prompt: TracedPrompt
    metric: str
    filling: Filling

    def logits(
        self, entries: Entries | None = None, added: tuple[int, ...] = (), text: Sequence[int] | None = None
    ) -> Tensor:
        """Logits of the last position, [1, d_vocab], after the text and some added tokens."""
        ids = torch.tensor([[*(self.prompt.token_ids if text is None else text), *added]])
        changes = replacing(entries, self.filling(added)) if entries else {}
        return self.passes(ids, changes=changes).float()

    def measure(self, logits: Tensor) -> float:
        return float(METRICS[self.metric].measure(logits, self.prompt))

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


@own_torch_settings()
def attention_patterns(
    model: LoadedModel, fact: Fact, *, form: Form | None = None, fwd_hooks: Sequence[FwdHook] = ()
) -> tuple[Tensor, TracedPrompt]:
    """Read the attention weights of every query head on the traced text, in one forward pass.

    Args:
        model: A base or edited model; it is not changed.
        fact: The fact.
        form: As in ``causal_trace``.
        fwd_hooks: Hooks of your own, part of the pass, as there.

    Returns:
        Weights [layer, head, query, key] on the CPU, each row summing to 1; and the traced text.

    Raises:
        ValueError: As ``causal_trace``: the base model does not say the fact's answer.

    Example:
        >>> weights, prompt = wb.attention_patterns(model, fact, form="cloze")
        >>> tuple(weights.shape), len(prompt.tokens)
        ((3, 6, 5, 5), 5)
    """
    return _patterns(model, fact, form, range(model.shape.n_layers), fwd_hooks)


def _patterns(
    model: LoadedModel, fact: Fact, form: Form | None, layers: Sequence[int], fwd_hooks: Sequence[FwdHook]
) -> tuple[Tensor, TracedPrompt]:
    """``attention_patterns`` of some layers."""
    prompt = traced_prompt(model, fact, form=form)
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in layers]
    bridge = bridge_of(model)
    with torch.no_grad(), bridge.hooks(fwd_hooks=checked_hooks(bridge, fwd_hooks)):
        ids = torch.tensor([prompt.token_ids], device=model.device)
        _, cache = bridge.run_with_cache(ids, names_filter=set(names).__contains__)
    return torch.stack([cache[name][0].float().cpu() for name in names]), prompt


@own_torch_settings()
def attention_pattern(
    model: LoadedModel,
    fact: Fact,
    head: Component | str,
    *,
    form: Form | None = None,
    fwd_hooks: Sequence[FwdHook] = (),
) -> pd.DataFrame:
    """Read the attention weights of one query head on the traced text.

    Args:
        model: A base or edited model; it is not changed.
        fact: The fact.
        head: A query head, such as ``"L23H4"``.
        form: As in ``causal_trace``.
        fwd_hooks: Hooks of your own, part of the pass, as there.

    Returns:
        Weights [query, key], both labelled ``"position token"``; each row sums to 1.

    Raises:
        ValueError: The component is not a query head. A key-value group is shared by several (GQA); the message names
            them.

    Example:
        >>> pattern = wb.attention_pattern(model, fact, "L1H3", form="cloze")
        >>> pattern.shape, pattern.loc["3  France"].idxmax()  # where the head looks from " France"
        ((5, 5), '0 The')
    """
    import pandas as pd

    component = Component.parse(head)
    index = component.require_head(model.shape)
    weights, prompt = _patterns(model, fact, form, [component.layer], fwd_hooks)
    labels = [f"{i} {token}" for i, token in enumerate(prompt.tokens)]
    return pd.DataFrame(weights[0, index].numpy(), index=labels, columns=labels)
