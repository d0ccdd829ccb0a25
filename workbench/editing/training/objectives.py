"""What a fit minimises beside its retain term: that an answer is given, or that it no longer is.

Source: gradient difference (Liu et al. 2022; Maini et al. 2024, TOFU), NPO (Zhang et al. 2404.05868) and SimNPO (Fan et
al. 2410.07163). NPO sums over an answer's tokens, SimNPO and the gradient difference take their mean; a step takes the
mean over its rows. Known deviations: of an answer only the tokens of the old answer count, those before it stay as they
are; the retain term is a KL, not a likelihood; and a hinge ends each as soon as the answer is rare enough, as KLUE does
(an update only while the fact is not yet forgotten).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from workbench.editing.training.batching import PreparedRow
from workbench.types import Objective

NPO_BETA, SIMNPO_BETA = 0.1, 2.5
"""The papers' settings (of SimNPO on TOFU, with a margin of 0)."""


class Goal(Protocol):
    """What is wanted of a row's answer, whose negative log-likelihoods are in nats per token."""

    def loss(self, nll: Tensor, rows: Sequence[PreparedRow]) -> Tensor:
        """What each row adds to the loss, [rows]."""
        ...

    def confidence(self, nll: Tensor) -> Tensor:
        """How surely each row is as wanted, 0 to 1, [rows]."""
        ...

    def reached(self, nll: float) -> bool:
        """Whether a row is as wanted and adds nothing to the loss any more."""
        ...


@dataclass(frozen=True)
class Given:
    """The answer is given: its cross-entropy, as far as it exceeds that of the probability ``hinge``."""

    hinge: float | None

    def loss(self, nll: Tensor, rows: Sequence[PreparedRow]) -> Tensor:
        """See ``Goal``."""
        return nll if self.hinge is None else (nll + math.log(self.hinge)).relu()

    def confidence(self, nll: Tensor) -> Tensor:
        """The answer's probability, geometric mean over its tokens."""
        return (-nll).exp()

    def reached(self, nll: float) -> bool:
        """See ``Goal``."""
        return self.hinge is not None and nll <= -math.log(self.hinge)


@dataclass(frozen=True)
class Forgotten:
    """The answer is no longer given.

    Args:
        objective: ``"gradient-difference"``: minus its negative log-likelihood. ``"npo"``: -(2 / b) log sigmoid(b (NLL
            - NLL of the base)), summed over the answer's tokens. ``"simnpo"``: -(2 / b) log sigmoid(b NLL), per token
            and without the base.
        hinge: A row ends once the answer's probability is at most 1 - hinge; None: never.
        base: By row, the base's negative log-likelihood, nats per token.
        tokens: By row, the answer's tokens.
    """

    objective: Objective
    hinge: float | None
    base: Mapping[PreparedRow, float]
    tokens: Mapping[PreparedRow, int]

    def loss(self, nll: Tensor, rows: Sequence[PreparedRow]) -> Tensor:
        """See ``Goal``."""
        if self.objective == "gradient-difference":
            loss = -nll
        elif self.objective == "npo":
            base = torch.tensor([self.base[row] for row in rows]).to(nll)
            more = (nll - base) * torch.tensor([self.tokens[row] for row in rows]).to(nll)
            loss = -2 / NPO_BETA * nn.functional.logsigmoid(NPO_BETA * more)
        else:
            loss = -2 / SIMNPO_BETA * nn.functional.logsigmoid(SIMNPO_BETA * nll)
        ended = [self.reached(x) for x in nll.detach().tolist()]
        return loss * (~torch.tensor(ended)).to(loss)

    def confidence(self, nll: Tensor) -> Tensor:
        """One minus the answer's probability, geometric mean over its tokens."""
        return 1 - (-nll).exp()

    def reached(self, nll: float) -> bool:
        """See ``Goal``."""
        return self.hinge is not None and math.exp(-nll) <= 1 - self.hinge
