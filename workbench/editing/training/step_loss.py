"""The loss of a step, and its gradients: rows in parts, what they share forward and backward once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from workbench.editing.training.batching import PreparedRow
from workbench.editing.training.objectives import Goal
from workbench.editing.training.passes import Passes, answer_nll
from workbench.editing.training.retained_kl import RetainedKL
from workbench.models.engine import KeysValues


class StageLoss(Protocol):
    """What a stage asks of its loss. ``StepLoss`` is that of answers; a method may bring one of its own."""

    @property
    def goal(self) -> Goal:
        """What is wanted of the stage's own rows."""
        ...

    def backward(
        self, fact_rows: Sequence[PreparedRow], retain_rows: Sequence[PreparedRow], learned: Collection[PreparedRow]
    ) -> tuple[Tensor, Tensor]:
        """Compute a step's losses, one of each fact row and one of the retained rows, and add their gradients."""
        ...

    def measure(self, fact_rows: Sequence[PreparedRow], retain_rows: Sequence[PreparedRow]) -> tuple[float, float]:
        """Both as they are now, without gradients."""
        ...

    def confidence(self, rows: Sequence[PreparedRow]) -> dict[PreparedRow, float]:
        """How surely rows are as wanted now, by row, 0 to 1."""
        ...


class StepLoss:
    """Measures a stage's loss and adds its gradients to the parameters' ``.grad``.

    Args:
        passes: Passes of what is trained.
        goal: What is wanted of the stage's own rows.
        retained: Measures the KL on retained rows.
        retain_weight: Weight of the KL in the loss.
    """

    def __init__(self, passes: Passes, goal: Goal, retained: RetainedKL, retain_weight: float) -> None:
        self._passes, self.goal = passes, goal
        self._retained, self._retain_weight = retained, retain_weight

    def backward(
        self, fact_rows: Sequence[PreparedRow], retain_rows: Sequence[PreparedRow], learned: Collection[PreparedRow]
    ) -> tuple[Tensor, Tensor]:
        """Compute a step's losses and add their gradients.

        The rows go forward and backward in parts (``Prepared.parts``). A row that was learned when it was last seen
        goes forward without a graph: if it is still learned, its gradient is zero.

        Args:
            fact_rows, retain_rows: The step's rows.
            learned: Fact rows that had reached the hinge when they were last seen.

        Returns:
            Negative log-likelihood of each fact row, [rows], and the KL of the retained ones, nats per token.
        """
        rows, device = [*fact_rows, *retain_rows], self._passes.engine.device
        nll, kl = torch.zeros(len(fact_rows), device=device), torch.zeros((), device=device)
        prefix = SharedPrefix(self._passes.prefix())
        settled = self._still_learned(fact_rows, learned, prefix.leaves, nll)
        places = [i for i in range(len(rows)) if i not in settled] or list(range(len(rows)))
        n_retain_tokens = _n_tokens(retain_rows)
        for part in self._passes.prepared.parts([rows[i] for i in places]):
            at = [places[i] for i in part]
            logits = dict(zip(at, self._passes.logits([rows[i] for i in at], prefix.leaves), strict=True))
            facts = [i for i in at if i < len(fact_rows)]
            retained = [i for i in at if i >= len(fact_rows)]
            total = torch.zeros((), device=device)
            if facts:
                chosen = [rows[i] for i in facts]
                part_nll = answer_nll([logits[i] for i in facts], chosen)
                nll[facts] = part_nll.detach()
                total = total + self.goal.loss(part_nll, chosen).sum() / len(fact_rows)
            if retained:
                part_kl = self._retained.of([logits[i] for i in retained], [rows[i] for i in retained])
                change = part_kl.sum() / n_retain_tokens
                kl += change.detach()
                total = total + self._retain_weight * change
            total.backward()
        prefix.backward()
        return nll, kl

    def _still_learned(
        self,
        fact_rows: Sequence[PreparedRow],
        learned: Collection[PreparedRow],
        prefix: KeysValues | None,
        nll: Tensor,
    ) -> set[int]:
        """Places in ``fact_rows`` of the rows that were learned and still are. Their losses are written to ``nll``."""
        places = [i for i, row in enumerate(fact_rows) if row in learned]
        if not places:
            return set()
        measured = self._passes.nll([fact_rows[i] for i in places], prefix)
        nll[places] = measured
        return {i for i, x in zip(places, measured.tolist(), strict=True) if self.goal.reached(x)}

    def measure(self, fact_rows: Sequence[PreparedRow], retain_rows: Sequence[PreparedRow]) -> tuple[float, float]:
        """Mean negative log-likelihood of some rows and KL on others with the parameters as they are now, nats per
        token, without gradients."""
        kl = 0.0
        with torch.no_grad():
            prefix = self._passes.prefix()
            nll = float(self._passes.nll(fact_rows, prefix).mean())
            for part in self._passes.prepared.parts(retain_rows):
                rows = [retain_rows[i] for i in part]
                kl += float(self._retained.of(self._passes.logits(rows, prefix), rows).sum()) / _n_tokens(retain_rows)
        return nll, kl

    def confidence(self, rows: Sequence[PreparedRow]) -> dict[PreparedRow, float]:
        """How surely rows are as wanted with the parameters as they are now, by row, 0 to 1."""
        with torch.no_grad():
            prefix = self._passes.prefix()
        return dict(zip(rows, self.goal.confidence(self._passes.nll(rows, prefix)).tolist(), strict=True))


class SharedPrefix:
    """Cuts the graph after what all rows share, so that each part's graph can be freed after its own backward pass.

    The parts read the leaves, which gather the gradients of all; these go through the prefix once, at the end.

    Args:
        whole: Keys and values of the shared tokens by layer, with their graph.

    Attributes:
        leaves: The same without it.
    """

    def __init__(self, whole: KeysValues | None) -> None:
        self._whole = [state for pair in whole or () for state in pair]
        self._leaves = [state.detach().requires_grad_(state.requires_grad) for state in self._whole]
        self.leaves: KeysValues | None = None
        if whole is not None:
            self.leaves = list(zip(self._leaves[::2], self._leaves[1::2], strict=True))

    def backward(self) -> None:
        """Send what the leaves have gathered through the prefix."""
        gathered = [(x, leaf.grad) for x, leaf in zip(self._whole, self._leaves, strict=True) if leaf.grad is not None]
        if gathered:
            torch.autograd.backward([state for state, _ in gathered], [gradient for _, gradient in gathered])


def _n_tokens(rows: Sequence[PreparedRow]) -> int:
    """How many answer tokens of some rows count."""
    return sum(len(row.row.counted) for row in rows)
