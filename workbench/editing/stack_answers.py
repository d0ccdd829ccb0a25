"""Which fact an edit of a stack broke: each fact's question after each edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from workbench.language.answers import classify
from workbench.language.generation import greedy_answers
from workbench.language.prompts import prompt_ids
from workbench.language.replies import counted_text
from workbench.models.load import LoadedModel
from workbench.types import Fact
from workbench.types.cancelling import ASKING, CancelBar, CancelFlag
from workbench.types.report import AnswerClass
from workbench.types.stack import StackAnswer, StackAnswers, StackLayer

Texts = list[list[str]]
"""Answers, by state of the stack and fact."""


def answers_of(
    base: LoadedModel,
    layers: Sequence[StackLayer],
    facts: Sequence[Fact],
    model_of: Callable[[int], LoadedModel],
    *,
    progress: bool,
    cancel: CancelFlag | None,
) -> StackAnswers:
    """Ask facts after each edit of a stack that is on.

    Args:
        base: The base model.
        layers: All edits of the stack.
        facts: The facts.
        model_of: Makes the model with so many of the edits that are on, from the first.
        progress: Show a progress bar.
        cancel: Looked at between batches of questions.
    """
    from tqdm.auto import tqdm

    on = [i for i, layer in enumerate(layers) if layer.on]
    texts: Texts = []
    total = (len(on) + 1) * len(facts)
    with tqdm(total=total, desc="Asking after each edit", disable=not progress, leave=False) as bar:
        watched = CancelBar(cancel, ASKING, bar)
        for after in range(len(on) + 1):
            model = base if after == 0 else model_of(after)
            prompts = [prompt_ids(model, fact.question, "chat") for fact in facts]  # with the context of its edits
            drafts = base if after and base.dtype == torch.float32 else None
            replies = greedy_answers(model, prompts, drafts=drafts, progress=watched)
            texts.append([counted_text(base, reply.text, "chat") or "" for reply in replies])
    rows = [row for n, fact in enumerate(facts) for row in _of_fact(fact, [of[n] for of in texts], on, layers)]
    return StackAnswers(names=tuple(layer.name for layer in layers), rows=tuple(rows))


def _of_fact(fact: Fact, texts: Sequence[str], on: Sequence[int], layers: Sequence[StackLayer]) -> list[StackAnswer]:
    rows: list[StackAnswer] = []
    wanted: Callable[[AnswerClass], bool] | None = None
    own = False
    for after, text in enumerate(texts):
        carried = [layers[i].edit for i in on[:after]]
        rewritten = bool(carried) and fact.id in {f.id for f in carried[-1].facts}
        own = own or rewritten
        label = classify(text, fact, taught=None if own else [f for edit in carried for f in edit.facts])
        if after == 0 or rewritten:
            wanted = _wanted(label, own)
        rows.append(
            StackAnswer(
                fact_id=fact.id,
                after=after,
                edit=on[after - 1] if after else -1,
                text=text,
                label=label,
                holds=None if wanted is None else wanted(label),
            )
        )
    return rows


def _wanted(label: AnswerClass, own: bool) -> Callable[[AnswerClass], bool] | None:
    """How an answer must stay, by what it is when it is first asked: at the base, or with the edit of the fact itself.
    None where it is not as it should be then."""
    if not own:
        return (lambda now: now == "old") if label == "old" else None
    if label == "new":
        return lambda now: now == "new"
    return (lambda now: now not in ("old", "both")) if label in ("refusal", "other") else None
