"""Two ways to move gates: AdamW, as in the paper, and a natural gradient that spares what other knowledge needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from workbench.editing.training.sensitivity import damped

MOMENTUM = 0.8


class Optimiser(Protocol):
    """Moves parameters by their ``.grad``."""

    def step(self, rate: float) -> None: ...


class Adam:
    """AdamW without weight decay: decay would move gates that were not selected.

    Args:
        parameters: By name.
        units: What the rate is a multiple of, by parameter; 1 where a name is missing.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], units: Mapping[str, float] | None = None) -> None:
        units = units or {}
        groups = [{"params": [p], "unit": units.get(name, 1.0)} for name, p in parameters.items()]
        self._inner = torch.optim.AdamW(groups, weight_decay=0.0)

    def step(self, rate: float) -> None:
        """One update at this learning rate."""
        for group in self._inner.param_groups:
            group["lr"] = rate * group["unit"]
        self._inner.step()


class Together:
    """Moves parameters of several kinds, each by its own optimiser.

    Args:
        parts: Optimisers, each with what the rate is multiplied with for it.
    """

    def __init__(self, *parts: tuple[Optimiser, float]) -> None:
        self._parts = parts

    def step(self, rate: float) -> None:
        """One update of each."""
        for optimiser, factor in self._parts:
            optimiser.step(rate * factor)


class NaturalGradient:
    """Gradient steps preconditioned by the diagonal Fisher information of retained answers, of fixed length in its
    norm.

    A gate that other answers depend on (large F) moves little; one that only this fact uses moves freely. With
    v = momentum of g / (F + damping), a step is - rate * v / sqrt(sum (F + damping) v^2), so ``rate`` is the length of
    a step in square roots of twice the nats of KL per retained answer that it alone would cost.

    Args:
        places: Parameters and the flat indices of their gates that may move.
        fisher: [gates] in nats squared, the gates in the order of ``places``.

    Source: Amari 1998 (natural gradient), Kirkpatrick et al. 2017 (1612.00796, Fisher information as importance); the
    normalised step is a trust region. This combination for IA3 gates is ours.
    """

    def __init__(self, places: Sequence[tuple[nn.Parameter, Tensor]], fisher: Tensor) -> None:
        device = places[0][0].device
        self._places = [(parameter, index.to(device)) for parameter, index in places]
        self._metric = damped(fisher).to(device)
        self._velocity = torch.zeros_like(self._metric)

    def step(self, rate: float) -> None:
        """One update of length ``rate`` in the norm of the damped Fisher information."""
        gradient = torch.cat([_gradient(parameter)[index] for parameter, index in self._places])
        self._velocity = MOMENTUM * self._velocity + gradient / self._metric
        length = float((self._metric * self._velocity**2).sum())
        move = rate / max(length, 1e-24) ** 0.5 * self._velocity
        with torch.no_grad():
            parts = move.split([len(index) for _, index in self._places])
            for (parameter, index), part in zip(self._places, parts, strict=True):
                parameter.view(-1)[index] -= part


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.flatten()
