"""What every component writes into the residual stream, and what every reader reads of it, in a forward pass.

A writer is the embedding, a query head or an MLP: what it writes is what is added to the residual stream, with the
factor and the norm that a family puts between (a norm after a sublayer is held at the scale that it has in that run, so
that heads add up; the projection's bias is shared evenly among heads). A reader is a head's query, a key-value group's
key or value, an MLP, or the logits: its input is the residual stream before the norm in front of it. Key-value groups
stay groups, and no reader has a copy of the residual stream.

On every text it is checked that the writes add up to what each reader reads; where they miss it, a ``ValueError`` says
so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from workbench.models.direct import may_be_a_norm
from workbench.models.engine import HookSite, KeysValues, Recording, Resumable
from workbench.models.family import sizes, stores_transposed
from workbench.models.frozen_norm import freeze_each
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.tracing.dla import allowed_miss
from workbench.types import EdgeGraph, Site

Part = Literal["attn", "mlp"]
Place = tuple[Part, int]
READ_SITES: tuple[Site, ...] = ("q", "k", "v")
WRITE_SITES: tuple[HookSite, ...] = ("z", "attn", "mlp")


@dataclass(frozen=True)
class Reading:
    """What one forward pass wrote and read.

    Attributes:
        writes: What each sender adds to the residual stream, [senders, rows, tokens, d_model].
        inputs: The residual stream that attention and MLP of each layer read, by part and layer, [rows, tokens,
            d_model].
        final: The residual stream before the last norm, [rows, tokens, d_model].
        logits: Of the last position, [rows, d_vocab].
    """

    writes: Tensor
    inputs: dict[Place, Tensor]
    final: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Projection:
    """A linear map from a norm's output to some reader's queries, keys or values.

    Attributes:
        weight: [readers, d_model, d_head]; often a view of the module's own.
        bias: [readers, d_head].
        index: The places of each reader's entries in the module's output, [readers, d_head].
        span: The same as a slice, where all readers' entries follow each other; None where not.
    """

    weight: Tensor
    bias: Tensor
    index: Tensor
    span: slice | None

    def entries(self, vectors: Tensor) -> Tensor:
        """Each reader's entries of the module's output [..., entries], as [..., readers, d_head]."""
        return _entries(vectors, self.index, self.span)


def _entries(vectors: Tensor, index: Tensor, span: slice | None) -> Tensor:
    """Entries [..., readers, d_head] of vectors [..., entries], without a copy where they follow each other."""
    flat = vectors[..., index.flatten()] if span is None else vectors[..., span]
    return flat.unflatten(-1, index.shape)


class Wired(Resumable):
    """A view of a model in which writes and reads are told apart."""

    def __init__(self, model: LoadedModel, view: Any = None) -> None:
        super().__init__(model, view)
        self.graph = EdgeGraph.of(model)
        self.scale = model.architecture.traits.residual_scale
        self._allowed = allowed_miss(model.dtype)
        self._norms: dict[Place, nn.Module | None] = {}
        self._find_norms()

    # Where readers read

    def consumers(self, part: Part, layer: int) -> dict[str, nn.Module]:
        """The modules that read the (normalised) residual stream, by name."""
        sites: tuple[Site, ...] = READ_SITES if part == "attn" else ("gate", "up")
        held: list[Site] = [s for s in sites if any(s in known for known in self._family.modules.values())]
        names = dict.fromkeys(self._architecture.gate_module(layer, site).module for site in held)
        if not names:  # of experts the MLP as a whole
            names = dict.fromkeys([f"{self._family.layers}.{layer}.{self._family.mlp}"])
        return {name: self._modules[name] for name in names}

    def norm_before(self, part: Part, layer: int) -> nn.Module | None:
        """The norm in front of a part's readers; None where they read the residual stream itself."""
        return self._norms[part, layer]

    def _find_norms(self) -> None:
        """Which norm each consumer's input comes from: the one whose output it is, as a tensor."""
        left: list[tuple[Tensor, nn.Module]] = []
        handles: list[Any] = []

        def see(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                left.append((output, module))

        def find(place: Place) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
                given: Tensor = args[0]
                from_it = [norm for out, norm in left if out is given or out.data_ptr() == given.data_ptr()]
                self._norms[place] = from_it[-1] if from_it else None

            return hook

        for layer, block in enumerate(self._layers):
            consumers = {part: self.consumers(part, layer) for part in ("attn", "mlp")}
            inside = {id(module) for names in consumers.values() for module in names.values()}
            norms = [m for m in block.modules() if may_be_a_norm(m) and id(m) not in inside]
            handles += [norm.register_forward_hook(see) for norm in norms]
            for part in ("attn", "mlp"):
                first = next(iter(consumers[part].values()))
                handles.append(first.register_forward_pre_hook(find((part, layer))))
        try:
            with torch.no_grad():
                self._view(input_ids=torch.tensor([[1, 2]], device=self.device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()

    # Weights

    def affine(self, module: nn.Module) -> tuple[Tensor, Tensor]:
        """A module as a linear map: weight [in, out] and bias [out], with whatever an edit does to it.

        Raises:
            ValueError: A memory is beside it, so that it is none.
        """
        if isinstance(getattr(module, "memories", None), tuple):
            raise ValueError(
                "A memory is beside a projection of this edited model, so what single heads read or write there is not "
                "defined. Ask the base (model.base)."
            )
        outputs, inputs = sizes(module)
        plain: Any = module
        if not hasattr(module, "base_layer"):
            weight = plain.weight if stores_transposed(plain) else plain.weight.T
            return weight, weight.new_zeros(outputs) if plain.bias is None else plain.bias
        like: Any = next(module.parameters())
        with torch.no_grad():  # past the hooks that may watch it
            bias = module.forward(torch.zeros(1, inputs, dtype=like.dtype, device=like.device))[0]
            weight = _without_bias(module).forward(torch.eye(inputs, dtype=like.dtype, device=like.device))
        return weight, bias

    def site_module(self, layer: int, site: Site) -> str:
        """The name of the module that holds a site."""
        return self._architecture.gate_module(layer, site).module

    def projections(self, layer: int) -> dict[Site, Projection]:
        """The queries', keys' and values' maps of a layer, a reader each."""
        found: dict[Site, Projection] = {}
        maps: dict[str, tuple[Tensor, Tensor]] = {}
        width = self._architecture.shape.d_head
        for site in READ_SITES:
            place = self._architecture.gate_module(layer, site)
            if place.module not in maps:
                maps[place.module] = self.affine(self._modules[place.module])
            weight, bias = maps[place.module]
            first, size = int(place.index[0]), len(place.index)
            follow = torch.equal(place.index, torch.arange(first, first + size))
            span = slice(first, first + size) if follow else None
            index = place.index.to(weight.device).view(-1, width)
            of_readers = _entries(weight, index, span).permute(1, 0, 2)
            found[site] = Projection(of_readers, bias[index], index, span)
        return found

    def head_writes(self, layer: int, z: Tensor, added: Tensor) -> Tensor:
        """What each head adds to the residual stream, [heads, rows, tokens, d_model].

        Args:
            layer: The layer.
            z: What enters the output projection, [rows, tokens, heads x d_head].
            added: What the layer's attention puts out in the end, [rows, tokens, d_model].
        """
        place = self._architecture.gate_module(layer, "z")
        weight, bias = self.affine(self._modules[place.module])
        heads = self._architecture.shape.n_heads
        per_head = weight.view(heads, -1, weight.shape[-1])
        writes = torch.einsum("bthk,hkd->hbtd", z.unflatten(-1, (heads, -1)).to(weight.dtype), per_head)
        writes = writes + bias / heads
        if self._architecture.traits.post_norms:
            norm = self._layers[layer].get_submodule(self._family.attention)
            frozen = freeze_each(norm, writes.sum(0), added)
            writes = frozen.linear(writes) + (frozen.bias / heads).to(writes.dtype)
        return writes * self.scale

    # A pass

    @contextmanager
    def on_inputs(self, see: Callable[[Place, Tensor], None], shape: torch.Size) -> Iterator[None]:
        """Call a function with the residual stream that each part reads, [rows, tokens, d_model], before it reads it.

        Args:
            see: Called once a part and layer in a pass.
            shape: Rows and tokens of the pass.
        """
        handles: list[Any] = []
        for place, norm in self._norms.items():
            module = norm if norm is not None else next(iter(self.consumers(*place).values()))

            def hook(_: nn.Module, args: tuple[Any, ...], place: Place = place) -> None:
                see(place, args[0].reshape(*shape[:2], args[0].shape[-1]))

            handles.append(module.register_forward_pre_hook(hook))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def on_final(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Replace the residual stream before the last norm."""
        handle = self._norm.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))
        try:
            yield
        finally:
            handle.remove()

    def read(self, resid: Tensor, *, prefix: KeysValues | None = None) -> Reading:
        """Run from the embeddings and keep what is written and read.

        Args:
            resid: The residual stream entering layer 0, [rows, tokens, d_model].
            prefix: Keys and values of the tokens before.

        Raises:
            ValueError: The writes do not add up to what is read.
        """
        with torch.no_grad(), self._reading(resid.shape) as (inputs, final):
            recorded = self.record(resid, WRITE_SITES, prefix=prefix)
            return self._read(resid, recorded, inputs, final[-1])

    def read_from(self, first: int, resid: Tensor) -> tuple[Reading, KeysValues | None]:
        """``read`` of a whole text's tokens from ``first`` on, and in the same pass the keys and values of the tokens
        before (None if there are none).

        Args:
            first: The first token of the reading.
            resid: The residual stream of the text entering layer 0, [1, tokens, d_model].

        Raises:
            ValueError: As ``read``.
        """
        with torch.no_grad(), self._reading(resid.shape) as (inputs, final):
            recorded, prefix = self.record_from(first, resid, WRITE_SITES)
            of_later = {place: x[:, first:] for place, x in inputs.items()}
            return self._read(resid[:, first:], recorded, of_later, final[-1][:, first:]), prefix

    @contextmanager
    def _reading(self, shape: torch.Size) -> Iterator[tuple[dict[Place, Tensor], list[Tensor]]]:
        """Keep what parts read in a pass of this shape, and the residual stream before the last norm."""
        inputs: dict[Place, Tensor] = {}
        final: list[Tensor] = []

        def last(state: Tensor) -> Tensor:
            final.append(state)
            return state

        with self.on_inputs(inputs.__setitem__, shape), self.on_final(last):
            yield inputs, final

    def _read(self, resid: Tensor, recorded: Recording, inputs: dict[Place, Tensor], final: Tensor) -> Reading:
        """What a recorded pass wrote and read, checked."""
        writes = [resid[None]]
        for layer in range(self.n_layers):
            z, attn, mlp = (recorded.states[site, layer] for site in WRITE_SITES)
            writes.append(self.head_writes(layer, z, attn).to(resid))
            writes.append(mlp[None].to(resid) * self.scale)
        reading = Reading(torch.cat(writes), inputs, final, recorded.logits)
        self._check(reading)
        return reading

    def _check(self, reading: Reading) -> None:
        """Raise a ValueError where a part reads something else than the sum of what was written before it."""
        total, done = torch.zeros_like(reading.writes[0], dtype=torch.float32), 0
        places: list[tuple[Part, int]] = [(part, at) for at in range(self.n_layers) for part in ("attn", "mlp")]
        for place in [*places, None]:
            upto = len(reading.writes) if place is None else self.graph.n_before(place[1], place[0])
            total = total + reading.writes[done:upto].float().sum(0)
            done = upto
            read = (reading.final if place is None else reading.inputs[place]).to(total)
            missed = float((total - read).norm() / read.norm().clamp_min(1e-30))
            if not missed <= self._allowed:
                where = "the logits read" if place is None else f"layer {place[1]}'s {place[0]} reads"
                raise ValueError(
                    f"What components write misses what {where} by {missed:.2g} of its size, so edges of this model "
                    "would have wrong scores. wb.attribute(method='patching') does not need this sum."
                )


def _without_bias(module: nn.Module) -> Any:
    """A view of an adapter's layer whose linear module has a bias of 0. To take the bias from the output would round
    the weight by it, and an edit at strength 0 would not be the base to the bit."""
    view = plain = shared_view(module)
    while hasattr(plain, "base_layer"):
        plain = plain.base_layer
    if plain.bias is not None:
        plain.bias = nn.Parameter(torch.zeros_like(plain.bias), requires_grad=False)
    return view
