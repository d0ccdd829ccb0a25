"""Forward passes over prepared rows, from the lowest edited layer on and after the tokens that all rows share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from workbench.editing.training.batching import Prepared, PreparedRow
from workbench.models.engine import KeysValues, Resumable


class Passes:
    """Runs prepared rows through one view of the model.

    Args:
        engine: Runs the view: the base, or what is trained.
        prepared: What the rows belong to.
    """

    def __init__(self, engine: Resumable, prepared: Prepared) -> None:
        self.engine, self.prepared = engine, prepared

    def prefix(self) -> KeysValues | None:
        """Keys and values of what all rows begin with, with gradients if enabled; None where that is nothing."""
        beginning = self.prepared.beginning
        return None if beginning is None else self.engine.resumed_keys_values(beginning, self.prepared.start)

    def logits(self, rows: Sequence[PreparedRow], prefix: KeysValues | None) -> list[Tensor]:
        """Logits that predict each row's answer tokens that count, [tokens, d_vocab] float32 per row, in one forward
        pass."""
        batch = self.prepared.batch(rows)
        logits = self.engine.logits_at(batch.resid, batch.row, batch.position, start=self.prepared.start, prefix=prefix)
        return list(logits.float().split(batch.count))

    def nll(self, rows: Sequence[PreparedRow], prefix: KeysValues | None) -> Tensor:
        """Negative log-likelihood of each row's answer, nats per token, [rows], in parts and without a graph."""
        nll = torch.zeros(len(rows), device=self.engine.device)
        with torch.no_grad():
            for part in self.prepared.parts(rows):
                together = [rows[i] for i in part]
                nll[part] = answer_nll(self.logits(together, prefix), together)
        return nll


def answer_nll(logits: Sequence[Tensor], rows: Sequence[PreparedRow]) -> Tensor:
    """Mean negative log-likelihood of each row's answer tokens that count, nats per token, [rows].

    Args:
        logits: Of each row, [tokens that count, d_vocab].
        rows: The rows.
    """
    nll = []
    for x, row in zip(logits, rows, strict=True):
        answer = torch.tensor(row.row.counted, device=x.device)
        nll.append(nn.functional.cross_entropy(x, answer))
    return torch.stack(nll)
