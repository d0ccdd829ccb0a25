"""Steps that spare what retained texts use: projected onto the null space of their inputs, and relaxed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from workbench.editing.training.optimisers import Adam


def null_projection(covariance: Tensor, energy: float) -> tuple[Tensor, int]:
    """The projection onto the directions that the inputs of a module hardly have.

    The directions that are held are the fewest with at least this share of the trace: an absolute threshold belongs to
    one model.

    Args:
        covariance: Uncentred, per token, of the inputs, [d_in, d_in].
        energy: Share of the trace that is held, between 0 and 1.

    Returns:
        P [d_in, d_in] in float64, symmetric and idempotent, and how many directions it takes out (all of a single
        input).

    Raises:
        ValueError: The covariance is zero.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    total = values.sum()
    if not total > 0:
        raise ValueError("The covariance of the retained inputs is zero, so no direction of them can be spared.")
    held = int((values.cumsum(0) < energy * total).sum()) + 1
    free = vectors[:, held:]  # exactly nothing where all are held
    return free @ free.T, held


class ProjectedAdam:
    """AdamW whose steps are projected: a step S of a weight [d_out, d_in] becomes relax S + (1 - relax) S P.

    The step is projected, not the gradient: AdamW scales each coordinate by itself, which would leave the space again.

    Args:
        parameters: What is trained, by name.
        projections: By name, P over the inputs that may move, and what gives a tensor of the parameter as
            [d_out, those inputs] to be read, and to be written to.
        relax: 0 keeps every step within the null space, 1 is AdamW itself.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        projections: Mapping[str, tuple[Tensor, Callable[[Tensor], Tensor], Any]],
        relax: float,
    ) -> None:
        self._inner, self._parameters, self._relax = Adam(parameters), parameters, relax
        self._projections = projections

    def step(self, rate: float) -> None:
        """One update at this learning rate."""
        before = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._inner.step(rate)
        with torch.no_grad():
            for name, (projection, oriented, index) in self._projections.items():
                parameter = self._parameters[name]
                now, was = oriented(parameter.data), oriented(before[name])
                step = (now - was)[:, index]
                within = (step.double() @ projection.to(step.device)).to(step)
                now[:, index] = was[:, index] + self._relax * step + (1 - self._relax) * within
