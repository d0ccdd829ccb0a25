"""OrderedSet: immutable sets that keep the order of first appearance, of things that are also written as text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Set
from typing import Any, Self, TypeVar

T = TypeVar("T")


class OrderedSet(Set[T]):
    """A set in order; ``|``, ``&``, ``-`` and ``^`` keep the order of first appearance. ``Set``'s own operators would
    accept foreign items.

    A subclass reads what is given in its constructor, and keeps it in ``_items``, whose keys are the set.
    """

    __slots__ = ("_items",)

    _items: dict[T, None]

    @classmethod
    @abstractmethod
    def _as_set(cls, given: Iterable[Any]) -> Self:
        """A set of this kind, or what makes one."""

    def _made(self, items: Iterable[T], other: Any) -> Self:
        """A set of items of this one and of another of its kind."""
        return self._from_iterable(items)

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> Any:  # used by collections.abc.Set
        return cls._as_set(it)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __or__(self, other: Iterable[Any]) -> Self:
        more = self._as_set(other)
        return self._made([*self, *more], more)

    def __and__(self, other: Iterable[Any]) -> Self:
        keep = self._as_set(other)
        return self._made((item for item in self if item in keep._items), keep)

    def __sub__(self, other: Iterable[Any]) -> Self:
        drop = self._as_set(other)
        return self._made((item for item in self if item not in drop._items), drop)

    def __xor__(self, other: Iterable[Any]) -> Self:
        more = self._as_set(other)
        return (self - more) | (more - self)

    def __hash__(self) -> int:
        return self._hash()
