"""A norm with its scale held fixed: then it is linear, and what goes into it can be taken apart.

What a norm does besides its scale (gains, also those that are stored as an offset from 1; a mean that is taken away; a
bias) is measured on vectors that show it, and not read from the module's attributes, which each family names in its own
way.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

LARGE = 1024.0
"""The size of the vectors that a norm is measured on: next to it the small number under its root is nothing."""
FITS = 2e-3
"""The share of a norm's output that its linear form may miss."""


@dataclass(frozen=True)
class FrozenNorm:
    """A norm at a fixed scale: x is made to (x, or x minus its mean) * gain * scale + bias.

    Args:
        gain, bias: What it multiplies each entry by, and adds, [d_model] in float32 or better.
        centres: Whether it takes away the mean.
        scale: What the norm divides by, as a factor.
    """

    gain: Tensor
    bias: Tensor
    centres: bool
    scale: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        """The norm of states [..., d_model], in their dtype."""
        return (self._linear(states.to(self.gain.dtype)) * self.scale + self.bias).to(states.dtype)

    def _linear(self, states: Tensor) -> Tensor:
        return (states - states.mean(-1, keepdim=True) if self.centres else states) * self.gain

    def linear(self, states: Tensor) -> Tensor:
        """The norm of states [..., d_model] without its bias: a linear map, so that parts add up."""
        return (self._linear(states.to(self.gain.dtype)) * self.scale).to(states.dtype)

    def without_scale(self) -> FrozenNorm:
        """The same with a scale of 1."""
        return replace(self, scale=torch.ones_like(self.scale))


def freeze(module: nn.Module, entered: Tensor, left: Tensor) -> FrozenNorm | None:
    """Hold a norm at the scale that it has for one vector.

    Args:
        module: Any module that maps [..., d_model] to [..., d_model].
        entered, left: A vector that went into it and what came out, [d_model].

    Returns:
        The frozen norm, or None where the module is not a norm.
    """
    entered, left = _exact(entered), _exact(left)
    signs = torch.ones_like(entered)
    signs[1::2] = -1
    if len(signs) % 2:
        signs[-1] = -2
    signs = signs / signs.pow(2).mean().sqrt()
    probes = torch.stack([torch.zeros_like(signs), LARGE * signs, LARGE * (signs + 3)])
    exact = module if all(p.dtype == probes.dtype for p in module.parameters()) else copy.deepcopy(module).to(probes)
    bias, at_signs, shifted = exact.forward(probes)[..., : len(signs)].to(probes.dtype)
    gain = (at_signs - bias) / signs
    centres = bool((shifted - at_signs).norm() <= FITS * at_signs.norm())
    frozen = FrozenNorm(gain, bias, centres, torch.ones((), dtype=gain.dtype, device=gain.device))
    shape, wanted = frozen._linear(entered), left - bias
    length = shape @ shape
    scale = shape @ wanted / length if length > 0 else torch.zeros_like(length)
    # In half precision the output itself is rounded.
    allowed = max(FITS, 4 * torch.finfo(_dtype_of(module, entered)).eps)
    if not bool((wanted - scale * shape).norm() <= allowed * wanted.norm()):
        return None
    return replace(frozen, scale=scale)


def freeze_each(module: nn.Module, entered: Tensor, left: Tensor) -> FrozenNorm:
    """Hold a norm at the scales that it has for many vectors, each at its own.

    Args:
        module: A norm.
        entered, left: What went into it and what came out, [..., d_model].

    Returns:
        The frozen norm, with a scale for each vector, [..., 1].

    Raises:
        ValueError: The module is not a norm.
    """
    rows, out = entered.reshape(-1, entered.shape[-1]), left.reshape(-1, left.shape[-1])
    frozen = freeze(module, rows[-1], out[-1])
    if frozen is None:
        raise ValueError(f"A {type(module).__name__} after a sublayer is not a norm, so its parts do not add up.")
    shape, wanted = frozen._linear(_exact(entered)), _exact(left) - frozen.bias
    scale = (shape * wanted).sum(-1, keepdim=True) / (shape * shape).sum(-1, keepdim=True).clamp_min(1e-30)
    return replace(frozen, scale=scale)


def _exact(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _dtype_of(module: nn.Module, otherwise: Tensor) -> torch.dtype:
    return next((p.dtype for p in module.parameters()), otherwise.dtype)
