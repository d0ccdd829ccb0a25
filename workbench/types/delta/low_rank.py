"""Low-rank updates of linear modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from workbench.types.delta.base import LAYER, Delta, DeltaKind, check_shapes, drawn_order, finite, owned


@dataclass(frozen=True, eq=False)
class LowRankDelta(Delta):
    """A low-rank delta adds U V to the weight W of linear modules. The base's weights stay as they are; a module
    computes W x + U (V x).

    Args:
        factors: By (layer, module), U [d_out, r] and V [r, d_in] in float32. The module's name is the one within its
            layer (``"mlp.down_proj"``); a full name (``"model.layers.13.mlp.down_proj"``) instead of the pair is taken
            apart. d_in and d_out are the module's, however it stores its weight.

    Raises:
        ValueError: Factors that do not fit together, or a name without a layer.

    Source: Hu et al. 2021 (2106.09685); closed-form editors write such updates too (ROME, 2202.05262).

    Example:
        >>> from workbench.types import LowRankDelta
        >>> u, v = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0, 0.5, 0.0]])
        >>> delta = LowRankDelta({(1, "mlp.down_proj"): (u, v)})
        >>> delta.words(), delta.largest_move()
        ('rank 1 added to 1 module', 1.0)
        >>> delta.then(delta).words()
        'rank 2 added to 1 module'
    """

    factors: Mapping[tuple[int, str], tuple[Tensor, Tensor]]
    kind: ClassVar[DeltaKind] = "low-rank"

    if TYPE_CHECKING:  # full names may be given, and only pairs are kept

        def __init__(
            self,
            factors: Mapping[tuple[int, str], tuple[Tensor, Tensor]] | Mapping[str, tuple[Tensor, Tensor]],
        ) -> None: ...

    def __post_init__(self) -> None:
        clean = {_place(key): (owned(u), owned(v)) for key, (u, v) in self.factors.items()}
        for (layer, module), (u, v) in clean.items():
            if u.ndim != 2 or v.ndim != 2 or u.shape[1] != v.shape[0]:
                raise ValueError(
                    f"The factors of layer {layer} {module} are {tuple(u.shape)} and {tuple(v.shape)}; they must be "
                    "U [d_out, r] and V [r, d_in] with the same r."
                )
        object.__setattr__(self, "factors", dict(sorted(clean.items())))

    def tensors(self) -> dict[str, Tensor]:
        """See ``Delta``: by ``"layer.module.U"`` and ``"layer.module.V"``."""
        return {
            f"{layer}.{module}.{name}": factor
            for (layer, module), pair in self.factors.items()
            for name, factor in zip("UV", pair, strict=True)
        }

    def header(self) -> dict[str, Any]:
        """See ``Delta``."""
        return {"kind": self.kind, "keys": [list(key) for key in self.factors]}

    @property
    def lowest_layer(self) -> int | None:
        """See ``Delta``."""
        return min((layer for layer, _ in self.factors), default=None)

    @property
    def rank(self) -> int:
        """The largest rank of a module's update."""
        return max((u.shape[1] for u, _ in self.factors.values()), default=0)

    def n_moved(self) -> int:
        """How many numbers of the factors differ from 0."""
        return sum(int((factor != 0).sum()) for pair in self.factors.values() for factor in pair)

    def largest_move(self) -> float:
        """Largest absolute entry of U V."""
        return max((float((u @ v).abs().max()) for u, v in self.factors.values() if u.shape[1]), default=0.0)

    def words(self) -> str:
        """See ``Delta``."""
        n = len(self.factors)
        return f"rank {self.rank} added to {n} module{'' if n == 1 else 's'}"

    def scaled(self, strength: float) -> LowRankDelta:
        """U times the strength."""
        weight = finite(strength)
        return LowRankDelta({key: (u * weight, v) for key, (u, v) in self.factors.items()})

    def permuted(self, seed: int) -> LowRankDelta:
        """The columns of each V exchanged with one another: the same update of other inputs."""
        order = drawn_order(seed)
        return LowRankDelta({key: (u, v[:, order(v.shape[1])]) for key, (u, v) in self.factors.items()})

    def restricted(self, columns: Mapping[tuple[int, str], Sequence[int]]) -> LowRankDelta:
        """The delta with some columns of V only, the others 0: those inputs of a module that were selected.

        Args:
            columns: By (layer, module), the inputs that may be read; modules that are not named are left out.
        """
        out: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
        for key in self.factors.keys() & columns.keys():
            u, v = self.factors[key]
            index = list(columns[key])
            part = torch.zeros_like(v)
            part[:, index] = v[:, index]
            out[key] = u, part
        return LowRankDelta(out)

    def _joined(self, other: LowRankDelta) -> LowRankDelta:
        out = dict(self.factors)
        for key, (u, v) in other.factors.items():
            if key in out:
                before_u, before_v = out[key]
                check_shapes(f"layer {key[0]} {key[1]}", before_u[:, 0:1], u[:, 0:1])
                check_shapes(f"layer {key[0]} {key[1]}", before_v[0:1], v[0:1])
                u, v = torch.cat([before_u, u], 1), torch.cat([before_v, v])
            out[key] = u, v
        return LowRankDelta(out)


def _place(key: Any) -> tuple[int, str]:
    """(layer, module within the layer) of a key that may be a module's full name."""
    if not isinstance(key, str):
        layer, module = key
        return int(layer), str(module)
    match = LAYER.search(key)
    if match is None:
        raise ValueError(f"{key!r} names no layer; give (layer, module) or a name such as 'model.layers.3.mlp.c_proj'.")
    return int(match[1]), key[match.end() :]
