"""What a delta reads and moves, for comparing edits: directions of inputs, and gates."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from workbench.types import Codebook, Delta, Deltas, GateDelta, LowRankDelta, MemoryDelta, Site


def read_directions(delta: Delta) -> dict[tuple[int, str], Tensor]:
    """The directions of a module's inputs that low-rank updates read, and the keys of codebooks: by (layer, module),
    [n, d_in], of all parts of a sequence; rows that are 0, or add nothing, are left out. Of other kinds nothing."""
    out: dict[tuple[int, str], Tensor] = {}
    for part in _parts(delta):
        for key, rows in _read_by(part):
            rows = rows[rows.abs().sum(1) > 0]
            out[key] = torch.cat([out[key], rows]) if key in out else rows
    return {key: rows for key, rows in out.items() if len(rows)}


def _read_by(part: Delta) -> Iterator[tuple[tuple[int, str], Tensor]]:
    """What one part reads, by module; not the keys of a codebook that reads some inputs only."""
    if isinstance(part, LowRankDelta):
        yield from ((key, v[u.abs().sum(0) > 0]) for key, (u, v) in part.factors.items())
    elif isinstance(part, MemoryDelta):
        for key, memories in part.memories.items():
            books = [m for m in memories if isinstance(m, Codebook) and m.columns is None and m.strength]
            yield from ((key, book.keys) for book in books)


def moved_gates(delta: Delta) -> dict[tuple[int, Site], Tensor]:
    """How far gates are from 1: by (layer, site), [gates], of all parts of a sequence together; of other kinds
    nothing."""
    total = GateDelta({})
    for part in _parts(delta):
        if isinstance(part, GateDelta):
            total = total * part
    return {key: gate - 1 for key, gate in total.gates.items() if bool((gate != 1).any())}


def _parts(delta: Delta) -> tuple[Delta, ...]:
    return delta.parts if isinstance(delta, Deltas) else (delta,)
