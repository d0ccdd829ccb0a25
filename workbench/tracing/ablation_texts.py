"""What is ablated: the text of a fact or a contrast, its corrupted run, its reference texts; what of options fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, get_args

from torch import Tensor

from workbench.facts.known import pool_or_bundled
from workbench.language.contrasts import prepare
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.tracing.bridge_runs import FwdHook, TraceEngine
from workbench.tracing.corruption import against_partner, with_swap
from workbench.tracing.metric import Metric, check_metric, check_whole_answers
from workbench.tracing.replacements import reference_texts
from workbench.types import AblationKind, Contrast, Fact, FactSet, Form, Selection, TracedPrompt
from workbench.types.effect import Corruption
from workbench.types.plain import check_count, is_whole
from workbench.types.traced_prompt import SECOND_STATES


class AblationKeywords(TypedDict, total=False):
    """All keywords of ``ablate``, which explains them, for its overloads."""

    ablation: AblationKind
    metric: Metric
    against: Literal["target", "partner"] | None
    corruption: Corruption | None
    form: Form | None
    partner: Fact | None
    pool: FactSet | None
    references: int
    k: int
    new_tokens: int
    control: int
    samples: int
    noise: float
    seed: int
    engine: TraceEngine
    fwd_hooks: Sequence[FwdHook]


@dataclass(frozen=True, kw_only=True)
class AblationOptions:
    """The options of ``ablate`` that are about one text."""

    ablation: AblationKind
    metric: Metric
    against: Literal["target", "partner"] | None
    corruption: Corruption | None
    form: Form | None
    partner: Fact | None
    pool: FactSet | None
    references: int
    k: int
    new_tokens: int
    samples: int
    noise: float
    seed: int


def check_ablation(selection: Selection | str, wanted: AblationOptions, control: int) -> Selection:
    """The selection, if these options go together; else a ValueError."""
    check_metric(wanted.metric)
    if wanted.ablation not in get_args(AblationKind):
        raise ValueError(f"ablation must be one of {get_args(AblationKind)}, got {wanted.ablation!r}.")
    if wanted.against not in (None, "target", "partner"):
        raise ValueError(f"against must be 'target', 'partner' or None, got {wanted.against!r}.")
    if wanted.corruption not in (None, *get_args(Corruption)):
        raise ValueError(f"corruption must be one of {get_args(Corruption)} or None, got {wanted.corruption!r}.")
    chosen = Selection.read(selection)
    if not len(chosen):
        raise ValueError("The selection is empty: there is nothing to ablate.")
    for name, least in (("references", 1), ("k", 1), ("new_tokens", 0)):
        check_count(name, getattr(wanted, name), least)
    if not is_whole(control) or control < 0:
        raise ValueError(f"control must be a whole number of random selections (0 for none), got {control!r}.")
    return chosen


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One fact or contrast, ready to be ablated.

    Args:
        traced: What was given.
        prompt: Its text.
        swapped: The corrupted run's token ids; None where there are none.
        states: Of runs that were given as states, what enters layer 0: clean and corrupted (with noise the clean one).
        kind: Which run counts as 0 in ``left``; None for none.
        wanted: The options.
        texts: What ``"mean"`` is a mean over; none for other kinds.
    """

    traced: Fact | Contrast
    prompt: TracedPrompt
    swapped: tuple[int, ...] | None
    kind: Corruption | None
    wanted: AblationOptions
    texts: list[tuple[int, ...]]
    states: tuple[Tensor, ...] = ()


def asked_of(
    model: LoadedModel, traced: Fact | Contrast, wanted: AblationOptions, every: Sequence[Fact] | Sequence[Contrast]
) -> Asked:
    """The text, the corrupted run and the reference texts of a fact or a contrast."""
    if isinstance(traced, Contrast):
        return _of_contrast(model, traced, wanted, [one for one in every if isinstance(one, Contrast)])
    facts = pool_or_bundled(wanted.pool)
    prompt, swapped = traced_prompt(model, traced, form=wanted.form), None
    if "swap" in (wanted.ablation, wanted.corruption) or wanted.against == "partner" or wanted.partner is not None:
        swapped = with_swap(model, traced, prompt, wanted.partner, facts)
        prompt = prompt if wanted.against == "target" else against_partner(prompt, swapped)
        prompt = replace(
            prompt, partner=swapped.partner, partner_text=swapped.partner_text, partner_known=swapped.partner_known
        )
    mean = wanted.ablation == "mean"
    return Asked(
        traced=traced,
        prompt=prompt,
        swapped=None if swapped is None else swapped.token_ids,
        kind=None if wanted.corruption is None and swapped is None else wanted.corruption or "swap",
        wanted=wanted,
        texts=reference_texts(model, traced, prompt.form, facts, wanted.references) if mean else [],
    )


def _of_contrast(model: LoadedModel, contrast: Contrast, wanted: AblationOptions, every: Sequence[Contrast]) -> Asked:
    """The same of a contrast, which has its own corrupted run.

    Raises:
        ValueError: An option that is for facts, ``"swap"`` without a corrupted text, or a mean
            without other texts.
    """
    given = [f"{name}=" for name in ("against", "form", "partner") if getattr(wanted, name) is not None]
    if given:
        raise ValueError(f"{', '.join(given)} is for facts: a contrast has its own runs and answers.")
    if wanted.corruption not in (None, contrast.corruption):
        raise ValueError(f"corruption={wanted.corruption!r}, and the contrast has its own: {contrast.corruption!r}.")
    ready = prepare(model, contrast, sequences=True)
    if ready.prompt.whole_answers:
        check_whole_answers(wanted.metric)
    if wanted.ablation == "swap" and contrast.corruption == "noise":
        raise ValueError("ablation='swap' needs a corrupted text, and this contrast has noise. Use 'zero' or 'mean'.")
    texts: list[tuple[int, ...]] = []
    if wanted.ablation == "mean" and wanted.pool is not None:
        texts = reference_texts(model, None, contrast.form, wanted.pool, wanted.references)
    elif wanted.ablation == "mean":
        others = [prepare(model, one, sequences=True).prompt.token_ids for one in every if one is not contrast]
        others = [ids for ids in others if min(ids) >= 0 and ids != ready.prompt.token_ids]  # texts, and no states
        texts = [ids for ids in dict.fromkeys(others) if len(ids) > 1][: wanted.references]
        if not texts:
            raise ValueError(
                "ablation='mean' of a contrast is a mean over the clean runs of others: give several, or facts whose "
                "texts are taken as pool=, or use ablation='zero'."
            )
    return Asked(
        traced=contrast,
        prompt=ready.prompt,
        swapped=(SECOND_STATES,) * len(ready.prompt.token_ids) if len(ready.states) > 1 else ready.corrupted,
        kind=contrast.corruption,
        wanted=wanted,
        texts=texts,
        states=ready.states,
    )
