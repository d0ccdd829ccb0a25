"""Columns of output projections that a fit moves: a head's of the attention's, a neuron's of the MLP's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from workbench.editing.solved.spots import SITES
from workbench.models import LoadedModel
from workbench.models.families import Architecture
from workbench.models.family import sizes, stores_transposed
from workbench.types import Delta, DenseDelta, LowRankDelta, Selection

Columns = Mapping[tuple[int, str], tuple[int, ...] | None]
"""By layer and module within it (``"mlp.down_proj"``), the inputs whose weights may move; None: all of them."""


def selected_columns(model: LoadedModel, selection: Selection, what: str) -> Columns:
    """The columns of a selection's heads and neurons.

    Args:
        model: The model.
        selection: Heads, attention layers, neurons and MLPs.
        what: What wants them, as the message begins.

    Raises:
        ValueError: A component that has no columns of an output projection: keys, values and queries, gate and up.
    """
    for component in selection:
        if {*SITES.values()}.isdisjoint(component.slices(model.shape)):
            raise ValueError(
                f"{what} moves columns of output projections, and {component} has none. Choose heads (L23H4), "
                "attention layers (L9ATTN), neurons (L13N207) or MLPs (L13MLP)."
            )
    return output_columns(model, selection)


def output_columns(model: LoadedModel, selection: Selection) -> Columns:
    """The columns of output projections that a selection has; what else it has is left out."""
    found: dict[tuple[int, str], tuple[int, ...] | None] = {}
    for (layer, site), index in selection.entries(model).items():
        if site in SITES.values():
            whole = len(index) == model.shape.site_size(site)
            found[layer, module_at(model.architecture, layer, site)] = None if whole else index
    return found


def mlp_columns(model: LoadedModel, layers: Sequence[int]) -> Columns:
    """The whole output projections of some layers' MLPs."""
    return {(layer, module_at(model.architecture, layer, "post")): None for layer in layers}


def module_at(architecture: Architecture, layer: int, site: Any) -> str:
    """The name within its layer of the module that reads a gate site."""
    name = architecture.gate_module(layer, site).module
    return name.removeprefix(f"{architecture.family.layers}.{layer}.")


def check_precision(model: LoadedModel, what: str, rate: float) -> None:
    """Raise a ValueError for weights that are too coarse to be trained themselves."""
    if model.dtype in (torch.bfloat16, torch.float16):
        raise ValueError(
            f"{what} moves weights by about {rate:g} a step, which {model.dtype} rounds away. Load the model with "
            "dtype=torch.float32."
        )


@dataclass
class MovingColumns:
    """Weights of a view's own that are trained in some columns. All other columns stay as they are, to the bit.

    Args:
        view: A structure copy of the model; its modules get weights of their own.
        architecture: The model's.
        columns: What may move.

    Attributes:
        parameters: The trained weights, by the parameter's full name, as the module stores them.
    """

    view: Any
    architecture: Architecture
    columns: Columns
    parameters: dict[str, nn.Parameter] = field(default_factory=dict[str, nn.Parameter])

    def __post_init__(self) -> None:
        self._base: dict[str, Tensor] = {}
        self._transposed: dict[str, bool] = {}
        self.names = {key: f"{self.architecture.module_name(*key)}.weight" for key in self.columns}
        for name in self.names.values():
            module: Any = self.view.get_submodule(name.removesuffix(".weight"))
            self._base[name] = module.weight.detach()
            self._transposed[name] = stores_transposed(module)
            module.weight = nn.Parameter(self._base[name].clone(), requires_grad=False)
            self.parameters[name] = module.weight

    def inputs(self, key: tuple[int, str]) -> list[int]:
        """The columns of a module that may move."""
        index = self.columns[key]
        _, d_in = sizes(self.view.get_submodule(self.architecture.module_name(*key)))
        return list(range(d_in)) if index is None else list(index)

    def oriented(self, key: tuple[int, str], stored: Tensor) -> Tensor:
        """A tensor of a module's weight as [d_out, d_in], a view of what is stored."""
        return stored.T if self._transposed[self.names[key]] else stored

    def mask_gradients(self) -> None:
        """Take out the gradients of what may not move: an exact zero keeps every update at exactly zero."""
        for key, name in self.names.items():
            gradient = self.parameters[name].grad
            if gradient is not None and self.columns[key] is not None:
                outside = torch.ones(self.oriented(key, gradient).shape[1], dtype=torch.bool)
                outside[self.inputs(key)] = False
                self.oriented(key, gradient)[:, outside] = 0.0

    def read(self, before: Delta | None) -> Delta:
        """What the weights now add to the base, without a stage before: whole tensors where whole modules may move,
        else U with a column for each that may, and V that picks them."""
        if all(index is None for index in self.columns.values()):
            earlier = before.weights if isinstance(before, DenseDelta) else self._base
            return DenseDelta({n: self._base[n] + (p.detach() - earlier[n].to(p)) for n, p in self.parameters.items()})
        factors: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
        for key, name in self.names.items():
            index = self.inputs(key)
            moved = self.oriented(key, self.parameters[name].detach() - self._base[name])
            picks = torch.zeros(len(index), moved.shape[1])
            picks[torch.arange(len(index)), index] = 1.0
            added = moved[:, index].float().cpu()
            if before is not None:
                assert isinstance(before, LowRankDelta)
                added = added - before.factors[key][0]
            factors[key] = added, picks
        return LowRankDelta(factors)
