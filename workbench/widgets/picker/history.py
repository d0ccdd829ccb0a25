"""Undo and redo over values that are never changed in place."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")
LONGEST = 200


class History(Generic[T]):
    """The values that something has had, and which of them it has now.

    Args:
        first: The value at the start.
    """

    def __init__(self, first: T) -> None:
        self._values, self._at = [first], 0

    @property
    def now(self) -> T:
        """The value that holds."""
        return self._values[self._at]

    @property
    def can_undo(self) -> bool:
        """Whether there is an earlier value."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether a value was undone."""
        return self._at + 1 < len(self._values)

    def push(self, value: T) -> None:
        """A new value. What was undone before is forgotten, and of a long past the oldest."""
        self._values = [*self._values[: self._at + 1], value][-LONGEST:]
        self._at = len(self._values) - 1

    def undo(self) -> T:
        """Back to the value before; the first one stays."""
        self._at = max(0, self._at - 1)
        return self.now

    def redo(self) -> T:
        """Forward again to what was undone."""
        self._at = min(len(self._values) - 1, self._at + 1)
        return self.now
