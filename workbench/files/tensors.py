"""Results of tensors as one .safetensors file, whose header is a checked JSON document that says what they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.files.atomic import write_bytes
from workbench.files.checked_json import RETRY_HINT, Kind, errors_name, parse, tensors_sha256, unwrap, wrap
from workbench.files.paths import user_path

_HEADER = "workbench"
Made = TypeVar("Made")


def save_tensors(kind: Kind, path: str | Path, tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> Path:
    """Write tensors and fields to one file, atomically. Returns the path.

    Raises:
        ValueError: A field holds something that JSON cannot.
        OSError: The file cannot be written; what was there is as it was.
    """
    plain = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    header = json.dumps(wrap(kind, {"tensors_sha256": tensors_sha256(plain), **fields}))
    return write_bytes(path, safetensors.torch.save(plain, metadata={_HEADER: header}))


def load_tensors(
    kind: Kind, path: str | Path, written_by: str, made: Callable[[dict[str, Any], dict[str, Any]], Made]
) -> Made:
    """Read what ``save_tensors`` wrote.

    Args:
        kind: What it must be.
        path: Where it is.
        written_by: The method that writes such files, for messages.
        made: From the tensors and the fields to the result.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind or schema version, or damaged.
    """
    path = user_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        opened: Any = safe_open(path, framework="pt")
        with opened as file:
            metadata: dict[str, str] = file.metadata() or {}
            header = metadata.get(_HEADER)
            tensors: dict[str, Any] = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a .safetensors file, or is damaged or cut short ({error}). {RETRY_HINT}"
        ) from error
    if header is None:
        raise ValueError(f"{path} was not written by {written_by}: its header says nothing of this package.")
    fields = unwrap(kind, parse(header.encode(), path), path)
    with errors_name(path):
        if tensors_sha256(tensors) != fields.pop("tensors_sha256"):
            raise ValueError("its numbers do not have the checksum in its header.")
        return made(tensors, fields)
