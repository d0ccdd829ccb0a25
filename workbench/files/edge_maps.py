"""Edge maps as .safetensors files, with what they mean in the header."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.files.tensors import load_tensors, save_tensors
from workbench.types import EdgeMap
from workbench.types.metric_words import MetricWords

_FIELDS = ("senders", "receivers", "metric", "method", "clean", "corrupted", "steps", "n", "corruption")


def save_edge_map(edges: EdgeMap, path: str | Path) -> Path:
    """Write an edge map to one ``.safetensors`` file: scores as tensors, everything else in the file's header.

    Raises:
        ValueError: The provenance holds something that JSON cannot.
        OSError: The file cannot be written; what was there is as it was.
    """
    return save_tensors("workbench-edge-map", path, *parts_of(edges))


def parts_of(edges: EdgeMap) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of an edge map, and everything else as plain values."""
    tensors = {"values": edges.values, **({} if edges.stderr is None else {"stderr": edges.stderr})}
    fields: dict[str, Any] = {name: getattr(edges, name) for name in _FIELDS}
    fields |= {"senders": list(edges.senders), "receivers": list(edges.receivers)}
    fields |= {"base_fingerprint": edges.base_fingerprint, "provenance": edges.provenance}
    fields["words"] = None if edges.words is None else asdict(edges.words)
    return tensors, fields


def load_edge_map(path: str | Path) -> EdgeMap:
    """Read an edge map written by ``EdgeMap.save``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind or schema version, or damaged.
    """
    return load_tensors("workbench-edge-map", path, "EdgeMap.save", edge_map_of)


def edge_map_of(tensors: dict[str, Any], fields: dict[str, Any]) -> EdgeMap:
    """The inverse of ``parts_of``."""
    fields |= {name: tuple(fields[name]) for name in ("senders", "receivers")}
    fields["words"] = None if fields["words"] is None else MetricWords(**fields["words"])
    return EdgeMap(**tensors, **fields)
