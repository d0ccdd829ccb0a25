"""Whether values are of the kinds that a class's annotations say, and what these kinds are called."""

from __future__ import annotations

import types
from collections.abc import Mapping
from functools import cache
from numbers import Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from workbench.types.plain import is_tuple, is_whole

_WORDS: Mapping[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "None",
}


@cache
def kinds_of(cls: type) -> Mapping[str, Any]:
    """The annotations of a class and those before it, by name; none where one names what only a type checker sees."""
    try:
        return get_type_hints(cls)
    except NameError:
        return {}


def fits(value: object, kind: Any) -> bool:
    """Whether a value is of a kind: True and False are no numbers, a whole number is a number, an annotation of another
    sort fits everything.

    Example:
        >>> from workbench.types.annotations import fits
        >>> fits((1, 2), tuple[int, ...] | None), fits("no", bool), fits(True, int), fits(3, float)
        (True, False, False, True)
    """
    origin, within = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in within)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in within)
    if kind is tuple or origin is tuple:
        if not is_tuple(value):
            return False
        if len(within) == 2 and within[1] is Ellipsis:
            return all(fits(one, within[0]) for one in value)
        return not within or (len(value) == len(within) and all(map(fits, value, within)))
    if kind is int:
        return is_whole(value)
    if kind is float:
        return not isinstance(value, bool) and isinstance(value, Real)
    return isinstance(value, kind) if kind in _WORDS else True


def kind_words(kind: Any) -> str:
    """A kind for a message.

    Example:
        >>> from workbench.types.annotations import kind_words
        >>> kind_words(int | tuple[int, ...] | None)
        'a whole number, a tuple of whole numbers or None'
    """
    origin, within = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        *others, last = map(kind_words, within)
        return f"{', '.join(others)} or {last}"
    if origin is Literal:
        return f"one of {within}"
    if origin is tuple and within:
        return f"a tuple of {_several(within[0])}"
    return _WORDS.get(kind, str(kind))


def _several(kind: Any) -> str:
    words = kind_words(kind)
    return f"{words.removeprefix('a ')}s" if words.startswith("a ") else words
