"""Two ways to move gates: AdamW, as in the paper, and a natural gradient that spares what other knowledge needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

DAMPING = 0.1
MOMENTUM = 0.8


class Optimiser(Protocol):
    """Moves parameters by their ``.grad``."""

    def step(self, rate: float) -> None: ...


class Adam:
    """AdamW without weight decay: decay would move gates that were not selected."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._inner = torch.optim.AdamW(list(parameters.values()), weight_decay=0.0)

    def step(self, rate: float) -> None:
        """One update at this learning rate."""
        for group in self._inner.param_groups:
            group["lr"] = rate
        self._inner.step()


class NaturalGradient:
    """Gradient steps preconditioned by the diagonal Fisher information of retained answers, of fixed length in its
    norm.

    A gate that other answers depend on (large F) moves little; one that only this fact uses moves freely. With
    v = momentum of g / (F + damping), a step is - rate * v / sqrt(sum (F + damping) v^2), so ``rate`` is the length of
    a step in square roots of twice the nats of KL per retained answer that it alone would cost.

    Args:
        parameters: By name.
        fisher: Diagonal Fisher information of each, in nats squared.
        masks: 1 at gates that may move.

    Source: Amari 1998 (natural gradient), Kirkpatrick et al. 2017 (1612.00796, Fisher information as importance); the
    normalised step is a trust region. This combination for IA3 gates is ours.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], fisher: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> None:
        self._parameters = parameters
        picked = torch.cat([(fisher[n] * masks[n])[masks[n] > 0] for n in parameters])
        damping = DAMPING * float(picked.mean()) + 1e-12
        self._metric = {n: fisher[n] + damping for n in parameters}
        self._velocity = {n: torch.zeros_like(p) for n, p in parameters.items()}

    def step(self, rate: float) -> None:
        """One update of length ``rate`` in the norm of the damped Fisher information."""
        length = 0.0
        for name, p in self._parameters.items():
            assert p.grad is not None
            self._velocity[name] = MOMENTUM * self._velocity[name] + p.grad / self._metric[name]
            length += float((self._metric[name] * self._velocity[name] ** 2).sum())
        with torch.no_grad():
            for name, p in self._parameters.items():
                p -= rate / max(length, 1e-24) ** 0.5 * self._velocity[name]
