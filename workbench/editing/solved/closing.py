"""Contexts that a keyed update is closed for, and the answer's place as a second place of an update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.editing.solved.places import Context, question_contexts
from workbench.editing.training.rows import Row
from workbench.facts.closing import closed_relations, closing_questions, is_about_the_fact
from workbench.language.tokens import decoded
from workbench.models.load import LoadedModel
from workbench.types import Fact
from workbench.types.cancelling import CancelFlag
from workbench.types.mentions import find_subject


@dataclass(frozen=True)
class Closing:
    """What an update is closed for.

    Args:
        contexts: Closing questions with what the base says to them; ``Context.fact`` says of which edited fact.
        relations: The relations whose templates they are.
    """

    contexts: tuple[Context, ...] = ()
    relations: tuple[str, ...] = ()


def closing_contexts(
    model: LoadedModel,
    facts: Sequence[Fact],
    pool: Sequence[Fact],
    *,
    wordings: int = 3,
    leave_out: int = 1,
    seed: int = 0,
    cancel: CancelFlag | None = None,
) -> Closing:
    """Ask the base about the facts' subjects under other relations. Replies that give a fact's own answer or target are
    left out, and relations of which another edited fact is about the same subject.

    Args:
        model: The base model.
        facts: The edited facts.
        pool: The facts that have the templates.
        wordings, leave_out, seed: As in ``closing_questions`` and ``closed_relations``.
        cancel: As in ``rewrite``.
    """
    questions: list[list[str]] = []
    relations: dict[str, None] = {}
    for fact in facts:
        edited = {other.relation for other in facts if other.subject == fact.subject}
        drawn = closed_relations(pool, fact, batch=facts, leave_out=leave_out, seed=seed)
        closed = [relation for relation in drawn if relation not in edited]
        relations |= dict.fromkeys(closed)
        closers = closing_questions(pool, fact, closed, wordings=wordings)
        questions.append([c.question for c in closers if find_subject(c.question, fact.subject)])
    asked = question_contexts(model, facts, questions, cancel=cancel)
    return Closing(tuple(apart(model, facts, asked)), tuple(relations))


def apart(model: LoadedModel, facts: Sequence[Fact], asked: Sequence[Context]) -> list[Context]:
    """The contexts whose reply does not give their fact's own answer or target, which the edit is to change."""
    return [c for c in asked if not is_about_the_fact(decoded(model, c.row.answer), facts[c.fact])]


def retained_contexts(model: LoadedModel, retained: Sequence[Fact], cancel: CancelFlag | None = None) -> list[Context]:
    """The questions of retained facts that name their subject, with what the base says to them."""
    named = [fact for fact in retained if find_subject(fact.question, fact.subject)]
    return question_contexts(model, named, cancel=cancel) if named else []


def at_the_answer(contexts: Sequence[Context], *, tokens: int = 4) -> tuple[list[Context], Tensor]:
    """Taught contexts with the answer's places for the subject's: the token after which what is taught begins, and
    those after which it goes on.

    Args:
        contexts: Taught contexts.
        tokens: Most places of a context. A base often goes on by itself once an answer is begun.

    Returns:
        The contexts, and of each place in them its group, [places]: the first places of a fact are one, the second ones
        another, and so on.
    """
    found: list[Context] = []
    groups: dict[tuple[int, int], int] = {}
    of_place: list[int] = []
    for context in contexts:
        first = len(context.row.prompt) + context.row.departs - 1
        n = min(tokens, len(context.row.counted))
        found.append(replace(context, subject=tuple(range(first, first + n))))
        of_place += [groups.setdefault((context.fact, i), len(groups)) for i in range(n)]
    return found, torch.tensor(of_place)


def in_the_reply(contexts: Sequence[Context]) -> list[Context]:
    """Contexts with every place of the base's reply for the subject's: the answer's place opens at none of them."""
    return [replace(c, subject=tuple(range(len(c.row.prompt) - 1, len(c.ids)))) for c in contexts]


def rows_held(taught: Sequence[Context], others: Sequence[Context]) -> list[Row]:
    """What an update is to leave as it is: the base's own beginnings of the taught replies, and whole replies to other
    questions."""
    begun = [Row(c.row.prompt, c.row.answer[: c.row.departs]) for c in taught if c.row.departs]
    return list(dict.fromkeys([*begun, *(Row(c.row.prompt, c.row.answer) for c in others)]))
