"""Whole changed tensors on a model: the parameters of a view point to them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from workbench.models.deltas.adapter import Adapter, Base
from workbench.models.families import Architecture
from workbench.types import DenseDelta, EditModules, Site

Mounted = dict[str, tuple[nn.Parameter, Tensor]]
"""By name, a parameter of a view and the shared tensor that it replaced."""


def put_on(view: nn.Module, architecture: Architecture, delta: DenseDelta) -> Mounted:
    """Give a view parameters of its own. Returns them, each with the shared tensor that it replaced, by name.

    Tied parameters stay tied: the parameter stays, its storage is replaced.
    """
    parameters = dict(view.named_parameters())
    mounted = {name: (parameters[name], parameters[name].detach()) for name in delta.weights}
    for name, (parameter, base) in mounted.items():
        parameter.data = _between(base, delta, name)
    return mounted


def write(mounted: Mounted, architecture: Architecture, delta: DenseDelta) -> None:
    """Give the parameters (as ``put_on`` returns them) a delta's values, in place."""
    for name, (parameter, base) in mounted.items():
        parameter.data.copy_(_between(base, delta, name))


def fold(view: nn.Module, architecture: Architecture, delta: DenseDelta, base: Mapping[str, Tensor]) -> None:
    """Add what the changed tensors differ from the base's to a view's weights, whatever was folded into them before.

    Args:
        view: The view.
        architecture: The model's.
        delta: The delta.
        base: The base's tensors by name.
    """
    for name in delta.weights:
        parameter = view.get_parameter(name)
        changed = _between(base[name], delta, name)
        if parameter.data_ptr() != base[name].data_ptr():  # an earlier delta has changed it
            changed = (parameter.detach().float() + (changed.float() - base[name].float())).to(parameter.dtype)
        parameter.data = changed


def put_under_gates(view: nn.Module, architecture: Architecture, delta: DenseDelta) -> None:
    """Give a view the changed tensors, for gates to come on them."""
    put_on(view, architecture, delta)


def weights(architecture: Architecture, delta: DenseDelta) -> list[str]:
    """Names of the changed matrices."""
    return [name for name, weight in delta.weights.items() if weight.ndim > 1]


def gate_sites(delta: DenseDelta) -> list[tuple[int, Site]]:
    """None."""
    return []


def check(view: nn.Module, architecture: Architecture, delta: DenseDelta) -> None:
    """Raise a ValueError for tensors that a model does not have, or that have another shape there."""
    parameters = dict(view.named_parameters())
    for name, weight in delta.weights.items():
        if name not in parameters:
            raise ValueError(f"The delta changes {name!r}, and the model does not have it: it is for another one.")
        if parameters[name].shape != weight.shape:
            raise ValueError(
                f"The delta changes {name!r} of the shape {tuple(weight.shape)}, and the model's has "
                f"{tuple(parameters[name].shape)}: it is for another model."
            )


def not_in_weights(delta: DenseDelta) -> str:
    """Nothing: its weights do all of it."""
    return ""


def export(delta: DenseDelta, modules: EditModules, base: Base | None = None) -> Adapter:
    """Refused: PEFT has no adapter that owns whole tensors.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        f"This edit owns {delta.words()}, and no PEFT adapter says that exactly. Write the whole edited model instead: "
        "wb.merge(model, edit, folder)."
    )


def _between(base: Tensor, delta: DenseDelta, name: str) -> Tensor:
    """The base's tensor at strength 0, the changed one at strength 1, both to the bit."""
    changed = delta.weights[name].to(base)
    return changed.clone() if delta.strength == 1 else torch.lerp(base, changed, delta.strength)
