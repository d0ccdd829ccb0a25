"""Edges before and after an edit as one .safetensors file: both maps, and in the header what was compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.files.edge_maps import edge_map_of, parts_of
from workbench.files.tensors import load_tensors, save_tensors
from workbench.types import EdgeComparison

_FIELDS = ("k", "stage", "strength", "edit_id", "control")
_MAPS = ("before", "after")


def save_edge_comparison(changes: EdgeComparison, path: str | Path) -> Path:
    """Write a comparison to one ``.safetensors`` file: the scores of both maps as tensors (``before.values``), what
    they mean in the file's header. The records are made of them again.

    Raises:
        ValueError: The provenance holds something that JSON cannot.
        OSError: The file cannot be written; what was there is as it was.
    """
    tensors: dict[str, Tensor] = {} if changes.stderr is None else {"stderr": changes.stderr}
    fields: dict[str, Any] = {name: getattr(changes, name) for name in _FIELDS}
    fields["items"] = list(changes.items)
    for name in _MAPS:
        of_map, fields[name] = parts_of(getattr(changes, name))
        tensors |= {f"{name}.{part}": tensor for part, tensor in of_map.items()}
    return save_tensors("workbench-edge-comparison", path, tensors, fields)


def load_edge_comparison(path: str | Path) -> EdgeComparison:
    """Read a comparison written by ``EdgeComparison.save``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind or schema version, or damaged.
    """
    return load_tensors("workbench-edge-comparison", path, "EdgeComparison.save", _made)


def _made(tensors: dict[str, Any], fields: dict[str, Any]) -> EdgeComparison:
    maps = {
        name: edge_map_of(
            {part.removeprefix(f"{name}."): t for part, t in tensors.items() if part.startswith(f"{name}.")},
            fields.pop(name),
        )
        for name in _MAPS
    }
    fields["items"] = tuple(fields["items"])
    return EdgeComparison(**maps, stderr=tensors.get("stderr"), **fields)
