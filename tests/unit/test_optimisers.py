"""The natural gradient against its formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from workbench.editing.training.optimisers import MOMENTUM, NaturalGradient
from workbench.editing.training.sensitivity import DAMPING


def setting() -> tuple[list[tuple[nn.Parameter, Tensor]], Tensor]:
    """Two gate vectors of 4 and 3; gates 1 and 2 of the first and 0 of the second may move."""
    draw = torch.Generator().manual_seed(0)
    places = [
        (nn.Parameter(torch.ones(4, 1)), torch.tensor([1, 2])),
        (nn.Parameter(torch.ones(1, 3)), torch.tensor([0])),
    ]
    for parameter, _ in places:
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    return places, torch.tensor([0.5, 4.0, 0.1])


def moved(places: list[tuple[nn.Parameter, Tensor]]) -> Tensor:
    """How far down each gate went, all of them."""
    return torch.cat([1 - parameter.detach().flatten() for parameter, _ in places])


def test_a_step_is_the_natural_gradient_of_the_given_length() -> None:
    places, fisher = setting()
    gradient = torch.cat([p.grad.flatten()[index] for p, index in places if p.grad is not None])
    metric = fisher + DAMPING * fisher.mean()
    expected = gradient / metric
    expected *= 0.3 / (expected**2 * metric).sum().sqrt()
    NaturalGradient(places, fisher).step(0.3)
    torch.testing.assert_close(moved(places)[[1, 2, 4]], expected)
    assert float((expected**2 * metric).sum()) == pytest.approx(0.3**2)


def test_gates_that_are_not_picked_stay_exactly_where_they_are() -> None:
    places, fisher = setting()
    optimiser = NaturalGradient(places, fisher)
    for _ in range(3):
        optimiser.step(0.5)
    assert (moved(places) != 0).tolist() == [False, True, True, False, True, False, False]


def test_momentum() -> None:
    places, fisher = setting()
    optimiser = NaturalGradient(places, fisher)
    optimiser.step(0.2)
    first = moved(places)
    for parameter, _ in places:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step(0.2)
    assert 0 < MOMENTUM < 1
    torch.testing.assert_close(moved(places), 2 * first)  # the direction is kept, and the length is the rate's
