"""The clean and the corrupted run of one item, with what every component writes in both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from workbench.circuits.wiring import Reading, Wired
from workbench.models.engine import KeysValues
from workbench.tracing.setup import Setup


@dataclass(frozen=True)
class EdgeRuns:
    """What edges of one item are measured by. Tokens before the first corrupted one are the same in both runs, so that
    everything is about the others.

    Attributes:
        setup: The item.
        prefix: Keys and values of the tokens before.
        clean: The clean run, one row.
        corrupted: The corrupted runs, a row a sample.
    """

    setup: Setup
    prefix: KeysValues | None
    clean: Reading
    corrupted: Reading

    @property
    def clean_start(self) -> Tensor:
        """What enters layer 0 in the clean run, [1, tokens, d_model]."""
        return self.setup.clean[:, self.setup.start :].contiguous()

    @property
    def corrupted_start(self) -> Tensor:
        """What enters layer 0 in the corrupted runs, [samples, tokens, d_model]."""
        return self.setup.corrupted.contiguous()

    @cached_property
    def differences(self) -> Tensor:
        """Corrupted minus clean writes, [senders, samples, tokens, d_model]."""
        return self.corrupted.writes - self.clean.writes

    @property
    def clean_measure(self) -> float:
        """The metric of the clean run."""
        return float(self.setup.measure(self.clean.logits))

    @property
    def corrupted_measure(self) -> float:
        """The metric of the corrupted runs, their mean."""
        return float(self.setup.measure(self.corrupted.logits).mean())


def edge_runs(wired: Wired, setup: Setup) -> EdgeRuns:
    """Run an item's clean and corrupted input."""
    with torch.no_grad():
        clean, prefix = wired.read_from(setup.start, setup.clean)
        corrupted = wired.read(setup.corrupted.contiguous(), prefix=prefix)
    return EdgeRuns(setup.against(clean.logits), prefix, clean, corrupted)
