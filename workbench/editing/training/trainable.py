"""What a stage trains, and the average of it over steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.editing.training.learned import LearnedLevel
from workbench.editing.training.optimisers import Optimiser


def _nothing() -> None:
    """For what a step leaves as it is."""


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """What one stage trains.

    Args:
        view: The view of the model that carries the parameters.
        parameters: What is trained, by name.
        optimiser: Moves the parameters by their gradients.
        rate: The optimiser's learning rate.
        after_backward: Called before each update, to take out gradients that are not wanted.
        after_step: Called after each update, to keep the parameters in bounds.
        at_end: Called when the stage has run to its end, with what measures how well its rows are learned.
    """

    view: Any
    parameters: Mapping[str, nn.Parameter]
    optimiser: Optimiser
    rate: float
    after_backward: Callable[[], None] = _nothing
    after_step: Callable[[], None] = _nothing
    at_end: Callable[[LearnedLevel], None] | None = None

    @contextmanager
    def requiring_gradients(self) -> Iterator[None]:
        """Let the parameters require gradients within the block; after it they neither require nor hold any."""
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        try:
            yield
        finally:
            for parameter in self.parameters.values():
                parameter.requires_grad_(False)
                parameter.grad = None

    def clear_gradients(self) -> None:
        """Drop the gradients of the step before."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def update(self, factor: float) -> None:
        """Move the parameters once, at the learning rate times a factor."""
        self.after_backward()
        self.optimiser.step(self.rate * factor)
        self.after_step()


class IterateAverage:
    """Averages parameters over the steps at which it is asked to ``add`` them.

    Source: averaging of iterates, Polyak & Juditsky 1992; of a network's weights, Izmailov et al. 2018 (1803.05407).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters, self._n = parameters, 0
        self._values: dict[str, Tensor] = {}

    def add(self) -> None:
        """Take the parameters as they are now into the average."""
        self._n += 1
        for name, p in self._parameters.items():
            value = self._values.setdefault(name, torch.zeros_like(p, requires_grad=False))
            value += (p.detach() - value) / self._n

    def put(self) -> None:
        """Give the parameters the average as their value; without any ``add`` they stay."""
        with torch.no_grad():
            for name, value in self._values.items():
                self._parameters[name].copy_(value)
