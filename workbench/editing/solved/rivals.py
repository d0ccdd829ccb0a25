"""Rivals: other subjects with an edited fact's old answer, which are to keep it.

At the answer's place, late in the model, the answer is there already: the key of "the language of Ecuador" looks like
that of "the language of Cuba", since both are about to be "Spanish". An update that opens at one opens at the other,
unless the other is spared by name.

Source: ours.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from workbench.editing.solved.places import Context, context_of
from workbench.editing.training.fit_rows import in_turn
from workbench.editing.training.rows import around_old, named_row
from workbench.language.generation import greedy_answers
from workbench.language.prompts import prompt_ids
from workbench.language.replies import counted_text
from workbench.models.load import LoadedModel
from workbench.types import Fact
from workbench.types.cancelling import CancelBar, CancelFlag

WORDINGS = 4
"""Training questions of each rival."""


def rivals_of(fact: Fact, spare: Iterable[Fact], n: int, *, seed: int) -> list[Fact]:
    """Choose rivals of a fact, by seed.

    Args:
        fact: The edited fact.
        spare: Known facts that may be retained.
        n: At most so many.
    """
    answers = {answer.casefold() for answer in fact.answers}
    alike = [
        other
        for other in spare
        if other.relation == fact.relation and not answers.isdisjoint(answer.casefold() for answer in other.answers)
    ]
    random.Random(seed).shuffle(alike)
    return alike[:n]


def rival_contexts(
    model: LoadedModel,
    facts: Sequence[Fact],
    spare: Sequence[Fact],
    n: int,
    *,
    seed: int,
    cancel: CancelFlag | None = None,
) -> list[Context]:
    """Training questions of rivals with the base's own reply up to their answer, which alone counts.

    Args:
        model: The base model.
        facts: The edited facts; ``Context.fact`` says whose rival it is.
        spare, n, seed: As in ``rivals_of``.
        cancel: As in ``rewrite``.
    """
    asked = [
        (i, rival, question)
        for i, fact in enumerate(facts)
        for k, rival in enumerate(rivals_of(fact, spare, n, seed=seed))
        for question in in_turn(rival.training_questions, k, WORDINGS)
    ]
    prompts = [prompt_ids(model, question, "chat") for _, _, question in asked]
    found: list[Context] = []
    replies = greedy_answers(model, prompts, progress=CancelBar(cancel))
    for (i, rival, _), prompt, reply in zip(asked, prompts, replies, strict=True):
        before, old, _ = around_old(counted_text(model, reply.text, "chat") or "", rival)
        found.append(context_of(model, named_row(model, prompt, before, old), rival.subject, fact=i))
    return found
