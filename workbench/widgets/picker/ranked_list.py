"""RankedList: the components with the largest effects of one map, by name and value, of all layers or of one.

It shows effect maps and a selection, and says what was picked; it computes nothing and holds no selection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from ipywidgets import VBox

from workbench.models.load import LoadedModel
from workbench.types import Component, EffectMap, Selection
from workbench.widgets.grid.bar_list import BarList, BarRow
from workbench.widgets.picker.linked_maps import CELL_HEIGHT, TALLEST
from workbench.widgets.picker.maps import TITLES, MapName
from workbench.widgets.shared import layout
from workbench.widgets.shared.controls import Dropdown

RANKED: tuple[MapName, ...] = ("heads", "mlps", "neurons", "attentions")
LONGEST = 100
"""Rows; of a map with more cells the largest effects."""
ALL = -1  # layers


def ranked(effect: EffectMap, layer: int = ALL, longest: int = LONGEST) -> list[tuple[Component, float]]:
    """The components with the largest effects of either sign, largest magnitude first.

    Args:
        effect: A map with one component a cell.
        layer: Only of this layer; ``ALL`` for all.
        longest: At most so many.
    """
    values = effect.values if layer == ALL else effect.values[layer : layer + 1]
    flat = values.flatten()
    order = flat.abs().nan_to_num(nan=-1.0).argsort(descending=True, stable=True)[:longest]
    places = torch.stack(torch.unravel_index(order[~flat[order].isnan()], values.shape), dim=1).tolist()
    first = 0 if layer == ALL else layer
    return [(effect.components((row + first, *rest))[0], float(values[(row, *rest)])) for row, *rest in places]


def _height(model: LoadedModel) -> float:
    """As high as the maps beside it, in pixels."""
    return CELL_HEIGHT * max(12, min(TALLEST, model.shape.n_layers))


class RankedList(VBox):
    """The list, with a menu of maps and one of layers.

    Args:
        model: Gives the number of layers.
        on_pick: Called with a function from the selection before to the one after a pick in the browser.
        on_map: Called with the map that was chosen.
    """

    def __init__(
        self,
        model: LoadedModel,
        on_pick: Callable[[Callable[[Selection], Selection]], object],
        on_map: Callable[[MapName], object],
    ) -> None:
        self._on_pick = on_pick
        self._maps: Mapping[str, EffectMap] = {}
        self._selection = Selection()
        self._pinned: tuple[Component, ...] = ()
        self._why = ""
        layers = [("all layers", ALL), *((f"L{i}", i) for i in range(model.shape.n_layers))]
        self.map = Dropdown(description="Ranked", options=[(TITLES[name], name) for name in RANKED])
        self.layer = Dropdown(description="of", options=layers)
        self.bars = BarList(title=TITLES["heads"], order="magnitude", kind="component", height=_height(model))
        super().__init__([layout.fields(self.map, self.layer), self.bars])
        self.bars.on_pick(self._picked)
        self.map.observe(lambda _: (self._show(), on_map(self.name)), names="value")
        self.layer.observe(lambda _: self._show(), names="value")

    @property
    def name(self) -> MapName:
        """The map that is chosen."""
        return cast(MapName, self.map.value)

    @property
    def pinned(self) -> tuple[Component, ...]:
        """What is marked as pinned, where the list has it. Settable."""
        return self._pinned

    @pinned.setter
    def pinned(self, components: tuple[Component, ...]) -> None:
        self._pinned = components
        names = {str(component) for component in components}
        self.bars.pinned = [name for name in self.bars.names if name in names]

    def show(self, maps: Mapping[str, EffectMap], why: str = "") -> None:
        """Show these maps.

        Args:
            maps: By name.
            why: Why the chosen one is not among them, in a word or two.
        """
        effect, before = maps.get(self.name), self._maps.get(self.name)
        self._maps, changed = dict(maps), effect is not before or why != self._why
        self._why = why
        if changed:
            self._show()

    def mark(self, selection: Selection) -> None:
        """Show a selection."""
        self._selection = selection
        self.bars.mark(selection)

    def _show(self) -> None:
        effect, layer = self._maps.get(self.name), cast(int, self.layer.value)
        if effect is None:
            self.bars.set_rows([], title=f"{TITLES[self.name]}: {self._why or 'not computed'}")
            return
        rows = ranked(effect, layer)
        n = effect.values.numel() if layer == ALL else effect.values[layer].numel()
        of = f" of {n:,}" if n > len(rows) else ""
        self.bars.set_rows(
            [BarRow(str(component), value) for component, value in rows],
            title=f"{TITLES[self.name]}: the {len(rows)} largest{of} ({effect.method})",
            unit=effect.value_words.unit,
            limit=float(effect.values.abs().nan_to_num(nan=0.0).max()) or 1.0,
            selected=map(str, self._selection),
        )
        self.pinned = self._pinned

    def _picked(self, names: list[str]) -> None:
        listed = list(self.bars.names)

        def change(selection: Selection) -> Selection:
            added = Selection(name for name in names if name not in selection)
            return (selection - Selection(name for name in listed if name not in names)) | added

        self._on_pick(change)
        self.bars.mark(self._selection)  # also where nothing has changed
