"""Which neurons a prompt's answer rests on, less those on which the answer rests whatever is asked (KLUE)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.editing.training.batching import Prepared, shared_prefix
from workbench.editing.training.passes import Passes
from workbench.editing.training.rows import Row
from workbench.models import LoadedModel
from workbench.models.engine import HookSite, Resumable
from workbench.types.cancelling import CancelFlag, check_cancel


def neuron_scores(model: LoadedModel, rows: Sequence[Row], *, cancel: CancelFlag | None = None) -> Tensor:
    """Score every neuron on each row: h dP/dh at the last token before what counts of the answer, where h is the
    neuron's activation and P the sum of the probabilities of the answer's tokens that count, each after those before
    it.

    Args:
        model: The base model.
        rows: The rows; each is scored by itself.
        cancel: Looked at between batches.

    Returns:
        [rows, layers, d_mlp], float32 on the CPU, in units of probability.
    """
    engine = Resumable(model)
    prepared = Prepared(engine, rows, 0, shared_prefix(rows), cancel=cancel)
    passes = Passes(engine, prepared)
    with torch.no_grad():
        prefix = passes.prefix()
    places: list[tuple[HookSite, int]] = [("post", layer) for layer in range(model.shape.n_layers)]
    found = torch.zeros(len(rows), model.shape.n_layers, model.shape.d_mlp)
    for part in prepared.parts(prepared.rows):
        check_cancel(cancel, "while neurons were scored")
        together = [prepared.rows[i] for i in part]
        batch = prepared.batch(together)
        last = [len(row.row.prompt) + row.row.departs - 1 - prepared.shared for row in together]
        with torch.enable_grad(), engine.keeping(places) as states:
            resid = batch.resid.requires_grad_(True)
            logits = engine.logits_at(resid, batch.row, batch.position, start=0, prefix=prefix)
            wanted = torch.tensor([t for row in together for t in row.row.counted], device=logits.device)
            likely = logits.float().softmax(-1).gather(1, wanted[:, None]).sum()
            gradients = torch.autograd.grad(likely, [states[place] for place in places])
        for layer, (place, gradient) in enumerate(zip(places, gradients, strict=True)):
            scores = states[place].detach().view(*resid.shape[:2], -1) * gradient.view(*resid.shape[:2], -1)
            for i, at, row in zip(part, last, scores, strict=True):
                found[i, layer] = row[at].float().cpu()
    return found


def regularised(own: Tensor, mismatched: Tensor, weight: float) -> Tensor:
    """A fact's scores less ``weight`` times the mean of those of mismatched questions with the same answer.

    Args:
        own: Of the fact's rows, [rows, layers, d_mlp].
        mismatched: Of the mismatched ones, [questions, layers, d_mlp]; there may be none.
        weight: Of what is taken off.

    Returns:
        [layers, d_mlp]: the mean over the rows.
    """
    return own.mean(0) - (weight * mismatched.mean(0) if len(mismatched) else 0.0)


def largest(scores: Tensor, n: int) -> list[tuple[int, int]]:
    """The n neurons with the largest scores [layers, d_mlp], as (layer, neuron); ties by place."""
    order = scores.flatten().sort(descending=True, stable=True).indices[:n].tolist()
    return [divmod(place, scores.shape[1]) for place in order]
