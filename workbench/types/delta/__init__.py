"""Deltas: what an edit adds to a base model, whatever the method that made it; a file a kind.

A delta holds numbers and knows how they combine. How they are put on a model is in ``workbench.models.deltas``, with
the same few functions for each kind. Nobody else asks which kind a delta is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from torch import Tensor

from workbench.types.delta.base import Delta, DeltaKind, Deltas
from workbench.types.delta.context import ContextDelta
from workbench.types.delta.dense import DenseDelta
from workbench.types.delta.gates import NO_DELTA, GateDelta
from workbench.types.delta.low_rank import LowRankDelta
from workbench.types.delta.memory import Codebook, Memory, MemoryDelta, SideMemory

__all__ = [
    "NO_DELTA",
    "Codebook",
    "ContextDelta",
    "Delta",
    "DeltaKind",
    "Deltas",
    "DenseDelta",
    "GateDelta",
    "LowRankDelta",
    "Memory",
    "MemoryDelta",
    "SideMemory",
    "delta_from",
]


def delta_from(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Delta:
    """The delta that has this header and these tensors; the inverse of ``Delta.header`` and ``Delta.tensors``.

    Raises:
        ValueError: An unknown kind.
        KeyError: A tensor that the header names is missing.
    """
    kind = header.get("kind")
    if not isinstance(kind, str) or kind not in _READERS:
        raise ValueError(f"a delta is one of {list(get_args(DeltaKind))}, and this one is {kind!r}.")
    return _READERS[kind](header, tensors)


def _gates_from(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Delta:
    return GateDelta({(layer, site): tensors[f"{layer}.{site}"] for layer, site in header["keys"]})


def _low_rank_from(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Delta:
    places = [(layer, module, f"{layer}.{module}") for layer, module in header["keys"]]
    return LowRankDelta({(layer, module): (tensors[f"{at}.U"], tensors[f"{at}.V"]) for layer, module, at in places})


def _dense_from(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Delta:
    return DenseDelta({name: tensors[name] for name in header["names"]}, header["strength"])


def _context_from(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Delta:
    return ContextDelta(header["texts"], header["tokens"])


def _sequence_from(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Delta:
    parts: list[Delta] = []
    for i, part in enumerate(header["parts"]):
        own = {name.partition(".")[2]: t for name, t in tensors.items() if name.startswith(f"{i}.")}
        parts.append(delta_from(part, own))
    return Deltas(tuple(parts))


_READERS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Tensor]], Delta]] = {
    "gates": _gates_from,
    "low-rank": _low_rank_from,
    "dense": _dense_from,
    "memory": MemoryDelta.read,
    "context": _context_from,
    "sequence": _sequence_from,
}
