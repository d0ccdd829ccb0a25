"""The places of a model's components in one order: heads and MLPs, or the neurons of an MLP that is taken apart.

Every component outside a selection is ablated, so that shares of all nodes need a list of them, and a ranking an order
in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from workbench.models.engine import HookSite
from workbench.types import Component, ModelShape, Selection

Site = tuple[HookSite, int]


@dataclass(frozen=True)
class AllNodes:
    """All nodes of a model: each layer's heads, then its MLP, or that MLP's neurons.

    Args:
        shape: The model's sizes.
        neurons: The layers whose MLPs are taken apart.
    """

    shape: ModelShape
    neurons: frozenset[int] = frozenset()

    @classmethod
    def of(cls, shape: ModelShape, parts: Iterable[Selection]) -> AllNodes:
        """The nodes that some selections tell apart.

        Raises:
            ValueError: A component is no head, MLP, neuron or attention layer, or the model has it not.
        """
        found: set[int] = set()
        for component in dict.fromkeys(component for part in parts for component in part):
            component.check(shape)
            if component.kind not in ("H", "MLP", "N", "ATTN"):
                raise ValueError(
                    f"{component} writes nothing by itself: the faithfulness of a selection is that of heads (L23H4), "
                    "MLPs, neurons and attention layers. Name the heads that read it, or give a wb.Circuit."
                )
            if component.kind == "N":
                found.add(component.layer)
        return cls(shape, frozenset(found))

    def mlp_site(self, layer: int) -> Site:
        """Where the outputs of a layer's MLP, or of its neurons, are."""
        return ("post" if layer in self.neurons else "mlp"), layer

    @cached_property
    def spans(self) -> dict[Site, range]:
        """The places of the heads (by ``z``) and of the MLP or its neurons, by site and layer."""
        found, start = dict[Site, range](), 0
        for layer in range(self.shape.n_layers):
            sizes: dict[Site, int] = {
                ("z", layer): self.shape.n_heads,
                self.mlp_site(layer): self.shape.d_mlp if layer in self.neurons else 1,
            }
            for site, size in sizes.items():
                found[site] = range(start, start + size)
                start += size
        return found

    @cached_property
    def count(self) -> int:
        """How many there are."""
        return sum(map(len, self.spans.values()))

    @property
    def words(self) -> str:
        """What they are, in words."""
        if not self.neurons:
            return "heads and MLPs"
        return "heads and neurons" if len(self.neurons) == self.shape.n_layers else "heads, MLPs and neurons"

    def places_of(self, component: Component) -> range:
        """The nodes that a component stands for: an attention layer for its heads, an MLP for its neurons if they are
        told apart."""
        heads, mlp = self.spans["z", component.layer], self.spans[self.mlp_site(component.layer)]
        if component.kind in ("ATTN", "MLP"):
            return heads if component.kind == "ATTN" else mlp
        index = component.index or 0
        return (heads if component.kind == "H" else mlp)[index : index + 1]

    def order(self, selection: Iterable[Component]) -> Tensor:
        """The nodes of components in their order, each once, [nodes]."""
        places = dict.fromkeys(place for component in selection for place in self.places_of(component))
        return torch.tensor(list(places), dtype=torch.long)

    def entries(self, kept: Tensor) -> dict[Site, Tensor]:
        """Which entries of each site belong to nodes that are kept [nodes, booleans]."""
        width = self.shape.site_size("z") // self.shape.n_heads
        found: dict[Site, Tensor] = {}
        for site, span in self.spans.items():
            of_site = kept[span.start : span.stop]
            found[site] = of_site.repeat_interleave(width) if site[0] == "z" else of_site
        return found
