"""Facts that hang together: two-hop questions, the same answer elsewhere, other facts about a subject.

A fact is an edge from its subject to its answer, so a pool of facts is a graph. An edit of one edge changes the end of
every path through it, and nothing else.

Source: multi-hop and same-answer questions as in FaithUn and GONE; the questions and the graph are the project's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from workbench.types import Fact, FactSet
from workbench.types.mentions import find_mentions

SAME_TYPE = {"capital": "city"}
"""Words for a kind of thing that another relation may call by the second name."""


@dataclass(frozen=True)
class Hop:
    """A two-hop question.

    Args:
        question: The question; the middle entity is described, not named.
        judge: A fact whose answer is the path's end before the edit, and whose target the end after it.
        via: The other fact of the path.
    """

    question: str
    judge: Fact
    via: str


def description(fact: Fact) -> str:
    """The answer, described without its name: the fact's topic ("the capital of France"), else from the question."""
    return fact.topic or f"(the answer to: {fact.question})"


def hops(pool: FactSet, fact: Fact, most: int = 4) -> list[Hop]:
    """Two-hop questions through the fact: at most so many with it as the second hop, and as many as the first."""
    return [*into(pool, fact, most), *out_of(pool, fact, most)]


def no_path(pool: FactSet, fact: Fact) -> str:
    """Why a fact has no two-hop question."""
    return (
        f"no two-hop path: no fact of {pool.name!r} has the answer {fact.subject!r}, and none of one relation "
        f"are about both {fact.answer!r} and {fact.target!r}"
    )


def into(pool: FactSet, fact: Fact, most: int = 4) -> list[Hop]:
    """Two-hop questions whose second hop is the fact: "the capital of the country in which Lyon lies".

    Args:
        pool: Facts whose answer may be the fact's subject.
        fact: The edited fact; the path ends at its answer before and at its target after the edit.
        most: At most so many, of as many relations as there are.
    """
    first = [
        g
        for g in pool
        if g.id != fact.id
        and _chains(g, fact)
        and fact.subject in fact.question
        and not _names_any(g.subject, (*fact.answers, *fact.targets))
    ]
    return [
        Hop(_spelled(fact.question.replace(fact.subject, description(g))), fact, g.id) for g in in_turn(first, most)
    ]


def out_of(pool: FactSet, fact: Fact, most: int = 4) -> list[Hop]:
    """Two-hop questions whose first hop is the fact: "the currency of the country in which Tokyo lies".

    Args:
        pool: Facts about the old answer and, in the same relation, about the new one; their answers are the path's
            ends. Pairs with one and the same end are left out: the edit would not show.
        fact: The edited fact.
        most: At most so many.
    """
    hops: list[Hop] = []
    targets = {_plain(name) for name in fact.targets}
    for old in pool:
        if old.id == fact.id or not _chains(fact, old) or old.subject not in old.question:
            continue
        new = next((f for f in pool if f.relation == old.relation and _plain(f.subject) in targets), None)
        if new is None or {a.casefold() for a in new.answers} & {a.casefold() for a in old.answers}:
            continue
        judge = Fact.from_dict(
            old.to_dict()
            | {"id": f"{fact.id}, then {old.id}", "target": new.answer, "target_aliases": new.answer_aliases}
        )
        question = _spelled(old.question.replace(old.subject, description(fact)))
        if not _names_any(question, (*judge.answers, *judge.targets)):
            hops.append(Hop(question, judge, old.id))
    return hops[:most]


def same_answer(pool: FactSet, fact: Fact, most: int = 4, exclude: Iterable[str] = ()) -> list[Fact]:
    """Other facts with the fact's answer, which the edit must leave alone; judged with the edit's target as the new
    answer, so that a spread shows.

    Args:
        pool: Where they come from.
        fact: The edited fact.
        most: At most so many, of as many relations as there are.
        exclude: Ids that are left out, such as retained facts.
    """
    dropped = {fact.id, *exclude}
    names = {name.casefold() for name in fact.answers}
    found = [
        f
        for f in pool
        if f.id not in dropped
        and f.answer.casefold() in names
        and not (f.relation == fact.relation and f.subject == fact.subject)
    ]
    return [
        Fact.from_dict(f.to_dict() | {"target": fact.target, "target_aliases": fact.target_aliases})
        for f in in_turn(found, most)
    ]


def about_subject(pool: FactSet, fact: Fact, most: int = 3) -> list[Fact]:
    """Other facts about the fact's subject that name neither its answer nor its target."""
    names = (*fact.answers, *fact.targets)
    found = [
        f
        for f in pool
        if f.id != fact.id
        and f.relation != fact.relation
        and _plain(f.subject) == _plain(fact.subject)
        and not _names_any(f"{f.prompt} {f.answer}", names)
    ]
    return in_turn(found, most)


def same_subject(pool: FactSet, fact: Fact) -> list[Fact]:
    """Other facts about the fact's subject, which an edit of it must leave alone.

    Left out are those that follow from the fact or that it follows from (a landmark's country from its city, as far as
    the pool tells), and those whose answer is the fact's target: they would be "still right" if the edit spread.

    Args:
        pool: Where they come from.
        fact: The edited fact.
    """
    targets = {name.casefold() for name in fact.targets}
    return [
        f
        for f in pool
        if f.id != fact.id
        and (not f.relation or f.relation != fact.relation)
        and _one_thing(f, fact)
        and targets.isdisjoint(name.casefold() for name in f.answers)
        and not {name.casefold() for name in f.answers} & {name.casefold() for name in fact.answers}
        and not _follows(pool, f, fact)
        and not _follows(pool, fact, f)
    ]


def same_answer_elsewhere(pool: FactSet, fact: Fact) -> list[Fact]:
    """Facts about other subjects that have the fact's answer, which an edit of it must leave alone; as they are.

    Left out are those that follow from the fact, as far as the pool tells: what lies in Lyon lies in its country.

    Args:
        pool: Where they come from.
        fact: The edited fact.
    """
    names = {name.casefold() for name in fact.answers}
    led = {_plain(f.subject) for f in pool if _plain(fact.subject) in {_plain(name) for name in f.answers}}
    return [
        f
        for f in pool
        if f.id != fact.id
        and f.answer.casefold() in names
        and _plain(f.subject) != _plain(fact.subject)
        and not (_plain(f.subject) in led and f.relation != fact.relation)
    ]


def in_turn(facts: list[Fact], most: int) -> list[Fact]:
    """At most so many, the relations in turn."""
    queues: dict[str, list[Fact]] = {}
    for fact in facts:
        queues.setdefault(fact.relation, []).append(fact)
    out: list[Fact] = []
    while len(out) < most and any(queues.values()):
        for queue in queues.values():
            if queue and len(out) < most:
                out.append(queue.pop(0))
    return out


def _one_thing(first: Fact, second: Fact) -> bool:
    """Whether two facts are about one subject, and not about two of one name: of a proper name the relations must say
    one kind where they say kinds (Georgia the country is no state)."""
    if _plain(first.subject) != _plain(second.subject):
        return False
    kinds = [relation.rpartition("-")[0] for relation in (first.relation, second.relation)]
    proper = _plain(first.subject)[:1].isupper()
    return not (proper and all(kinds)) or kinds[0] == kinds[1]


def _follows(pool: FactSet, later: Fact, first: Fact) -> bool:
    """Whether one fact about a subject follows from another: a third leads from the one's answer to the other's, or
    the relations say so ("landmark-country" from "landmark-city" where there is "city-country")."""
    (kind, _, end), (other, _, later_end) = (f.relation.rpartition("-") for f in (first, later))
    end = SAME_TYPE.get(end, end)
    if kind and kind == other and f"{end}-{later_end}" in pool.relations:
        return True
    middle, ends = {_plain(name) for name in first.answers}, {name.casefold() for name in later.answers}
    return any(
        _plain(f.subject) in middle and _chains(first, f) and not ends.isdisjoint(a.casefold() for a in f.answers)
        for f in pool
    )


def _chains(first: Fact, second: Fact) -> bool:
    """Whether the first fact's answer is the second one's subject, and of one kind where the relations say their kinds
    ("landmark-city" does not lead into "us-state-capital" though New York is both)."""
    if _plain(second.subject) not in {_plain(name) for name in first.answers} or first.relation == second.relation:
        return False
    if first.relation.count("-") and second.relation.count("-"):
        end, start = first.relation.rpartition("-")[2], second.relation.rpartition("-")[0]
        return SAME_TYPE.get(end, end) == SAME_TYPE.get(start, start)
    return True


def _plain(name: str) -> str:
    """A name without its article; case counts ("Turkey" is no turkey)."""
    return re.sub(r"^(?:the|The) ", "", name)


def _names_any(text: str, names: Iterable[str]) -> bool:
    return bool(find_mentions(text, names))


def _spelled(question: str) -> str:
    """A question with a description in a name's place, without what then stands there twice ("the city of the city
    where", "the country the country")."""
    return re.sub(r"\b[Tt]he (\w+) (?=the \1\b)|\bthe city of (?=the (?:city|capital)\b)", "", question)
