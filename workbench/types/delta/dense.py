"""Whole changed tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from workbench.types.delta.base import LAYER, Delta, DeltaKind, check_shapes, finite, owned


@dataclass(frozen=True, eq=False)
class DenseDelta(Delta):
    """A dense delta puts whole changed tensors in the place of a model's, at a strength: full fine-tuning, or any edit
    that owns what it changes.

    Args:
        weights: By the parameter's full name, the changed tensor in the model's dtype.
        strength: Where between the base (0) and the changed tensors (1) it is.

    Example:
        >>> from workbench.types import DenseDelta
        >>> delta = DenseDelta({"model.norm.weight": torch.ones(42)})
        >>> delta.words(), delta.scaled(0.5).strength
        ('1 whole tensor changed (42 weights)', 0.5)
    """

    weights: Mapping[str, Tensor]
    strength: float = 1.0
    kind: ClassVar[DeltaKind] = "dense"

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", {name: owned(w, None) for name, w in sorted(self.weights.items())})
        finite(self.strength)

    def tensors(self) -> dict[str, Tensor]:
        """See ``Delta``: by the parameter's name."""
        return dict(self.weights)

    def header(self) -> dict[str, Any]:
        """See ``Delta``."""
        return {"kind": self.kind, "strength": self.strength, "names": list(self.weights)}

    @property
    def lowest_layer(self) -> int | None:
        """See ``Delta``."""
        layers = [LAYER.search(name) for name in self.weights]
        return min((0 if match is None else int(match[1]) for match in layers), default=None)

    def n_moved(self) -> int:
        """How many numbers it owns (whether they differ is for who has the base)."""
        return sum(w.numel() for w in self.weights.values()) if self.strength else 0

    def largest_move(self) -> float:
        """Not known without the base: NaN, or 0.0 at strength 0."""
        return math.nan if self.strength and self.weights else 0.0

    def words(self) -> str:
        """See ``Delta``."""
        n = len(self.weights)
        numbers = sum(w.numel() for w in self.weights.values())
        return f"{n} whole tensor{'' if n == 1 else 's'} changed ({numbers:,} weights)"

    def scaled(self, strength: float) -> DenseDelta:
        """The same tensors at a strength times that of this one."""
        return replace(self, strength=self.strength * finite(strength))

    def _joined(self, other: DenseDelta) -> Delta | None:
        for name in self.weights.keys() & other.weights.keys():
            check_shapes(name, self.weights[name], other.weights[name])
        return None
