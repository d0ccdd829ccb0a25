"""The direct path of a text's last position, from what is written into the residual stream to the logits: a linear map.

With every norm on the way held at its scale, the logits before any cap are a sum: of what the embeddings, each
attention layer and each MLP write, and of what is added whatever they write. The map is the model's own forward pass on
a single token, in which hooks put given outputs in the place of every sublayer's and frozen norms in the place of its
norms. So whatever a family does on the way (a norm after a sublayer, a factor on what is added or on the logits,
attention and MLP side by side) is in it, and none of it is known here by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from workbench.models.engine import Resumable, input_hook
from workbench.models.frozen_norm import FrozenNorm, freeze
from workbench.models.load import LoadedModel
from workbench.types import Site

Part = Literal["attn", "mlp"]
_IN_WORDS: dict[Part, str] = {"attn": "attention", "mlp": "MLP"}
Place = tuple[Part, int]
"""A sublayer: its part of the layer, and the layer."""
Given = Callable[[Place, Tensor], Tensor]
"""From a sublayer and a state of its on the way to the state that takes its place."""
LINEAR = 1e-3
"""How far logits may be from a multiple of the output embeddings' products, as a share, before they count as capped; in
half precision, four times what it rounds by."""


@dataclass(frozen=True)
class Passed:
    """What the last position of one forward pass was made of.

    Attributes:
        embedded: What entered layer 0, [d_model].
        inputs: What entered each sublayer's output projection, [width]; not of mixtures of experts, which have several.
        outputs: What the projections (of experts: the whole MLPs) put out, [d_model].
        norms: The norms of the layers and the final one, by name, each at its scale here.
        raw: The output embeddings' products, [d_vocab], before factor and cap.
        logits: The model's logits, [d_vocab].
        factor: What the products are multiplied by.
        capped: Whether the logits are more than the products times the factor: bent by a cap.
    """

    embedded: Tensor
    inputs: dict[Place, Tensor]
    outputs: dict[Place, Tensor]
    norms: dict[str, FrozenNorm]
    raw: Tensor
    logits: Tensor
    factor: float
    capped: bool

    def at_any_scale(self) -> Passed:
        """The same with all norms at a scale of 1."""
        return replace(self, norms={name: norm.without_scale() for name, norm in self.norms.items()})


class DirectPath(Resumable):
    """A view of a model whose direct path can be run alone."""

    def __init__(self, model: LoadedModel, view: Any = None) -> None:
        super().__init__(model, view)
        names = {module: name for name, module in self._modules.items()}
        self._writers: dict[Place, nn.Module] = {}
        self._projected: set[Place] = set()
        for layer in range(self.n_layers):
            for part in ("attn", "mlp"):
                module, projects = self._writer(part, layer)
                self._writers[part, layer] = module
                if projects:
                    self._projected.add((part, layer))
        writers = set(self._writers.values())
        inside = [m for layer in self._layers for m in layer.modules() if m not in writers and may_be_a_norm(m)]
        self._norms = {names[module]: module for module in [*inside, self._norm]}
        self._unembedding: nn.Module = self._view.get_output_embeddings()

    def _writer(self, part: Part, layer: int) -> tuple[nn.Module, bool]:
        """The module whose output a sublayer writes, and whether it is one linear map of heads or neurons."""
        site: Site = "z" if part == "attn" else "post"
        if any(site in sites for sites in self._family.modules.values()):
            return self._modules[self._architecture.gate_module(layer, site).module], True
        return self._layers[layer].get_submodule(self._family.mlp), False

    def writer(self, part: Part, layer: int) -> nn.Module:
        """The output projection of a sublayer; with the gates and updates of an edited model.

        Raises:
            ValueError: A memory is beside it, so that what it puts out is no sum over its inputs.
        """
        module = self._writers[part, layer]
        if isinstance(getattr(module, "memories", None), tuple):
            raise ValueError(
                f"A memory is beside the output projection of layer {layer}'s {_IN_WORDS[part]}: it looks at the whole "
                "input, so what a single component writes there is not defined. Ask the base (model.base), or use "
                "method='attribution' or 'patching'."
            )
        return module

    def written(self, part: Part, layer: int, ids: Tensor) -> tuple[Tensor, Tensor]:
        """What goes into a sublayer's output projection on a text [1, tokens], and what it puts out, each
        [tokens, width]."""
        caught: list[Tensor] = []
        module = self._writers[part, layer]
        handles = [
            module.register_forward_pre_hook(_watch_input(caught.append)),
            module.register_forward_hook(_watch_output(caught.append)),
        ]
        try:
            self._view(input_ids=ids.to(self.device), use_cache=False, logits_to_keep=1)
        finally:
            for handle in handles:
                handle.remove()
        entered, left = (state.reshape(-1, state.shape[-1]) for state in caught)
        return entered, left

    def read(self, ids: Tensor) -> Passed:
        """Run a text [1, tokens] and keep what its last position was made of."""
        caught: dict[tuple[str, Any], Tensor] = {}

        def keep(kind: str, key: Any) -> Callable[[Tensor], None]:
            return lambda state: caught.__setitem__((kind, key), _last(state))

        handles = [self._layers[0].register_forward_pre_hook(_watch_input(keep("embedded", None)))]
        handles.append(self._unembedding.register_forward_hook(_watch_output(keep("raw", None))))
        for place, module in self._writers.items():
            if place in self._projected:
                handles.append(module.register_forward_pre_hook(_watch_input(keep("input", place))))
            handles.append(module.register_forward_hook(_watch_output(keep("output", place))))
        for name, module in self._norms.items():
            handles.append(module.register_forward_pre_hook(_watch_input(keep("entered", name))))
            handles.append(module.register_forward_hook(_watch_output(keep("left", name))))
        try:
            out = self._view(input_ids=ids.to(self.device), use_cache=False, logits_to_keep=1)
        finally:
            for handle in handles:
                handle.remove()
        raw, logits = caught["raw", None], _last(out.logits)
        factor, capped = self._factor(raw, logits)
        return Passed(
            embedded=caught["embedded", None],
            inputs={place: state for (kind, place), state in caught.items() if kind == "input"},
            outputs={place: state for (kind, place), state in caught.items() if kind == "output"},
            norms=self._frozen(caught),
            raw=raw,
            logits=logits,
            factor=factor,
            capped=capped,
        )

    def _frozen(self, caught: Mapping[tuple[str, Any], Tensor]) -> dict[str, FrozenNorm]:
        """The norms at their scale; whatever else looks like one from outside is left as it is."""
        found: dict[str, FrozenNorm] = {}
        for name, module in self._norms.items():
            entered, left = caught.get(("entered", name)), caught.get(("left", name))
            if entered is None or left is None or entered.shape != left.shape:
                continue
            if len(entered) != self._architecture.shape.d_model:
                continue
            norm = freeze(module, entered, left)
            if norm is not None:
                found[name] = norm
        return found

    def _factor(self, raw: Tensor, logits: Tensor) -> tuple[float, bool]:
        """What the output embeddings' products are multiplied by, and whether the logits are bent besides. A bend (a
        softcap) is flat at 0, so the factor is that of small products."""
        factor, fits = _multiple(raw, logits)
        if fits:
            return factor, False
        small = raw / raw.abs().max() * 1e-3
        handle = self._unembedding.register_forward_hook(lambda *given: small.expand_as(given[-1]))
        try:
            states = self._embeddings_of_nothing()
            factor, fits = _multiple(small, self._head(states, handle)[0])
        finally:
            handle.remove()
        if not fits:
            raise ValueError(
                "The logits are not the output embeddings' products times one factor, with or without a cap, so it is "
                "not known what is added to them directly. Use method='attribution' or 'patching'."
            )
        return factor, True

    def _embeddings_of_nothing(self) -> Tensor:
        weight: Any = next(self._view.parameters())
        return torch.zeros(1, 1, self._architecture.shape.d_model, dtype=weight.dtype, device=self.device)

    def logits(self, passed: Passed, embedded: Tensor, inputs: Given | None, outputs: Given | None) -> Tensor:
        """The logits before any cap that given states give along the direct path, [rows, d_vocab].

        Args:
            passed: The text, for the scales of its norms.
            embedded: What enters layer 0, [rows, d_model].
            inputs: Called with each output projection's place and input [rows, width], to replace it.
            outputs: Called with each sublayer's place and output [rows, d_model], to replace it.
        """
        raw: list[Tensor] = []
        with self._direct(passed, inputs, outputs):
            handle = self._unembedding.register_forward_hook(_watch_output(raw.append))
            try:
                with self._from_layer(0, embedded[:, None]):
                    self._view(inputs_embeds=embedded[:, None].detach(), use_cache=False, logits_to_keep=1)
            finally:
                handle.remove()
        return raw[-1].reshape(len(embedded), -1) * passed.factor

    @contextmanager
    def _direct(self, passed: Passed, inputs: Given | None, outputs: Given | None) -> Iterator[None]:
        """Put frozen norms and given states in the places of the model's own."""
        handles: list[Any] = []
        for name, norm in passed.norms.items():
            handles.append(self._modules[name].register_forward_hook(_put(lambda out, x, norm=norm: norm(x))))
        for place, module in self._writers.items():
            if inputs is not None and place in self._projected:
                handles.append(module.register_forward_pre_hook(input_hook(_flat(inputs, place))))
            if outputs is not None:
                handles.append(module.register_forward_hook(_put(lambda out, x, at=place: _flat(outputs, at)(out))))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def may_be_a_norm(module: nn.Module) -> bool:
    """Whether a module is small enough for a norm: no parts, and no matrices."""
    if isinstance(module, nn.Dropout | nn.Identity) or next(module.children(), None) is not None:
        return False
    return all(parameter.ndim <= 1 for parameter in module.parameters())


def _last(state: Tensor) -> Tensor:
    """The last position of a state of one text, whatever its leading dimensions, [width]."""
    return state.detach().reshape(-1, state.shape[-1])[-1].clone()


def _flat(given: Given, place: Place) -> Callable[[Tensor], Tensor]:
    """A change of states [rows, 1, width] or [rows, width] by a function of [rows, width]."""
    return lambda state: given(place, state.reshape(-1, state.shape[-1])).reshape(state.shape)


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _watch_input(see: Callable[[Tensor], None]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args:
            see(args[0])

    return hook


def _watch_output(see: Callable[[Tensor], None]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        see(_first(output))

    return hook


def _put(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """A hook that puts a function of a module's output and input in the place of its output."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # A copy: some models add to what a sublayer puts out, in place.
        value = change(_first(output), args[0]).clone()
        return (value, *output[1:]) if isinstance(output, tuple) else value

    return hook


def _multiple(of: Tensor, values: Tensor) -> tuple[float, bool]:
    """The factor that takes one vector to another, and whether it does."""
    allowed = max(LINEAR, 4 * torch.finfo(values.dtype).eps)
    of, values = of.double(), values.double()
    factor = of @ values / (of @ of)
    return float(factor), bool((values - factor * of).norm() <= allowed * values.norm())
