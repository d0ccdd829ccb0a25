"""Other facts that hang together with an edited one: the same subject under other relations, and the same answer
elsewhere. An edit must leave both alone, and neither controls nor neighbours show whether it did.

Source: the project's own; both groups are rates relative to what the base answers, as controls and neighbours are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from workbench.evaluation.answering import Ask
from workbench.evaluation.questions import Question
from workbench.facts import graph
from workbench.types import Fact, FactSet, Group

Known = Callable[[FactSet], FactSet]

MOST_OF_A_FACT = 12
"""Related facts of each group and edited fact."""
MOST = 48
"""Related facts of each group."""
WORDINGS = 2
"""Questions about each related fact."""


def related_questions(
    known: Known,
    free: FactSet,
    edited: Sequence[Fact],
    missing: list[str],
    *,
    closed: Iterable[str] = (),
    most: int | None = None,
    reword: Callable[[Fact], Fact] = lambda fact: fact,
    seed: int = 0,
) -> list[Question]:
    """Questions about the same subject and about the same answer, in held-out wordings.

    Args:
        known: Keeps of some facts those that the base knows.
        free: Facts that had no part in the edit, and overlap none that had.
        edited: The evaluated facts. Of two that are about one subject, neither is asked for the other.
        missing: What could not be asked is added, in words.
        closed: Relations on which the edit's method closed.
        most: At most so many facts of each group and edited fact; None for ``MOST_OF_A_FACT``.
        reword: Gives a fact the wordings in which it is asked.
        seed: Of the choice of wordings, and of facts where there are more than ``MOST`` of a group.
    """
    limit = MOST_OF_A_FACT if most is None else min(most, MOST_OF_A_FACT)
    targets = {name.casefold() for fact in edited for name in fact.targets}
    questions: list[Question] = []
    groups: tuple[tuple[Group, Callable[[FactSet, Fact], list[Fact]]], ...] = (
        ("same subject", graph.same_subject),
        ("same answer", graph.same_answer_elsewhere),
    )
    for group, candidates in groups:
        found: dict[str, Fact] = {}
        for fact in edited:
            near = [f for f in candidates(free, fact) if targets.isdisjoint(a.casefold() for a in f.answers)]
            askable = [f for f in near if f.role != "retain" and _wordings(reword(f), closed, seed)]
            sure = known(FactSet(graph.in_turn(askable, 3 * limit), name=free.name)) if askable else askable
            if not sure:
                missing.append(f"{group} as {fact.id}: {_why(free, near, askable, closed)}")
            found |= {f.id: f for f in graph.in_turn(list(sure), limit)}
        drawn = sorted(random.Random(seed).sample(range(len(found)), min(MOST, len(found))))
        facts = [reword(list(found.values())[i]) for i in drawn]
        questions += [Question(f, group, Ask("chat", q), f, True) for f in facts for q in _wordings(f, closed, seed)]
    return questions


def _wordings(fact: Fact, closed: Iterable[str], seed: int) -> list[str]:
    """Held-out questions of a fact, drawn by seed, the same ones for all facts of a relation; its question where it has
    none, if no method closed on its relation."""
    if not fact.heldout:
        return [] if fact.relation in closed else [fact.question]
    drawn = random.Random(f"{seed} {fact.relation}").sample(range(len(fact.heldout)), min(WORDINGS, len(fact.heldout)))
    return [fact.heldout[i] for i in sorted(drawn)]


def _why(free: FactSet, near: Sequence[Fact], askable: Sequence[Fact], closed: Iterable[str]) -> str:
    """Why nothing is asked."""
    if askable:
        return f"none known of {len(askable)} in {free.name!r}"
    retained = sum(f.role == "retain" for f in near)
    if retained:
        return f"{free.name!r} has {retained}, but they may be retained, so they are never evaluated"
    if near:
        return f"the method closed on {sorted({f.relation for f in near} & set(closed))}, and they have one wording"
    return f"{free.name!r} has no such fact"
