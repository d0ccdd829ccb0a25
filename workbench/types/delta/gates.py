"""IA3 gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from workbench.types.delta.base import Delta, DeltaKind, check_shapes, drawn_order, finite, owned
from workbench.types.shape import Site


@dataclass(frozen=True, eq=False)
class GateDelta(Delta):
    """IA3 gates multiply a model's activations at its gate sites.

    Args:
        gates: By (layer, site), a float32 vector of the site's full length; 1 means untouched.

    Source: Liu et al. 2022 (2205.05638).

    Example:
        >>> from workbench.types import GateDelta
        >>> delta = GateDelta({(1, "z"): torch.tensor([1.0, 0.0, 2.0])})
        >>> delta.words(), delta.scaled(0.5).gates[1, "z"]
        ('2 gates moved', tensor([1.0000, 0.5000, 1.5000]))
        >>> delta.then(delta).gates[1, "z"]
        tensor([1., 0., 4.])
    """

    gates: Mapping[tuple[int, Site], Tensor]
    kind: ClassVar[DeltaKind] = "gates"

    def __post_init__(self) -> None:
        object.__setattr__(self, "gates", {key: owned(gate) for key, gate in sorted(self.gates.items())})
        for (layer, site), gate in self.gates.items():
            if gate.ndim != 1:
                raise ValueError(f"The gates of layer {layer} {site} are {tuple(gate.shape)}; they must be a vector.")

    def tensors(self) -> dict[str, Tensor]:
        """See ``Delta``: by ``"layer.site"``."""
        return {f"{layer}.{site}": gate for (layer, site), gate in self.gates.items()}

    def header(self) -> dict[str, Any]:
        """See ``Delta``."""
        return {"kind": self.kind, "keys": [list(key) for key in self.gates]}

    @property
    def lowest_layer(self) -> int | None:
        """See ``Delta``."""
        return min((layer for layer, _ in self.gates), default=None)

    def n_moved(self) -> int:
        """How many gates differ from 1."""
        return sum(int((gate != 1).sum()) for gate in self.gates.values())

    def largest_move(self) -> float:
        """Largest distance of a gate from 1."""
        return max((float((gate - 1).abs().max()) for gate in self.gates.values()), default=0.0)

    def words(self) -> str:
        """See ``Delta``."""
        return f"{self.n_moved()} gates moved"

    def scaled(self, strength: float) -> GateDelta:
        """Gates interpolated from 1 (strength 0, exactly) to these (strength 1, exactly)."""
        weight = finite(strength)
        return GateDelta({key: torch.lerp(torch.ones_like(gate), gate, weight) for key, gate in self.gates.items()})

    def permuted(self, seed: int) -> GateDelta:
        """The gates of each site exchanged with one another."""
        order = drawn_order(seed)
        return GateDelta({key: gate[order(len(gate))] for key, gate in self.gates.items()})

    def hash_into(self, hashed: Any) -> None:
        """Feed every gate and its place to a hash, as the first version of the saved files did: what names such an edit
        (reports, probes) still does."""
        for (layer, site), gate in self.gates.items():
            hashed.update(f"{layer}{site}".encode())
            hashed.update(gate.numpy().tobytes())

    def _joined(self, other: GateDelta) -> GateDelta:
        return self * other

    def __mul__(self, other: GateDelta) -> GateDelta:
        """What the two do one after the other."""
        out = dict(self.gates)
        for key, gate in other.gates.items():
            if key in out:
                check_shapes(f"layer {key[0]} {key[1]}", out[key], gate)
            out[key] = out[key] * gate if key in out else gate
        return GateDelta(out)

    def __truediv__(self, other: GateDelta) -> GateDelta:
        """What comes after the other so that both together are this. A gate that the other closes (0) stays 1: nothing
        after it has an effect."""
        out = dict(self.gates)
        for key, gate in other.gates.items():
            mine = out.get(key, torch.ones_like(gate))
            out[key] = torch.where(gate == 0, torch.ones_like(gate), mine / gate)
        return GateDelta(out)


NO_DELTA = GateDelta({})
"""What a base model carries: it changes nothing, and any delta follows on it."""
