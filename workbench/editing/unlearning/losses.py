"""Losses on representations: forget texts are driven to a random direction, or away from what they were."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from workbench.editing.training.batching import PreparedRow
from workbench.editing.training.step_loss import SharedPrefix
from workbench.editing.unlearning.states import States


class NoGoal:
    """A goal that says nothing of answers: none counts as learned, so that no step is left out and no stage ends
    early."""

    def loss(self, nll: Tensor, rows: Sequence[PreparedRow]) -> Tensor:
        """See ``Goal``."""
        return nll

    def confidence(self, nll: Tensor) -> Tensor:
        """0 for each row."""
        return torch.zeros_like(nll)

    def reached(self, nll: float) -> bool:
        """Never."""
        return False


Measure = Callable[[Tensor, Tensor], Tensor]
"""Of states [tokens, d_model] and those of the base, what is minimised at each token, [tokens]."""


def steered(target: Tensor) -> Measure:
    """RMU: how far forget tokens are from one random point [d_model]; a mean of squares over the entries."""
    return lambda states, base: (states - target).square().mean(-1)


def moved(states: Tensor, base: Tensor) -> Tensor:
    """RMU: how far retained tokens are from where they were; a mean of squares over the entries."""
    return (states - base).square().mean(-1)


def aligned(states: Tensor, base: Tensor) -> Tensor:
    """KUDA: the cosine with what forget tokens were, as far as it is positive: they leave the direction that they had
    until they stand at a right angle to it."""
    return nn.functional.cosine_similarity(states, base, dim=-1).relu()


def moved_share(states: Tensor, base: Tensor) -> Tensor:
    """KUDA: how far retained tokens are from where they were, as a share of their own squared length."""
    return (states - base).square().sum(-1) / base.square().sum(-1)


class RepresentationLoss:
    """Measures a loss of states after a layer, and adds its gradients: a mean over the tokens of all forget rows, plus
    a weight times a mean over those of all retained ones. Padding never counts, so rows may be of any lengths.

    Args:
        forget, retain: What is minimised at each token of a forget row, and of a retained one.
        states: Those of what is trained.
        base: Those of the base, by row.
        first: By forget row, the first of its own tokens that counts; 0 where it is not named.
        retain_weight: Weight of the retained rows.
    """

    def __init__(
        self,
        forget: Measure,
        retain: Measure,
        states: States,
        base: Mapping[PreparedRow, Tensor],
        first: Mapping[PreparedRow, int],
        retain_weight: float,
    ) -> None:
        self._forget, self._retain = forget, retain
        self._states, self._base, self._first, self._retain_weight = states, base, first, retain_weight
        self.goal = NoGoal()

    def of(self, row: PreparedRow, states: Tensor, *, forgets: bool) -> Tensor:
        """What each token of a row that counts adds, [tokens]."""
        first = self._first.get(row, 0) if forgets else 0
        return (self._forget if forgets else self._retain)(states[first:], self._base[row][first:])

    def backward(
        self, fact_rows: Sequence[PreparedRow], retain_rows: Sequence[PreparedRow], learned: Collection[PreparedRow]
    ) -> tuple[Tensor, Tensor]:
        """Compute a step's losses and add their gradients; rows go in parts.

        Args:
            fact_rows, retain_rows: The step's rows.
            learned: None is left out.

        Returns:
            The mean of each forget row's tokens, [rows], and that of all retained tokens.
        """
        return self._run(fact_rows, retain_rows, learn=True)

    def measure(self, fact_rows: Sequence[PreparedRow], retain_rows: Sequence[PreparedRow]) -> tuple[float, float]:
        """The mean of the forget rows' means, and that of all retained tokens, without gradients."""
        with torch.no_grad():
            values, kept = self._run(fact_rows, retain_rows, learn=False)
        return float(values.mean()), float(kept)

    def confidence(self, rows: Sequence[PreparedRow]) -> dict[PreparedRow, float]:
        """0 for each row."""
        return dict.fromkeys(rows, 0.0)

    def _run(
        self, fact_rows: Sequence[PreparedRow], retain_rows: Sequence[PreparedRow], *, learn: bool
    ) -> tuple[Tensor, Tensor]:
        rows, n_facts = [*fact_rows, *retain_rows], len(fact_rows)
        device = self._base[rows[0]].device
        values, kept = torch.zeros(n_facts, device=device), torch.zeros((), device=device)
        n_forget = sum(len(row.resid) - self._first.get(row, 0) for row in fact_rows)
        n_retain = sum(len(row.resid) for row in retain_rows)
        prefix = SharedPrefix(self._states.prefix())
        for part in self._states.prepared.parts(rows):
            total = torch.zeros((), device=device)
            for i, states in zip(part, self._states.of([rows[i] for i in part], prefix.leaves), strict=True):
                tokens = self.of(rows[i], states, forgets=i < n_facts)
                if i < n_facts:
                    values[i] = tokens.detach().mean()
                    total = total + tokens.sum() / n_forget
                else:
                    kept += tokens.detach().sum() / n_retain
                    total = total + self._retain_weight * tokens.sum() / n_retain
            if learn:
                total.backward()
        if learn:
            prefix.backward()
        return values, kept
