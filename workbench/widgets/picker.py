"""CircuitPicker: the maps of a fact side by side; clicking their cells selects components.

Python owns the selection. Every map shows the same one: a cell is marked when all components that it stands for are
selected, so a pick in one map shows in the others at once. In a trace a cell stands for its layer's module (a residual
state for the attention and the MLP that read it), so the layer's whole row is marked.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
import traitlets
from ipywidgets import HTML, Button, Dropdown, FloatText, HBox, IntText, ToggleButtons, VBox

from workbench.editing.fit import Cancelled, check_selection
from workbench.models import LoadedModel
from workbench.tracing.ablation import attention_patterns
from workbench.tracing.corruption import Corruption
from workbench.types import Component, EffectMap, Fact, FactSet, Form, Selection
from workbench.widgets import markup
from workbench.widgets.code import facts_code, selection_code, start_code
from workbench.widgets.grid import Cell, HeatGrid
from workbench.widgets.job import Job
from workbench.widgets.maps import (
    MAPS,
    TITLES,
    MapName,
    Sources,
    cells_of,
    grid_state,
    neuron_state,
    picked,
    ranked_neurons,
)
from workbench.widgets.selection_bar import SelectionBar

FIRST: tuple[MapName, ...] = ("heads", "mlps", "neurons", "resid")
SITES: dict[str, MapName] = {"Residual": "resid", "MLP": "mlp", "Attention": "attn"}
_WRAP = {"flex_flow": "row wrap", "align_items": "flex-start"}
_STYLE = {"description_width": "initial"}


class CircuitPicker(VBox):
    """See where a fact lives, and click what to edit.

    Args:
        model: The model; it is not changed.
        fact: One fact, or several (then maps are means, and trace positions are roles). ``picker.fact = other``
            computes the maps again and keeps the selection.
        corruption, form: As in ``causal_trace``. Swaps need a partner in the pool; ``"noise"`` always works.
        pool: Where swap partners and contrast facts come from; the bundled facts by default.
        compute: Compute the maps at once, in the background; False waits for ``picker.compute(...)``.

    Raises:
        ValueError: No fact.
    """

    selection = traitlets.Any(help="What is selected, a Selection; settable, as text too.")

    def __init__(
        self,
        model: LoadedModel,
        fact: Fact | FactSet | Sequence[Fact],
        *,
        corruption: Corruption = "swap",
        form: Form | None = None,
        pool: FactSet | None = None,
        compute: bool = True,
    ) -> None:
        self._sources, self._eager = Sources(model, _facts(fact), corruption, form, pool), compute
        self.maps: dict[str, EffectMap] = {}
        self.error: BaseException | None = None
        self._lock = threading.RLock()
        self._wanted: list[MapName] = []
        self._job: Job[None] | None = None
        self._patterns: torch.Tensor | None = None
        self._tokens: list[str] = []
        self._neurons: list[Component] = []
        self._made_by: str | None = None
        self._expected: Selection | None = None
        n_layers, n_heads = model.shape.n_layers, model.shape.n_heads
        layers = [f"L{i}" for i in range(n_layers)]

        def grid(columns: Sequence[str], title: str, kind: str, name: str) -> HeatGrid:
            empty = torch.full((n_layers, len(columns)), float("nan"))
            return HeatGrid(
                empty, rows=layers, cols=columns, title=title, col_title=name, unit="logit difference", kind=kind
            )

        self.trace = grid(["…"], "Trace", "cell", "Token")
        self.heads = grid([f"H{i}" for i in range(n_heads)], TITLES["heads"], "head", "Head")
        self.mlps = grid(["MLP"], TITLES["mlps"], "MLP", "")
        self.neurons = HeatGrid(
            torch.full((1, 1), float("nan")),
            rows=["…"],
            cols=["…"],
            title=TITLES["neurons"],
            row_title="Rank",
            col_title="Place",
            unit="above controls",
            kind="neuron",
        )
        self._bar = SelectionBar(model, self._bar_changed)
        self._heading, self._status, self._alert, self._code = (HTML() for _ in range(4))
        self._site = ToggleButtons(
            options=list(SITES.items()), description="Trace site", style={"button_width": "80px"}
        )
        self._layer = Dropdown(description="Neurons of", options=[(n, i) for i, n in enumerate(layers)], style=_STYLE)
        self._map = Dropdown(description="Select from", options=[(TITLES[m], m) for m in MAPS], style=_STYLE)
        self._k = IntText(12, description="top k", style=_STYLE, layout={"width": "130px"})
        self._top = Button(description="Select top k", tooltip="The k largest effects of the map")
        self._threshold = FloatText(0.1, description="at least", style=_STYLE, layout={"width": "150px"})
        self._above = Button(description="Select above", tooltip="All effects of at least this size in the map")
        trace = VBox([self._site, self.trace], layout={"flex": "1 1 460px", "min_width": "0"})
        chooser = HBox([self._map, self._k, self._top, self._threshold, self._above], layout=_WRAP)
        super().__init__(
            [
                self._heading,
                self._alert,
                HBox([trace, self.heads, self.mlps], layout=_WRAP),
                self._layer,
                self.neurons,
                chooser,
                self._bar,
                self._status,
                self._code,
            ],
            selection=Selection(),
        )
        self.add_class("wb-panel")
        self._connect()
        self._show_heading()
        self._show_code()
        if compute:
            self.compute(*FIRST)

    def __repr__(self) -> str:
        facts = ", ".join(f.id for f in self._sources.facts[:3])
        return f"CircuitPicker({facts}: {len(self.selection)} selected)"

    # What it holds

    @property
    def fact(self) -> Fact | list[Fact]:
        """The fact, or the facts. Setting it computes the maps again, or with ``compute=False`` empties them."""
        facts = self._sources.facts
        return facts[0] if len(facts) == 1 else list(facts)

    @fact.setter
    def fact(self, fact: Fact | FactSet | Sequence[Fact]) -> None:
        with self._lock:
            shown: tuple[MapName, ...] = tuple(n for n in MAPS if n in self.maps) or FIRST
            self.show(fact, {})
            if self._eager:
                self.compute(*shown)

    @property
    def job(self) -> Job[None] | None:
        """The computation of the maps; ``picker.job.wait()`` waits for it and raises its error again."""
        return self._job

    @property
    def code(self) -> str:
        """Python that makes the maps that are shown and the selection."""
        given = facts_code(self._sources.facts, self._sources.pool)
        names = {"heads": "heads", "mlps": "mlps", "neurons": "neurons"}
        lines = [f"{names.get(m, f'trace_{m}')} = {self._sources.expression(m)}\n" for m in MAPS if m in self.maps]
        made = self._made_by or f"wb.Selection({selection_code(self.selection)})"
        return f"{start_code(self._sources.model)}{given}{''.join(lines)}selection = {made}\n"

    # What it does

    def compute(self, *names: MapName) -> Job[None]:
        """Compute maps in the background, one after the other, and show each as it is done.

        Args:
            names: ``"heads"``, ``"mlps"``, ``"neurons"``, or a trace: ``"resid"``, ``"mlp"``, ``"attn"``. None: the
                first three and the residual trace.

        Returns:
            The job that computes them; one that is going takes them up.

        Raises:
            ValueError: An unknown name.
        """
        if unknown := [n for n in names if n not in MAPS]:
            raise ValueError(f"Unknown map(s) {unknown}; allowed are {list(MAPS)}.")
        with self._lock:
            self._wanted.extend(n for n in names or FIRST if n not in self._wanted)
            if self._job is None or not self._job.running:
                self.error, self._alert.value = None, ""
                self._job = Job(self._work, on_done=self._ended)
            return self._job

    def show(self, fact: Fact | FactSet | Sequence[Fact], maps: Mapping[str, EffectMap]) -> None:
        """Show a fact with maps that were computed before; the selection stays."""
        with self._lock:
            self._sources = replace(self._sources, facts=_facts(fact))
            self.maps = {name: maps[name] for name in MAPS if name in maps}
            self._wanted, self._patterns, self._made_by = [], None, None
            self._show_heading()
            for grid in (self.trace, self.heads, self.mlps, self.neurons):
                grid.set_values(torch.full(tuple(grid.shape), float("nan")))
            for name in MAPS:
                if name in self.maps:
                    self._show_map(name)
            self._show_code()

    def top(self, name: MapName, k: int) -> None:
        """Select the k largest effects of a map."""
        self._select_from(name, f"top({k!r})", lambda effect: effect.top(k))

    def above(self, name: MapName, threshold: float) -> None:
        """Select all effects of at least a threshold in a map."""
        self._select_from(name, f"above({threshold!r})", lambda effect: effect.above(threshold))

    def snapshot(self) -> Any:
        """The head map with the selection as a plain picture, which stays in the notebook without a kernel."""
        return self.heads.snapshot()

    # Inside

    def _connect(self) -> None:
        for name, grid in self._grids().items():
            grid.on_pick(partial(self._picked, grid))
            grid.observe(partial(self._cursor_moved, grid), names="cursor")
            if name == "heads":
                grid.observe(self._hovered, names="hover")
        self.observe(self._selection_set, names="selection")
        self._site.observe(lambda change: self._show_site(change["new"]), names="value")
        self._layer.observe(lambda _: self._show_neurons(), names="value")
        self._top.on_click(lambda _: self._try(lambda: self.top(cast(MapName, self._map.value), self._k.value)))
        self._above.on_click(
            lambda _: self._try(lambda: self.above(cast(MapName, self._map.value), self._threshold.value))
        )

    def _grids(self) -> dict[MapName, HeatGrid]:
        site = cast(MapName, self._site.value)
        grids: dict[MapName, HeatGrid] = {
            site: self.trace,
            "heads": self.heads,
            "mlps": self.mlps,
            "neurons": self.neurons,
        }
        return grids

    @traitlets.validate("selection")
    def _valid_selection(self, proposal: Any) -> Selection:
        given = proposal["value"]
        chosen = given if isinstance(given, Selection) else Selection(given)
        if len(chosen):
            check_selection(self._sources.model, chosen)
        return chosen

    def _selection_set(self, change: Any) -> None:
        if list(change["new"]) != list(self._bar.selection):
            self._bar.selection = change["new"]

    def _bar_changed(self, selection: Selection) -> None:
        """From the bar, which holds it: show it everywhere."""
        with self._lock:
            if selection != self._expected:
                self._made_by = None
            self.selection = selection
            for name, grid in self._grids().items():
                grid.selected = cells_of(selection, name, grid, self._neurons)
            self._show_code()

    def _picked(self, grid: HeatGrid, cells: list[Cell]) -> None:
        with self._lock:
            name = cast(MapName, next(n for n, g in self._grids().items() if g is grid))
            before = cells_of(self.selection, name, grid, self._neurons)
            new = picked(self.selection, name, before, cells, self._neurons, grid.shape[1])
            self._bar.selection = new
            grid.selected = cells_of(self.selection, name, grid, self._neurons)

    def _select_from(self, name: MapName, call: str, choose: Any) -> None:
        with self._lock:
            if name not in self.maps:
                raise ValueError(f"The map {TITLES[name]!r} is not computed yet. Wait for it, or compute({name!r}).")
            selection = choose(self.maps[name])
            variable = name if name in ("heads", "mlps", "neurons") else f"trace_{name}"
            self._expected, self._made_by = selection, f"{variable}.{call}"
            self._bar.selection = selection
            self._show_code()

    def _try(self, action: Any) -> None:
        try:
            action()
        except ValueError as error:
            self.error, self._alert.value = error, markup.alert(error)
        else:
            self.error, self._alert.value = None, ""

    def _cursor_moved(self, grid: HeatGrid, change: Any) -> None:
        """The layer under the cursor is the same in the linked maps."""
        if change["new"] is None or grid is self.neurons:
            return
        row = change["new"][0]
        for other in (self.trace, self.heads, self.mlps):
            if other is not grid and (other.cursor is None or other.cursor[0] != row):
                column = 0 if other.cursor is None else other.cursor[1]
                other.cursor = [row, min(column, other.shape[1] - 1)]
        if grid is self.mlps:
            self._layer.value = row

    def _hovered(self, change: Any) -> None:
        if change["new"] is None or self._patterns is None:
            return
        layer, head = change["new"]
        weights = self._patterns[layer, head, -1].tolist()
        text = f"L{layer}H{head}: where the last token attends"
        self.heads.show_tip(change["new"], text, {"tokens": self._tokens, "weights": weights})

    # The background

    def _work(self, cancel: threading.Event) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    return
                sources, name = self._sources, self._wanted[0]
                self._status.value = markup.progress(None, 1, f"Computing: {TITLES[name].lower()}")
            if cancel.is_set():
                raise Cancelled("The maps were cancelled.")
            try:
                effect = sources.compute(name)
                if name == "heads" and len(sources.facts) == 1:
                    weights, prompt = attention_patterns(sources.model, sources.facts[0], form=sources.form)
                    self._patterns, self._tokens = weights, list(prompt.tokens)
            finally:
                with self._lock:
                    if sources is self._sources and name in self._wanted:
                        self._wanted.remove(name)
            with self._lock:
                if sources is self._sources:
                    self.maps[name] = effect
                    self._show_map(name)

    def _ended(self, job: Job[None]) -> None:
        with self._lock:
            self._status.value = ""
            if job.error is not None:
                self._wanted = []
                self.error, self._alert.value = job.error, markup.alert(f"{job.error}")

    # What it shows

    def _show_heading(self) -> None:
        facts = self._sources.facts
        what = "; ".join(f.question for f in facts[:3]) + (f" and {len(facts) - 3} more" if len(facts) > 3 else "")
        note = f"{facts[0].answer} -> {facts[0].target}" if len(facts) == 1 else f"means over {len(facts)} facts"
        self._heading.value = markup.STYLE + markup.title(what, note)

    def _show_map(self, name: MapName) -> None:
        if name == "neurons":
            strongest = int(self.maps["neurons"].values.amax(1).argmax())
            if self._layer.value == strongest:
                self._show_neurons()
            self._layer.value = strongest
        elif name in self._grids():
            grid, effect = self._grids()[name], self.maps[name]
            with grid.hold_sync():
                grid.title = f"{TITLES[name]} ({effect.method})"
                grid.unit = "logit difference"
                grid.set_values(**grid_state(effect, name, self._sources.model))
                grid.selected = cells_of(self.selection, name, grid, self._neurons)
        self._show_code()

    def _show_site(self, name: MapName) -> None:
        if name in self.maps:
            self._show_map(name)
            return
        with self.trace.hold_sync():
            self.trace.title = f"{TITLES[name]}: computing"
            self.trace.selected = []
            self.trace.set_values(torch.full(tuple(self.trace.shape), float("nan")))
        self.compute(name)

    def _show_neurons(self) -> None:
        with self._lock:
            if "neurons" not in self.maps:
                return
            effect, layer = self.maps["neurons"], cast(int, self._layer.value)
            self._neurons = ranked_neurons(effect, layer)
            with self.neurons.hold_sync():
                self.neurons.selected = []
                self.neurons.title = f"Neurons of L{layer}, the largest effects above controls"
                self.neurons.set_values(**neuron_state(effect, self._neurons))
                self.neurons.selected = cells_of(self.selection, "neurons", self.neurons, self._neurons)

    def _show_code(self) -> None:
        self._code.value = markup.code(self.code)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return {
            **(super()._repr_mimebundle_(**kwargs) or {}),
            "text/plain": repr(self),
            "image/png": base64.b64encode(self.heads.to_png()).decode("ascii"),
        }


def _facts(fact: Fact | FactSet | Sequence[Fact]) -> tuple[Fact, ...]:
    facts = (fact,) if isinstance(fact, Fact) else tuple(fact)
    if not facts:
        raise ValueError("CircuitPicker needs at least one fact, got none.")
    return facts
