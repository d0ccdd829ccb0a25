"""TaskSet: contrasts of one kind, in two halves, looked up by id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, get_args

from workbench.types.contrast import Contrast
from workbench.types.fact import Split
from workbench.types.id_sequence import IdSequence

if TYPE_CHECKING:
    import pandas as pd


class TaskSet(IdSequence[Contrast]):
    """An ordered, immutable set of contrasts with unique ids. Everything that takes contrasts takes one.

    Args:
        contrasts: The contrasts.
        name: Where they come from, shown in results.
        title, description: What the task is called, and what it asks.
        splits: The half of each contrast by its id: circuits are searched for on ``"dev"`` and judged on ``"test"``.
        kinds: The kind of each contrast by its id, where there are several.

    Raises:
        ValueError: Two contrasts share an id, or a split or a kind is of no contrast or no split.

    Example:
        >>> task = wb.load_task("ioi")
        >>> task
        TaskSet('ioi', 64 contrasts: 32 dev, 32 test)
        >>> task["ioi-02"].answer, len(task[:3]), len(task.test)
        (' Julia', 3, 32)
        >>> wb.TaskSet(task[:2], name="mine").ids
        ('ioi-01', 'ioi-02')
    """

    ITEM = Contrast

    def __init__(
        self,
        contrasts: Iterable[Contrast] = (),
        *,
        name: str = "contrasts",
        title: str = "",
        description: str = "",
        splits: Mapping[str, Split] | None = None,
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(contrasts, name)
        self.title, self.description = title, description
        self.splits: dict[str, Split] = dict(splits or {})
        self.kinds = dict(kinds or {})
        if twice := self._twice():
            raise ValueError(
                f"Ids of contrasts must be unique; these occur more than once: {twice}. Give each its id=."
            )
        strangers = sorted({*self.splits, *self.kinds} - set(self._by_id))
        if strangers:
            raise ValueError(f"These ids have a split or a kind and are of no contrast of {name!r}: {strangers}.")
        wrong = sorted(set(self.splits.values()) - set(get_args(Split)))
        if wrong:
            raise ValueError(f"A split must be one of {get_args(Split)}, got {wrong}.")

    def __repr__(self) -> str:
        sizes = [(split, sum(one == split for one in self.splits.values())) for split in ("dev", "test")]
        halves = ", ".join(f"{n} {split}" for split, n in sizes if n)
        return f"TaskSet({self.name!r}, {len(self)} contrasts{f': {halves}' if halves else ''})"

    def with_contrasts(self, contrasts: Iterable[Contrast]) -> TaskSet:
        """The same task with other contrasts: some of its own, or changed ones of the same ids.

        Raises:
            ValueError: An id that is not of this task.

        Example:
            >>> from dataclasses import replace
            >>> task = wb.load_task("ioi")
            >>> len(task.with_contrasts(replace(contrast, wrong=" nobody") for contrast in task.dev))
            32
        """
        kept = tuple(contrasts)
        strangers = [c.id for c in kept if c.id not in self._by_id]
        if strangers:
            raise ValueError(f"These ids are of no contrast of {self.name!r}: {strangers}.")
        return self._like(kept)

    def _like(self, items: Iterable[Contrast]) -> TaskSet:
        kept = tuple(items)
        ids = {c.id for c in kept}
        return TaskSet(
            kept,
            name=self.name,
            title=self.title,
            description=self.description,
            splits={key: split for key, split in self.splits.items() if key in ids},
            kinds={key: kind for key, kind in self.kinds.items() if key in ids},
        )

    @property
    def dev(self) -> TaskSet:
        """The half on which a circuit is searched for."""
        return self.filter(split="dev")

    @property
    def test(self) -> TaskSet:
        """The half on which it is judged: no word of ``dev`` that matters to an answer is in it."""
        return self.filter(split="test")

    def filter(
        self,
        where: Callable[[Contrast], bool] | None = None,
        *,
        split: Split | None = None,
        kind: str | None = None,
    ) -> TaskSet:
        """Keep the contrasts that meet every given condition, in order.

        Args:
            where: Any predicate on a contrast.
            split, kind: Equal to this value.

        Raises:
            ValueError: A kind or a split that no contrast has, with those that there are.

        Example:
            >>> wb.load_task("agreement").filter(split="test", kind="clause, differs").ids
            ('agreement-47', 'agreement-50', 'agreement-51', 'agreement-54')
        """
        for word, value, known in (("kind", kind, self.kinds), ("split", split, self.splits)):
            if value is not None and value not in known.values():
                raise ValueError(
                    f"No {word} {value!r} in {self.name!r}; there are {list(dict.fromkeys(known.values()))}."
                )
        return self._like(
            c
            for c in self._items
            if (where is None or where(c))
            and (split is None or self.splits.get(c.id) == split)
            and (kind is None or self.kinds.get(c.id) == kind)
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per contrast: id, split, kind, clean, corrupted, answer, wrong."""
        import pandas as pd

        rows = [
            {
                "id": c.id,
                "split": self.splits.get(c.id),
                "kind": self.kinds.get(c.id),
                "clean": c.clean,
                "corrupted": c.corrupted,
                "answer": c.answer,
                "wrong": c.wrong,
            }
            for c in self._items
        ]
        return pd.DataFrame(rows)
