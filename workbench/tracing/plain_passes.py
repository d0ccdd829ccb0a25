"""Plain forward passes of a whole model, with nothing but torch's hooks on its modules.

They are what every faster or cleverer way of this package is compared with: no state is recorded for later, no layer is
skipped, no key or value is kept, and every row is computed from the first token on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.engine import BYTES_PER_MODULE
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view

Change = Callable[[Tensor], Tensor]
At = tuple[str, bool]
"""A module's full name, and whether its input is meant, else its output."""


class PlainPasses:
    """Passes of a base model on a view of its own.

    Args:
        model: An unedited model; it is not changed.
        view: Another view of it, with adapters of its own.
    """

    def __init__(self, model: LoadedModel, view: Any = None) -> None:
        self.view: Any = shared_view(model.hf) if view is None else view
        self._family = model.architecture.family
        self._remembered: tuple[Hashable, Tensor] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its own, about: the view's modules."""
        return BYTES_PER_MODULE * sum(1 for _ in self.view.modules())

    def own_logits(self, model: LoadedModel, ids: Tensor) -> Tensor:
        """Logits of the last position [rows, d_vocab] of texts, remembered for the last ones while the weights stay."""
        key = model.version, tuple(map(tuple, ids.tolist()))
        if self._remembered is None or self._remembered[0] != key:
            self._remembered = key, self.logits(ids)
        return self._remembered[1]

    def place(self, site: str, layer: int) -> At:
        """Where the residual stream enters a layer, or what its attention or its MLP adds."""
        path = f"{self._family.layers}.{layer}"
        if site == "resid":
            return path, True
        return f"{path}.{self._family.attention if site == 'attn' else self._family.mlp}", False

    def logits(self, ids: Tensor, changes: Mapping[At, Change] | None = None) -> Tensor:
        """Logits of the last position [rows, d_vocab] of texts [rows, tokens], with some states changed. States come as
        [rows, tokens, width]."""
        with torch.no_grad(), self._hooked(changes or {}, ids.shape):
            return self.view(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1].float()

    def states(
        self, ids: Tensor, places: Mapping[Any, At], changes: Mapping[At, Change]
    ) -> tuple[dict[Any, Tensor], Tensor]:
        """States [rows, tokens, width] at some places in a pass with changes, by their keys, and the logits."""
        kept: dict[Any, Tensor] = {}

        def keeping(key: Any, change: Change | None) -> Change:
            def keep(value: Tensor) -> Tensor:
                value = value if change is None else change(value)
                kept[key] = value.clone()
                return value

            return keep

        keepers = {at: keeping(key, changes.get(at)) for key, at in places.items()}
        return kept, self.logits(ids, {**changes, **keepers})

    @contextmanager
    def _hooked(self, changes: Mapping[At, Change], shape: torch.Size) -> Iterator[None]:
        handles: list[Any] = []
        try:
            for (name, on_input), change in changes.items():
                module: nn.Module = self.view.get_submodule(name)
                if on_input:
                    handles.append(module.register_forward_pre_hook(_input_hook(change, shape)))
                else:
                    handles.append(module.register_forward_hook(_output_hook(change, shape)))
            yield
        finally:
            for handle in handles:
                handle.remove()


def _input_hook(change: Change, shape: torch.Size) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (_changed(change, args[0], shape), *args[1:])

    return hook


def _output_hook(change: Change, shape: torch.Size) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (_changed(change, output[0], shape), *output[1:])
        return _changed(change, output, shape)

    return hook


def _changed(change: Change, value: Tensor, shape: torch.Size) -> Tensor:
    """A changed state in the shape in which the model has it: some have all rows' tokens in one dimension."""
    return change(value.reshape(*shape, value.shape[-1])).reshape(value.shape).clone()
