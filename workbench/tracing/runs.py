"""What a trace needs of forward passes, and the fast way of making them; ``bridge_runs`` is the readable one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from workbench.models.engine import Change, HookSite, KeysValues, Recording
from workbench.models.layerwise import Layerwise
from workbench.tracing.restoration import Restoration
from workbench.tracing.restore import Finished, effects
from workbench.tracing.setup import Setup

Place = tuple[HookSite, int]


class Runs(Protocol):
    """Clean and corrupted runs of one fact after another."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a result's provenance keeps of them."""
        ...

    def record(self, setup: Setup, sites: Sequence[HookSite]) -> Recording:
        """The clean run, with the states of the sites at every layer from the first corrupted token on."""
        ...

    def effects(self, setup: Setup, clean: Recording, cells: Sequence[Restoration]) -> Iterator[Finished]:
        """What every cell changes about the measure of the corrupted runs; after ``record`` of the same fact."""
        ...

    def gradients(self, setup: Setup, sites: Sequence[HookSite]) -> tuple[Recording, dict[Place, Tensor]]:
        """The corrupted runs with the states of the sites, and the measure's gradients there; after ``record``."""
        ...

    def gradients_at(self, setup: Setup, states: Mapping[Place, Tensor]) -> dict[Place, Tensor]:
        """The measure's gradients at states of one layer, [samples, tokens, width], that take the place of those of the
        corrupted runs; after ``record``. Of a projection that is fused with others only its own entries do."""
        ...


class FastRuns:
    """Runs that compute only what a change can reach.

    Args:
        engine: Of the model.
        max_rows: Most tokens computed at once; None for what is fast and fits.
    """

    def __init__(self, engine: Layerwise, max_rows: int | None = None) -> None:
        self._engine, self._max_rows = engine, max_rows
        self._prefix: KeysValues | None = None
        self._stream: tuple[Tensor, Recording] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing: it is the default."""
        return {}

    def record(self, setup: Setup, sites: Sequence[HookSite]) -> Recording:
        """See ``Runs``. The tokens before the first corrupted one are read once."""
        clean, self._prefix = self._engine.record_from(setup.start, setup.clean, tuple(sites))
        return clean

    def effects(self, setup: Setup, clean: Recording, cells: Sequence[Restoration]) -> Iterator[Finished]:
        """See ``Runs``."""
        return effects(
            self._engine, clean, setup.corrupted, self._prefix, cells, setup.measure, max_rows=self._max_rows
        )

    def gradients(self, setup: Setup, sites: Sequence[HookSite]) -> tuple[Recording, dict[Place, Tensor]]:
        """See ``Runs``."""
        with torch.enable_grad():
            # Parameters are frozen, so the graph has to start at the residual stream.
            start = setup.corrupted.detach().clone().requires_grad_(True)
            run = self._engine.record(start, tuple(sites), prefix=self._prefix)
            found = torch.autograd.grad(setup.measure(run.logits).sum(), list(run.states.values()))
        states = {place: state.detach() for place, state in run.states.items()}
        return Recording(run.logits.detach(), states), dict(zip(run.states, found, strict=True))

    def gradients_at(self, setup: Setup, states: Mapping[Place, Tensor]) -> dict[Place, Tensor]:
        """See ``Runs``. The pass begins at the layer."""
        if self._stream is None or self._stream[0] is not setup.corrupted:
            with torch.no_grad():
                self._stream = setup.corrupted, self._engine.record(setup.corrupted, ("resid",), prefix=self._prefix)
        ((layer,),) = ({layer for _, layer in states},)
        leaves = {place: state.detach().clone().requires_grad_(True) for place, state in states.items()}
        changes = {place: _putting(leaf, self._engine.parts(place[0])) for place, leaf in leaves.items()}
        with torch.enable_grad():
            resid = self._stream[1].states["resid", layer]
            logits = self._engine.run(resid, start=layer, prefix=self._prefix, changes=changes)
            found = torch.autograd.grad(setup.measure(logits).sum(), list(leaves.values()))
        return dict(zip(leaves, found, strict=True))


def _putting(states: Tensor, parts: Tensor | None) -> Change:
    """A change that puts states in the place of others: those of all parts of a site, or all."""

    def put(value: Tensor) -> Tensor:
        if parts is None:
            return states
        value = value.clone()
        entries = parts.flatten()
        value[..., entries] = states[..., entries]
        return value

    return put
