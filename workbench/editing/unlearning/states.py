"""The residual stream after a layer, for losses on representations: passes that end there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workbench.editing.training.batching import Prepared, PreparedRow
from workbench.editing.training.passes import Passes
from workbench.models import LoadedModel
from workbench.models.engine import KeysValues, Resumable


class _Reached(Exception):
    """Ends a forward pass at the layer that is read."""


class States:
    """Reads the residual stream after a layer of a view.

    Args:
        model: The model.
        view: A structure copy of it: the base's, or what is trained.
        prepared: What the rows belong to.
        layer: The layer.
    """

    def __init__(self, model: LoadedModel, view: Any, prepared: Prepared, layer: int) -> None:
        self._passes = Passes(Resumable(model, view), prepared)
        self._layer: nn.Module = view.get_submodule(f"{model.architecture.family.layers}.{layer}")
        self.prepared = prepared

    def prefix(self) -> KeysValues | None:
        """As ``Passes.prefix``."""
        return self._passes.prefix()

    def of(self, rows: Sequence[PreparedRow], prefix: KeysValues | None) -> list[Tensor]:
        """States after the layer at each row's own tokens, [tokens, d_model] float32 per row, in one forward pass, with
        gradients if enabled. Padding is left out, and so is what all rows begin with."""
        reached: list[Tensor] = []

        def stop(module: nn.Module, args: Any, output: Any) -> None:
            reached.append(output[0] if isinstance(output, tuple) else output)
            raise _Reached

        handle = self._layer.register_forward_hook(stop)
        try:
            self._passes.logits(rows, prefix)
        except _Reached:
            pass
        finally:
            handle.remove()
        return [states[: len(row.resid)].float() for states, row in zip(reached[0], rows, strict=True)]

    def of_all(self, rows: Sequence[PreparedRow]) -> dict[PreparedRow, Tensor]:
        """The same of many rows, in parts and without gradients."""
        found: dict[PreparedRow, Tensor] = {}
        with torch.no_grad():
            prefix = self.prefix()
            for part in self.prepared.parts(rows):
                together = [rows[i] for i in part]
                found.update(zip(together, self.of(together, prefix), strict=True))
        return found
