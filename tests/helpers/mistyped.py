"""What a caller should not give."""

from __future__ import annotations

from typing import Any


def mistyped(value: object) -> Any:
    """A value of a type that a function does not take, for a test that it says so."""
    return value
