"""Restorations: which clean state is put where, and the fewest layers and tokens that it can change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from workbench.models.engine import HookSite

Measure = Callable[[Tensor], Tensor]
"""From last-position logits [rows, d_vocab] to one number a row."""


@dataclass(frozen=True)
class Restoration:
    """One restoration.

    Args:
        site: The state that becomes clean: ``"resid"``, ``"attn"``, ``"mlp"`` or ``"z"``.
        layers: In these layers (one for ``"resid"`` and ``"z"``).
        position: At this position of the corrupted tokens; None for all of them.
        head: Only this head's entries (of ``"z"``).
    """

    site: HookSite
    layers: range
    position: int | None = None
    head: int | None = None

    @property
    def start(self) -> int:
        """The first layer to compute."""
        return self.layers.start + (self.site in ("attn", "mlp"))

    @property
    def first(self) -> int:
        """The first position to compute."""
        return self.position or 0


def cone_tokens(cells: Sequence[Restoration], layers: int, tokens: int) -> int:
    """How many times a token goes through a layer, for one corrupted run."""
    return sum((layers - cell.start) * (tokens - cell.first) for cell in cells)
