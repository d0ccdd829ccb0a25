"""Gates that a fit moves with the same handles as columns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from workbench.models import LoadedModel
from workbench.models.deltas.gates import inject_gates
from workbench.types import Delta, GateDelta, Selection, Site


class MovingGates:
    """IA3 gates on a view, of which those of a selection are trained.

    Args:
        view: A structure copy of the model.
        model: The model.
        selection: What may move.

    Attributes:
        parameters: The vectors by module name.
    """

    def __init__(self, view: Any, model: LoadedModel, selection: Selection) -> None:
        self._model, self._entries = model, selection.entries(model)
        ones: dict[tuple[int, Site], Tensor] = {}
        picked: dict[tuple[int, Site], Tensor] = {}
        for (layer, site), index in self._entries.items():
            ones[layer, site] = torch.ones(model.shape.site_size(site))
            picked[layer, site] = torch.zeros(model.shape.site_size(site))
            picked[layer, site][list(index)] = 1.0
        self.parameters: dict[str, nn.Parameter] = inject_gates(view, model.architecture, GateDelta(ones), "default")
        self._masks = model.architecture.vectors(GateDelta(picked), fill=0.0)

    def mask_gradients(self) -> None:
        """Take out the gradients of gates that were not selected: an exact zero keeps every update at exactly zero."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                parameter.grad.mul_(self._masks[name].reshape(parameter.shape).to(parameter.device))

    def read(self, before: Delta | None) -> Delta:
        """The gates now, without those of a stage before."""
        gates: dict[tuple[int, Site], Tensor] = {}
        for layer, site in self._entries:
            place = self._model.architecture.gate_module(layer, site)
            gates[layer, site] = self.parameters[place.module].detach().flatten()[place.index]
        now = GateDelta(gates)
        if before is None:
            return now
        assert isinstance(before, GateDelta)
        return now / before
