"""What a value is, as JSON values that are the same in every session: so that a sweep knows its settings again."""

from __future__ import annotations

import functools
import inspect
import io
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import ContextDecorator
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.files.checked_json import sha256, tensors_sha256
from workbench.models.load import LoadedModel
from workbench.sweeps.code_state import code_state, names_read
from workbench.sweeps.descriptions import LAYERS, as_text, shortened
from workbench.types import Circuit, Edit, Fact, FactSet, Selection

PACKAGE = "workbench"
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
        return {"set": sorted((described(v, where) for v in value), key=as_text)}
    if isinstance(value, Fact):
        return {"fact": value.to_dict()}
    if isinstance(value, FactSet):
        return {"facts": [fact.to_dict() for fact in value]}
    if isinstance(value, (Selection, Circuit)):
        return {type(value).__name__: " ".join(map(str, value))}
    if isinstance(value, (list, tuple, range)):
        return [described(v, where) for v in value]
    if isinstance(value, np.ma.MaskedArray):
        return {"masked": [described(np.asarray(one), where) for one in (value.data, np.ma.getmaskarray(value))]}
    if isinstance(value, np.ndarray) and value.dtype.hasobject:  # its bytes are where its elements lie
        return {"array": described(value.tolist(), where), "dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, Iterator):
        raise TypeError(
            f"{where} is a {type(value).__name__}, which is used up by the first item that goes through it: pass a "
            "list, list(...)."
        )
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
        return {"class": name, "pickle": sha256(_pickled(value))}
    except Exception as error:  # whatever an object's own pickling raises
        raise TypeError(
            f"{where} is a {type(value).__name__}, of which a sweep cannot tell whether a later one is the same: pass "
            "numbers, text, facts, selections, recipes, edits, or a dataclass of these."
        ) from error


class _Steady(pickle.Pickler):
    """Pickles what is another in each session as what it is: sets in an order of their own, generators by their state,
    tensors by their values."""

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, (set, frozenset)):
            return type(obj).__name__, sorted(map(_pickled, obj))
        if isinstance(obj, torch.Generator):
            return "generator", str(obj.device), obj.get_state().numpy().tobytes()
        if isinstance(obj, Tensor):
            return "tensor", as_text(described(obj, ""))
        return None


def _pickled(value: Any) -> bytes:
    stream = io.BytesIO()
    _Steady(stream, protocol=4).dump(value)
    return stream.getvalue()


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
    return {name: shortened(value) for name, value in every.items()}


def function_path(function: Any) -> str:
    """Where a function is, as ``module:name``; of an object that can be called, its class."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def function_state(function: Any) -> Any:
    """What of a function its name does not say: the checksums of its source and of the code that runs (a module may be
    older than its file), the values that it uses from around it (defaults, variables of the function that it is in, and
    of its module values, functions and classes), and the same of what decorators put around it.

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
        return {**code_state(type(function)), "object": described(function, where)}
    owner = getattr(function, "__self__", None)
    layers, plain = _unwrapped(getattr(function, "__func__", function))
    state: dict[str, Any] = {}
    if not hasattr(plain, "__qualname__"):  # decorators around a partial, or around an object
        state = {"wraps": _state(plain, seen)}
    elif (plain.__module__ or "").partition(".")[0] != PACKAGE:
        state = _plain_state(plain, seen, where)
    elif not layers:
        return None
    if owner is not None and not inspect.ismodule(owner):
        state["of"] = described(owner, where)
    state[LAYERS] = [_layer(one, seen, where) for one in layers]
    return state


def _unwrapped(function: Any) -> tuple[list[Any], Any]:
    """What others than this package put around a function, outermost first, and the function itself."""
    chain: list[Any] = []
    while hasattr(function, "__wrapped__") and not inspect.isclass(function) and id(function) not in map(id, chain):
        chain.append(function)
        function = function.__wrapped__
    return [layer for layer in chain if not _of_package(_maker(layer))], function


def _maker(layer: Any) -> Any:
    """The function whose code is around another one: of a context manager that decorates, what makes that."""
    manager = inspect.getclosurevars(layer).nonlocals.get("self") if inspect.isfunction(layer) else None
    return getattr(manager, "func", layer) if isinstance(manager, ContextDecorator) else layer


def _of_package(function: Any) -> bool:
    """Whether a function's code is this package's. A wrapper has the module of what it wraps, but its own globals."""
    names: Mapping[str, Any] = getattr(function, "__globals__", {})
    return str(names.get("__name__") or getattr(function, "__module__", "")).partition(".")[0] == PACKAGE


def _layer(layer: Any, seen: set[Any], where: str) -> dict[str, Any]:
    """What a decorator put around a function. Of an object in it that cannot be told from others it is the type."""
    if not inspect.isfunction(layer):
        return {"class": function_path(type(layer))}
    return _plain_state(layer, seen, where, module=layer.__globals__.get("__name__"), lenient=True)


def _plain_state(
    plain: Any, seen: set[Any], where: str, *, module: str | None = None, lenient: bool = False
) -> dict[str, Any]:
    """The state of a function without what is around it.

    Args:
        plain: The function, or a class.
        seen, where: As in ``_state``.
        module: Where it is, if it does not say so itself.
        lenient: Whether it may use what cannot be told from others.
    """
    state: dict[str, Any] = code_state(plain)
    if inspect.isfunction(plain):
        if id(plain) in seen:
            return state
        seen.add(id(plain))
        state["defaults"] = _of_closure([plain.__defaults__, plain.__kwdefaults__], seen, where, lenient)
        around = inspect.getclosurevars(plain).nonlocals
        state["around"] = {"dict": [[n, _of_closure(v, seen, where, lenient)] for n, v in around.items()]}
        state["module"] = {
            name: _of_module(plain.__globals__[name], seen, where)
            for name in sorted(names_read(plain.__code__) & plain.__globals__.keys())
            if _told(plain.__globals__[name], module or plain.__module__)
            and _is_new((id(plain.__globals__), name), seen)
        }
    return state


def _is_new(one: Any, seen: set[Any]) -> bool:
    """Whether something was not seen before; it is now."""
    new = one not in seen
    seen.add(one)
    return new


def _of_closure(value: Any, seen: set[Any], where: str, lenient: bool) -> Any:
    """A variable of the function that a function is in (or its defaults), as ``described``; the function itself may be
    one. Of what cannot be told from others it is the type, where that will do."""
    try:
        if inspect.isfunction(value):
            return {"function": function_path(value), "state": _state(value, seen)}
        if lenient and isinstance(value, ContextDecorator) and hasattr(value, "func"):  # of contextlib.contextmanager
            made: Any = value
            value = functools.partial(made.func, *made.args, **made.kwds)
        return described(value, where)
    except TypeError:
        if not lenient:
            raise
        return {"class": function_path(type(value))}


def _of_module(value: Any, seen: set[Any], where: str) -> Any:
    """What stands behind a name of a module."""
    if inspect.isfunction(value):
        return _state(value, seen)
    return code_state(value) if inspect.isclass(value) else shortened(described(value, where))


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
        return _is_value(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_value, value))
    if value is None or isinstance(value, _VALUES):
        return True
    return (
        is_dataclass(value)
        and not isinstance(value, type)
        and all(_is_value(getattr(value, f.name)) for f in fields(value))
    )
