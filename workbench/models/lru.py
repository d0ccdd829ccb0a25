"""Entries by key with the bytes that they take, the one that was used longest ago first."""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from torch import Tensor

INT_BYTES = 32
"""A token id and its place in a tuple."""


class Entry(NamedTuple):
    """A value, its bytes, and when it was last used."""

    value: Any
    nbytes: int
    used: int


class LruEntries:
    """Values by key, the one that was used longest ago first. It has no lock: the caller holds one.

    Attributes:
        nbytes: Of all values.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._entries))  # a copy: what is looked at may be taken out

    def get(self, key: Hashable) -> Entry | None:
        """An entry, which counts as used now."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries[key] = entry._replace(used=time.monotonic_ns())
            self._entries.move_to_end(key)
        return entry

    def put(self, key: Hashable, value: Any, nbytes: int) -> None:
        """Add an entry, or replace the one of this key."""
        self.pop(key)
        self._entries[key] = Entry(value, nbytes, time.monotonic_ns())
        self.nbytes += nbytes

    def pop(self, key: Hashable) -> Any:
        """Take an entry out; returns its value, or None."""
        entry = self._entries.pop(key, None)
        self.nbytes -= entry.nbytes if entry else 0
        return entry.value if entry else None

    def oldest(self) -> tuple[float, Hashable]:
        """When the first entry was last used, and its key; infinity where there is none."""
        if not self._entries:
            return float("inf"), None
        key, entry = next(iter(self._entries.items()))
        return entry.used, key

    def clear(self) -> None:
        """Drop all."""
        self._entries.clear()
        self.nbytes = 0


def byte_size(value: Any) -> int:
    """About how many bytes a value takes: tensors by their storage (shared ones once), Python objects with all that
    they hold."""
    return _size(value, set())


def _size(value: Any, counted: set[int]) -> int:
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        place = storage.data_ptr() or id(storage)
        if place in counted:
            return 0
        counted.add(place)
        return storage.nbytes()
    if id(value) in counted:
        return 0
    counted.add(id(value))
    own = sys.getsizeof(value)
    if isinstance(value, (tuple, list, set, frozenset)):
        if isinstance(next(iter(value), None), int):  # token ids: there are many of them
            return own + INT_BYTES * len(value)
        return own + sum(_size(item, counted) for item in value)
    if isinstance(value, Mapping):
        return own + sum(_size(key, counted) + _size(item, counted) for key, item in value.items())
    if is_dataclass(value):
        return own + sum(_size(getattr(value, f.name), counted) for f in fields(value))
    return own
