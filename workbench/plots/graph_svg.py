"""The graph of a circuit as SVG with real text, for pages without scripts: the picture that ``GraphView`` draws.

What is drawn comes from a saved state, which may be anybody's: nothing in it is trusted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from workbench.plots.graph_layout import HALF_HEIGHT, HALF_WIDTH
from workbench.plots.style import short_number
from workbench.types.plain import is_list

_THINNEST, _WIDEST = 0.8, 6.0
_MOST = 5000  # nodes or edges


@dataclass(frozen=True)
class GraphPicture:
    """The traits of a ``GraphView``.

    Args:
        nodes: Name and middle of each.
        edges: Name, score and curve (eight numbers) of each.
        rows: Words of a layer and their middle.
        size: Width and height.
        selected: Names of nodes and edges.
        title, alt, unit: Texts.
        limit: The score of the widest line.
    """

    nodes: Sequence[tuple[str, float, float]]
    edges: Sequence[tuple[str, float, Sequence[float]]]
    rows: Sequence[tuple[str, float]]
    size: tuple[float, float]
    selected: frozenset[str]
    title: str = ""
    alt: str = ""
    unit: str = ""
    limit: float = 1.0

    @property
    def status(self) -> str:
        """How much is drawn and selected."""
        chosen = f", {len(self.selected)} selected" if self.selected else ""
        return f"{len(self.edges)} edges between {len(self.nodes)} nodes{chosen}"


def line_width(score: float, limit: float) -> float:
    """Of an edge, in pixels."""
    return _THINNEST + (_WIDEST - _THINNEST) * min(1.0, abs(score) / limit)


def graph_of(state: Mapping[str, Any]) -> GraphPicture | None:
    """The graph that a saved state describes; None where it describes none."""
    names, edges = _texts(state.get("nodes")), _texts(state.get("edges"))
    xs, ys, scores = (_numbers(state.get(name)) for name in ("xs", "ys", "scores"))
    curves = [_numbers(curve) for curve in _listed(state.get("curves"))]
    size = _numbers(state.get("size"))
    if not (len(names) == len(xs) == len(ys)) or not (len(edges) == len(scores) == len(curves)) or len(size) != 2:
        return None
    if any(len(curve) != 8 for curve in curves) or not all(0 < side < 100_000 for side in size):
        return None
    limit, rows = state.get("limit"), list(zip(_texts(state.get("rows")), _numbers(state.get("row_ys")), strict=False))
    words = {name: str(state[name]) for name in ("title", "alt", "unit") if isinstance(state.get(name), str)}
    return GraphPicture(
        list(zip(names, xs, ys, strict=True)),
        list(zip(edges, scores, curves, strict=True)),
        rows,
        (size[0], size[1]),
        frozenset(_texts(state.get("selected"))),
        limit=float(limit) if isinstance(limit, int | float) and limit > 0 else 1.0,
        **words,
    )


def graph_svg(graph: GraphPicture, name: str) -> str:
    """Draw it.

    Args:
        graph: What is drawn.
        name: An id on its page.
    """
    width, height = graph.size
    words = escape(graph.alt or graph.title or "Circuit")
    parts = [
        f'<svg class="wb-graph" role="img" aria-labelledby="{name}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" xmlns="http://www.w3.org/2000/svg"><title id="{name}">{words}'
        "</title>"
    ]
    parts += [f'<text class="wbg-row" x="6" y="{y + 4:.1f}">{escape(text)}</text>' for text, y in graph.rows]
    for edge, score, curve in graph.edges:
        path = "M{:.1f} {:.1f}C{:.1f} {:.1f} {:.1f} {:.1f} {:.1f} {:.1f}".format(*curve)
        if edge in graph.selected:
            parts.append(f'<path class="wbg-halo" d="{path}" stroke-width="{line_width(score, graph.limit) + 7:.1f}"/>')
        sign = "wbg-under" if score < 0 else "wbg-above"
        value = escape(f"{edge}: {short_number(score)} {graph.unit}".strip())
        parts.append(
            f'<path class="wbg-edge {sign}" d="{path}" stroke-width="{line_width(score, graph.limit):.2f}">'
            f"<title>{value}</title></path>"
        )
    for node, x, y in graph.nodes:
        picked = " wbg-picked" if node in graph.selected else ""
        parts.append(
            f'<g class="wbg-node{picked}"><rect x="{x - HALF_WIDTH:.1f}" y="{y - HALF_HEIGHT:.1f}" '
            f'width="{2 * HALF_WIDTH:.0f}" height="{2 * HALF_HEIGHT:.0f}" rx="4"/>'
            f'<text x="{x:.1f}" y="{y + 4:.1f}">{escape(short_name(node))}</text></g>'
        )
    return f"{''.join(parts)}</svg>"


def short_name(node: str) -> str:
    """What stands in a node, which has room for eight letters."""
    return node if len(node) <= 8 else {"embedding": "embed"}.get(node, node[:8])


def _listed(value: object) -> list[Any]:
    return value[:_MOST] if is_list(value) else []


def _texts(value: object) -> list[str]:
    return [text for text in _listed(value) if isinstance(text, str)]


def _numbers(value: object) -> list[float]:
    return [float(n) for n in _listed(value) if type(n) in (int, float) and math.isfinite(n)]
