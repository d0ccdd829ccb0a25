"""What a sweep goes over: facts, contrasts, edits, or anything by a name."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from workbench.models.load import LoadedModel
from workbench.sweeps.described import described, function_path
from workbench.sweeps.descriptions import digest
from workbench.sweeps.worker import Item
from workbench.types import Edit, FactSet


def items_of(given: Any) -> tuple[Item, ...]:
    """The items with their ids: facts, contrasts and edits have ids of their own; anything else is given as a mapping
    of ids to items. Text is its own id.

    Raises:
        TypeError: Something without an id, or a DataFrame.
        ValueError: None at all, or two of one id.
    """
    if type(given).__name__ == "DataFrame":
        raise TypeError(
            "A DataFrame has no items with ids, and to go over it gives the names of its columns. Pass a mapping of "
            "ids to rows: {str(id): row.to_dict() for id, row in frame.iterrows()}."
        )
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
        twice = sorted(id for id, times in Counter(ids).items() if times > 1)
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


def own_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of options for one item, as each has in a worker process: so that no item gets what another one has left
    of them. Models, edits and facts, which no function changes, are not copied, nor is what has no copy."""
    done = {id(one): one for one in _shared(options, set())}
    copied: dict[str, Any] = {}
    for name, value in options.items():
        try:
            copied[name] = copy.deepcopy(value, done)
        except Exception:  # whatever an object's own copying raises
            copied[name] = value
    return copied


def _shared(value: Any, seen: set[int]) -> Iterator[Any]:
    """The models, edits and facts in a value, at any depth."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, (LoadedModel, Edit, FactSet)):
        yield value
        return
    if isinstance(value, (list, tuple, set, frozenset)):
        inside: Iterable[Any] = value
    elif isinstance(value, Mapping):
        inside = value.values()
    else:
        inside = () if inspect.isclass(value) or inspect.isroutine(value) else getattr(value, "__dict__", {}).values()
    for one in inside:
        yield from _shared(one, seen)


def check_takes(function: Any, items: Sequence[Item]) -> None:
    """Raise where a function takes an edit by its name and a fact as its item, and the items are edits.

    Raises:
        TypeError: It is so; the message says what function to write.
    """
    edit = next((item for item in items if isinstance(item.value, Edit)), None)
    if edit is None or not takes(function, "edit"):
        return
    if inspect.signature(function).parameters["edit"].kind is inspect.Parameter.KEYWORD_ONLY:
        name = function_path(function).rpartition(":")[2]
        raise TypeError(
            f"{name} takes an edit as edit=, and a sweep passes its items, such as {edit.id!r}, by their place. Write "
            f"a function of your own: def of_edit(model, edit): return {name}(model, edit=edit)."
        )


def takes(function: Any, name: str) -> bool:
    """Whether a function names a parameter."""
    try:
        return name in inspect.signature(function).parameters
    except ValueError:
        return False
