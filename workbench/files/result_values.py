"""Any result of this package as JSON and files beside it, and back: what a sweep keeps of an item.

What has ``save`` and ``load`` (maps, reports, tables, edits) is kept by these, whole. Frozen records (a lens, a rate)
are kept field by field, tensors and arrays as safetensors, and lists, tuples and dictionaries of all these as they are.
Nothing is pickled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from workbench.files.edits import load_edit
from workbench.types import Circuit, Component, Fact, Selection
from workbench.types.plain import is_list, is_mapping, is_tuple

_PACKAGE = "workbench."
_LOADERS: dict[str, Callable[[Path], Any]] = {"workbench.types.edit:Edit": load_edit}
"""By class, where it is not the class's own ``load``."""
_AS_TEXT: dict[str, type[Selection] | type[Component] | type[Circuit]] = {
    "selection": Selection,
    "component": Component,
    "circuit": Circuit,
}
Files = dict[str, bytes]


class NotKept(TypeError):
    """A result that cannot be kept in a file."""


def to_values(value: Any, files: Files, where: str = "the result") -> Any:
    """A result as JSON values. What is not a JSON value by itself is ``{"__kind__": ..., ...}``.

    Args:
        value: The result.
        files: What it keeps in files is added, by name.
        where: What it is, for messages.

    Raises:
        NotKept: It, or a part of it, is of a type that no file keeps.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if is_list(value) and type(value) is list:
        return [to_values(v, files, f"{where}[{i}]") for i, v in enumerate(value)]
    if is_tuple(value) and type(value) is tuple:
        return {"__kind__": "tuple", "of": [to_values(v, files, f"{where}[{i}]") for i, v in enumerate(value)]}
    if is_mapping(value) and value.__class__ is dict:
        return _dictionary(value, files, where)
    if isinstance(value, np.generic):
        number = _number(value)
        if type(number).__module__ == "numpy":  # a long double, of which no number of Python has all digits
            raise NotKept(f"{where} is of the type {type(number).__name__}, which no file keeps: return a float64.")
        return to_values(number, files, where)
    if isinstance(value, Tensor):
        return _tensor(value, "tensor", files, where)
    if isinstance(value, np.ma.MaskedArray):
        raise NotKept(
            f"{where} is a masked array, whose mask no file keeps: return filled(nan), or its data and its mask."
        )
    if isinstance(value, np.ndarray):
        return _array(value, files, where)  # pyright: ignore[reportUnknownArgumentType]
    for kind, cls in _AS_TEXT.items():
        if isinstance(value, cls):
            return {"__kind__": kind, "text": " ".join(map(str, value)) if isinstance(value, Selection) else str(value)}
    if isinstance(value, Fact):
        return {"__kind__": "fact", "of": value.to_dict()}
    return _of_package(value, files, where)


def _number(scalar: Any) -> object:
    """A scalar of numpy as a number of Python, where there is one."""
    return scalar.item()


def _dictionary(value: Mapping[Any, Any], files: Files, where: str) -> Any:
    if all(isinstance(k, str) and not k.startswith("__") for k in value):
        return {k: to_values(v, files, f"{where}[{k!r}]") for k, v in value.items()}
    pairs = [[to_values(k, files, where), to_values(v, files, f"{where}[{k!r}]")] for k, v in value.items()]
    return {"__kind__": "dict", "of": pairs}


def _array(value: np.ndarray[Any, Any], files: Files, where: str) -> Any:
    try:
        native = value.astype(value.dtype.newbyteorder("="), copy=False)  # torch reads this machine's byte order alone
        tensor = torch.as_tensor(np.ascontiguousarray(native))
    except TypeError as error:
        raise NotKept(f"{where} is an array of {value.dtype}, which no file keeps: return numbers.") from error
    return _tensor(tensor.reshape(value.shape), "array", files, where)


def _tensor(tensor: Tensor, kind: str, files: Files, where: str) -> Any:
    if tensor.is_complex():
        raise NotKept(f"{where} is of {tensor.dtype}, which no file keeps: return its real and imaginary parts.")
    name = f"{len(files)}.safetensors"
    files[name] = safetensors.torch.save({"value": tensor.detach().cpu().contiguous().clone()})
    return {"__kind__": kind, "file": name, "shape": list(tensor.shape)}


def _of_package(value: Any, files: Files, where: str) -> Any:
    cls: Any = value.__class__
    name = f"{cls.__module__}:{cls.__qualname__}"
    if cls.__module__.startswith(_PACKAGE):
        if hasattr(cls, "save") and (name in _LOADERS or hasattr(cls, "load")):
            return {"__kind__": "saved", "class": name, "file": _saved(value, files)}
        if is_dataclass(value):
            given = {f.name: to_values(getattr(value, f.name), files, f"{where}.{f.name}") for f in _given(cls)}
            return {"__kind__": "record", "class": name, "of": given}
    raise NotKept(
        f"{where} is of the type {cls.__qualname__}, which no file keeps. Return a result of this package, numbers, "
        "text, tensors, or lists, tuples and dictionaries of these."
    )


def _given(cls: type[Any]) -> list[Any]:
    return [f for f in fields(cls) if f.init]


def _saved(value: Any, files: Files) -> str:
    """Save a result by its own ``save``, in a folder for a moment; the name of its file or folder."""
    name = f"{len(files)}-{type(value).__name__}"
    with tempfile.TemporaryDirectory() as folder:
        value.save(Path(folder) / name)
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                files[file.relative_to(folder).as_posix()] = file.read_bytes()
    return name


def from_values(values: Any, folder: Path) -> Any:
    """The inverse of ``to_values``.

    Args:
        values: The JSON values.
        folder: Where its files are.

    Raises:
        ValueError: It is damaged, or of a class that this version does not have.
    """
    if is_list(values):
        return [from_values(v, folder) for v in values]
    if not is_mapping(values):
        return values
    kind: Any = values.get("__kind__")
    if kind is None:
        return {k: from_values(v, folder) for k, v in values.items()}
    if kind == "tuple":
        return tuple(from_values(v, folder) for v in values["of"])
    if kind == "dict":
        return {from_values(k, folder): from_values(v, folder) for k, v in values["of"]}
    if kind in ("tensor", "array"):
        tensor = safetensors.torch.load((folder / values["file"]).read_bytes())["value"].reshape(values["shape"])
        return tensor if kind == "tensor" else tensor.numpy()
    if kind in _AS_TEXT:
        return _AS_TEXT[kind].parse(values["text"])
    if kind == "fact":
        return Fact.from_dict(values["of"])
    cls = _class(values["class"])
    if kind == "saved":
        return _LOADERS.get(values["class"], getattr(cls, "load", None))(folder / values["file"])  # pyright: ignore
    return cls(**{k: from_values(v, folder) for k, v in values["of"].items()})


def _class(name: str) -> Any:
    module, _, path = name.partition(":")
    try:
        if not module.startswith(_PACKAGE):
            raise ImportError(name)
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"it holds a {name}, which this version of circuit-workbench does not have. Read it with the version that "
            "wrote it."
        ) from error
    return found
