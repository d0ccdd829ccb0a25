"""What an evaluation asks: of each fact, in which group, and by which fact the answer is judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workbench.evaluation.answering import Ask
from workbench.facts import graph
from workbench.facts.wordings import reversals
from workbench.types import Fact, FactSet, Group


@dataclass(frozen=True)
class Question:
    """One prompt of an evaluation.

    Args:
        fact: The fact that it is about; rows of one fact are not independent.
        group: Its group.
        ask: What is asked.
        judge: The fact by whose answer and target the text is classified.
        untouched: Whether the fact was never edited: its own target was taught nowhere, so that what the edit taught
            counts as new instead.
    """

    fact: Fact
    group: Group
    ask: Ask
    judge: Fact
    untouched: bool = False


def questions_of(
    edited: Sequence[Fact], neighbours: Iterable[Fact], controls: Iterable[Fact], missing: list[str]
) -> list[Question]:
    """The edited facts' own questions and clozes, and the neighbours' and controls' question.

    Args:
        edited, neighbours, controls: The facts.
        missing: What a fact lacks is added, in words.
    """
    questions: list[Question] = []
    for fact in edited:
        questions += [Question(fact, "train", Ask("chat", q), fact) for q in fact.training_questions]
        questions += [Question(fact, "heldout", Ask("chat", q), fact) for q in fact.heldout]
        questions += [Question(fact, "cloze", Ask("cloze", q), fact) for q in (fact.prompt, *fact.cloze_paraphrases)]
        if len(fact.training_questions) == 1:
            missing.append(f"training questions of {fact.id}: the question alone was given, so other wordings may fail")
        if not fact.heldout:
            missing.append(f"held-out questions of {fact.id}: none given, so new, old and forget are not measured")
    others: tuple[tuple[Group, Iterable[Fact]], ...] = (("neighbour", neighbours), ("control", controls))
    questions += [Question(f, group, Ask("chat", f.question), f, True) for group, of in others for f in of]
    return questions


def collateral_questions(edited: Sequence[Fact], pool: FactSet, missing: list[str]) -> list[Question]:
    """The reversed direction, from the old answer and from the target, and two-hop consequences through the pool.

    Args:
        edited: The facts. A path through another edited fact is left out: its end would have changed twice.
        pool: The graph.
        missing: What a fact lacks is added, in words.
    """
    questions: list[Question] = []
    taken = {fact.id for fact in edited}
    others = pool.filter(lambda f: f.id not in taken)
    for fact in edited:
        asked = [Question(fact, "reversed", Ask("chat", p.text), p.judge) for p in reversals(fact)]
        asked += [Question(fact, "reversed_target", Ask("chat", p.text), p.judge) for p in reversals(fact, "target")]
        if not asked:
            missing.append(f"reversed questions of {fact.id}: the subject is also a name of the answer or the target")
        hops = graph.hops(others, fact)
        if not hops:
            missing.append(f"two-hop questions of {fact.id}: {graph.no_path(pool, fact)}")
        questions += asked + [Question(fact, "twohop", Ask("chat", h.question), h.judge) for h in hops]
    return questions
