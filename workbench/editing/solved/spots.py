"""Spots of a model that closed-form editors read and write, and an engine that knows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from workbench.models.engine import Change, HookSite, KeysValues, Resumable, input_hook, output_hook, past_options
from workbench.models.families import Architecture
from workbench.models.family import sizes, stores_transposed
from workbench.models.load import LoadedModel
from workbench.types import Site
from workbench.types.covariance import OutputModule

SITES: dict[OutputModule, Site] = {"mlp": "post", "attn": "z"}
"""The gate site that is the input of each output projection."""
_IN_SITES: dict[OutputModule, HookSite] = {"mlp": "post", "attn": "z"}


class Place(NamedTuple):
    """An output projection: the module that a closed form writes."""

    layer: int
    module: OutputModule


class Spot(NamedTuple):
    """Where states are read, or a vector is added.

    Args:
        kind: ``"resid"``: the residual stream after ``layer`` (-1 for the embeddings); ``"mlp"``, ``"attn"``: what the
            layer's output projection gives out, before any norm; ``"mlp in"``, ``"attn in"``: what it reads, its key.
        layer: The layer.
    """

    kind: Literal["resid", "mlp", "attn", "mlp in", "attn in"]
    layer: int


def key_spot(place: Place) -> Spot:
    """The input of an output projection."""
    return Spot("mlp in" if place.module == "mlp" else "attn in", place.layer)


def module_name(architecture: Architecture, place: Place) -> str:
    """The full name of an output projection.

    Raises:
        ValueError: The model has no such layer, or no such module.
    """
    shape = architecture.shape
    if not 0 <= place.layer < shape.n_layers:
        raise ValueError(
            f"Layer {place.layer} does not exist: the model has {shape.n_layers} layers (0 to {shape.n_layers - 1})."
        )
    return architecture.gate_module(place.layer, SITES[place.module]).module


def name_within(architecture: Architecture, place: Place) -> str:
    """The module's name within its layer, as a ``LowRankDelta`` has it."""
    return module_name(architecture, place).removeprefix(f"{architecture.family.layers}.{place.layer}.")


def where_of(model: LoadedModel, place: Place) -> str:
    """A module, for a message: ``"layer 9 mlp.down_proj"``."""
    return f"layer {place.layer} {name_within(model.architecture, place)}"


def weight_of(network: nn.Module, name: str) -> Tensor:
    """A linear module's weight as [d_out, d_in] float64 on the CPU, however it is stored (by its class)."""
    module: Any = network.get_submodule(name)
    weight = module.weight.detach().to("cpu", torch.float64)
    return weight.T if stores_transposed(module) else weight


def width_in(network: nn.Module, name: str) -> int:
    """How many inputs a linear module has."""
    return sizes(network.get_submodule(name))[1]


class _Reached(Exception):
    """Ends a pass when all that is asked for was read."""


class SpotEngine(Resumable):
    """A ``Resumable`` that reads and changes the states of spots."""

    @contextmanager
    def changing(self, changes: Mapping[Spot, Change]) -> Iterator[None]:
        """Replace the states of spots in each pass within the block, [rows, tokens, width]."""
        sites: dict[tuple[HookSite, int], Change] = {}
        handles: list[RemovableHandle] = []
        try:
            for spot, change in changes.items():
                if spot.kind == "resid" and spot.layer < self.n_layers - 1:
                    sites["resid", spot.layer + 1] = change
                elif spot.kind == "resid":
                    handles.append(self._norm.register_forward_pre_hook(input_hook(change)))
                elif spot.kind in ("mlp in", "attn in"):
                    sites[_IN_SITES["mlp" if spot.kind == "mlp in" else "attn"], spot.layer] = change
                else:
                    place = Place(spot.layer, "mlp" if spot.kind == "mlp" else "attn")
                    if place.module == "mlp" and self._family.flat_mlp:
                        change = self._by_row(change, spot.layer, handles)
                    module = self._modules[module_name(self._architecture, place)]
                    handles.append(module.register_forward_hook(output_hook(change)))
            with self._changed(sites):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def read(
        self, resid: Tensor, spots: Sequence[Spot], *, start: int, prefix: KeysValues | None = None
    ) -> dict[Spot, Tensor]:
        """States of some spots, computed no further than needed.

        Args:
            resid: The residual stream entering layer ``start``, [rows, tokens, d_model].
            spots: What is read; none below ``start``.
            start: First layer to compute.
            prefix: Keys and values of the tokens before, shared by all rows.
        """
        states: dict[Spot, Tensor] = {}
        last = max(spot.layer for spot in spots)

        def keep(spot: Spot) -> Change:
            def see(value: Tensor) -> Tensor:
                states[spot] = value
                if spot == end:
                    raise _Reached
                return value

            return see

        end = Spot("resid", last)
        wanted = list(dict.fromkeys([*spots, end]))
        with self._from_layer(start, resid), self.changing({s: keep(s) for s in wanted}), suppress(_Reached):
            self._parent(inputs_embeds=resid, **past_options(prefix, resid.shape[0]))
        return {spot: states[spot] for spot in spots}


def engine_of(model: LoadedModel, view: Any = None) -> SpotEngine:
    """An engine over a view of the model, by default one that nothing was changed on."""
    return SpotEngine(model, view)
