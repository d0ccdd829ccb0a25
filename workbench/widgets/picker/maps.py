"""The maps that a CircuitPicker shows: which public call makes each, and which cells stand for which components."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

import torch

from workbench.facts.known import load_facts
from workbench.models.load import LoadedModel
from workbench.plots.style import visible
from workbench.tracing.attribution import AttributionUnit, attribute
from workbench.tracing.causal import TraceSite, causal_trace
from workbench.types import Component, Contrast, EffectMap, Fact, FactSet, Form, Selection
from workbench.types.effect import Corruption
from workbench.widgets.facts.partner import partner_of_map
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.shared.code import fact_call_in_a_line, own_pool
from workbench.widgets.shared.measure import NOISE_SAMPLES, Measure

MapName = Literal["heads", "mlps", "neurons", "attentions", "resid", "mlp", "attn"]
MAPS: tuple[MapName, ...] = get_args(MapName)
TITLES: dict[MapName, str] = {
    "heads": "Heads",
    "mlps": "MLPs",
    "neurons": "Neurons",
    "attentions": "Attention layers",
    "resid": "Trace: residual stream",
    "mlp": "Trace: MLP output",
    "attn": "Trace: attention output",
}
UNITS: dict[str, AttributionUnit] = {"heads": "head", "mlps": "mlp", "neurons": "neuron", "attentions": "attn"}
EXACT: tuple[MapName, ...] = ("heads", "mlps", "attentions")
"""Estimated by the gradient at first, then patched one by one."""
EXACT_CELLS = 1200
"""Most heads that are patched without being asked; a model with more keeps the estimate."""
Cells = list[list[int]]
OnMapLayer = Callable[[Any, int, torch.Tensor], Any]


@dataclass(frozen=True)
class Sources:
    """What the maps are made of; all of them of the same.

    Args:
        model: A base or edited model.
        traced: One fact or contrast, or several of one kind.
        measure: The metric, and the corruption that was asked for; contrasts have their own.
        form: As in ``causal_trace``.
        pool: Where swap partners come from; None for the bundled facts.
        partner: The swap's partner for one fact. None lets the first map choose it; then all maps and the code share
            it, since the choice prefers facts that are known by then.
        instead: Why noise stands in for the swap that was asked for; empty where it does not.
    """

    model: LoadedModel
    traced: tuple[Fact, ...] | tuple[Contrast, ...]
    measure: Measure = field(default_factory=Measure)
    form: Form | None = None
    pool: FactSet | None = None
    partner: Fact | None = None
    instead: str = ""

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Those that are facts."""
        return tuple(one for one in self.traced if isinstance(one, Fact))

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """Those that are contrasts."""
        return tuple(one for one in self.traced if isinstance(one, Contrast))

    @property
    def text_form(self) -> Form | None:
        """The form for what reads one text; a contrast has its own."""
        return None if self.contrasts else self.form

    @property
    def variable(self) -> str:
        """What is traced is called in the code."""
        return "contrast" if self.contrasts else "fact"

    @property
    def corruption(self) -> Corruption:
        """How the maps are corrupted."""
        if self.contrasts:
            return self.contrasts[0].corruption
        return "noise" if self.instead else self.measure.corruption

    def with_partner_of(self, effect: EffectMap) -> Sources:
        """The same, with the partner that a map of one fact has taken."""
        if self.partner is not None or self.corruption != "swap" or len(self.facts) != 1:
            return self
        if not effect.prompts or (name := effect.prompts[0].partner) is None:
            return self
        of_pool = next((f for f in self.pool or load_facts() if f.id == name), None)
        return replace(self, partner=of_pool or partner_of_map(self.model, self.facts[0], effect.prompts[0]))

    def compute(self, name: MapName, *, exact: bool = False, on_layer: OnMapLayer | None = None) -> EffectMap:
        """Make one map, with the public call that ``expression`` writes.

        The default selector ranks neurons otherwise, by what a gate gains for what it costs other answers
        (``default_selection``).

        Args:
            name: The map.
            exact: Patch every head or layer, where the gradient estimates all at once.
            on_layer: As in ``causal_trace`` and ``attribute``; for traces and exact maps of one fact.
        """
        traced: Any = self.traced[0] if len(self.traced) == 1 else list(self.traced)
        options: Any = {**self._options(), "pool": self.pool, "progress": False}
        if self.partner is not None and self.corruption == "swap":
            options["partner"] = self.partner
        if name in UNITS:
            method, listener = ("patching", on_layer) if exact else ("attribution", None)
            return attribute(self.model, traced, UNITS[name], method=method, on_layer=listener, **options)
        return causal_trace(self.model, traced, cast(TraceSite, name), on_layer=on_layer, **options)

    def expression(self, name: MapName, *, exact: bool = False) -> str:
        """The Python of that call, on ``model`` and ``fact`` or ``contrast``, after the lines of ``measure_code``."""
        if name in UNITS:
            method = ', method="patching"' * exact
            return f'wb.attribute(model, {self.variable}, "{UNITS[name]}"{method}, **measure)'
        return f'wb.causal_trace(model, {self.variable}, "{name}", **measure)'

    def measure_code(self) -> str:
        """The lines that define ``measure``: what all maps are made with."""
        options = [f"{option}={value!r}" for option, value in self._options().items()]
        partner = ""
        if self.partner is not None and self.corruption == "swap":
            partner = self.partner_code()
            options.append("partner=partner")
        options += ["pool=pool"] * (own_pool(self.pool) and not self.contrasts)
        return f"{partner}measure = dict({', '.join(options)})\n"

    def _options(self) -> dict[str, Any]:
        """What decides the numbers of every map, as keywords of both calls."""
        options: dict[str, Any] = {} if self.contrasts else {"corruption": self.corruption}
        options["metric"] = self.measure.metric
        if self.measure.normalise:
            options["normalise"] = True
        if self.corruption == "noise":
            options["samples"] = NOISE_SAMPLES
        if self.form is not None and not self.contrasts:
            options["form"] = self.form
        return options

    def refined(self, names: Iterable[str]) -> list[MapName]:
        """Which of these maps are made exact after their estimate: of one fact or contrast, and not too large."""
        shape = self.model.shape
        if len(self.traced) > 1 or shape.n_layers * shape.n_heads > EXACT_CELLS:
            return []
        return [name for name in EXACT if name in names]

    def partner_code(self) -> str:
        """The line that defines the partner, if there is one."""
        if self.partner is None:
            return ""
        pool = self.pool or load_facts()
        if self.partner.id in pool and pool[self.partner.id] == self.partner:
            return f"partner = {'pool' if own_pool(self.pool) else 'wb.load_facts()'}[{self.partner.id!r}]\n"
        return f"partner = {fact_call_in_a_line(self.partner)}\n"


def grid_state(effect: EffectMap, name: MapName, model: LoadedModel) -> dict[str, Any]:
    """Values and labels of a whole-model map, as ``HeatGrid`` takes them."""
    rows = effect.labels["layer"]
    values, columns = effect.values, ("MLP",)
    state: dict[str, Any] = {}
    if name == "mlps":
        values = values.unsqueeze(1)
    else:
        columns = effect.labels[effect.axes[1]]
    if name == "heads":
        state["groups"] = head_groups(model)
    elif name != "mlps":
        start = left_out(effect)
        values, columns = values[:, start:], tuple(visible(token) for token in columns[start:])
        state["marked"] = [i - start for i in effect.subject]
    return {"values": values, "rows": rows, "cols": columns, **state}


def head_groups(model: LoadedModel) -> list[int]:
    """The first query head of each key-value group; empty where every head has its own keys."""
    size = model.shape.n_heads // model.shape.n_kv_heads
    return list(range(0, model.shape.n_heads, size)) if size > 1 else []


def left_out(effect: EffectMap) -> int:
    """How many tokens a trace of one text does not show: those before the subject, where every effect is exactly 0."""
    if len(effect.prompts) != 1 or not effect.subject:
        return 0
    first = effect.values.abs().amax(0).nonzero()
    return min([int(effect.subject[0]), *first[:1, 0].tolist()])


def cells_of(selection: Selection, name: MapName, grid: HeatGrid) -> Cells:
    """The cells of a grid whose components are all selected. In a trace that is a layer's whole row."""
    if name == "heads":
        return [[c.layer, c.index or 0] for c in selection if c.kind == "H"]
    rows = [row for row in range(grid.shape[0]) if all(c in selection for c in row_components(name, row))]
    return [[row, column] for row in rows for column in range(grid.shape[1])]


def row_components(name: MapName, layer: int) -> tuple[Component, ...]:
    """What a layer's row stands for in a trace or in the map of MLPs (see ``EffectMap.components``)."""
    if name in ("mlps", "mlp"):
        return (Component(layer, "MLP"),)
    if name in ("attentions", "attn"):
        return (Component(layer, "ATTN"),)
    return (Component(layer, "ATTN"), Component(layer, "MLP"))


def picked(selection: Selection, name: MapName, before: Cells, after: Iterable[tuple[int, int]]) -> Selection:
    """The selection after a pick in a grid: components of cells that came are added, of cells that went removed."""
    old, new = {(r, c) for r, c in before}, set(after)

    def components(cell: tuple[int, int]) -> tuple[Component, ...]:
        return (Component(cell[0], "H", cell[1]),) if name == "heads" else row_components(name, cell[0])

    added = Selection(c for cell in sorted(new - old) for c in components(cell))
    removed = Selection(c for cell in sorted(old - new) for c in components(cell))
    return (selection - removed) | added
