"""Gate sites and the sizes of a model, which decide what components there are.

A gate site is a vector that IA3 (Liu et al. 2022, arXiv 2205.05638) multiplies. Names follow TransformerLens:

=======  ==========================================  ==================
site     the vector                                  its length
=======  ==========================================  ==================
``z``    input of the attention output projection    n_heads * d_head
``post`` input of the MLP output projection          d_mlp
``q``    output of the query projection              n_heads * d_head
``k``    output of the key projection                n_kv_heads * d_head
``v``    output of the value projection              n_kv_heads * d_head
``gate`` output of the MLP's gate projection         d_mlp
``up``   output of the MLP's up projection           d_mlp
=======  ==========================================  ==================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

Site = Literal["z", "post", "q", "k", "v", "gate", "up"]
SITES: tuple[Site, ...] = get_args(Site)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a decoder that decide which components exist.

    Args:
        n_layers, n_heads, n_kv_heads, d_head, d_mlp, d_model, d_vocab: Sizes.
        no_neurons: Why it has no MLP neurons that could be named (a mixture of experts); empty where it has.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    d_model: int
    d_vocab: int
    no_neurons: str = ""

    def site_size(self, site: Site) -> int:
        """Length of the vector at a gate site."""
        if site in ("z", "q"):
            return self.n_heads * self.d_head
        if site in ("k", "v"):
            return self.n_kv_heads * self.d_head
        return self.d_mlp

    def group_of(self, head: int) -> int:
        """The key-value group that a query head reads (GQA)."""
        return head // (self.n_heads // self.n_kv_heads)

    def heads_of(self, group: int) -> tuple[int, ...]:
        """The query heads that share a key-value group."""
        size = self.n_heads // self.n_kv_heads
        return tuple(range(group * size, (group + 1) * size))


class HasShape(Protocol):
    """Anything with a ``shape``, such as a ``LoadedModel``."""

    @property
    def shape(self) -> ModelShape: ...


def shape_of(model: HasShape | ModelShape) -> ModelShape:
    """The shape of a model, or the shape itself."""
    return model if isinstance(model, ModelShape) else model.shape
