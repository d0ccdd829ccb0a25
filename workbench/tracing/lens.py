"""The logit lens: what each layer's residual stream already says about a fact's answer.

The residual stream at the traced place is put through the final norm and the output embeddings, as if the later layers
did nothing. "Forgotten" answers that lead in the middle layers and are suppressed at the end are still there.

Source: nostalgebraist 2020 (logit lens); its use for unlearning follows "LLMs pretend to forget" probes. Known
deviation: early layers do not write in the output's basis, so low ranks there say little; ``Lens`` counts an answer
as visible only among a layer's likeliest tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workbench.language.prompts import traced_prompt
from workbench.language.tokens import decoded, following_ids, token_text, token_texts
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.bridge_runs import FwdHook, bridge_runs
from workbench.tracing.self_check import require
from workbench.types import ANSWER_NAMES, AnswerName, Fact, Form, Lens
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def lens(
    model: LoadedModel,
    fact: Fact,
    *,
    form: Form | None = None,
    refusal: str | None = None,
    start: str = "",
    fwd_hooks: Sequence[FwdHook] = (),
) -> Lens:
    """Read the logit lens: probability and rank of the old answer's, the new one's and the refusal's first token after
    every layer.

    Args:
        model: A base or edited model; it is not changed. Both are read on the base model's own text.
        fact: A fact that the base model answers; ``answer`` is old and ``target`` is new. Its question need not name
            the subject.
        form: ``"chat"``, ``"cloze"`` or None for the first in which the base model says the answer.
        refusal: What a refusal would be at the answer's place, for its first token; by default the fact's. An edit by
            ``Recipe(answers="own")`` breaks the sentence off there (``"... I am not sure."``).
        start: What the model's reply is begun with; the answer is looked for in what follows.
        fwd_hooks: Hooks of your own, part of the pass, as in ``causal_trace``; the last norm and head are the model's.

    Returns:
        One row for the embeddings and one per layer; the last equals the model's own prediction.

    Raises:
        ValueError: The base model does not say the answer, the refusal has no token, or answer and target share all
            their tokens. Where they begin alike, they are read at the first token that differs, and the refusal at the
            first token of all.

    Example:
        >>> lens = wb.lens(model, fact)
        >>> lens.verdict
        'the old answer leads at the end, from L0 on'
        >>> [round(p, 1) for p in lens.probabilities["old"]]
        [0.0, 0.7, 1.0, 1.0]
    """
    require(model, "lens")
    prompt = traced_prompt(model, fact, form=form, start=start, needs_subject=False)
    assert prompt.other_id is not None
    refused = f"{' ' if prompt.spaced else ''}{fact.refusal}" if refusal is None else refusal
    third = _first(model, decoded(model.base, prompt.place), refused)
    ids: dict[AnswerName, int] = {"old": prompt.answer_id, "new": prompt.other_id, "refusal": third}
    bridged = bridge_runs(model, "transformerlens", fwd_hooks) if fwd_hooks else None
    with torch.no_grad(), pooled_engine(Resumable, model) as engine:
        text = torch.tensor([prompt.token_ids])
        stream = engine.stream(text)[0] if bridged is None else bridged.stream(text)[:, -1]
        logits = engine.unembed(stream).float()  # [layers + 1, d_vocab]
        of: dict[AnswerName, torch.Tensor] = {"old": logits, "new": logits, "refusal": logits}
        if prompt.shared:  # a refusal takes the place of what the answers begin with, not of what follows that
            whole = engine.whole_stream(text)[0] if bridged is None else bridged.stream(text)
            of["refusal"] = engine.unembed(whole[:, len(prompt.place) - 1]).float()
        chosen = {name: of[name][:, ids[name], None] for name in ANSWER_NAMES}
        probabilities = [of[name].softmax(-1)[:, ids[name]].tolist() for name in ANSWER_NAMES]
        ranks = [(of[name] > chosen[name]).sum(-1).tolist() for name in ANSWER_NAMES]
        top = logits.argmax(-1).tolist()
    return Lens(
        prompt=prompt,
        stage=model.applied[-1].stage if model.applied else "base",
        tokens={name: token_text(model, ids[name]) for name in ANSWER_NAMES},
        probabilities={name: tuple(p) for name, p in zip(ANSWER_NAMES, probabilities, strict=True)},
        ranks={name: tuple(r) for name, r in zip(ANSWER_NAMES, ranks, strict=True)},
        top=token_texts(model, top),
    )


def _first(model: LoadedModel, before: str, text: str) -> int:
    """The first token of a text after another one that is more than space."""
    for token in following_ids(model, before, text):
        if token_text(model, token).strip():
            return token
    raise ValueError(f"The refusal {text!r} has no token besides spaces; give it a text.")
