"""FactSet: an ordered set of facts, looked up by id, and parts of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from workbench.types.fact import Fact, Role, Split, as_facts
from workbench.types.fact_source import FactSource
from workbench.types.id_sequence import IdSequence

if TYPE_CHECKING:
    import pandas as pd


class FactSet(IdSequence[Fact]):
    """An ordered, immutable set of facts with unique ids.

    Args:
        facts: The facts.
        name: Where they come from, shown in results.
        forms: For the result of ``known_facts``: by fact id, the forms (``"chat"``, ``"cloze"``) in which it is known.
        source: The file that they, or some of them, were read from. A part of them keeps it.

    Raises:
        ValueError: Two facts share an id.

    Example:
        >>> facts
        FactSet('capitals', 5 facts, 1 relations)
        >>> facts["japan-capital"].answer, facts[0].subject, len(facts[:2])
        ('Tokyo', 'France', 2)
        >>> wb.FactSet([fact], name="mine").ids
        ('france-capital',)
    """

    ITEM = Fact

    def __init__(
        self,
        facts: Iterable[Fact] = (),
        *,
        name: str = "facts",
        forms: dict[str, tuple[str, ...]] | None = None,
        source: FactSource | None = None,
    ) -> None:
        super().__init__(facts, name)
        self.source = source
        self.forms = dict(forms or {})
        if twice := self._twice():
            raise ValueError(f"Fact ids must be unique; these occur more than once: {twice}.")

    def __add__(self, other: Iterable[Fact]) -> FactSet:
        extra = [f for f in other if f.id not in self._by_id]
        forms = {**self.forms, **getattr(other, "forms", {})}
        source = self.source or getattr(other, "source", None)
        return FactSet([*self._items, *extra], name=self.name, forms=forms, source=source)

    def __repr__(self) -> str:
        relations = len({f.relation for f in self._items})
        return f"FactSet({self.name!r}, {len(self)} facts, {relations} relations)"

    def _like(self, items: Iterable[Fact]) -> FactSet:
        return FactSet(items, name=self.name, forms=self.forms, source=self.source)

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations, in order of first appearance."""
        return tuple(dict.fromkeys(f.relation for f in self._items))

    @property
    def core(self) -> FactSet:
        """The facts but for those of the role ``"related"`` and of the split ``"sealed"``; all where there are no
        others. Retained facts, controls and paths come from it, so that these change none of them.

        Example:
            >>> bundled = wb.load_facts()
            >>> bundled.core, len(bundled.core.filter(role="related"))
            (FactSet('bundled facts', 932 facts, 26 relations), 0)
        """
        core = self._like(f for f in self._items if f.role != "related" and f.split != "sealed")
        return core if len(core) else self

    def filter(
        self,
        where: Callable[[Fact], bool] | None = None,
        *,
        relation: str | None = None,
        split: Split | None = None,
        role: Role | None = None,
        ids: Iterable[str] | None = None,
        exclude: Iterable[str] = (),
    ) -> FactSet:
        """Keep the facts that meet every given condition, in order.

        Args:
            where: Any predicate on a fact.
            relation, split, role: Equal to this value.
            ids: Only these ids (unknown ones raise).
            exclude: Not these ids.

        Raises:
            KeyError: An id in ``ids`` that is not in the set, with near matches.
            ValueError: An unknown relation, with the known ones; the sealed split of a set that holds none of it.

        Example:
            >>> facts.filter(role="control").ids
            ('italy-capital', 'spain-capital')
            >>> facts.filter(lambda fact: len(fact.answer) == 6, exclude=["spain-capital"]).ids
            ('germany-capital',)
        """
        if relation is not None and relation not in self.relations:
            raise ValueError(f"No relation {relation!r} in {self.name!r}; there are {list(self.relations)}.")
        if split == "sealed" and self._items and all(f.split != "sealed" for f in self._items):
            raise ValueError(
                f"{self.name!r} holds no sealed facts. They are kept apart, so that nothing draws from them: "
                "wb.load_facts(split='sealed')."
            )
        wanted = None if ids is None else {self[i].id for i in ids}
        dropped = set(exclude)
        return self._like(
            f
            for f in self._items
            if (where is None or where(f))
            and (relation is None or f.relation == relation)
            and (split is None or f.split == split)
            and (role is None or f.role == role)
            and (wanted is None or f.id in wanted)
            and f.id not in dropped
        )

    def without(self, facts: Iterable[Fact], ids: Iterable[str] = ()) -> FactSet:
        """Drop the facts that overlap one of these (``Fact.overlaps``), and the facts of this set with these ids.

        Example:
            >>> facts.without([fact], ids=["italy-capital"]).ids
            ('spain-capital', 'germany-capital', 'japan-capital')
        """
        given = [*facts, *(self._by_id[i] for i in ids if i in self._by_id)]
        return self._like(f for f in self._items if not any(f.overlaps(one) for one in given))

    def neighbours(self, fact: Fact) -> FactSet:
        """Keep the other facts of the same relation whose answer is not the fact's target (METHODS: such a fact would
        be "retained" by an edit that spreads). There are none for a fact without a relation. Facts of the role
        ``"related"`` are neighbours of each other, and of others only where the relation has no other facts.

        Example:
            >>> fact.target  # the answer of italy-capital
            'Rome'
            >>> facts.neighbours(fact).ids
            ('spain-capital', 'germany-capital', 'japan-capital')
        """
        targets = {t.casefold() for t in fact.targets}
        near = self._like(
            f
            for f in self._items
            if fact.relation
            and f.relation == fact.relation
            and f.id != fact.id
            and f.subject != fact.subject
            and not targets & {a.casefold() for a in f.answers}
        )
        return near if fact.role == "related" else near.core

    def to_frame(self) -> pd.DataFrame:
        """One row per fact: id, relation, subject, answer, target, split, role, and the known forms if measured."""
        import pandas as pd

        rows = [
            {
                "id": f.id,
                "relation": f.relation,
                "subject": f.subject,
                "answer": f.answer,
                "target": f.target,
                "split": f.split,
                "role": f.role,
                **({"known": "+".join(self.forms[f.id])} if f.id in self.forms else {}),
            }
            for f in self._items
        ]
        return pd.DataFrame(rows)


def as_fact_set(facts: FactSet | Sequence[Fact]) -> FactSet:
    """Facts as a set, where a list may be given.

    Raises:
        TypeError: They are no facts.
    """
    return facts if isinstance(facts, FactSet) else FactSet(as_facts(facts), name="the facts given")
