"""CircuitTab: the maps and the graph of one question in one tab, of which one or both are in sight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ipywidgets import VBox

from workbench.widgets.graph.panel import CircuitGraph
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.shared import layout
from workbench.widgets.shared.controls import ToggleButtons

Shown = Literal["maps", "graph", "both"]


class CircuitTab(VBox):
    """A row of buttons above the two panels. They share the selection, so that what is picked in one is picked in both.

    Args:
        picker: The maps.
        graph: The graph; its picker is that one.
        on_show: Called after another choice.
    """

    def __init__(self, picker: CircuitPicker, graph: CircuitGraph, on_show: Callable[[], object]) -> None:
        self._picker, self._graph = picker, graph
        self._choice = ToggleButtons(
            options=[("Maps", "maps"), ("Graph", "graph"), ("Maps and graph", "both")],
            description="Show",
            tooltips=[
                "Effects by layer: trace, heads, MLPs and neurons",
                "Edges between components: which writes what another reads",
                "The graph below the maps",
            ],
        )
        self._choice.style.button_width = "auto"
        super().__init__([layout.fields(self._choice), picker, graph])
        self._choice.observe(lambda _: (self._show(), on_show()), names="value")
        self._show()

    def __repr__(self) -> str:
        return f"CircuitTab({self.shown})"

    @property
    def shown(self) -> Shown:
        """What is in sight. Settable."""
        return "both" if self._choice.value == "both" else "graph" if self._choice.value == "graph" else "maps"

    @shown.setter
    def shown(self, shown: Shown) -> None:
        self._choice.value = shown

    def _show(self) -> None:
        layout.show(self._picker, self.shown != "graph")
        layout.show(self._graph, self.shown != "maps")
