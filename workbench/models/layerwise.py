"""Call single layers of a model on rows of one's own: what is needed to compute only what a change can reach.

A forward pass of the whole model is recorded first, with what it gave to each layer; layers are then called alone, and
the last norm and the head apart (``Resumable.unembed``).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from workbench.models.engine import Change, HookSite, KeysValues, Resumable, past_options
from workbench.models.family import PARTS
from workbench.models.load import LoadedModel
from workbench.types import ModelShape


def bytes_in_layer(shape: ModelShape, tokens: int, itemsize: int) -> int:
    """Memory that one token takes at most in one layer, in bytes: its states, and its attention to a text of so many
    tokens, in numbers of so many bytes."""
    return (10 * shape.d_model + 4 * shape.d_mlp + 4 * shape.n_heads * tokens) * itemsize


def row_bytes(shape: ModelShape, tokens: int, itemsize: int) -> int:
    """Memory that one token of a batch takes at most, in bytes: in one layer, and what is recorded of it in all."""
    recorded = shape.n_layers * (shape.d_model + 2 * shape.n_kv_heads * shape.d_head)
    return bytes_in_layer(shape, tokens, itemsize) + recorded * itemsize


@dataclass
class LayerInputs:
    """What every layer of one forward pass was given, for single layers to be called again on other rows.

    Attributes:
        resid: The residual stream entering each layer, and the one after the last, each [rows, tokens, d_model].
        keys_values: Keys and values of each layer, the prefix's first: [rows, kv heads, prefix + tokens, d_head].
        arguments: Each layer's other arguments by name, as the model passed them.
        logits: Of the last position, [rows, d_vocab].
    """

    resid: list[Tensor]
    keys_values: KeysValues
    arguments: list[dict[str, Any]]
    logits: Tensor


class Layerwise(Resumable):
    """A ``Resumable`` whose layers can be called one by one."""

    def __init__(self, model: LoadedModel, view: Any = None) -> None:
        super().__init__(model, view)
        self._parts: dict[HookSite, Tensor] = {}

    def parts(self, site: HookSite) -> Tensor | None:
        """Where the entries of every head, key-value group or neuron are in the states of a site (in the outputs of a
        projection, or of all that it is fused with), [parts, width]; None for ``"resid"``, ``"attn"`` and ``"mlp"``."""
        if site in ("resid", "attn", "mlp"):
            return None
        if site not in self._parts:
            width = self._architecture.shape.d_head if PARTS[site] == "attention" else 1
            self._parts[site] = self._architecture.gate_module(0, site).index.view(-1, width).to(self.device)
        return self._parts[site]

    def entries(self, site: HookSite, part: int) -> Tensor | None:
        """Where the entries of one head, group or neuron are; see ``parts``."""
        every = self.parts(site)
        return None if every is None else every[part]

    def row_bytes(self, tokens: int) -> int:
        """Memory that one token of a batch takes at most, in bytes: its states in one layer, what is recorded of it in
        all of them, and its attention to a text of so many tokens."""
        return row_bytes(self._architecture.shape, tokens, next(self._view.parameters()).element_size())

    def record_inputs(self, resid: Tensor, *, prefix: KeysValues | None = None) -> LayerInputs:
        """Run from the embeddings and keep what every layer was given."""
        from transformers import DynamicCache

        arguments: list[dict[str, Any]] = []
        entered: list[Tensor] = []

        def keep(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            given = dict(inspect.signature(module.forward).bind(*args, **options).arguments)
            entered.append(given.pop(next(iter(given))))
            arguments.append(given | given.pop("kwargs", {}))

        norm = self._view.get_submodule(self._family.norm)
        handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in self._layers]
        handles.append(norm.register_forward_pre_hook(lambda module, args: entered.append(args[0])))
        past = past_options(prefix, resid.shape[0])
        cache: Any = past["past_key_values"] if prefix else DynamicCache()
        try:
            with self._from_layer(0, resid):
                logits = self._view(
                    inputs_embeds=resid, logits_to_keep=1, use_cache=True, past_key_values=cache
                ).logits[:, -1]
        finally:
            for handle in handles:
                handle.remove()
        entered[0] = resid  # which is fed to layer 0 after its hooks
        return LayerInputs(entered, [(layer.keys, layer.values) for layer in cache.layers], arguments, logits)

    def call_layer(
        self,
        layer: int,
        hidden: Tensor,
        arguments: Mapping[str, Any],
        changes: Mapping[tuple[HookSite, int], Change] | None = None,
    ) -> Tensor:
        """One layer alone, with the arguments that it is to be given."""
        with self._changed(changes or {}):
            out = self._layers[layer](hidden, **arguments)
        return out[0] if isinstance(out, tuple) else out

    @property
    def own_attention(self) -> str:
        """The model's own implementation of attention, by its name in transformers."""
        return self._view.config._attn_implementation

    @property
    def takes_options(self) -> bool:
        """Whether layers hand on options that they do not know to their attention, which is looked up by its name."""
        if self._family.own_attention:
            return False
        parameters = inspect.signature(self._layers[0].forward).parameters.values()
        return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)

    @contextmanager
    def attention(self, name: str) -> Iterator[None]:
        """Let layers that are called alone attend by an implementation registered with transformers."""
        config, own = self._view.config, self.own_attention
        config._attn_implementation = name
        try:
            yield
        finally:
            config._attn_implementation = own
