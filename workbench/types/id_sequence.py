"""IdSequence: immutable sequences of things with ids, looked up by place, by slice or by id."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol, Self, TypeVar, overload

from workbench.types.plain import shortened


class HasId(Protocol):
    """Has an id."""

    @property
    def id(self) -> str:
        """Its id."""
        ...


T = TypeVar("T", bound=HasId)


class IdSequence(Sequence[T]):
    """Things with unique ids, in order.

    Args:
        items: They.
        name: Of the sequence, in messages.
    """

    ITEM: ClassVar[type[Any]]
    """What it holds; its name in small letters is in messages."""

    def __init__(self, items: Iterable[T], name: str) -> None:
        self._check_several(items)
        self._items = tuple(items)
        for item in self._items:
            self._check_item(item)
        self._by_id = {item.id: item for item in self._items}
        self.name = name

    def _check_several(self, items: object) -> None:
        if isinstance(items, str) or not isinstance(items, Iterable):
            raise TypeError(f"{type(self).__name__} takes several of {self.ITEM.__name__}, got {_short(items)}.")

    def _check_item(self, item: object) -> None:
        if not isinstance(item, self.ITEM):
            kind, shown = self.ITEM.__name__, _short(item)
            made = isinstance(item, dict) and hasattr(self.ITEM, "from_dict")
            advice = f"; {kind}.from_dict makes one" if made else ""
            raise TypeError(f"{type(self).__name__} takes items of {kind}, got {shown}{advice}.")

    @abstractmethod
    def _like(self, items: Iterable[T]) -> Self:
        """The same with other items."""

    def _twice(self) -> list[str]:
        """The ids that occur more than once, sorted."""
        return sorted(id for id, n in Counter(item.id for item in self._items).items() if n > 1)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, in order."""
        return tuple(self._by_id)

    @overload
    def __getitem__(self, key: str | int) -> T: ...
    @overload
    def __getitem__(self, key: slice) -> Self: ...
    def __getitem__(self, key: str | int | slice) -> T | Self:
        if isinstance(key, slice):
            return self._like(self._items[key])
        if isinstance(key, int):
            return self._items[key]
        if key not in self._by_id:
            near = difflib.get_close_matches(str(key), self._by_id, n=3, cutoff=0.4)
            hint = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
            what = self.ITEM.__name__.lower()
            raise KeyError(f"No {what} with the id {key!r} among the {len(self)} of {self.name!r}.{hint}")
        return self._by_id[key]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __contains__(self, item: object) -> bool:
        if isinstance(item, str):
            return item in self._by_id
        one: Any = item
        return isinstance(one, self.ITEM) and self._by_id.get(one.id) == one


def _short(value: object) -> str:
    return f"{type(value).__name__} {shortened(value)}"
