"""What a sweep goes over: facts, contrasts, edits, or anything by a name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from workbench.sweeps.described import described, digest, function_path
from workbench.sweeps.worker import Item


def items_of(given: Any) -> tuple[Item, ...]:
    """The items with their ids: facts, contrasts and edits have ids of their own; anything else is given as a mapping
    of ids to items. Text is its own id.

    Raises:
        TypeError: Something without an id.
        ValueError: None at all, or two of one id.
    """
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, str) or not isinstance(given, Iterable):
        pairs = [(_id(given), given)]
    else:
        pairs = [(_id(value), value) for value in given]
    ids = [id for id, _ in pairs]
    if not ids:
        raise ValueError("There is nothing to sweep over: no facts were given.")
    if odd := [id for id in ids if not isinstance(id, str) or not id]:
        raise TypeError(f"Ids are text, got {odd[0]!r}.")
    if len(set(ids)) != len(ids):
        twice = sorted({id for id in ids if ids.count(id) > 1})
        raise ValueError(
            f"Each item needs an id of its own; these occur more than once: {twice[:5]}. Give them others, or pass a "
            "mapping of ids to items."
        )
    return tuple(Item(id, digest(described(value, f"the item {id!r}")), value) for id, value in pairs)


def _id(value: Any) -> str:
    id = value if isinstance(value, str) else getattr(value, "id", None)
    if isinstance(id, str) and id:
        return id
    raise TypeError(
        f"An item needs an id, and {value!r:.60} has none. Pass facts, contrasts or edits, or a mapping of ids to "
        "items."
    )


def checked_options(function: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with which a function is called for each item: those given, and ``progress=False`` where it has a bar
    of its own.

    Raises:
        TypeError: It is no function, or takes no such options, or not ``(model, item)``.
    """
    if not callable(function):
        raise TypeError(f"The function of a sweep is called with a model and an item, got {function!r:.60}.")
    try:
        signature = inspect.signature(function)
    except ValueError:  # a built-in one does not say
        return dict(options)
    try:
        signature.bind(None, None, **options)
    except TypeError as error:
        raise TypeError(
            f"{function_path(function)} cannot be called as function(model, item, **options): {error}."
        ) from error
    silent = {"progress": False} if "progress" in signature.parameters and "progress" not in options else {}
    return {**options, **silent}


def takes(function: Any, name: str) -> bool:
    """Whether a function names a parameter."""
    try:
        return name in inspect.signature(function).parameters
    except ValueError:
        return False
