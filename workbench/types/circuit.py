"""Circuits: directed edges between the components of a model, as text, as JSON, and as a selection.

An edge is written ``L23H4 -> L25MLP``: what the sender writes into the residual stream, as the receiver reads it. A
circuit has edges, not only nodes: Conmy et al. 2023 (ACDC, arXiv 2304.14997), Hanna et al. 2024 (EAP-IG, arXiv
2403.17806).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self, cast

from workbench.types.edge_graph import EMBEDDING, LOGITS, EdgeGraph, HasArchitecture, Node
from workbench.types.ordered_set import OrderedSet
from workbench.types.plain import is_list, is_mapping, is_tuple
from workbench.types.selection import Component, Selection

SENDERS = ("H", "MLP", "ATTN")
RECEIVERS = ("Q", "K", "V", "H", "KV", "MLP", "ATTN")
_EXAMPLES = "L23H4 -> L25MLP, embedding -> L0H1, L3MLP -> L9Q4, L3MLP -> L9K1, L29MLP -> logits"
_VERSION = 1
_SHOWN = 12
"""So many edges are shown; of more the first ones."""


@dataclass(frozen=True, slots=True)
class Edge:
    """What one component writes, as another reads it. ``str()`` and ``parse`` are inverse to each other.

    Args:
        sender: ``"embedding"`` (what enters layer 0), a head, an MLP, or an attention layer (all its heads).
        receiver: A head's query (``L9Q4``), a key-value group's key or value (``L9K1``, ``L9V1``), an MLP or
            ``"logits"``; or several at once: a head (its query, and the key and value of its group), a group
            (``L9KV1``), an attention layer.

    Raises:
        ValueError: The edge runs backwards or within a layer (but from attention to the MLP, which only a parallel
            architecture lacks: ``Circuit.check``), or a node cannot send or receive.

    Example:
        >>> from workbench.types.circuit import Edge
        >>> edge = Edge.parse("L0H4 -> L1MLP")
        >>> edge.sender, edge.receiver, str(edge)
        (L0H4, L1MLP, 'L0H4 -> L1MLP')
    """

    sender: Node
    receiver: Node

    def __post_init__(self) -> None:
        sender, receiver = self.sender, self.receiver
        if sender != EMBEDDING and not (isinstance(sender, Component) and sender.kind in SENDERS):
            raise ValueError(
                f"{sender} sends nothing into the residual stream as a node of a circuit; senders are 'embedding', "
                f"heads (L23H4), MLPs (L13MLP) and attention layers (L9ATTN). Examples of edges: {_EXAMPLES}."
            )
        if receiver != LOGITS and not (isinstance(receiver, Component) and receiver.kind in RECEIVERS):
            raise ValueError(
                f"{receiver} is no receiver; receivers are a head's query (L9Q4), a group's key or value (L9K1, L9V1), "
                f"heads, groups, MLPs, attention layers and 'logits'. Examples of edges: {_EXAMPLES}."
            )
        if not isinstance(sender, Component) or not isinstance(receiver, Component):
            return
        if sender.layer > receiver.layer:
            raise ValueError(
                f"The edge {sender} -> {receiver} runs backwards: layer {receiver.layer} is computed before layer "
                f"{sender.layer}.{_turned(sender, receiver)}"
            )
        if sender.layer == receiver.layer and not (sender.kind != "MLP" and receiver.kind == "MLP"):
            raise ValueError(
                f"The edge {sender} -> {receiver} lies within layer {sender.layer}, where only the MLP can read what "
                f"the attention writes. Take a receiver of layer {sender.layer + 1} or later."
            )

    def __str__(self) -> str:
        return f"{self.sender} -> {self.receiver}"

    def __repr__(self) -> str:
        return str(self)

    @classmethod
    def parse(cls, text: str | Edge) -> Edge:
        """Read an edge such as ``"L23H4 -> L25MLP"``.

        Raises:
            ValueError: The text is not one edge, or not an edge that there can be.
        """
        found = _edges(text)
        if len(found) != 1:
            raise ValueError(f"{text!r} is not one edge. Write one like these: {_EXAMPLES}.")
        return found[0]


def _turned(sender: Component, receiver: Component) -> str:
    """The edge the other way round, as far as its nodes can take the other's part."""
    first = Component(receiver.layer, "H", receiver.index) if receiver.kind == "Q" else receiver
    return f" Did you mean {first} -> {sender}?" if first.kind in SENDERS else ""


def as_node(item: Node) -> Node:
    """A node, or its text."""
    if isinstance(item, Component):
        return item
    text = _text_of(item)
    return text if text in (EMBEDDING, LOGITS) else Component.parse(text)


def _text_of(item: object) -> str:
    text = item.strip() if isinstance(item, str) else ""
    if not text:
        raise ValueError(f"A node is a component, {EMBEDDING!r} or {LOGITS!r}, got {item!r}.")
    return text


def _edges(item: object) -> list[Edge]:
    """An edge, a pair of nodes, or the edges of a text, in which a chain ``a -> b -> c`` is two."""
    if isinstance(item, Edge):
        return [item]
    if is_tuple(item) or is_list(item):
        if len(item) != 2:
            raise ValueError(f"An edge is a pair of nodes, got {item!r}. Examples: {_EXAMPLES}.")
        return [Edge(as_node(item[0]), as_node(item[1]))]
    if not isinstance(item, str):
        raise ValueError(f"{item!r} is not an edge. Write one like these: {_EXAMPLES}.")
    nodes = [part.strip() for part in item.split("->")]
    if len(nodes) < 2 or not all(nodes):
        raise ValueError(f"{item!r} is not an edge: it needs a sender, '->' and a receiver. Examples: {_EXAMPLES}.")
    return [Edge(as_node(a), as_node(b)) for a, b in pairwise(nodes)]


class Circuit(OrderedSet[Edge]):
    """An ordered, immutable set of edges. ``|``, ``&``, ``-`` and ``^`` keep the order of first appearance.

    Args:
        edges: Edges, pairs of nodes, or text: edges separated by commas, semicolons or line breaks.
        base_fingerprint: Of the model whose circuit it is; None for one that is written by hand.

    Raises:
        ValueError: A part is not an edge, or runs backwards or within a layer.

    Example:
        >>> circuit = wb.Circuit("embedding -> L0H4, L0H4 -> L1MLP, L1MLP -> logits")
        >>> len(circuit), circuit.selection, "L0H4 -> L1MLP" in circuit
        (3, Selection('L0H4 L1MLP'), True)
        >>> circuit - "L0H4 -> L1MLP"
        Circuit('embedding -> L0H4, L1MLP -> logits')
    """

    __slots__ = ("base_fingerprint",)

    def __init__(
        self, edges: Iterable[Edge | str | tuple[Node, Node]] | str = (), *, base_fingerprint: str | None = None
    ) -> None:
        if isinstance(edges, str):
            edges = [part for part in re.split(r"[,;\n]+", edges) if part.strip()]
        self._items = dict.fromkeys(edge for item in edges for edge in _edges(item))
        self.base_fingerprint = base_fingerprint

    @classmethod
    def parse(cls, text: str) -> Circuit:
        """Read edges separated by commas, semicolons or line breaks; a chain ``a -> b -> c`` is two edges.

        Raises:
            ValueError: A part is not an edge.

        Example:
            >>> wb.Circuit.parse("embedding -> L0MLP -> logits")
            Circuit('embedding -> L0MLP, L0MLP -> logits')
        """
        return cls(text)

    @classmethod
    def _as_set(cls, given: Iterable[Any]) -> Circuit:
        return as_circuit(given)

    def __contains__(self, item: object) -> bool:
        try:
            found = _edges(item)
        except ValueError:
            return False
        return all(edge in self._items for edge in found)

    def _made(self, items: Iterable[Edge], other: Any) -> Self:
        """A circuit of edges of two: of a model, if neither is another's."""
        marks = {c.base_fingerprint for c in (self, other)} - {None}
        if len(marks) > 1:
            raise ValueError(
                "The two circuits are of different models, so their edges do not mean the same. Find both on one "
                "model, or copy one's text into a new wb.Circuit(...) if that is meant."
            )
        return type(self)(items, base_fingerprint=next(iter(marks), None))

    def __str__(self) -> str:
        return ", ".join(map(str, self))

    def __repr__(self) -> str:
        if len(self) <= _SHOWN:
            return f"Circuit({str(self)!r})"
        return f"Circuit({len(self)} edges: {', '.join(map(str, list(self)[:3]))}, ...)"

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node that sends or receives, in order of first appearance."""
        return tuple(dict.fromkeys(node for edge in self for node in (edge.sender, edge.receiver)))

    @property
    def selection(self) -> Selection:
        """The heads, MLPs and attention layers that send or receive, for an edit. A query stands for its head; a
        key-value group that only receives is left out, since the heads that read it are in if they send."""
        found: list[Component] = []
        for node in self.nodes:
            if isinstance(node, Component) and node.kind in ("H", "MLP", "ATTN"):
                found.append(node)
            elif isinstance(node, Component) and node.kind == "Q":
                found.append(Component(node.layer, "H", node.index))
        return Selection(found).sorted()

    @classmethod
    def from_selection(cls, selection: Selection | str, model: HasArchitecture, *, ends: bool = True) -> Circuit:
        """All edges between some components, and with them the embedding and the logits.

        Args:
            selection: Heads, MLPs and attention layers.
            model: The model, for its key-value groups and for whether its layers are parallel.
            ends: With the edges from the embedding and to the logits; without them nothing goes in or comes out.

        Raises:
            ValueError: Another kind of component (a neuron), or one that the model has not.

        Example:
            >>> circuit = wb.Circuit.from_selection("L0H4 L1MLP", model)
            >>> circuit & "L0H4 -> L1MLP", len(circuit)
            (Circuit('L0H4 -> L1MLP'), 8)
        """
        graph = EdgeGraph.of(model)
        chosen = Selection(selection).sorted()
        for component in chosen:
            if component.kind not in SENDERS:
                raise ValueError(
                    f"{component} is no node of a circuit: edges join heads (L23H4), MLPs (L13MLP) and attention "
                    f"layers (L9ATTN). Of a neuron take its MLP (L{component.layer}MLP), of a key-value group "
                    "its heads."
                )
        writing = [node for component in chosen for node in graph.sent_by(component)]
        reading = dict.fromkeys(node for component in chosen for node in graph.read_by(component))
        if ends:
            writing, reading = [EMBEDDING, *writing], dict.fromkeys([*reading, LOGITS])
        place, count = graph.sender_index, graph.counts
        pairs = [(a, b) for b in reading for a in dict.fromkeys(writing) if place[a] < count[graph.receiver_index[b]]]
        return cls(pairs, base_fingerprint=getattr(model, "fingerprint", None))

    def edges_in(self, model: HasArchitecture | EdgeGraph) -> list[Edge]:
        """The elementary edges in a model, each once: senders are the embedding, heads and MLPs; receivers queries,
        keys, values, MLPs and the logits.

        Raises:
            ValueError: The model lacks a component, or its layers are parallel and an edge lies within one.

        Example:
            >>> wb.Circuit("L0MLP -> L1H4").edges_in(model)
            [L0MLP -> L1Q4, L0MLP -> L1K1, L0MLP -> L1V1]
        """
        graph = model if isinstance(model, EdgeGraph) else EdgeGraph.of(model)
        found: dict[Edge, None] = {}
        for edge in self:
            for sender in graph.sent_by(edge.sender):
                for receiver in graph.read_by(edge.receiver):
                    graph.require(sender, receiver)
                    found[Edge(sender, receiver)] = None
        return list(found)

    def check(self, model: HasArchitecture) -> None:
        """Raise a ValueError where this is not a circuit of a model: it was found on another one, a component is
        missing, or an edge lies within a parallel layer."""
        fingerprint = getattr(model, "fingerprint", None)
        base = getattr(getattr(model, "base", None), "fingerprint", None)
        if self.base_fingerprint is not None and self.base_fingerprint not in (fingerprint, base):
            raise ValueError(
                f"The circuit was found on another model (fingerprint {self.base_fingerprint[:12]}, this one has "
                f"{str(fingerprint)[:12]}), where L0H0 is another head. Find it again with wb.edges on this model, or "
                "wb.Circuit(str(circuit)) if the same names are meant."
            )
        self.edges_in(model)

    def random_like(self, model: HasArchitecture, *, seed: int = 0) -> Circuit:
        """A random circuit of as many elementary edges: the control for this one.

        Example:
            >>> control = wb.Circuit("L0MLP -> L1H4").random_like(model, seed=0)
            >>> len(control)
            3
        """
        graph = EdgeGraph.of(model)
        places = cast("list[list[int]]", graph.mask.nonzero().tolist())  # pyright: ignore[reportUnknownMemberType]
        drawn = random.Random(seed).sample(places, len(self.edges_in(graph)))
        pairs = [(graph.senders[sender], graph.receivers[receiver]) for receiver, sender in sorted(drawn)]
        return Circuit(pairs, base_fingerprint=getattr(model, "fingerprint", None))

    def to_json(self) -> str:
        """JSON with the edges as text, and the fingerprint of the model that they are of."""
        fields = {"kind": "workbench-circuit", "version": _VERSION, "base_fingerprint": self.base_fingerprint}
        return json.dumps({**fields, "edges": [str(edge) for edge in self]})

    @classmethod
    def from_json(cls, text: str) -> Circuit:
        """Make a circuit from what ``to_json`` gave, or from a JSON list of edges.

        Raises:
            ValueError: Neither of them, or of a newer version.

        Example:
            >>> circuit = wb.Circuit("L0H4 -> L1MLP")
            >>> wb.Circuit.from_json(circuit.to_json()) == circuit
            True
        """
        data: object = json.loads(text)
        if is_list(data):
            return cls(data)
        if not is_mapping(data) or data.get("kind") != "workbench-circuit" or not is_list(data.get("edges")):
            raise ValueError('Expected what Circuit.to_json gave, or a JSON list of edges such as ["L0H4 -> L1MLP"].')
        if data.get("version") != _VERSION:
            raise ValueError(f"The circuit has version {data.get('version')!r}, and this package reads {_VERSION}.")
        edges: Any = data["edges"]
        mark: Any = data.get("base_fingerprint")
        return cls(edges, base_fingerprint=mark)


def as_circuit(given: Iterable[Any]) -> Circuit:
    """A circuit, or what makes one."""
    return given if isinstance(given, Circuit) else Circuit(given)
