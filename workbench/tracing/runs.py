"""What a trace needs of forward passes, and the fast way of making them; ``bridge_runs`` is the readable one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from workbench.models.engine import HookSite, KeysValues, Recording
from workbench.models.layerwise import Layerwise
from workbench.tracing.corruption import Setup
from workbench.tracing.restoration import Restoration
from workbench.tracing.restore import Finished, effects


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

    def gradients(
        self, setup: Setup, sites: Sequence[HookSite]
    ) -> tuple[Recording, dict[tuple[HookSite, int], Tensor]]:
        """The corrupted runs with the states of the sites, and the measure's gradients there; after ``record``."""
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

    def gradients(
        self, setup: Setup, sites: Sequence[HookSite]
    ) -> tuple[Recording, dict[tuple[HookSite, int], Tensor]]:
        """See ``Runs``."""
        with torch.enable_grad():
            # Parameters are frozen, so the graph has to start at the residual stream.
            start = setup.corrupted.detach().clone().requires_grad_(True)
            run = self._engine.record(start, tuple(sites), prefix=self._prefix)
            found = torch.autograd.grad(setup.measure(run.logits).sum(), list(run.states.values()))
        states = {place: state.detach() for place, state in run.states.items()}
        return Recording(run.logits.detach(), states), dict(zip(run.states, found, strict=True))
