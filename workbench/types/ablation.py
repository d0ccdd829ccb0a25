"""Ablations: what an answer loses without some components."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.types.effect import TracedPrompt
from workbench.types.selection import Selection


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A metric, measured with some components and without them.

    Args:
        selection: What was set to zero.
        metric: ``"probability"`` or ``"logit_diff"``.
        clean, ablated: The metric without and with the ablation.
        prompt: The text.

    Example:
        >>> ablation = wb.ablate(model, fact, "L0MLP")
        >>> print(f"{ablation.metric} {ablation.clean:.1f}, without {ablation.selection}: {ablation.ablated:.1f}")
        logit_diff 14.0, without L0MLP: 0.7
    """

    selection: Selection
    metric: str
    clean: float
    ablated: float
    prompt: TracedPrompt

    @property
    def effect(self) -> float:
        """What the ablation takes away: clean minus ablated."""
        return self.clean - self.ablated
