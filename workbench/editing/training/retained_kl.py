"""How far an edit moves what the base model says to retained prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from workbench.editing.training.batching import PreparedRow
from workbench.editing.training.passes import Passes
from workbench.editing.training.rows import Row
from workbench.types.cancelling import PREPARING, CancelFlag, check_cancel


class RetainedKL:
    """Measures KL(base || edited) on retained rows.

    Args:
        base: Passes of the base model.
        rows: All retained rows of a fit.
        hidden: What the base's logits are made of, [tokens that count, d_model] by row, where another pass has computed
            it; None: one pass of its own, when it is first needed.
        keep_latest: Keep what each row had when it was last measured.
        cancel: Looked at between the batches of that pass, which then raises ``Cancelled``.

    Attributes:
        latest: That, in nats per token; empty where it is not kept.
    """

    def __init__(
        self,
        base: Passes,
        rows: Sequence[PreparedRow],
        hidden: Mapping[Row, Tensor] | None,
        *,
        keep_latest: bool = False,
        cancel: CancelFlag | None = None,
    ) -> None:
        self._cancel = cancel
        self._base, self._rows, self._hidden, self._keep_latest = base, rows, hidden, keep_latest
        self.latest: dict[PreparedRow, float] = {}

    def of(self, logits: Sequence[Tensor], rows: Sequence[PreparedRow]) -> Tensor:
        """KL at every answer token of some rows, [tokens] in nats.

        Args:
            logits: What the edited model gives there, [tokens that count, d_vocab] by row.
            rows: The rows.
        """
        edited = torch.cat(list(logits)).log_softmax(-1)
        reference = torch.cat([self.reference[row] for row in rows])
        kl = nn.functional.kl_div(edited, reference, reduction="none", log_target=True).sum(-1)
        if self._keep_latest:
            by_row = kl.detach().split([len(x) for x in logits])
            self.latest.update((row, float(part.mean())) for row, part in zip(rows, by_row, strict=True))
        return kl

    @cached_property
    def reference(self) -> dict[PreparedRow, Tensor]:
        """The base model's log-probabilities at every answer token that counts: by row, [tokens, d_vocab]."""
        reference: dict[PreparedRow, Tensor] = {}
        with torch.no_grad():
            prefix = self._base.prefix() if self._hidden is None else None
            for part in self._base.prepared.parts(self._rows):
                check_cancel(self._cancel, PREPARING)
                rows = [self._rows[i] for i in part]
                logits = self._base.logits(rows, prefix) if self._hidden is None else self._logits_of(rows)
                reference.update((row, x.log_softmax(-1)) for row, x in zip(rows, logits, strict=True))
        return reference

    def _logits_of(self, rows: Sequence[PreparedRow]) -> list[Tensor]:
        """The base's logits at some rows, of what another pass has computed."""
        assert self._hidden is not None
        hidden = [self._hidden[row.row] for row in rows]
        logits = self._base.engine.logits_of(torch.cat(hidden)).float()
        return list(logits.split([len(x) for x in hidden]))
