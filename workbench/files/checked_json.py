"""Checked JSON documents: what they are, a schema version, a checksum, and fields that come back exactly.

A document is ``{"kind": "workbench-edit", "schema_version": 1, "sha256": of the fields, **fields}``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from workbench.files.migrations import migrated
from workbench.types.plain import is_list, is_mapping, is_tuple

Kind = Literal[
    "workbench-edit",
    "workbench-effect-map",
    "workbench-edge-map",
    "workbench-edge-comparison",
    "workbench-report",
    "workbench-session",
    "workbench-run",
    "workbench-probes",
    "workbench-arms",
    "workbench-stack",
    "workbench-sweep",
    "workbench-sweep-item",
    "workbench-sweep-failure",
]
VERSIONS: dict[Kind, int] = {
    "workbench-edit": 4,
    "workbench-effect-map": 5,
    "workbench-edge-map": 1,
    "workbench-edge-comparison": 1,
    "workbench-report": 4,
    "workbench-session": 3,
    "workbench-run": 1,
    "workbench-probes": 6,
    "workbench-arms": 5,
    "workbench-stack": 1,
    "workbench-sweep": 1,
    "workbench-sweep-item": 1,
    "workbench-sweep-failure": 1,
}
"""The schema version that is written. Older ones are read through ``workbench.files.migrations``."""
RETRY_HINT = "Take it from a copy, or make it again."


def wrap(kind: Kind, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A document with these fields, as plain JSON values.

    Raises:
        ValueError: A field holds something that JSON cannot; the message says where.
    """
    plain = {k: _plain(v, k) for k, v in fields.items()}
    return {"kind": kind, "schema_version": VERSIONS[kind], "sha256": _fields_sha256(plain), **plain}


def unwrap(kind: Kind, document: Any, where: str | Path) -> dict[str, Any]:
    """The fields of a document of this kind.

    Args:
        kind: What it must be.
        document: What was parsed.
        where: Its source, for messages.

    Raises:
        ValueError: It is of another kind or a newer schema version, or was changed after it was saved.
    """
    written: Mapping[str, Any] = document if is_mapping(document) else {}
    found = written.get("kind")
    if found != kind:
        what = f"a {found}" if found in list(VERSIONS) else "nothing that this package wrote, or damaged"
        raise ValueError(f"{where} is not a {kind}: it is {what}.")
    version, newest = written.get("schema_version"), VERSIONS[kind]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"{where} has the schema version {version!r}, which is none. {RETRY_HINT}")
    if version > newest:
        raise ValueError(
            f"{where} has the schema version {version}, but this version of circuit-workbench reads version {newest}"
            f"{' and older ones' if newest > 1 else ''}. Load it with the version of circuit-workbench that wrote it, "
            "or a newer one."
        )
    fields = {k: v for k, v in written.items() if k not in ("kind", "schema_version", "sha256")}
    if _fields_sha256(fields) != written.get("sha256"):
        raise ValueError(f"{where} was damaged or edited after it was saved: it fails its own checksum. {RETRY_HINT}")
    return migrated(kind, version, newest, _exact(fields), where)


@contextmanager
def errors_name(where: str | Path) -> Generator[None, None, None]:
    """Turn what a malformed file causes into one ValueError that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        detail = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{where} cannot be read: {detail} {RETRY_HINT}") from error


def _plain(value: Any, where: str) -> Any:
    """A value as JSON has it: tuples as lists, NaN and infinities as ``{"__float__": "nan"}``."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": str(float(value))}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if is_list(value) or is_tuple(value):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if is_mapping(value) and all(isinstance(k, str) for k in value):
        return {k: _plain(v, f"{where}.{k}") for k, v in value.items()}
    raise ValueError(
        f"{where} is {value!r} of the type {type(value).__name__}, which JSON cannot hold. Make it text, numbers, "
        "lists, or dictionaries with text keys."
    )


def _exact(value: Any) -> Any:
    """The inverse of ``_plain``. A document inside stays as it is: its checksum is over what is written."""
    if is_list(value):
        return [_exact(v) for v in value]
    if is_mapping(value):
        if set(value) == {"__float__"}:
            return float(value["__float__"])
        if set(value) >= {"kind", "schema_version", "sha256"}:
            return value
        return {k: _exact(v) for k, v in value.items()}
    return value


def dump(document: Mapping[str, Any]) -> bytes:
    """A document as the bytes of a readable JSON file (strict JSON: no NaN)."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1)
    return (text + "\n").encode("utf-8", "surrogatepass")


def parse(content: bytes, where: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: It is not JSON; the message names the file.
    """
    try:
        return json.loads(content.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is damaged or cut short ({error}). {RETRY_HINT}") from error


def parse_file(path: Path) -> Any:
    """What a JSON file on disk holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON; the message names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    return parse(path.read_bytes(), path)


def _fields_sha256(fields: Mapping[str, Any]) -> str:
    return sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())


def sha256(content: bytes) -> str:
    """Checksum in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Checksum of named tensors: names, types, shapes and numbers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
