"""What a value is, as JSON values that are the same in every session: so that a sweep knows its settings again."""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
from torch import Tensor

from workbench.files.checked_json import sha256, tensors_sha256
from workbench.models.load import LoadedModel
from workbench.types import Circuit, Edit, Fact, FactSet, Selection

PACKAGE = "workbench"
LONG = 2000
"""Characters of a description from which on its checksum stands for it."""
_VALUES = (
    bool,
    int,
    float,
    str,
    Enum,
    Path,
    Tensor,
    np.ndarray,
    np.generic,
    LoadedModel,
    Edit,
    Fact,
    FactSet,
    Selection,
    Circuit,
)
"""What is told from others of its type; so are lists, dictionaries and dataclasses of these."""


def described(value: Any, where: str) -> Any:
    """A value as JSON values that name all that a result can depend on.

    Args:
        value: An option, or an item.
        where: What it is, for the message.

    Raises:
        TypeError: It cannot be told from others of its type.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else {"float": str(value)}
    if isinstance(value, Mapping):
        return {"dict": [[described(k, where), described(v, where)] for k, v in value.items()]}
    if isinstance(value, (set, frozenset)):
        return {"set": sorted((described(v, where) for v in value), key=_text)}
    if isinstance(value, Fact):
        return {"fact": value.to_dict()}
    if isinstance(value, FactSet):
        return {"facts": [fact.to_dict() for fact in value]}
    if isinstance(value, (Selection, Circuit)):
        return {type(value).__name__: " ".join(map(str, value))}
    if isinstance(value, (list, tuple, range)):
        return [described(v, where) for v in value]
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        tensor = value.detach().cpu() if isinstance(value, Tensor) else None
        digest = tensors_sha256({"": tensor}) if tensor is not None else sha256(np.asarray(value).tobytes())
        kind = value.dtype
        return {"tensor": digest, "dtype": str(kind), "shape": list(value.shape)}
    return _described_object(value, where)


def _described_object(value: Any, where: str) -> Any:
    name = f"{type(value).__module__}:{type(value).__qualname__}"
    if isinstance(value, LoadedModel):
        return {"model": value.fingerprint}
    if isinstance(value, Edit):
        # Its numbers alone do not say of which facts it is, and an evaluation asks these.
        about = {"facts": value.facts, "used": value.used_ids, "closed": value.closed_relations, "recipe": value.recipe}
        return {
            "edit": value.id,
            "stages": list(value.stage_names),
            **{k: described(v, where) for k, v in about.items()},
        }
    if isinstance(value, Enum):
        return {"class": name, "value": value.name}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, functools.partial) or inspect.isroutine(value) or inspect.isclass(value):
        return {"function": function_path(value), "state": function_state(value)}
    if callable(getattr(value, "to_dict", None)):
        return {"class": name, "value": described(value.to_dict(), where)}
    if is_dataclass(value):
        return {"class": name, "value": {f.name: described(getattr(value, f.name), where) for f in fields(value)}}
    try:
        return {"class": name, "pickle": sha256(pickle.dumps(value, protocol=4))}
    except Exception as error:  # whatever an object's own pickling raises
        raise TypeError(
            f"{where} is a {type(value).__name__}, of which a sweep cannot tell whether a later one is the same: pass "
            "numbers, text, facts, selections, recipes, edits, or a dataclass of these."
        ) from error


def call_of(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a sweep applies, as its file names it: function, state and options.

    Args:
        function: The function.
        options: As it is called for each item (``checked_options``).
    """
    return {"function": function_path(function), "state": function_state(function), "options": settings_of(options)}


def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a sweep's file holds them: each as ``described``, a long one (a pool of facts) by its checksum.

    Raises:
        TypeError: As ``described``.
    """
    every = {name: described(value, f"the option {name}") for name, value in sorted(options.items())}
    return {name: _shortened(value) for name, value in every.items()}


def _shortened(values: Any) -> Any:
    """JSON values, or their checksum where they are long."""
    text = _text(values)
    return values if len(text) < LONG else {"long": text[:60], "sha256": digest(values)}


def digest(values: Any) -> str:
    """The checksum of JSON values."""
    return hashlib.sha256(_text(values).encode()).hexdigest()


def _text(values: Any) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def function_path(function: Any) -> str:
    """Where a function is, as ``module:name``; of an object that can be called, its class."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def function_state(function: Any) -> Any:
    """What of a function its name does not say: the checksum of its source, and the values that it uses from around it
    (defaults, variables of the function that it is in, and of its module values, functions and classes).

    Nothing of a function of this package, which goes by the package's version. What functions of other modules use is
    not looked at, nor are modules' own objects that are more than values: a list of numbers, text, facts, a recipe or a
    tensor is a value, an open file is not.

    Raises:
        TypeError: It uses a variable of the function that it is in that cannot be told from others.
    """
    return _state(function, set())


def _state(function: Any, seen: set[Any]) -> Any:
    """See ``function_state``.

    Args:
        function: The function.
        seen: Names and functions (their ``id``) that are described already; functions may call each other, or
            themselves.
    """
    where = f"what {function_path(function)} uses"
    if isinstance(function, functools.partial):
        return {
            "of": [function_path(function.func), _state(function.func, seen)],
            "args": described(function.args, where),
            "keywords": described(function.keywords, where),
        }
    if not hasattr(function, "__qualname__"):  # an object that can be called
        return {"source": _source(type(function)), "object": described(function, where)}
    plain = inspect.unwrap(function)
    owner = getattr(plain, "__self__", None)
    plain = getattr(plain, "__func__", plain)
    if (plain.__module__ or "").partition(".")[0] == PACKAGE:
        return None
    state: dict[str, Any] = {"source": _source(plain)}
    if owner is not None and not inspect.ismodule(owner):
        state["of"] = described(owner, where)
    if inspect.isfunction(plain):
        if id(plain) in seen:
            return state
        seen.add(id(plain))
        state["defaults"] = described([plain.__defaults__, plain.__kwdefaults__], where)
        around = inspect.getclosurevars(plain).nonlocals
        state["around"] = {"dict": [[name, _of_closure(value, seen, where)] for name, value in around.items()]}
        state["module"] = {
            name: _of_module(plain.__globals__[name], seen, where)
            for name in sorted(_names_read(plain.__code__) & plain.__globals__.keys())
            if _told(plain.__globals__[name], plain.__module__) and not (name in seen or seen.add(name))
        }
    return state


def _names_read(code: CodeType) -> set[str]:
    """The names that code reads from its module, and the code in it does: comprehensions, functions in functions."""
    own = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*(_names_read(part) for part in code.co_consts if inspect.iscode(part)))


def _of_closure(value: Any, seen: set[Any], where: str) -> Any:
    """A variable of the function that a function is in, as ``described``; the function itself may be one."""
    if inspect.isfunction(value):
        return {"function": function_path(value), "state": _state(value, seen)}
    return described(value, where)


def _of_module(value: Any, seen: set[Any], where: str) -> Any:
    """What stands behind a name of a module."""
    if inspect.isfunction(value):
        return _state(value, seen)
    return {"source": _source(value)} if inspect.isclass(value) else _shortened(described(value, where))


def _told(value: Any, module: str) -> bool:
    """Whether a name of a function's module is looked at: functions and classes of the same module, and values."""
    if inspect.isfunction(value) or inspect.isclass(value):
        return value.__module__ == module
    return _is_value(value)


def _is_value(value: Any) -> bool:
    """Whether an object is told from others by what it holds."""
    if isinstance(value, dict):  # of other mappings (the environment), who knows what they are of
        return all(_is_value(k) and _is_value(v) for k, v in value.items())
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return False
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_value, value))
    if value is None or isinstance(value, _VALUES):
        return True
    return (
        is_dataclass(value)
        and not isinstance(value, type)
        and all(_is_value(getattr(value, f.name)) for f in fields(value))
    )


def _source(named: Any) -> str | None:
    """The checksum of a source; of the code where there is no source, and None of what has neither (built-in
    functions)."""
    try:
        return sha256(inspect.getsource(named).encode())
    except (OSError, TypeError):
        code = getattr(named, "__code__", None)
        return None if code is None else _code_digest(code)


def _code_digest(code: CodeType) -> str:
    """The checksum of code, the same in every session: of what it does, with its names and constants."""
    constants = [
        _code_digest(one)
        if inspect.iscode(one)
        else f"frozenset {sorted(map(repr, one))}"  # which has another order in each session
        if isinstance(one, frozenset)
        else repr(one)
        for one in code.co_consts
    ]
    return sha256(code.co_code + repr((code.co_names, constants)).encode())
