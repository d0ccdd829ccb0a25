"""Record a forward pass, and resume it at a layer with some states replaced.

What precedes a change need not be computed again: layers below the first changed one are skipped by starting at its
recorded residual stream, and tokens before the first changed one by giving their keys and values. Both are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from workbench.models.load import LoadedModel
from workbench.models.views import shared_view

HookSite = Literal["resid", "attn", "mlp", "z", "post", "q", "k", "v", "gate", "up"]
"""``resid``: the residual stream entering a layer; ``attn``, ``mlp``: what a layer adds to it; ``z``, ``post``: inputs
of the attention and MLP output projections (before the gates of an edited model); the others: outputs of their
projections (all of a fused one, after the gates)."""
FLAT: frozenset[HookSite] = frozenset({"mlp", "post", "gate", "up"})
"""Sites whose states some models (``Family.flat_mlp``) have without a dimension for rows."""
Change = Callable[[Tensor], Tensor]
KeysValues = list[tuple[Tensor, Tensor]]


class Skipped(nn.Module):
    """Stands for a layer that is not computed.

    Args:
        tuples: Layers of this model return a tuple that begins with the residual stream.
    """

    def __init__(self, tuples: bool = False) -> None:
        super().__init__()
        self._tuples = tuples

    def forward(self, hidden: Tensor, *args: Any, **options: Any) -> Any:
        return (hidden, None) if self._tuples else hidden


class _Stop(Exception):
    """Ends a forward pass early."""


@dataclass
class Recording:
    """States of one forward pass, by (site, layer), and the logits of the last position, [rows, d_vocab]."""

    logits: Tensor
    states: dict[tuple[HookSite, int], Tensor] = field(default_factory=dict)


class Resumable:
    """A view of a model whose forward pass can start at any layer and after any prefix.

    Args:
        model: A base or edited model; it is not changed, and no weights are copied.
        view: A view of the model to run, with adapters of its own; by default a fresh one.
    """

    def __init__(self, model: LoadedModel, view: Any = None) -> None:
        self.n_layers = model.shape.n_layers
        self.device = model.device
        self._view: Any = shared_view(model.runner) if view is None else view
        self._family = model.architecture.family
        self._architecture = model.architecture
        path, _, name = self._family.layers.rpartition(".")
        self._parent: Any = self._view.get_submodule(path)
        self._list_name = name
        self._layers = list(getattr(self._parent, name))
        self._modules = dict(self._view.named_modules())
        self._norm: nn.Module = self._view.get_submodule(self._family.norm)

    @property
    def nbytes(self) -> int:
        """Bytes of its own, about: the view's modules, not the weights that it shares."""
        return BYTES_PER_MODULE * len(self._modules)

    def embed(self, ids: Tensor) -> Tensor:
        """The residual stream entering layer 0 (token embeddings, and learned positions where there are any),
        [rows, tokens, d_model]."""
        return self.entering(ids, 0)

    def entering(self, ids: Tensor, layer: int) -> Tensor:
        """The residual stream of texts of equal length (or padded on the right) entering a layer,
        [rows, tokens, d_model]."""
        caught: list[Tensor] = []

        def catch(value: Tensor) -> Tensor:
            caught.append(value)
            raise _Stop

        with self._changed({("resid", layer): catch}), suppress(_Stop):
            self._view(input_ids=ids.to(self.device), use_cache=False)
        return caught[0]

    def _module(self, site: HookSite, layer: int) -> tuple[nn.Module, bool]:
        """The module that carries a site, and whether the site is its input."""
        if site == "resid":
            return self._layers[layer], True
        if site == "attn":
            return self._layers[layer].get_submodule(self._family.attention), False
        if site == "mlp":
            return self._layers[layer].get_submodule(self._family.mlp), False
        place = self._architecture.gate_module(layer, site)
        return self._modules[place.module], place.on_input

    @contextmanager
    def _changed(self, changes: Mapping[tuple[HookSite, int], Change]) -> Iterator[None]:
        handles: list[RemovableHandle] = []
        try:
            for (site, layer), change in changes.items():
                module, on_input = self._module(site, layer)
                if site in FLAT and self._family.flat_mlp:
                    change = self._by_row(change, layer, handles)
                if on_input:
                    handles.append(module.register_forward_pre_hook(input_hook(change)))
                else:
                    handles.append(module.register_forward_hook(output_hook(change, own=self._family.adds_in_place)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _by_row(self, change: Change, layer: int, handles: list[RemovableHandle]) -> Change:
        """A change of states [rows, tokens, width] for a module that has them as [rows * tokens, width]."""
        entered: list[torch.Size] = []

        def see(_: nn.Module, args: tuple[Any, ...]) -> None:
            entered[:] = [args[0].shape[:2]]

        handles.append(self._layers[layer].register_forward_pre_hook(see))
        return lambda flat: change(flat.view(*entered[0], -1)).view(flat.shape)

    @contextmanager
    def _from_layer(self, start: int, resid: Tensor) -> Iterator[None]:
        """Skip the layers below ``start`` and feed ``resid`` to it, whatever the model does to embeddings before."""
        handle = self._layers[start].register_forward_pre_hook(input_hook(lambda _: resid))
        with self._skipping(start, handle):
            yield

    @contextmanager
    def _skipping(self, below: int, handle: RemovableHandle) -> Iterator[None]:
        """Skip the layers below this one; what they would give a hook puts in, which is removed afterwards."""
        # As many layers as before: Qwen2 picks each layer's attention mask by its place in the list.
        skipped = [Skipped(self._family.tuples) for _ in range(below)]
        setattr(self._parent, self._list_name, nn.ModuleList([*skipped, *self._layers[below:]]))
        try:
            yield
        finally:
            handle.remove()
            setattr(self._parent, self._list_name, nn.ModuleList(self._layers))

    @contextmanager
    def keeping(self, places: Iterable[tuple[HookSite, int]]) -> Iterator[dict[tuple[HookSite, int], Tensor]]:
        """Keep the states of these places: each forward pass within the block writes them, by (site, layer). What a
        resumed pass is given at its first layer is not seen here; ``record`` keeps that too."""
        states: dict[tuple[HookSite, int], Tensor] = {}
        with self._changed(_keepers(places, states)):
            yield states

    def run(
        self,
        resid: Tensor,
        *,
        start: int = 0,
        prefix: KeysValues | None = None,
        changes: Mapping[tuple[HookSite, int], Change] | None = None,
    ) -> Tensor:
        """Resume at layer ``start``.

        Args:
            resid: The residual stream entering layer ``start``, [rows, tokens, d_model].
            start: First layer to compute.
            prefix: Keys and values of the tokens before, shared by all rows.
            changes: Functions that replace states on the way, by (site, layer).

        Returns:
            Logits of the last position, [rows, d_vocab].
        """
        with self._from_layer(start, resid), self._changed(changes or {}):
            options = past_options(prefix, resid.shape[0])
            return self._view(inputs_embeds=resid, logits_to_keep=1, **options).logits[:, -1]

    def resumed_keys_values(self, resid: Tensor, start: int) -> KeysValues:
        """Keys and values of a prefix that resumes at layer ``start``, by layer, each [1, kv heads, tokens, d_head],
        with gradients if enabled. Zeros stand for the layers below, which nothing reads.

        Args:
            resid: The residual stream of the prefix entering layer ``start``, [1, tokens, d_model].
            start: First layer to compute.
        """
        options, cache = cache_options()
        with self._from_layer(start, resid):
            self._parent(inputs_embeds=resid, **options)
        done = [(layer.keys, layer.values) for layer in cache.layers[start:]]
        unused = (torch.zeros_like(done[0][0]), torch.zeros_like(done[0][1]))
        return [unused] * start + done

    def logits_at(
        self, resid: Tensor, rows: Tensor, positions: Tensor, *, start: int, prefix: KeysValues | None = None
    ) -> Tensor:
        """Logits at chosen places, [places, d_vocab], with gradients if enabled. Arguments as in ``hidden_at``."""
        return self.logits_of(self.hidden_at(resid, rows, positions, start=start, prefix=prefix))

    def hidden_at(
        self, resid: Tensor, rows: Tensor, positions: Tensor, *, start: int, prefix: KeysValues | None = None
    ) -> Tensor:
        """States after the last norm at chosen places, for rows that are padded on the right and share their first
        tokens.

        Args:
            resid: The residual stream entering layer ``start``, [rows, tokens, d_model], without the shared tokens.
            rows, positions: The places, counted within ``resid``.
            start: First layer to compute.
            prefix: Keys and values of the shared tokens, as ``resumed_keys_values`` gives them.

        Returns:
            [places, d_model], with gradients if enabled.
        """
        with self._from_layer(start, resid):
            hidden = self._parent(inputs_embeds=resid, **past_options(prefix, resid.shape[0])).last_hidden_state
        return hidden[rows, positions]

    def logits_of(self, hidden: Tensor) -> Tensor:
        """Logits [places, d_vocab] of what ``hidden_at`` gave."""
        normed = hidden[:, None]
        return self._head(normed, self._norm.register_forward_hook(lambda *_: normed))

    def stream(self, ids: Tensor) -> Tensor:
        """The residual stream at the last position, entering every layer and after the last one,
        [rows, layers + 1, d_model]."""
        return torch.stack([state[:, -1] for state in self._stream(ids)], dim=1)

    def whole_stream(self, ids: Tensor) -> Tensor:
        """The residual stream at every position, entering every layer and after the last one,
        [rows, layers + 1, tokens, d_model]."""
        return torch.stack(self._stream(ids), dim=1)

    def _stream(self, ids: Tensor) -> list[Tensor]:
        """The residual stream entering every layer and after the last one, each [rows, tokens, d_model]."""
        last: list[Tensor] = []
        handle = self._norm.register_forward_pre_hook(lambda module, args: last.append(args[0]))
        try:
            with self.keeping([("resid", layer) for layer in range(self.n_layers)]) as states:
                self._view(input_ids=ids.to(self.device), use_cache=False, logits_to_keep=1)
        finally:
            handle.remove()
        return [*(states["resid", layer] for layer in range(self.n_layers)), last[-1]]

    def unembed(self, resid: Tensor) -> Tensor:
        """Logits [..., d_vocab] of a residual stream [..., d_model], by the model's own last norm and head."""
        rows = resid.reshape(-1, 1, resid.shape[-1])
        logits = self._head(rows, self._norm.register_forward_pre_hook(input_hook(lambda _: rows)))
        return logits.view(*resid.shape[:-1], -1)

    def _head(self, states: Tensor, handle: RemovableHandle) -> Tensor:
        """Logits [rows, d_vocab] of states [rows, 1, d_model] that a hook puts at the last norm: by the model's own
        forward, with whatever scale or cap it puts on them, and without its layers."""
        with self._skipping(self.n_layers, handle):
            return self._view(inputs_embeds=states.detach(), use_cache=False).logits[:, 0]

    def record(
        self,
        resid: Tensor,
        sites: tuple[HookSite, ...],
        *,
        prefix: KeysValues | None = None,
    ) -> Recording:
        """Run from the embeddings and keep states of the sites at every layer. With gradients enabled and ``resid``
        requiring them, the kept states are part of the graph."""
        states: dict[tuple[HookSite, int], Tensor] = {}
        places: list[tuple[HookSite, int]] = [(site, layer) for site in sites for layer in range(self.n_layers)]
        logits = self.run(resid, prefix=prefix, changes=_keepers(places, states))
        return Recording(logits, states)

    def record_from(
        self, first: int, resid: Tensor, sites: tuple[HookSite, ...]
    ) -> tuple[Recording, KeysValues | None]:
        """``record`` of a whole text with the states of its tokens from ``first`` on, and in the same pass the keys and
        values of the tokens before (None if there are none): a run that changes later tokens begins with them.

        Args:
            first: The first token whose states are kept.
            resid: The residual stream of the text entering layer 0, [1, tokens, d_model].
            sites: What is kept.
        """
        states: dict[tuple[HookSite, int], Tensor] = {}
        places: list[tuple[HookSite, int]] = [(site, layer) for site in sites for layer in range(self.n_layers)]
        options, cache = cache_options()
        with self._from_layer(0, resid), self._changed(_keepers(places, states)):
            logits = self._view(inputs_embeds=resid, logits_to_keep=1, **options).logits[:, -1]
        prefix = [(layer.keys[:, :, :first], layer.values[:, :, :first]) for layer in cache.layers]
        kept = {place: state[:, first:] for place, state in states.items()}
        return Recording(logits, kept), prefix if first else None


class Poolable(Protocol):
    """What the pool of idle engines asks of one."""

    @property
    def nbytes(self) -> int:
        """Bytes of its own, about."""
        ...


E = TypeVar("E", bound=Poolable)
BYTES_PER_MODULE = 2700
"""What a view takes for each module of its own, measured; its weights are the network's."""


@contextmanager
def pooled_engine(kind: Callable[[LoadedModel], E], model: LoadedModel) -> Iterator[E]:
    """An engine of a model for the length of a ``with`` block. ``model.cache`` holds it for the next block, since its
    view takes longer to make than a short text to run; blocks of several threads at once have engines of their own, and
    one in which a pass has failed is not used again, nor one whose network got other tensors or other attention
    meanwhile.

    Args:
        kind: ``Resumable``, a subclass, or another class of what runs a view of a model.
        model: A base or edited model.
    """
    runner = model.runner
    network = runner.config._attn_implementation, tuple(p.data_ptr() for p in runner.parameters())
    engine = model.cache.take_engine(kind, network)
    if engine is None:
        engine = kind(model)
    yield engine
    model.cache.put_engine(kind, network, engine, engine.nbytes)


def _keepers(
    places: Iterable[tuple[HookSite, int]], states: dict[tuple[HookSite, int], Tensor]
) -> dict[tuple[HookSite, int], Change]:
    """Changes that change nothing and write what they see."""

    def keeper(place: tuple[HookSite, int]) -> Change:
        def keep(value: Tensor) -> Tensor:
            states[place] = value
            return value

        return keep

    return {place: keeper(place) for place in places}


def read_keys_values(network: Any, ids: Tensor) -> KeysValues:
    """Keys and values of some tokens [1, tokens] after a network has read them, by layer, each [1, kv heads, tokens,
    d_head]."""
    options, cache = cache_options()
    network(input_ids=ids, logits_to_keep=1, **options)
    return [(layer.keys, layer.values) for layer in cache.layers]


def cache_options() -> tuple[dict[str, Any], Any]:
    """Forward options that let a model keep what it reads, and the cache that will hold it: keys and values of every
    token, whatever a layer's attention window (for which a cache must not know the model's configuration)."""
    from transformers import DynamicCache

    cache: Any = DynamicCache()
    return {"use_cache": True, "past_key_values": cache}, cache


def past_options(prefix: Sequence[tuple[Tensor, Tensor]] | None, rows: int) -> dict[str, Any]:
    """Forward options that put a shared prefix before every row."""
    if prefix is None:
        return {"use_cache": False}
    from transformers import DynamicCache

    expanded = [(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in prefix]
    return {"use_cache": True, "past_key_values": DynamicCache(expanded)}


def input_hook(change: Change) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (change(args[0]), *args[1:])

    return hook


def output_hook(change: Change, *, own: bool = False) -> Callable[..., Any]:
    """A forward hook that changes a module's output.

    Args:
        change: From the output, or the first of several, to another.
        own: The model goes on with a copy, since it adds to outputs in place and ``change`` may have kept them.
    """

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        value = change(output[0] if isinstance(output, tuple) else output)
        value = value.clone() if own else value
        return (value, *output[1:]) if isinstance(output, tuple) else value

    return hook
