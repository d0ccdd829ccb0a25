"""Where a memory goes, and what the module there is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.editing.training.batching import parts
from workbench.language.padding import pad
from workbench.models import LoadedModel
from workbench.models.engine import HookSite, Resumable, pooled_engine
from workbench.types import Selection
from workbench.types.cancelling import PREPARING, CancelFlag, check_cancel


@dataclass(frozen=True)
class MemoryPlace:
    """A linear module, by one of its layer's sites, with a memory to stand beside it.

    Args:
        layer: The layer.
        site: ``"post"`` for the output projection of the MLP, ``"z"`` for that of the attention.
        name: The module's full name.
        module: Its name within the layer.
        columns: The inputs that the memory may read; None: all.
    """

    layer: int
    site: HookSite
    name: str
    module: str
    columns: tuple[int, ...] | None = None

    def read(self, states: Tensor) -> Tensor:
        """What the memory reads of states [..., d_in]."""
        return states if self.columns is None else states[..., list(self.columns)]

    def selector(self, given: Selection | int | None) -> str:
        """How the place came about, as ``Edit.selector`` says it."""
        return "given" if isinstance(given, Selection) else f"layer {self.layer}"

    @property
    def selection(self) -> Selection:
        """The whole module, as a selection."""
        return Selection(f"L{self.layer}{'MLP' if self.site == 'post' else 'ATTN'}")


def memory_place(model: LoadedModel, selection: Selection | int | None, layer: int | None, depth: float) -> MemoryPlace:
    """Choose the module that a memory goes beside.

    Args:
        model: The model.
        selection: Components of one layer, of its MLP or of its attention, whose part of the module's input the memory
            reads; None: all of an MLP's.
        layer: The layer, where nothing is selected; None: the one at ``depth``.
        depth: As a share of the model's layers.

    Raises:
        ValueError: A number instead of a selection, a selection of several modules or of none with an input to read, or
            a layer besides a selection, or one that the model lacks.
    """
    if isinstance(selection, int):
        raise ValueError(
            f"A memory has no selector of its own, so a number of neurons ({selection}) selects nothing. Give the "
            "components of one layer that it reads, or None."
        )
    shape = model.shape
    if selection is None:
        at = round(depth * shape.n_layers) if layer is None else layer
        if not 0 <= at < shape.n_layers:
            raise ValueError(f"layer={at} does not exist: the model has the layers 0 to {shape.n_layers - 1}.")
        return _place(model, at, "z" if shape.no_neurons else "post", None)
    entries = {key: index for key, index in selection.entries(model).items() if key[1] in ("z", "post")}
    whole = {(c.layer, "z") for c in selection if c.kind == "ATTN"}
    outputs = [c for c in selection if c.kind in ("K", "V", "KV", "Q", "GATEUP")]
    if outputs or len(entries) != 1:
        names = ", ".join(f"layer {at} {'MLP' if site == 'post' else 'attention'}" for at, site in entries)
        raise ValueError(
            f"A memory stands beside one output projection and reads its input, and the selection names "
            f"{outputs[0] if outputs else names or 'none'}. Choose heads, or neurons, or the MLP or the attention, of "
            "one layer."
        )
    ((at, site), index), *_ = entries.items()
    if layer is not None and layer != at:
        raise ValueError(f"layer={layer} and the selection's layer {at} differ. Leave layer= out.")
    everything = (at, site) in whole or len(index) == shape.site_size(site)
    return _place(model, at, "post" if site == "post" else "z", None if everything else index)


def _place(model: LoadedModel, layer: int, site: HookSite, columns: tuple[int, ...] | None) -> MemoryPlace:
    name = model.architecture.gate_module(layer, "post" if site == "post" else "z").module
    return MemoryPlace(layer, site, name, name.removeprefix(f"{model.architecture.family.layers}.{layer}."), columns)


def module_inputs(
    model: LoadedModel, place: MemoryPlace, texts: Sequence[Sequence[int]], *, cancel: CancelFlag | None = None
) -> list[Tensor]:
    """What a module is given of each token of some texts.

    Args:
        model: The model.
        place: The module.
        texts: Token ids.
        cancel: Looked at between the batches; raises ``Cancelled``.

    Returns:
        Of each text, [tokens, d_in] float32, before any gate on the module's input.
    """
    out: list[Tensor] = [torch.empty(0)] * len(texts)
    with torch.no_grad(), pooled_engine(Resumable, model) as engine:
        for part in parts([len(text) for text in texts], model.device):
            check_cancel(cancel, PREPARING)
            padded = pad([texts[i] for i in part], 0, "right")[0]
            with engine.keeping([(place.site, place.layer)]) as states:
                if place.layer + 1 < engine.n_layers:
                    engine.entering(padded, place.layer + 1)
                else:
                    engine.stream(padded)
            for i, state in zip(part, states[place.site, place.layer], strict=True):
                out[i] = state[: len(texts[i])].float().clone()
    return out


def median_distance(states: Tensor) -> float:
    """The median of the Euclidean distances between different states [n, d_in], n from 2."""
    pairs = torch.pdist(states.float())
    return float(pairs.median())
