"""Lenses: what each layer's residual stream already says about a fact's answer.

The residual stream at the traced place is put through the final norm and the output embeddings, as if the later layers
did nothing (the logit lens), or through an affine map of its layer first (the tuned lens). "Forgotten" answers that
lead in the middle layers and are suppressed at the end are still there.

Source: nostalgebraist 2020 (logit lens), Belrose et al. 2023 (tuned lens, see ``tuned_lens``); their use for unlearning
follows "LLMs pretend to forget" probes. Known deviation: in the logit lens early layers do not write in the output's
basis, so low ranks there say little; ``Lens`` counts an answer as visible only among a layer's likeliest tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, Unpack, overload

import torch

from workbench.language.contrasts import clean_run
from workbench.language.prompts import traced_prompt
from workbench.language.tokens import decoded, following_ids, token_text, token_texts
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.bridge_runs import FwdHook, bridge_runs, run_of
from workbench.tracing.self_check import require
from workbench.tracing.tuned_lens import lens_of
from workbench.types import AnswerName, Contrast, Fact, Form, Lens, LensKind, TracedPrompt, TunedLens
from workbench.types.contrast import Traced, as_traced
from workbench.types.torch_settings import own_torch_settings


class LensKeywords(TypedDict, total=False):
    """All keywords of ``lens``, which explains them, for its overloads."""

    form: Form | None
    refusal: str | None
    start: str
    kind: LensKind | TunedLens
    fwd_hooks: Sequence[FwdHook]


@overload
def lens(model: LoadedModel, fact: Fact | Contrast, **options: Unpack[LensKeywords]) -> Lens: ...


@overload
def lens(
    model: LoadedModel, fact: Sequence[Fact] | Sequence[Contrast], **options: Unpack[LensKeywords]
) -> tuple[Lens, ...]: ...


@own_torch_settings()
def lens(
    model: LoadedModel,
    fact: Traced,
    *,
    form: Form | None = None,
    refusal: str | None = None,
    start: str = "",
    kind: LensKind | TunedLens = "logit",
    fwd_hooks: Sequence[FwdHook] = (),
) -> Lens | tuple[Lens, ...]:
    """Read a lens: probability and rank of the old answer's, the new one's and the refusal's first token after
    every layer.

    Args:
        model: A base or edited model; it is not changed. Both are read on the base model's own text.
        fact: A fact that the base model answers; ``answer`` is old and ``target`` is new. Its question need not name
            the subject. Or a contrast: its answer is old and its wrong answer new (any of several: their probabilities
            add up, and the best rank counts), on the clean run, without a refusal. Or several.
        form: Of facts: ``"chat"``, ``"cloze"`` or None for the first in which the base model says the answer.
        refusal: What a refusal would be at the answer's place, for its first token; by default the fact's. An edit by
            ``Recipe(answers="own")`` breaks the sentence off there (``"... I am not sure."``).
        start: What the model's reply is begun with; the answer is looked for in what follows.
        kind: ``"logit"``: the residual stream goes into the last norm as it is. ``"tuned"``: through the base's
            ``wb.tuned_lens`` first, which is fitted when it is asked for the first time. Or a ``TunedLens``.
        fwd_hooks: Hooks of your own, part of the pass, as in ``causal_trace``; the last norm and head are the model's.

    Returns:
        One row for the embeddings and one per layer; the last equals the model's own prediction. For several a lens
        each.

    Raises:
        ValueError: The base model does not say the answer, the refusal has no token, or answer and target share all
            their tokens. Where they begin alike, they are read at the first token that differs, and the refusal at the
            first token of all. An unknown kind, or a lens of another model.

    Example:
        >>> lens = wb.lens(model, fact)
        >>> lens.verdict
        'the old answer leads at the end, from L0 on'
        >>> [round(p, 1) for p in lens.probabilities["old"]]
        [0.0, 0.7, 1.0, 1.0]
        >>> tuned = wb.tuned_lens(model, pool=facts, progress=False)
        >>> wb.lens(model, fact, kind=tuned).probabilities["old"][-1] == lens.probabilities["old"][-1]
        True
    """
    if not isinstance(fact, Fact | Contrast):
        through = lens_of(model, kind) or "logit"
        given: LensKeywords = {
            "form": form,
            "refusal": refusal,
            "start": start,
            "kind": through,
            "fwd_hooks": fwd_hooks,
        }
        return tuple(lens(model, one, **given) for one in as_traced(fact, "lens"))
    through = lens_of(model, kind)
    if isinstance(fact, Contrast):
        if refusal is not None or start:
            raise ValueError("refusal= and start= are for facts: a contrast has two answers and its own text.")
        prompt, states = clean_run(model, fact, form)
        return lens_at(model, prompt, None, states=states, through=through, fwd_hooks=fwd_hooks)
    prompt = traced_prompt(model, fact, form=form, start=start, needs_subject=False)
    refused = f"{' ' if prompt.spaced else ''}{fact.refusal}" if refusal is None else refusal
    return lens_at(model, prompt, refused, through=through, fwd_hooks=fwd_hooks)


def lens_at(
    model: LoadedModel,
    prompt: TracedPrompt,
    refusal: str | None,
    *,
    states: torch.Tensor | None = None,
    through: TunedLens | None = None,
    fwd_hooks: Sequence[FwdHook] = (),
) -> Lens:
    """Read a lens of a text that is there already.

    Args:
        model: A base or edited model; it is not changed.
        prompt: The text, with the tokens of the old answer and the new one.
        refusal: As in ``lens``; None for a contrast, which has none.
        states: What enters layer 0 in the place of the text, [tokens, d_model].
        through: The tuned lens; None for the logit lens.
        fwd_hooks: As in ``lens``.
    """
    require(model, "lens")
    ids: dict[AnswerName, list[int]] = {"old": list(prompt.answers or (prompt.answer_id,))}
    words: dict[AnswerName, str | None] = {"old": prompt.answer_token, "new": prompt.other_token}
    if prompt.other_id is not None:
        ids["new"] = list(prompt.others or (prompt.other_id,))
    if refusal is not None:
        ids["refusal"] = [_first(model, decoded(model.base, prompt.place), refusal)]
    text, first = run_of(prompt, states)
    hooks = [*first, *fwd_hooks]
    bridged = bridge_runs(model, "transformerlens", hooks) if hooks else None
    with torch.no_grad(), pooled_engine(Resumable, model) as engine:
        stream = engine.stream(text)[0] if bridged is None else bridged.stream(text)[:, -1]
        read = (lambda states: states) if through is None else through.translated
        logits = engine.unembed(read(stream)).float()  # [layers + 1, d_vocab]
        of: dict[AnswerName, torch.Tensor] = dict.fromkeys(ids, logits)
        if prompt.shared:  # a refusal takes the place of what the answers begin with, not of what follows that
            whole = engine.whole_stream(text)[0] if bridged is None else bridged.stream(text)
            of["refusal"] = engine.unembed(read(whole[:, len(prompt.place) - 1])).float()
        best = {name: of[name][:, ids[name]].amax(-1, keepdim=True) for name in ids}
        probabilities: dict[AnswerName, tuple[float, ...]] = {
            name: tuple(of[name].softmax(-1)[:, ids[name]].sum(-1).tolist()) for name in ids
        }
        ranks: dict[AnswerName, tuple[int, ...]] = {
            name: tuple((of[name] > best[name]).sum(-1).tolist()) for name in ids
        }
        top = logits.argmax(-1).tolist()
    several = {name: words.get(name) if len(of_name) > 1 else None for name, of_name in ids.items()}
    return Lens(
        prompt=prompt,
        stage=model.applied[-1].stage if model.applied else "base",
        tokens={name: several[name] or token_text(model, ids[name][0]) for name in ids},
        probabilities=probabilities,
        ranks=ranks,
        top=token_texts(model, top),
        kind="logit" if through is None else "tuned",
    )


def _first(model: LoadedModel, before: str, text: str) -> int:
    """The first token of a text after another one that is more than space."""
    for token in following_ids(model, before, text):
        if token_text(model, token).strip():
            return token
    raise ValueError(f"The refusal {text!r} has no token besides spaces; give it a text.")
