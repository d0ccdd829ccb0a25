"""How well a closed-form edit teaches its contexts, measured on what was written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from workbench.editing.solved.keys import PreparedContexts
from workbench.editing.solved.places import Context
from workbench.editing.solved.spots import engine_of
from workbench.editing.training.learned import lower_quartile
from workbench.models.load import LoadedModel
from workbench.types.cancelling import PREPARING, CancelFlag, check_cancel


def context_probabilities(
    model: LoadedModel, contexts: Sequence[Context], start: int, *, view: Any = None, cancel: CancelFlag | None = None
) -> list[float]:
    """The probability per token (geometric mean) of what each context teaches.

    Args:
        model: The base model.
        contexts: The contexts; what stands before their point of departure does not count.
        start: The first layer that the view changes.
        view: The view that is measured; None for the base.
        cancel: As in ``rewrite``.
    """
    prepared = PreparedContexts(model, contexts, start, view=view, cancel=cancel)
    engine = engine_of(model, view)
    out = [0.0] * len(prepared.contexts)
    with torch.no_grad():
        for group in prepared.groups:
            prefix = group.prefix(engine)
            for part in group.parts():
                check_cancel(cancel, PREPARING)
                batch = group.prepared.batch([group.rows[i] for i in part])
                logits = engine.logits_at(batch.resid, batch.row, batch.position, start=group.start, prefix=prefix)
                for i, of_row in zip(part, logits.float().split(batch.count), strict=True):
                    row = group.contexts[i].row
                    wanted = torch.tensor(row.answer[row.departs :], device=of_row.device)
                    nll = nn.functional.cross_entropy(of_row[row.departs :], wanted)
                    out[group.order[i]] = math.exp(-float(nll))
    return out


def level_of(contexts: Sequence[Context], probabilities: Sequence[float]) -> float:
    """The probability that three quarters of a fact's contexts reach, of several facts the least."""
    by_fact: dict[int, list[float]] = {}
    for context, probability in zip(contexts, probabilities, strict=True):
        by_fact.setdefault(context.fact, []).append(probability)
    return min(lower_quartile(found) for found in by_fact.values())
