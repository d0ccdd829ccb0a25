"""The attention of all heads on one text, as tooltips and the side panel read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.plots.style import visible
from workbench.types import Component, TracedPrompt

TOP = 5
"""Tokens of a list."""


@dataclass(frozen=True, eq=False)
class Attention:
    """Weights and the text they are of.

    Args:
        weights: [layer, head, query, key] on the CPU.
        prompt: The traced text.
    """

    weights: torch.Tensor
    prompt: TracedPrompt

    @property
    def tokens(self) -> Sequence[str]:
        """The text's tokens."""
        return self.prompt.tokens

    @property
    def start(self) -> int:
        """The first token of the subject: queries before it say nothing about it."""
        return min(self.prompt.subject, default=0)

    def of(self, head: Component) -> torch.Tensor:
        """A query head's weights, [query, key]."""
        return self.weights[head.layer, head.index or 0]

    def most(self, head: Component, query: int = -1) -> list[int]:
        """The positions that a query of a head attends to most, the most attended first."""
        return self.of(head)[query].argsort(descending=True, stable=True)[:TOP].tolist()

    def tip(self, head: Component) -> dict[str, Any]:
        """Where the last token attends most, in the prompt's order, as ``HeatGrid.show_tip`` takes it."""
        places, weights = sorted(self.most(head)), self.of(head)[-1]
        return {"tokens": [visible(self.tokens[i]) for i in places], "weights": [float(weights[i]) for i in places]}
