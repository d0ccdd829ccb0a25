"""Which facts an evaluation takes: those given, checked, and draws of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from workbench.facts.known import load_facts, pool_or_bundled
from workbench.facts.retained import has_retained
from workbench.facts.sealed_wordings import Wordings
from workbench.types import Edit, Fact, FactSet
from workbench.types.fact import as_facts, check_once


def asked_facts(facts: Fact | FactSet | Sequence[Fact] | None, edit: Edit | None) -> list[Fact]:
    """The facts to evaluate: those given, or the edit's own.

    Raises:
        ValueError: There are none, or one came twice.
    """
    if facts is None:
        if edit is None:
            raise ValueError("evaluate needs facts, an edit, or both; got neither.")
        return list(edit.facts)
    asked = as_facts(facts)
    if not asked:
        raise ValueError("evaluate needs at least one fact, got none.")
    check_once(asked)
    return asked


def check_controls(controls: Iterable[Fact], away: set[str], touched: Sequence[Fact]) -> None:
    """Raise a ValueError for controls that were edited or whose answers were used, under another id too."""
    clash = sorted(f.id for f in controls if f.id in away or any(f.overlaps(other) for other in touched))
    if clash:
        raise ValueError(
            f"controls= overlaps the edited facts or those whose answers the edit used (Edit.used_ids): {clash}. "
            "Controls must have had no part in the edit; leave them out."
        )


def evaluated_pool(pool: FactSet | None, edited: Sequence[Fact], wordings: Wordings) -> FactSet:
    """Where neighbours, related facts and controls come from: the pool, or the bundled facts. Sealed facts are in it
    only where they are edited, or what is asked is sealed."""
    given = pool_or_bundled(pool)
    sealed = wordings == "sealed" or any(fact.split == "sealed" for fact in edited)
    return given + load_facts(split="sealed") if sealed else given


def touched_facts(
    pool: FactSet, taught: Sequence[Fact], used: Iterable[str], used_facts: Iterable[Fact], missing: list[str]
) -> tuple[list[Fact], set[str]]:
    """The facts that had a part in an edit, and all their ids.

    Args:
        pool: Where others come from.
        taught: What was taught or is evaluated.
        used: Ids of the facts whose answers were used.
        used_facts: The same as facts, which the pool may know under other ids.
        missing: What cannot be told is added, in words.
    """
    given = list(used_facts)
    away = {*used, *(f.id for f in (*taught, *given))}
    touched = [*taught, *given, *(f for f in pool if f.id in away)]
    unseen = sorted(away - {f.id for f in touched})
    from_bundled = [load_facts()[id] for id in unseen if id in load_facts()]
    if from_bundled and not has_retained(pool):
        touched += from_bundled
        unseen = sorted({*unseen} - {f.id for f in from_bundled})
        missing.append(f"retained facts of {pool.name!r}: it has none, so bundled ones were held in place")
    if unseen:
        missing.append(
            f"facts that the edit used and the pool does not hold ({', '.join(unseen)}): the same facts under other "
            "ids may be among controls and neighbours"
        )
    return touched, away


def sealed_controls(free: FactSet, edited: Sequence[Fact]) -> FactSet:
    """The sealed facts of relations that are not edited: no retain set holds any."""
    relations = {fact.relation for fact in edited}
    return free.filter(lambda fact: fact.split == "sealed" and fact.relation not in relations)


def relations_of(ids: Iterable[str], pool: FactSet | None) -> tuple[str, ...]:
    """The relations of facts of a pool, or of the bundled set, by their ids; those that are in neither have none."""
    sets = [facts for facts in (pool, load_facts()) if facts is not None]
    found = (next((facts[id].relation for facts in sets if id in facts), "") for id in ids)
    return tuple(dict.fromkeys(filter(None, found)))


def draw(facts: list[Fact], most: int | None, seed: int) -> list[Fact]:
    """At most so many of the facts, in their order, drawn by seed; None for all."""
    if most is None or len(facts) <= most:
        return facts
    keep = set(random.Random(seed).sample(range(len(facts)), most))
    return [f for i, f in enumerate(facts) if i in keep]
