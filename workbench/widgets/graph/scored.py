"""Which edges of a map a graph draws, and what it says about each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workbench.plots.style import short_number
from workbench.types import Circuit, Component, EdgeMap
from workbench.types.circuit import Edge
from workbench.types.edge_graph import HasArchitecture


def in_order(scores: EdgeMap, within: Circuit | None, model: HasArchitecture, most: int) -> list[Edge]:
    """The edges with the largest scores, the largest first.

    Args:
        scores: All of them.
        within: Only its edges; None for all.
        model: The model, for which edges a circuit's are.
        most: At most so many.

    Raises:
        KeyError: An edge of the circuit was not measured.
    """
    if within is None:
        return list(scores.top(min(most, scores.n_edges)))
    return sorted(within.edges_in(model), key=lambda edge: -abs(scores[edge]))[:most]


def notes_of(scores: EdgeMap, edges: Sequence[Edge]) -> list[str]:
    """What is said of each edge besides its score: what is read, its rank, its standard error."""
    sizes = scores.values[~scores.values.isnan()].abs().sort().values
    own = torch.tensor([scores[edge] for edge in edges]).abs()
    larger: list[int] = (len(sizes) - torch.searchsorted(sizes, own, right=True)).tolist()
    return [_note(scores, edge, rank + 1, len(sizes)) for edge, rank in zip(edges, larger, strict=True)]


def _note(scores: EdgeMap, edge: Edge, rank: int, n_edges: int) -> str:
    words = [f"rank {rank:,} of {n_edges:,}"]
    receiver = edge.receiver
    if isinstance(receiver, Component) and receiver.kind in ("Q", "K", "V"):
        read = {"Q": "read as the head's query", "K": "read as the group's key", "V": "read as the group's value"}
        words.insert(0, read[receiver.kind])
    if scores.stderr is not None:
        error = float(scores.stderr[scores.receivers.index(str(receiver)), scores.senders.index(str(edge.sender))])
        words.append(f"standard error {short_number(error)} (n = {scores.n})")
    return ", ".join(words)
