"""Where the nodes and edges of a circuit are drawn: layers upwards, heads in their columns, MLPs beside them.

A head stands for its query: an edge to ``L9Q4`` ends at the node L9H4. A key-value group, which several heads read, is
a node of its own below its heads. Layers without a node take a narrow strip, so that a model of 80 layers stays
readable; nothing is scaled down, and what has no room scrolls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from workbench.types.circuit import Edge
from workbench.types.edge_graph import EMBEDDING, LOGITS, Node
from workbench.types.selection import Component
from workbench.types.shape import ModelShape

HALF_WIDTH, HALF_HEIGHT = 24.0, 9.0
"""Of a node, in pixels."""
_COLUMN, _NARROW = 58.0, 52.0
_LEFT, _TOP, _MARGIN = 62.0, 16.0, 14.0
_ROW, _HEADS, _GROUP_ROW, _STRIP = 74.0, 26.0, 26.0, 18.0
_MLP_HIGHER = 30.0  # it reads what its layer's heads write
_WIDEST_BOW, _STEEPEST = 120.0, 80.0

Curve = tuple[float, float, float, float, float, float, float, float]
"""A cubic Bezier: start, two control points, end."""


@dataclass(frozen=True)
class GraphNode:
    """A node at its middle, in pixels from the upper left corner."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class GraphLayout:
    """What is drawn.

    Args:
        nodes: From the embedding upwards, each layer from left to right.
        edges: Name, the places of its ends in ``nodes``, and its curve.
        rows: Words of a layer, or of several without nodes, and their middle.
        width, height: In pixels.
    """

    nodes: tuple[GraphNode, ...]
    edges: tuple[tuple[str, int, int, Curve], ...]
    rows: tuple[tuple[str, float], ...]
    width: float
    height: float


def drawn_as(node: Node) -> str:
    """The node that stands for a sender or a receiver: a head for its query, a group for its key and value."""
    if not isinstance(node, Component):
        return node
    kinds = {"Q": "H", "K": "KV", "V": "KV"}
    return str(Component(node.layer, kinds[node.kind], node.index)) if node.kind in kinds else str(node)  # pyright: ignore[reportArgumentType]


def node_order(name: str, shape: ModelShape) -> tuple[int, int, int]:
    """Sorts nodes from the embedding upwards, each layer from left to right."""
    if name in (EMBEDDING, LOGITS):
        return (-1, 0, 0) if name == EMBEDDING else (shape.n_layers, 0, 0)
    part = Component.parse(name)
    return part.layer, {"KV": 0, "H": 1, "MLP": 2}[part.kind], part.index or 0


@dataclass
class _Rows:
    """The height of each layer, filled from the bottom."""

    middle: dict[int, float] = field(default_factory=dict[int, float])
    words: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    top: float = 0.0


def graph_layout(edges: Sequence[Edge], shape: ModelShape, more: Iterable[str] = ()) -> GraphLayout:
    """Place nodes and edges.

    Args:
        edges: Elementary edges.
        shape: The model's sizes.
        more: Names of further nodes.
    """
    names = {drawn_as(node) for edge in edges for node in (edge.sender, edge.receiver)} | set(more)
    ordered = sorted(names | {EMBEDDING, LOGITS}, key=lambda name: node_order(name, shape))
    parts = {name: Component.parse(name) for name in ordered if name not in (EMBEDDING, LOGITS)}
    rows = _rows(parts.values(), shape.n_layers)
    column = _COLUMN if shape.n_heads <= 12 else _NARROW
    mlp = _LEFT + shape.n_heads * column + HALF_WIDTH + 12
    height = rows.top + _TOP + HALF_HEIGHT
    places: list[GraphNode] = []
    for name in ordered:
        part = parts.get(name)
        if part is None:
            x, up = (_LEFT + mlp) / 2, 0.0 if name == EMBEDDING else rows.top
        elif part.kind == "MLP":
            x, up = mlp, rows.middle[part.layer] + _MLP_HIGHER
        elif part.kind == "KV":
            x = _LEFT + ((part.index or 0) + 0.5) * (shape.n_heads / shape.n_kv_heads) * column
            up = rows.middle[part.layer] - _GROUP_ROW
        else:
            x, up = _LEFT + ((part.index or 0) + 0.5) * column, rows.middle[part.layer]
        places.append(GraphNode(name, x, height - up - _MARGIN))
    at = {name: i for i, name in enumerate(ordered)}
    curves = [_placed(edge, at, places) for edge in edges]
    widest = max((max(curve[2], curve[4]) for *_, curve in curves), default=0.0)
    return GraphLayout(
        tuple(places),
        tuple(curves),
        tuple((words, height - up - _MARGIN) for words, up in rows.words),
        max(mlp + HALF_WIDTH, widest) + _MARGIN,
        height + _MARGIN,
    )


def _rows(parts: Iterable[Component], n_layers: int) -> _Rows:
    """Heights above the embedding."""
    kinds: dict[int, set[str]] = {}
    for part in parts:
        kinds.setdefault(part.layer, set()).add(part.kind)
    rows, up, layer = _Rows(), 0.0, 0
    while layer < n_layers:
        if layer in kinds:
            up += _GROUP_ROW * ("KV" in kinds[layer])
            rows.middle[layer] = up + _HEADS
            rows.words.append((f"L{layer}", rows.middle[layer]))
            up += _ROW
            layer += 1
            continue
        last = layer
        while last + 1 < n_layers and last + 1 not in kinds:
            last += 1
        up += _STRIP
        rows.words.append((f"L{layer}" if last == layer else f"L{layer}–{last}", up + _STRIP / 2))
        layer = last + 1
    rows.top = up + _HEADS
    return rows


def _placed(edge: Edge, at: dict[str, int], places: Sequence[GraphNode]) -> tuple[str, int, int, Curve]:
    start, end = at[drawn_as(edge.sender)], at[drawn_as(edge.receiver)]
    return str(edge), start, end, _curve(places[start], places[end], _side(edge.receiver))


def _side(receiver: Node) -> float:
    """Where at its node an edge ends: keys to the left, values to the right, so that both can be clicked."""
    kind = receiver.kind if isinstance(receiver, Component) else ""
    return {"K": -10.0, "V": 10.0}.get(kind, 0.0)


def _curve(start: GraphNode, end: GraphNode, side: float) -> Curve:
    x0, y0, x1, y1 = start.x, start.y - HALF_HEIGHT, end.x + side, end.y + HALF_HEIGHT
    rise = max(8.0, min(_STEEPEST, (y0 - y1) / 2))  # out of its column soon
    bow = 0.0
    if abs(x1 - x0) < HALF_WIDTH and y0 - y1 > _ROW:  # one above the other: around what stands between them
        is_mlp = start.name.endswith("MLP")
        bow = min(_WIDEST_BOW, 30 + 0.14 * (y0 - y1)) if is_mlp else -min(38.0, 26 + 0.02 * (y0 - y1))
    return x0, y0, x0 + bow, y0 - rise, x1 + bow, y1 + rise, x1, y1
