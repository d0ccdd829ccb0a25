"""CircuitGraph: the edges of a question as a graph, in which nodes and edges are clicked."""

from __future__ import annotations

from collections.abc import Callable
from types import EllipsisType
from typing import Any

import traitlets

from workbench.models.load import LoadedModel
from workbench.plots.graph_layout import drawn_as, graph_layout
from workbench.types import (
    Circuit,
    Component,
    EdgeMap,
    Fact,
    FactSet,
    Form,
    PathEffect,
    Selection,
)
from workbench.types.circuit import Edge
from workbench.types.contrast import Traced, as_traced
from workbench.types.edge_map import EdgeMethod
from workbench.types.effect import Corruption
from workbench.widgets.graph.checks import (
    MOST_DRAWN,
    check_count,
    check_map,
    check_picker,
    checked_circuit,
    heading_of,
    is_part,
    is_scored,
    title_of,
)
from workbench.widgets.graph.code import graph_code
from workbench.widgets.graph.head_tips import HeadTips
from workbench.widgets.graph.path_view import PathView
from workbench.widgets.graph.recovery_view import RecoveryView
from workbench.widgets.graph.scored import in_order, notes_of
from workbench.widgets.graph.scoring import EdgeScoring
from workbench.widgets.graph.view import GraphView
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.picker.selection_bar import check_shown
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.contrast_words import traced_code
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.text_card import text_card_png


class CircuitGraph(EdgeScoring):
    """The panel shows a question's circuit as a graph: layers upwards, heads beside MLPs. A line's width is its edge's
    score, its colour and whether it is dashed are the score's sign. A click selects a node or an edge; Shift and a
    click on a second node patches the path between the two exactly. ``graph.recovery.live`` is a box to tick: after
    each click it measures how much of the metric what is selected carries by itself, beside random parts of its size.

    All scores stay in Python: the page gets what is drawn. A head's node stands for its query too; a key-value group,
    which several heads read, is a node of its own.

    Args:
        model: A base or edited model; it is not changed.
        contrast: A fact or contrast, or several: scores are means over them.
        picker: A picker of the same model: its selection follows this one, and this one its.
        edges: Scores that are there already; otherwise they are computed.
        circuit: Draw edges of this circuit alone; by default the largest of all.
        count: How many edges are drawn at first, 1 to 300.
        method, steps, metric, corruption, form, pool: As in ``edges``.
        compute: Score the edges at once, in the background; False waits for ``graph.run()``.

    Raises:
        ValueError: No contrast, an empty circuit, a circuit or a map of another model, a picker of another one, or a
            count that is out of range.

    Example:
        >>> graph = wb.CircuitGraph(model, fact, pool=facts, count=5, compute=False)
        >>> graph.run().wait().n_edges
        304
        >>> len(graph.drawn), len(graph.circuit)
        (5, 0)
        >>> graph.circuit = graph.edges.top(1)
        >>> graph.circuit == graph.edges.top(1), graph.selection == graph.circuit.selection
        (True, True)
    """

    selection = traitlets.Any(help="The selected components, a Selection; settable, as text too.")

    def __init__(
        self,
        model: LoadedModel,
        contrast: Traced,
        picker: CircuitPicker | None = None,
        *,
        edges: EdgeMap | None = None,
        circuit: Circuit | None = None,
        count: int = 40,
        method: EdgeMethod = "eap-ig",
        steps: int = 5,
        metric: Any = "logit_diff",
        corruption: Corruption = "swap",
        form: Form | None = None,
        pool: FactSet | None = None,
        compute: bool = True,
    ) -> None:
        items = as_traced(contrast, "CircuitGraph")
        self._within = checked_circuit(model, circuit)
        check_count(count)
        if edges is not None:
            check_map(model, edges)
        if picker is not None:
            check_picker(model, picker)
        super().__init__(model, items, {"method": method, "steps": steps}, pool)
        self._count = count
        self._of_facts: dict[str, Any] = {"corruption": corruption, "form": form}  # kept while a contrast is shown
        self._measure = {"metric": metric, **self._of_facts, "partner": None}
        self._ranked: list[Edge] = []
        self._edges_chosen: list[Edge] = []
        self._ends_chosen: set[str] = set()  # the embedding, the logits and groups, which no selection has
        self.selection = Selection()
        self.view = GraphView(alt="Circuit", most=0)
        self.path = PathView(self._patch, model.shape, self._path_changed)
        self.recovery = RecoveryView(
            model, self._faithful, lambda: self.circuit if self._edges_chosen else self.selection
        )
        self._picker = picker
        self.tips = HeadTips(model, self.view, self._text, picker)
        self._go_callbacks: list[Callable[[CircuitGraph, str], object]] = []
        self._go = layout.quiet_button("Edit these", icon="arrow-right", tooltip="Go on with the selected components")
        self._go.on_click(lambda _: [callback(self, "editor") for callback in self._go_callbacks])
        layout.show(self._go, False)
        self._listen()
        self._lay_out_run([], [self.view, self.path, self.recovery, self._go])
        self._show_heading()
        if picker is not None:
            self.selection = picker.selection
        if edges is not None:
            self._take(edges)
        elif compute:
            self.run()
        self._show_code()

    def _listen(self) -> None:
        self.view.on_pick(self._picked)
        self.view.on_path(self.patch)
        self.view.on_count(lambda count: setattr(self, "count", count))
        self.observe(self._selection_set, names="selection")
        if (picker := self._picker) is not None:
            picker.observe(lambda change: setattr(self, "selection", change["new"]), names="selection")
            self.view.on_undo(picker.bar.undo)
            self.view.on_redo(picker.bar.redo)

    def __repr__(self) -> str:
        scored = "not scored" if self._map is None else f"{len(self.drawn)} of {self._map.n_edges} edges"
        return f"CircuitGraph({title_of(self._items)}: {scored}, {len(self.selection)} selected)"

    # What it holds

    @property
    def drawn(self) -> Circuit:
        """The edges that are drawn, the largest first."""
        return Circuit(self._drawn_edges(), base_fingerprint=self._model.fingerprint)

    @property
    def circuit(self) -> Circuit:
        """The edges that are selected; empty where none is (``Circuit.from_selection(graph.selection, model)`` has all
        edges between selected nodes). Settable: they are drawn then, however small they are."""
        return Circuit(self._edges_chosen, base_fingerprint=self._model.fingerprint)

    @circuit.setter
    def circuit(self, circuit: Circuit | str) -> None:
        chosen = circuit if isinstance(circuit, Circuit) else Circuit(circuit)
        chosen.check(self._model)
        elementary = chosen.edges_in(self._model)
        for edge in elementary:  # of none nothing needs to be known
            if self._map is None:
                raise ValueError("The edges are not scored yet. Wait for it (graph.wait()), or start it (graph.run()).")
            self._map[edge]  # raises where it was not measured
        with self._lock:
            names = {drawn_as(node) for edge in elementary for node in (edge.sender, edge.receiver)}
            self._choose(elementary, names)
            self._draw()

    @property
    def count(self) -> int:
        """How many edges are drawn, besides selected ones. Settable, 1 to 300."""
        return self._count

    @count.setter
    def count(self, count: int) -> None:
        check_count(count)
        with self._lock:
            self._count = count
            self._draw()

    @property
    def code(self) -> str:
        """Python that repeats what is shown."""
        return traced_code(self._model, self._items, self._pool, "graph") + self.shown_code

    @property
    def shown_code(self) -> str:
        """Its part after the model and the facts or contrasts."""
        traced = "fact" if isinstance(self._items[0], Fact) else "contrast"
        return graph_code(traced, {**self._options, **self._measure}, self.circuit, self.path.result, self._pool)

    @EdgeScoring.contrast.setter
    def contrast(self, contrast: Traced) -> None:
        self.show(contrast)

    def on_go(self, callback: Callable[[CircuitGraph, str], object]) -> None:
        """Call ``callback(graph, "editor")`` when the button "Edit these" is pressed; it is shown from now on."""
        self._go_callbacks.append(callback)
        layout.show(self._go, True)

    # What it does

    def show(
        self,
        contrast: Traced,
        *,
        edges: EdgeMap | None = None,
        selected: Circuit | None = None,
        corruption: Corruption | EllipsisType = ...,
        form: Form | EllipsisType | None = ...,
        partner: Fact | None = None,
    ) -> None:
        """Show another fact or contrast. The selected components stay; edges are scored by ``score()`` or ``run()``.

        Args:
            contrast: A fact or contrast, or several.
            edges: Its scores, where they are there.
            selected: Selected edges; those without scores are drawn once there are scores. None for no edge.
            corruption, form: Of facts, as in ``edges``; by default as they are.
            partner: Of a fact, as in ``edges``.

        Raises:
            ValueError: No contrast, or a map or a circuit of another model. Nothing changes then.
        """
        items = as_traced(contrast, "CircuitGraph")
        if edges is not None:
            check_map(self._model, edges)
        if selected is not None:
            selected.check(self._model)
        with self._lock:
            self.cancel()
            self._again, self._map, self._ranked, self._items = False, None, [], items
            given = {"corruption": corruption, "form": form}
            self._of_facts |= {name: value for name, value in given.items() if value is not ...}
            of_fact = isinstance(items[0], Fact)
            self._measure |= self._of_facts if of_fact else {"corruption": "swap", "form": None}
            self._measure["partner"] = partner if of_fact else None
            self._taken = None
            self._show_heading()
            self._edges_chosen = [] if selected is None else selected.edges_in(self._model)
            self._ends_chosen = set()
            self.path.clear()
            self.tips.forget()
            self.recovery.follow()
            self._fail(None)
            if not self._busy:
                self._say_plainly("")
            if edges is not None:
                return self._take(edges)
            self.view.show(
                graph_layout([], self._model.shape), [], [], [], total=0, count=0, most=0, title="Not scored"
            )
            self._show_code()

    def patch(self, first: str, second: str) -> Job[PathEffect] | None:
        """Patch the path between two nodes exactly, from the lower to the upper one, in the background.

        Args:
            first, second: Nodes, such as ``"L0H4"``, ``"L9KV1"`` or ``"logits"``.

        Returns:
            The job, or None where there is no such path; the panel says why.
        """
        return self.path.ask(first, second)

    # Inside

    def _take(self, scores: EdgeMap) -> None:
        with self._lock:
            self._map = scores
            self._show_heading()
            self._ranked = in_order(scores, self._within, self._model, MOST_DRAWN)
            self._edges_chosen = [edge for edge in self._edges_chosen if is_scored(scores, edge)]
            self._choose(self._edges_chosen, {*map(str, self._parts()), *self._ends(), *self._ends_chosen})
            self._draw()
            self._show_code()

    def _show_heading(self) -> None:
        self._heading.value = markup.panel_title("Edges", heading_of(self._items, self._measure, self._taken))

    def _drawn_edges(self) -> list[Edge]:
        first = self._ranked[: self._count]
        return [*first, *(edge for edge in self._edges_chosen if edge not in set(first))]

    def _draw(self) -> None:
        if self._map is None:
            return
        scores, shown = self._map, self._drawn_edges()
        chosen = self._chosen_names()
        nodes = {name for name in chosen if "->" not in name}
        unit = scores.metric_words.unit
        self.view.show(
            graph_layout(shown, self._model.shape, nodes),
            [scores[edge] for edge in shown],
            notes_of(scores, shown),
            chosen,
            unit=unit,
            total=scores.n_edges,
            count=min(self._count, len(self._ranked)),
            most=len(self._ranked),
            title=f"Edges by {scores.method}, {scores.metric_words.title}",
            alt=f"Circuit of {title_of(self._items)}: edges by {scores.method} in {unit}",
        )

    def _parts(self) -> list[Component]:
        return [c for c in self.selection if c.kind in ("H", "MLP")]

    def _ends(self) -> set[str]:
        """The nodes of the selected edges."""
        return {drawn_as(node) for edge in self._edges_chosen for node in (edge.sender, edge.receiver)}

    def _chosen_names(self) -> list[str]:
        parts = [str(c) for c in self._parts()]
        return [*parts, *self._ends_chosen, *map(str, self._edges_chosen)]

    def _picked(self, names: list[str]) -> None:
        with self._lock:
            edges = [Edge.parse(name) for name in names if "->" in name]
            self._choose(edges, {name for name in names if "->" not in name})

    def _choose(self, edges: list[Edge], nodes: set[str]) -> None:
        """Select edges and nodes; what is selected elsewhere and is no node of a graph stays."""
        others = [c for c in self.selection if c.kind not in ("H", "MLP")]
        parts = [Component.parse(name) for name in nodes if is_part(name)]
        self._edges_chosen = edges
        self._ends_chosen = {name for name in nodes if not is_part(name)}
        before, self.selection = self.selection, Selection([*others, *parts]).sorted()
        if before == self.selection:  # else it has been heard of
            self.recovery.follow()
        self._show_code()

    @traitlets.validate("selection")
    def _valid_selection(self, proposal: Any) -> Selection:
        given = proposal["value"]
        chosen = given if isinstance(given, Selection) else Selection(given)
        if len(chosen):
            check_shown(self._model, chosen)
        return chosen

    def _selection_set(self, change: Any) -> None:
        with self._lock:
            chosen = set(map(str, change["new"]))
            held = lambda node: not is_part(drawn_as(node)) or drawn_as(node) in chosen  # noqa: E731
            self._edges_chosen = [e for e in self._edges_chosen if held(e.sender) and held(e.receiver)]
            wanted = self._chosen_names()
            if set(wanted) <= {*self.view.nodes, *self.view.edges}:
                self.view.selected = wanted
            else:
                self._draw()
            if self._picker is not None and self._picker.selection != change["new"]:
                self._picker.selection = change["new"]
            self.recovery.follow()
            self._show_code()

    def _path_changed(self) -> None:
        self.view.path_ends = list(self.path.ends)
        self._show_code()

    def _picture(self) -> bytes:
        if self._map is None:
            return text_card_png("CircuitGraph", [title_of(self._items), "Run this cell to use the panel."])
        return self.view.to_png()
