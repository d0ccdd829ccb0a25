"""Low-rank updates behind fixed rows V: U is trained, with gates beside it or without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workbench.editing.training.draw_back import drawn_back
from workbench.editing.training.learned import LearnedLevel
from workbench.editing.training.optimisers import Adam, NaturalGradient, Optimiser, Together
from workbench.models.deltas.gates import inject_gates
from workbench.models.deltas.gates import write as write_gates
from workbench.models.deltas.low_rank import inject_lora, read_delta
from workbench.models.deltas.low_rank import write as write_factors
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.types import Delta, Deltas, GateDelta, LowRankDelta, Site
from workbench.types.cancelling import CancelFlag

Entries = Mapping[tuple[int, Site], Sequence[int]]


class TrainedFactors:
    """The factors of some modules on a view of their own; V never moves.

    Args:
        model: The base model.
        start: U and V to begin with.
        units: By (layer, module) what the learning rate is a multiple of.
        gates: Gates that are trained beside U; none by default.
        fisher: Their Fisher information, in the order of ``gates``.
        gate_factor: The gates' rate, divided by that of U.

    Attributes:
        learned, strength: As in ``Edit``, after ``finish``.
    """

    def __init__(
        self,
        model: LoadedModel,
        start: LowRankDelta,
        units: Mapping[tuple[int, str], float],
        *,
        gates: Entries | None = None,
        fisher: Tensor | None = None,
        gate_factor: float = 1.0,
    ) -> None:
        self._model, self._entries = model, dict(gates or {})
        architecture = model.architecture
        self.view: Any = shared_view(model.hf)
        ones: dict[tuple[int, Site], Tensor] = {
            (layer, site): torch.ones(model.shape.site_size(site)) for layer, site in self._entries
        }
        self._vectors = inject_gates(self.view, architecture, GateDelta(ones)) if ones else {}
        names = {key: architecture.module_name(*key) for key in start.factors}
        ranks = {names[key]: v.shape[0] for key, (_, v) in start.factors.items()}
        self._factors = inject_lora(self.view, architecture, ranks, "default")
        write_factors(self._factors, architecture, start)
        up = {f"{name}.U": u for name, (_, u) in self._factors.items()}
        adam = Adam(up, {f"{names[key]}.U": unit for key, unit in units.items()})
        self.parameters: dict[str, nn.Parameter] = {**up, **self._vectors}
        self.optimiser: Optimiser = adam
        if fisher is not None and self._entries:
            self.optimiser = Together((adam, 1.0), (NaturalGradient(self._gate_places(), fisher), gate_factor))
        self.learned: float | None = None
        self.strength = 1.0

    @property
    def lowest_layer(self) -> int:
        """The lowest layer that moves."""
        layers = [read_delta(self._model.architecture, self._factors).lowest_layer, *(at for at, _ in self._entries)]
        return min(layer for layer in layers if layer is not None)

    def whole(self) -> Delta:
        """All that is on the view now."""
        factors = read_delta(self._model.architecture, self._factors)
        return self._gates().then(factors) if self._entries else factors

    def factors(self, key: tuple[int, str]) -> tuple[Tensor, Tensor]:
        """U and V of a module, as they are now."""
        return read_delta(self._model.architecture, self._factors).factors[key]

    def read(self, before: Delta | None) -> Delta:
        """What a stage adds to those before it, whose deltas are given as one; V is the same in all."""
        now = self.whole()
        if before is None:
            return now
        assert isinstance(now, LowRankDelta) and isinstance(before, LowRankDelta)
        added: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
        for key, (u, v) in now.factors.items():
            added[key] = u - before.factors[key][0], v
        return LowRankDelta(added)

    def finish(
        self,
        level: LearnedLevel,
        wanted: float | None,
        *,
        reserve: float = 1.0,
        cancel: CancelFlag | None = None,
    ) -> None:
        """Measure how well the taught rows are learned, and draw the whole back.

        Args:
            level: Measures it.
            wanted: The probability that three quarters of the rows must keep; None leaves the whole as it is.
            reserve: So many times the least strength at which they do is kept, at most all of it.
            cancel: As in ``rewrite``.
        """
        whole = self.whole()

        def turn(strength: float) -> None:
            self._write(whole.scaled(strength))

        if wanted is None:
            self.learned = level.measured()
            return
        self.learned, least = drawn_back(level, wanted, turn, cancel=cancel)
        self.strength = min(1.0, reserve * least)
        turn(self.strength)

    def _write(self, delta: Delta) -> None:
        for part in delta.parts if isinstance(delta, Deltas) else (delta,):
            if isinstance(part, GateDelta):
                write_gates(self._vectors, self._model.architecture, part)
            else:
                assert isinstance(part, LowRankDelta)
                write_factors(self._factors, self._model.architecture, part)

    def _gates(self) -> GateDelta:
        gates: dict[tuple[int, Site], Tensor] = {}
        for layer, site in self._entries:
            place = self._model.architecture.gate_module(layer, site)
            gates[layer, site] = self._vectors[place.module].detach().flatten()[place.index]
        return GateDelta(gates)

    def _gate_places(self) -> list[tuple[nn.Parameter, Tensor]]:
        out: list[tuple[nn.Parameter, Tensor]] = []
        for (layer, site), indices in self._entries.items():
            place = self._model.architecture.gate_module(layer, site)
            out.append((self._vectors[place.module], place.places(indices)))
        return out
