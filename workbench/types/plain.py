"""Values that come from outside, from a file or a caller: what they are, and tuples as JSON's lists and back.

The checks tell a type checker what they found: after ``isinstance(value, list)`` it knows nothing of the entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, whatever it was declared to be; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a number that is neither infinite nor NaN, whatever it was declared to be."""
    return isinstance(value, int | float) and math.isfinite(value)


def whole_numbers(value: object) -> list[int] | None:
    """The whole numbers of a range, a list or the like; None for anything else."""
    if not isinstance(value, Iterable):
        return None
    listed: list[Any] = [*value]
    return listed if all(map(is_whole, listed)) else None


def shortened(value: object) -> str:
    """A value as code, for an error: its first characters where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_text(name: str, value: object) -> None:
    """Raise for what is no text: a TypeError for another type, a ValueError for half of a character."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} holds half of a character ({value[error.start]!r} at index {error.start}, a lone surrogate), "
            "which no tokenizer reads. Read the text again, as UTF-8."
        ) from None


def check_seed(seed: object) -> None:
    """Raise a ValueError for what seeds no draw, before anything is computed."""
    if not (is_whole(seed) and 0 <= seed < 2**63):
        raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1, got {seed!r}.")


def check_flag(name: str, value: object) -> None:
    """Raise a ValueError where an option is neither True nor False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}.")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raise a ValueError where an option is no whole number of at least so much."""
    if not (is_whole(value) and value >= least):
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether a value is a list, of anything."""
    return isinstance(value, list)


def is_tuple(value: object) -> TypeGuard[tuple[Any, ...]]:
    """Whether a value is a tuple, of anything."""
    return isinstance(value, tuple)


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether a value is a mapping, of anything to anything."""
    return isinstance(value, Mapping)


def tuples_as_lists(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as JSON has them: tuples as lists."""
    return {name: list(value) if is_tuple(value) else value for name, value in fields.items()}


def lists_as_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``tuples_as_lists``."""
    return {name: tuple(value) if is_list(value) else value for name, value in fields.items()}
