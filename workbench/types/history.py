"""What a fit that takes steps measured on its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """What was measured before an optimiser step, and once more at the end of a stage.

    Args:
        stage, step: Where in the fit; ``step`` counts the stage's updates so far. The last one of a stage is of its
            final parameters, averaged and drawn back, on the rows of the batch before.
        loss: Negative log-likelihood of the stage's answers, nats per token: of what is taught, which falls; of the
            old answer where that is made unlikely (``TrainedRecipe.forgets``), which rises. Of a method that trains
            representations, what its loss is per token of the forgotten texts.
        kl: KL(base || edited) on the retain rows of the step, nats per token (0.0 without a retain term); of such
            a method, how far those tokens' representations moved.
        p_old, p_new, p_refusal: Probability of the old answer, the target and the refusal (geometric mean per token)
            after the bare question, on the step's rows; None where it was not measured at this step.
        seconds: Since the fit began.
    """

    stage: str
    step: int
    loss: float
    kl: float
    p_old: float | None = None
    p_new: float | None = None
    p_refusal: float | None = None
    seconds: float = 0.0


def updates_before(history: Sequence[Step]) -> list[int]:
    """How many updates all stages together had made when each entry of a history was measured."""
    updates: list[int] = []
    earlier = 0
    for i, step in enumerate(history):
        if i and history[i - 1].stage != step.stage:
            earlier += history[i - 1].step
        updates.append(earlier + step.step)
    return updates


def updates_by_stage(history: Sequence[Step]) -> dict[str, int]:
    """How many updates each stage made, in order."""
    return {step.stage: step.step for step in history}
