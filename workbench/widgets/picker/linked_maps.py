"""LinkedMaps: a fact's trace, heads and MLPs side by side in one height, with linked cursors.

It shows effect maps and a selection, and says what was picked; it computes nothing and holds no selection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from ipywidgets import HBox, ToggleButtons

from workbench.models.load import LoadedModel
from workbench.plots.colours import ScaleMode
from workbench.plots.style import visible
from workbench.types import Component, EffectMap, Selection, TracedPrompt
from workbench.widgets.grid.grid import GridCell, HeatGrid
from workbench.widgets.picker.attention import Attention
from workbench.widgets.picker.captions import picks, tip
from workbench.widgets.picker.maps import TITLES, MapName, cells_of, grid_state, left_out, picked, row_components

SITES: dict[str, MapName] = {"Residual": "resid", "MLP": "mlp", "Attention": "attn"}
CELL_HEIGHT = 15  # pixels in all three maps, so that a layer is at the same height in each
TALLEST = 48  # layers at that height


class LinkedMaps(HBox):
    """The grids of a ``CircuitPicker``. ``site`` chooses the trace and is placed by the picker.

    Args:
        model: Gives the number of layers and heads.
        on_pick: Called with a function from the selection before to the one after a pick in the browser.
        on_site: Called after another trace site was chosen.
        on_hover: Called when the pointer comes to a head.
        on_cell: Called with a map and the index of the cell in it to which the cursor has gone, by a click or a key.
    """

    def __init__(
        self,
        model: LoadedModel,
        on_pick: Callable[[Callable[[Selection], Selection]], object],
        on_site: Callable[[], object],
        on_hover: Callable[[], object],
        on_cell: Callable[[MapName, tuple[int, ...]], object],
    ) -> None:
        self._model, self._on_pick, self._on_hover, self._on_cell = model, on_pick, on_hover, on_cell
        self._effects: dict[str, EffectMap] = {}
        self._selection = Selection()
        self.attention: Attention | None = None
        """For the heads' tooltip, where it is there."""
        self._drawing: dict[MapName, torch.Tensor] = {}  # maps of which some layers are finished
        self._exact: dict[MapName, set[int]] = {}  # the layers of estimates that are exact already
        self._linking = False
        layers = [f"L{i}" for i in range(model.shape.n_layers)]

        def grid(columns: Sequence[str], name: MapName, kind: str, column: str = "") -> HeatGrid:
            return HeatGrid(
                torch.full((len(layers), len(columns)), float("nan")),
                rows=layers,
                cols=columns,
                title=TITLES[name],
                row_title="Layer",
                col_title=column,
                kind=kind,
                naming="{row} at {col}" if name == "resid" else "{row}{col}",
                group_name="KV" if name == "heads" else "",
                height=CELL_HEIGHT * len(layers) if len(layers) <= TALLEST else None,
            )

        self.trace = grid(["…"], "resid", "cell", "Token")
        self.trace.row_unit = "layer"  # a click picks one, at all tokens
        self.heads = grid([f"H{i}" for i in range(model.shape.n_heads)], "heads", "head", "Head")
        self.mlps = grid(["MLP"], "mlps", "MLP")
        for shown, basis in ((self.trace, 250), (self.heads, 186), (self.mlps, 164)):
            shown.layout.flex, shown.layout.min_width = f"{basis} 1 {basis}px", f"{basis}px"
            self._bound(shown)
        self.site = ToggleButtons(options=list(SITES.items()), description="Trace site", style={"button_width": "84px"})
        super().__init__(
            [self.trace, self.heads, self.mlps], layout={"align_items": "flex-start", "overflow": "auto hidden"}
        )
        for shown in self.children:
            shown.on_pick(partial(self._picked, shown))
            shown.observe(partial(self._hovered, shown), names="hover")
            shown.observe(partial(self._cursor_moved, shown), names="cursor")
        self.site.observe(lambda _: on_site(), names="value")

    def set_scale(self, mode: ScaleMode) -> None:
        """Where values lie on the colours, in all maps: see ``HeatGrid``'s ``scale_mode``."""
        for grid in (self.trace, self.heads, self.mlps):
            grid.scale_mode = mode

    @property
    def trace_name(self) -> MapName:
        """The trace that is chosen."""
        return cast(MapName, self.site.value)

    def named(self) -> dict[MapName, HeatGrid]:
        """The grids by the map that each shows."""
        return {self.trace_name: self.trace, "heads": self.heads, "mlps": self.mlps}

    def show(self, name: MapName, effect: EffectMap) -> None:
        """Show a map; a trace of another site only becomes ready."""
        self._effects[name] = effect
        self._drawing.pop(name, None)
        self._exact.pop(name, None)
        if (grid := self.named().get(name)) is not None:
            n = left_out(effect) if grid is self.trace else 0
            with grid.hold_sync():
                grid.title = f"{TITLES[name]} ({effect.method})"
                if grid is self.trace:
                    first = "change" if effect.prompts[0].roles else "subject"
                    grid.col_title = f"Token, from the {first} on" if n else "Token"
                grid.unit = effect.value_words.unit
                self._fill(name, grid, **grid_state(effect, name, self._model))

    def draw(self, name: MapName, layer: int, values: torch.Tensor, prompt: TracedPrompt) -> None:
        """One finished layer of a trace that is still computed, if that trace is the one in sight.

        Args:
            name: The trace.
            layer: The layer; those that were never drawn stay empty.
            values: Effects by token, [tokens].
            prompt: The traced text.
        """
        if (grid := self.named().get(name)) is None:
            return
        start, n_layers = min(prompt.subject, default=0), self._model.shape.n_layers
        begun = name in self._drawing
        drawn = self._drawing.setdefault(name, torch.full((n_layers, len(values)), float("nan")))
        drawn[layer] = values
        with grid.hold_sync():
            grid.title = f"{TITLES[name]}: {int((~drawn[:, -1].isnan()).sum())} of {n_layers} layers"
            cols = [visible(token) for token in prompt.tokens[start:]]
            labels: dict[str, Any] = {"cols": cols, "marked": [at - start for at in prompt.subject]}
            if begun and grid.shape == [n_layers, len(cols)]:
                grid.set_values(drawn[:, start:], **labels)  # without touching what is selected meanwhile
            else:
                self._fill(name, grid, values=drawn[:, start:], **labels)

    def refine(self, name: MapName, layer: int, values: torch.Tensor) -> None:
        """Exact effects of one layer, in the place of the estimates in sight.

        Args:
            name: The map.
            layer: The layer; the others stay as they are.
            values: Effects, [heads], or a scalar.
        """
        if (grid := self.named().get(name)) is None:
            return
        estimate = self._effects[name]
        drawn, exact = self._drawing.setdefault(name, estimate.values.clone()), self._exact.setdefault(name, set())
        drawn[layer] = values
        exact.add(layer)
        with grid.hold_sync():
            grid.title = f"{TITLES[name]}: {len(exact)} of {len(drawn)} exact"  # in one line, also above one column
            grid.set_values(**grid_state(replace(estimate, values=drawn), name, self._model))
        self._hovered(grid, {"new": grid.hover})  # who points at a cell goes on reading

    def settle(self, name: MapName) -> None:
        """Show the estimate again, if it was not replaced to the end."""
        if name in self._exact:
            self.show(name, self._effects[name])

    def clear(self) -> None:
        """Forget the maps and the patterns."""
        self._effects, self.attention = {}, None
        self._drawing, self._exact = {}, {}
        for name in self.named():
            self.blank(name, "")

    def blank(self, name: MapName, why: str) -> None:
        """Say at a map that is not there why it is not, and show no values, nor labels of a text."""
        grid = self.named().get(name)
        if grid is None or name in self._effects:
            return
        with grid.hold_sync():
            grid.title = TITLES[name] + (f": {why}" if why else "")
            if not all(value != value for value in grid.values.flat):
                labels: dict[str, Any] = {}
                if grid is self.trace:
                    labels = {"cols": ["…"] * grid.shape[1], "marked": ()}
                self._fill(name, grid, values=torch.full(tuple(grid.shape), float("nan")), **labels)

    def components(self, grid: HeatGrid, cell: GridCell) -> tuple[Component, ...]:
        """What a cell of one of the grids stands for."""
        name = self._name(grid)
        return (Component(cell[0], "H", cell[1]),) if name == "heads" else row_components(name, cell[0])

    def mark(self, selection: Selection) -> None:
        """Show a selection in all grids."""
        self._selection = selection
        for name, grid in self.named().items():
            grid.selected = cells_of(selection, name, grid)

    def set_attention(self, attention: Attention) -> None:
        """The attention weights of the traced text, for the heads' tooltip."""
        self.attention = attention
        self._hovered(self.heads, {"new": self.heads.hover})

    def _fill(self, name: MapName, grid: HeatGrid, **state: Any) -> None:
        """Other values in a grid, as ``set_values`` takes them, with the selection marked in their shape."""
        grid.selected = []
        grid.set_values(**state)
        self._bound(grid)
        grid.selected = cells_of(self._selection, name, grid)

    def _bound(self, grid: HeatGrid) -> None:
        """No wider than its cells can get: the next map follows without a gap."""
        grid.layout.max_width = f"{max(190, 32 * grid.shape[1] + 130)}px"

    def _name(self, grid: HeatGrid) -> MapName:
        return next(name for name, one in self.named().items() if one is grid)

    def _picked(self, grid: HeatGrid, cells: list[GridCell]) -> None:
        name = self._name(grid)

        def change(selection: Selection) -> Selection:
            return picked(selection, name, cells_of(selection, name, grid), cells)

        self._on_pick(change)
        grid.selected = cells_of(self._selection, name, grid)  # also where nothing has changed

    def _cursor_moved(self, grid: HeatGrid, change: Any) -> None:
        """The layer under the cursor is the same in all."""
        if change["new"] is None or self._linking:
            return
        row, self._linking = change["new"][0], True
        try:
            for other in (self.trace, self.heads, self.mlps):
                if other is not grid and (other.cursor is None or other.cursor[0] != row):
                    other.cursor = [row, min(0 if other.cursor is None else other.cursor[1], other.shape[1] - 1)]
        finally:
            self._linking = False
        name = self._name(grid)
        if (effect := self._effects.get(name)) is not None:
            _, column = change["new"]
            column += left_out(effect) if grid is self.trace else 0
            self._on_cell(name, (row, column)[: effect.values.ndim])

    def _hovered(self, grid: HeatGrid, change: Any) -> None:
        if (cell := change["new"]) is None:
            return
        row, column = cell
        name = self._name(grid)
        effect = self._effects.get(name)
        if effect is None:
            return
        if name == "heads" and self.attention is not None:
            text = "\n".join(filter(None, [tip(effect, row, column), "Where the last token attends:"]))
            grid.show_tip(cell, text, self.attention.tip(Component(row, "H", column)))
            return
        if grid is self.trace:
            column += left_out(effect)
        grid.show_tip(cell, tip(effect, row, column), picks=picks(name, row))
        if name == "heads":
            self._on_hover()
