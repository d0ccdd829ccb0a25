"""GraphView: nodes and edges that are picked by click and by keyboard. Python owns what is selected, see ``picked.py``.

Only what is drawn is sent: places, curves and scores of at most a few hundred edges. The drawing is ``static/graph/``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import traitlets
from traitlets import TraitError

from workbench.plots.graph_layout import GraphLayout
from workbench.plots.graph_svg import GraphPicture, graph_of
from workbench.widgets.graph.png import graph_png
from workbench.widgets.grid.picked import PickedWidget
from workbench.widgets.grid.state import short
from workbench.widgets.shared.javascript import STATIC


class GraphView(PickedWidget):
    """A graph whose nodes and edges are selected. A selected edge has both its ends selected.

    Besides the selection the browser asks for two things: the path between two nodes (``on_path``) and another number
    of edges (``on_count``).
    """

    MODULE = "graph/graph.js"
    _css = STATIC / "graph" / "graph.css"

    nodes = traitlets.List(traitlets.Unicode(), help="from the embedding upwards").tag(sync=True)
    xs = traitlets.List(traitlets.Float(), help="of each node's middle, pixels").tag(sync=True)
    ys = traitlets.List(traitlets.Float()).tag(sync=True)
    edges = traitlets.List(traitlets.Unicode(), help="the largest first").tag(sync=True)
    starts = traitlets.List(traitlets.Int(), help="of each edge, the place of its sender in nodes").tag(sync=True)
    ends = traitlets.List(traitlets.Int()).tag(sync=True)
    curves = traitlets.List(help="of each edge, a cubic Bezier: eight numbers").tag(sync=True)
    scores = traitlets.List(traitlets.Float()).tag(sync=True)
    notes = traitlets.List(traitlets.Unicode(), help="of each edge, what else is said about it").tag(sync=True)
    rows = traitlets.List(traitlets.Unicode(), help="words of the layers").tag(sync=True)
    row_ys = traitlets.List(traitlets.Float()).tag(sync=True)
    size = traitlets.List(traitlets.Float(), [10.0, 10.0], help="[width, height], pixels").tag(sync=True)
    limit = traitlets.Float(1.0, help="the score of the widest line").tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    count = traitlets.Int(0, help="how many edges are asked for").tag(sync=True)
    most = traitlets.Int(0, help="how many can be asked for; 0: there is no slider").tag(sync=True)
    total = traitlets.Int(0, help="how many edges have a score").tag(sync=True)
    tip = traitlets.Unicode(help="a text below what is said of the node in `hover`").tag(sync=True)
    tip_for = traitlets.Any(None, help="the node that `tip` is about").tag(sync=True)
    path_ends = traitlets.List(traitlets.Unicode(), help="the nodes between which a path is shown").tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(kind="part", **traits)
        self._callbacks |= {"path": [], "count": []}

    def on_path(self, callback: Callable[[str, str], object]) -> None:
        """Call ``callback(first, second)`` when the path between two nodes is asked for: Shift and a click, or Shift
        and Enter, on the second one."""
        self._callbacks["path"].append(callback)

    def on_count(self, callback: Callable[[int], object]) -> None:
        """Call ``callback(n)`` when the slider is moved."""
        self._callbacks["count"].append(callback)

    def show_tip(self, name: str, text: str) -> None:
        """Add a text to what is said of a node, as it is and never as markup, if the pointer is still there."""
        if name == self.hover:
            with self.hold_sync():
                self.tip, self.tip_for = text, name

    def show(
        self, layout: GraphLayout, scores: Sequence[float], notes: Sequence[str], selected: Iterable[str], **traits: Any
    ) -> None:
        """Show another graph, in one redraw.

        Args:
            layout: Its nodes and edges.
            scores, notes: One for each edge.
            selected: Names of what is selected in it; the rest is left out.
            traits: Further ones, such as ``title``.
        """
        state = {
            "nodes": [node.name for node in layout.nodes],
            "xs": [round(node.x, 1) for node in layout.nodes],
            "ys": [round(node.y, 1) for node in layout.nodes],
            "edges": [name for name, *_ in layout.edges],
            "starts": [start for _, start, _, _ in layout.edges],
            "ends": [end for _, _, end, _ in layout.edges],
            "curves": [[round(value, 1) for value in curve] for *_, curve in layout.edges],
            "scores": [float(score) for score in scores],
            "notes": list(notes),
            "rows": [words for words, _ in layout.rows],
            "row_ys": [round(y, 1) for _, y in layout.rows],
            "size": [round(layout.width, 1), round(layout.height, 1)],
            "limit": max((abs(float(score)) for score in scores), default=0.0) or 1.0,
        }
        there = {*state["nodes"], *state["edges"]}
        with self.hold_sync():
            wanted = [name for name in selected if name in there]
            self.selected = []  # what is not drawn any more is not valid
            self.cursor = self.cursor if self.cursor in there else None
            self.hover = self.tip_for = None
            for name, value in {**state, **traits}.items():
                setattr(self, name, value)
            self.selected = wanted

    def to_png(self) -> bytes:
        """The graph as a PNG picture."""
        return graph_png(self._graph())

    def _graph(self) -> GraphPicture:
        names = ("nodes", "xs", "ys", "edges", "scores", "curves", "rows", "row_ys", "size")
        graph = graph_of({name: getattr(self, name) for name in (*names, "selected", "title", "alt", "unit", "limit")})
        assert graph is not None  # its own state
        return graph

    def __repr__(self) -> str:
        return f"GraphView({len(self.nodes)} nodes, {len(self.edges)} edges, {len(self.selected)} selected)"

    def _item(self, value: Any) -> str | None:
        if value is None or (isinstance(value, str) and (value in self.nodes or value in self.edges)):
            return value
        raise TraitError(f"{short(value)} is no node or edge of this graph.")

    def _items(self, value: Any) -> list[str]:
        if not isinstance(value, list | tuple | set | frozenset):
            raise TraitError(f"A selection is a list of names, not {short(value)}.")
        if len(value) > len(self.nodes) + len(self.edges):
            raise TraitError(f"{len(value)} names are too many; this graph has fewer.")
        wanted = [self._item(each) for each in value]
        if None in wanted or len(set(wanted)) != len(wanted):
            raise TraitError("A selection is a list of different names.")
        chosen = set(wanted)
        for name, start, end in zip(self.edges, self.starts, self.ends, strict=True):
            if name in chosen:
                chosen |= {self.nodes[start], self.nodes[end]}
        return [name for name in (*self.nodes, *self.edges) if name in chosen]

    def _heard(self, content: Any) -> None:
        event = content.get("event") if isinstance(content, dict) else None
        if event not in ("path", "count"):
            return super()._heard(content)
        item = content.get("item")
        if event == "count" and type(item) is int and 1 <= item <= self.most:
            self._call("count", item)
        elif event == "path" and isinstance(item, list) and len(item) == 2 and all(name in self.nodes for name in item):
            self._call("path", *item)
        else:
            self._fail(TraitError(f"{short(item)} is not what {event!r} takes here."))
