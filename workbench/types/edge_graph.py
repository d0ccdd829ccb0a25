"""The edges that a model has: which components write into the residual stream, and who reads it after them.

Senders write: the embedding, every query head, every MLP. Receivers read: every head's query, every key-value group's
key and value, every MLP, the logits. A receiver reads all senders before it, which are the first ones of their order,
so the graph is a number a receiver.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from workbench.types.selection import Component
from workbench.types.shape import ModelShape

EMBEDDING, LOGITS = "embedding", "logits"
Node = Component | str
"""A component, ``"embedding"`` (what enters layer 0) or ``"logits"``."""


class HasArchitecture(Protocol):
    """Anything with a shape and traits, such as a ``LoadedModel``."""

    @property
    def shape(self) -> ModelShape: ...

    @property
    def architecture(self) -> Any: ...


@dataclass(frozen=True)
class EdgeGraph:
    """All edges of a model.

    Args:
        shape: Its sizes.
        parallel: Attention and MLP of a layer read the same residual stream, so that no edge lies within a layer.

    Example:
        >>> from workbench.types.edge_graph import EdgeGraph
        >>> graph = EdgeGraph.of(model)  # of three layers with six heads in two groups
        >>> len(graph.senders), len(graph.receivers), graph.n_edges
        (22, 34, 304)
    """

    shape: ModelShape
    parallel: bool = False

    @classmethod
    def of(cls, model: HasArchitecture) -> EdgeGraph:
        """The graph of a model."""
        return cls(model.shape, bool(model.architecture.traits.parallel))

    @cached_property
    def senders(self) -> tuple[Node, ...]:
        """The embedding, then each layer's heads and its MLP."""
        heads = range(self.shape.n_heads)
        layers = range(self.shape.n_layers)
        written = ((*(Component(at, "H", i) for i in heads), Component(at, "MLP")) for at in layers)
        return (EMBEDDING, *(node for layer in written for node in layer))

    @cached_property
    def receivers(self) -> tuple[Node, ...]:
        """Each layer's queries, keys, values and its MLP, then the logits."""
        return (*(node for layer in range(self.shape.n_layers) for node in self.readers_of(layer)), LOGITS)

    def readers_of(self, layer: int) -> tuple[Component, ...]:
        """The receivers of a layer: queries, keys, values, MLP."""
        heads, groups = range(self.shape.n_heads), range(self.shape.n_kv_heads)
        return (
            *(Component(layer, "Q", i) for i in heads),
            *(Component(layer, "K", i) for i in groups),
            *(Component(layer, "V", i) for i in groups),
            Component(layer, "MLP"),
        )

    @property
    def attention_readers(self) -> int:
        """How many receivers the attention of a layer is."""
        return self.shape.n_heads + 2 * self.shape.n_kv_heads

    @cached_property
    def sender_index(self) -> dict[Node, int]:
        """The place of each sender."""
        return {node: i for i, node in enumerate(self.senders)}

    @cached_property
    def receiver_index(self) -> dict[Node, int]:
        """The place of each receiver."""
        return {node: i for i, node in enumerate(self.receivers)}

    def n_before(self, layer: int, part: str) -> int:
        """How many senders come before a layer's ``"attn"`` or ``"mlp"``; they are the first ones."""
        before = 1 + layer * (self.shape.n_heads + 1)
        return before + self.shape.n_heads if part == "mlp" and not self.parallel else before

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """How many senders each receiver reads: the first so many."""
        found: list[int] = []
        for layer in range(self.shape.n_layers):
            found += [self.n_before(layer, "attn")] * self.attention_readers + [self.n_before(layer, "mlp")]
        return (*found, len(self.senders))

    @property
    def n_edges(self) -> int:
        """How many edges there are."""
        return sum(self.counts)

    @cached_property
    def mask(self) -> Tensor:
        """Where there is an edge, [receivers, senders], booleans."""
        return torch.arange(len(self.senders))[None] < torch.tensor(self.counts)[:, None]

    def mask_of(self, circuit: Any) -> Tensor:
        """Where a circuit has an edge, [receivers, senders], booleans.

        Raises:
            ValueError: As ``Circuit.edges_in``.
        """
        found = torch.zeros_like(self.mask)
        for edge in circuit.edges_in(self):
            found[self.receiver_index[edge.receiver], self.sender_index[edge.sender]] = True
        return found

    def sent_by(self, node: Node) -> Iterator[Node]:
        """The senders that a node of a circuit stands for: of an attention layer its heads.

        Raises:
            ValueError: The model has no such component.
        """
        self._check(node)
        if isinstance(node, Component) and node.kind == "ATTN":
            yield from (Component(node.layer, "H", i) for i in range(self.shape.n_heads))
        else:
            yield node

    def read_by(self, node: Node) -> Iterator[Node]:
        """The receivers that a node of a circuit stands for: of a head its query and its group's key and value, of a
        group its key and value, of an attention layer all of them.

        Raises:
            ValueError: The model has no such component.
        """
        self._check(node)
        if not isinstance(node, Component) or node.kind in ("Q", "K", "V", "MLP"):
            yield node
        elif node.kind == "ATTN":
            yield from self.readers_of(node.layer)[:-1]
        else:
            index = node.index or 0
            group = index
            if node.kind == "H":
                yield Component(node.layer, "Q", index)
                group = self.shape.group_of(index)
            yield Component(node.layer, "K", group)
            yield Component(node.layer, "V", group)

    def require(self, sender: Node, receiver: Node) -> None:
        """Raise a ValueError where an elementary receiver does not read an elementary sender in this architecture."""
        if self.sender_index[sender] >= self.counts[self.receiver_index[receiver]]:
            layer = receiver.layer if isinstance(receiver, Component) else 0
            raise ValueError(
                f"There is no edge {sender} -> {receiver}: this model's attention and MLP read the same residual "
                f"stream (a parallel layer), so nothing that layer {layer} writes is read within it. Take a "
                f"receiver of layer {layer + 1} or later."
            )

    def _check(self, node: Node) -> None:
        if isinstance(node, Component):
            node.check(self.shape)
