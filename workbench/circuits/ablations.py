"""The metric of one item with everything ablated but a part: nodes by their outputs, circuits by their edges.

What stands in for an output is what it is in the corrupted run (``"swap"``, ``"noise"``), its mean over all positions
but the first of the items' clean runs (``"mean"``), or 0 (``"zero"``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from workbench.circuits.all_nodes import AllNodes, Site
from workbench.circuits.circuit_run import run_cut
from workbench.circuits.wiring import Wired
from workbench.models.engine import Change
from workbench.tracing.setup import Setup
from workbench.types import Circuit, Selection
from workbench.types.faithfulness import CircuitAblation

MOST_TOKENS = 4096
"""So many tokens are computed at once."""


class Level(Protocol):
    """Nodes or edges: how their ablation is measured."""

    def mask(self, order: Tensor) -> Any:
        """What is kept where some parts are, given by their places in a ranking's order."""
        ...

    def stand_ins(self, setups: Sequence[Setup], ablation: CircuitAblation) -> list[dict[Site | None, Tensor]]:
        """What stands in for outputs, of each item: [samples, tokens or 1, ...] by place."""
        ...

    def measure(self, setup: Setup, stand_ins: Mapping[Site | None, Tensor], kept: Sequence[object]) -> Tensor:
        """The metric where only these parts are not ablated, [parts]."""
        ...


@dataclass(frozen=True)
class Edges:
    """Circuits: every edge outside is cut. Parts are masks of what is kept, [receivers, senders]."""

    wired: Wired

    def mask(self, order: Tensor) -> Tensor:
        """The mask of some edges, given by their flat places."""
        mask = torch.zeros_like(self.wired.graph.mask)
        mask.view(-1)[order] = True
        return mask

    def masks(self, parts: Sequence[Circuit], *, without: bool = False) -> list[Tensor]:
        """Where circuits have edges; or where they have none."""
        found = [self.wired.graph.mask_of(part) for part in parts]
        return [self.wired.graph.mask & ~mask for mask in found] if without else found

    def stand_ins(self, setups: Sequence[Setup], ablation: CircuitAblation) -> list[dict[Site | None, Tensor]]:
        """What cut edges carry: writes [senders, samples, tokens or 1, d_model], by None."""
        if ablation in ("swap", "noise"):
            return [{None: self.wired.read(setup.whole).writes} for setup in setups]
        like = self.wired.read(setups[0].clean).writes
        if ablation == "zero":
            return [{None: torch.zeros_like(like[:, :, :1])}] * len(setups)
        total, count = torch.zeros_like(like[:, 0, 0], dtype=torch.float64), 0
        for setup in setups:
            writes = self.wired.read(setup.clean).writes[:, 0, 1:]
            total, count = total + writes.double().sum(1), count + writes.shape[1]
        return [{None: (total / count).to(like)[:, None, None]}] * len(setups)

    def measure(self, setup: Setup, stand_ins: Mapping[Site | None, Tensor], kept: Sequence[Tensor]) -> Tensor:
        """The metric of each mask, [masks], the mean over samples."""
        writes = stand_ins[None]
        cut = torch.stack([self.wired.graph.mask & ~mask for mask in kept])
        # Tokens before the first difference are as they are, whatever is cut.
        same = writes.shape[2] == setup.clean.shape[1] and setup.start > 0
        start, prefix = setup.clean, None
        if same:
            _, prefix = self.wired.record_from(setup.start, setup.clean, ())
            start, writes = setup.clean[:, setup.start :].contiguous(), writes[:, :, setup.start :]
        rows = [run_cut(self.wired, start, writes[:, i], cut, prefix=prefix) for i in range(writes.shape[1])]
        return torch.stack([setup.measure(logits.float()) for logits in rows]).mean(0).cpu()


@dataclass(frozen=True)
class Nodes:
    """Selections: every head, MLP (or neuron, where neurons of a layer are in one) outside is replaced. Parts are the
    entries that are kept, by site.

    Attributes:
        wired: The model.
        nodes: Its heads and MLPs, or neurons.
    """

    wired: Wired
    nodes: AllNodes

    def mask(self, order: Tensor) -> dict[Site, Tensor]:
        """The entries of some nodes, given by their places."""
        kept = torch.zeros(self.nodes.count, dtype=torch.bool)
        kept[order] = True
        return self.nodes.entries(kept)

    def masks(self, parts: Sequence[Selection], *, without: bool = False) -> list[dict[Site, Tensor]]:
        """Which entries are kept by selections; or by what is outside them."""
        found = [self.mask(self.nodes.order(part)) for part in parts]
        return [{place: ~mask for place, mask in of.items()} for of in found] if without else found

    def stand_ins(self, setups: Sequence[Setup], ablation: CircuitAblation) -> list[dict[Site | None, Tensor]]:
        """What outputs are replaced by: [samples, tokens or 1, width], by place."""
        if ablation in ("swap", "noise"):
            return [{place: state for place, state in self._states(setup.whole).items()} for setup in setups]
        if ablation == "zero":
            like = setups[0].clean
            return [{place: torch.zeros(1, 1, 1).to(like) for place in self.nodes.spans}] * len(setups)
        totals: dict[Site | None, Tensor] = {}
        count = sum(setup.clean.shape[1] - 1 for setup in setups)
        for setup in setups:
            for place, state in self._states(setup.clean).items():
                total = state[:, 1:].double().sum(1, keepdim=True) / count
                totals[place] = totals[place] + total if place in totals else total
        return [{place: of.to(setups[0].clean) for place, of in totals.items()}] * len(setups)

    def _states(self, resid: Tensor) -> dict[Site, Tensor]:
        with torch.no_grad(), self.wired.keeping(list(self.nodes.spans)) as states:
            self.wired.run(resid)
        return {place: state.view(*resid.shape[:2], -1) for place, state in states.items()}

    def measure(
        self, setup: Setup, stand_ins: Mapping[Site | None, Tensor], kept: Sequence[Mapping[Site, Tensor]]
    ) -> Tensor:
        """The metric of each mask, [masks], the mean over samples."""
        samples = max(len(state) for state in stand_ins.values())
        size = max(1, MOST_TOKENS // setup.clean.shape[1])
        found: list[Tensor] = []
        for at in range(0, len(kept), size):
            some, of_samples = kept[at : at + size], list[Tensor]()
            for sample in range(samples):
                changes = {
                    place: _replacing(stand_ins[place][sample % len(stand_ins[place])], [mask[place] for mask in some])
                    for place in self.nodes.spans
                }
                with torch.no_grad():
                    logits = self.wired.run(setup.clean.repeat(len(some), 1, 1), changes=changes)
                of_samples.append(setup.measure(logits.float()))
            found.append(torch.stack(of_samples).mean(0))
        return torch.cat(found).cpu()


def _replacing(state: Tensor, kept: Sequence[Tensor]) -> Change:
    """A change that keeps, in each row, the entries of its mask, and puts others in the place of the rest."""
    mask = torch.stack(list(kept))[:, None].to(state.device)
    return lambda value: torch.where(mask.to(value.device), value, state.to(value))
