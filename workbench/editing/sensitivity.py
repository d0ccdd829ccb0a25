"""How much gates matter to answers: log-likelihood gradients with respect to gates, and their Fisher information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.editing.batches import Prepared, Row
from workbench.models import LoadedModel
from workbench.resume import HookSite, Resumable
from workbench.types import Site

DAMPING = 0.1


def gate_gradients(
    model: LoadedModel,
    rows: Sequence[Row],
    entries: Mapping[tuple[int, Site], Sequence[int]],
    *,
    draw: torch.Generator | None = None,
) -> Tensor:
    """For each row, the gradient of its answer's log-likelihood (mean over the tokens that count, nats) with respect
    to gates at 1: [rows, gates] float32, on the CPU.

    With ``draw``, of answer tokens drawn from the model's own distribution instead, summed: the score, whose mean
    outer product is the Fisher information. One forward and one backward pass for a few rows of like length at a time.

    Args:
        model: A base model.
        rows: Prompts and answers.
        entries: The gates, as ``Selection.entries`` gives them; the columns are in their order.
        draw: Draws the answers.
    """
    engine = Resumable(model)
    lowest = min(layer for layer, _ in entries)
    prepared = Prepared(engine, rows, lowest, 0)
    places: list[tuple[HookSite, int]] = [(site, layer) for layer, site in entries]
    columns = [torch.tensor(index) + _start(model, layer, site) for (layer, site), index in entries.items()]
    out = torch.zeros(len(rows), sum(map(len, columns)))
    for part in prepared.parts(range(len(rows))):
        batch = prepared.batch(part)
        with torch.enable_grad(), engine.keeping(places) as states:
            start = batch.resid.clone().requires_grad_(True)  # parameters are frozen: the graph has to start somewhere
            logits = engine.logits_at(start, batch.row, batch.position, start=lowest).float().log_softmax(-1)
            likelihood = torch.zeros((), device=logits.device)
            for one, i in zip(logits.split(batch.count), part, strict=True):
                answer = torch.tensor(rows[i].answer)
                if draw is not None:
                    answer = torch.multinomial(one.detach().exp().cpu(), 1, generator=draw)[:, 0]
                likely = one.gather(1, answer.to(one.device)[:, None])[:, 0]
                likelihood = likelihood + (likely.sum() if draw is not None else likely[rows[i].departs :].mean())
            kept = [states[place] for place in places]
            gradients = torch.autograd.grad(likelihood, kept)
        # A gate multiplies its state, so at 1 its gradient is the state's times the state.
        found = [
            (state.detach() * gradient).float().sum(1).cpu()[:, index]
            for state, gradient, index in zip(kept, gradients, columns, strict=True)
        ]
        out[part] = torch.cat(found, 1)
    return out


@dataclass(frozen=True, eq=False)
class Fisher:
    """Diagonal Fisher information of gates, and what it was measured on.

    Args:
        kinds: The rows, by kind.
        seed: Drew the answers.
        entries: The gates, as ``Selection.entries`` gives them.
        values: [gates] in nats squared, in the order of ``entries``.
    """

    kinds: tuple[tuple[Row, ...], ...]
    seed: int
    entries: Mapping[tuple[int, Site], Sequence[int]]
    values: Tensor

    def of(
        self,
        kinds: Sequence[Sequence[Row]],
        entries: Mapping[tuple[int, Site], Sequence[int]],
        seed: int,
    ) -> Tensor | None:
        """The values of some of the gates, [gates] in the order of ``entries``, equal to the bit to what
        ``fisher_information`` would find; None unless all of them were measured on just these rows with this seed,
        from the same lowest layer on (else rounding differs, and with it, rarely, an answer that is drawn)."""
        same = self.seed == seed and self.kinds == tuple(map(tuple, kinds))
        if not same or min(entries)[0] != min(self.entries)[0]:
            return None
        gates = [(place, gate) for place, index in self.entries.items() for gate in index]
        column = {gate: at for at, gate in enumerate(gates)}
        wanted = [(place, gate) for place, index in entries.items() for gate in index]
        return self.values[[column[gate] for gate in wanted]] if column.keys() >= set(wanted) else None


def fisher_information(
    model: LoadedModel,
    kinds: Sequence[Sequence[Row]],
    entries: Mapping[tuple[int, Site], Sequence[int]],
    seed: int,
) -> Fisher:
    """Diagonal Fisher information of gates on retained rows, each kind of rows that there is counting equally. ``seed``
    draws the answers."""
    draw = torch.Generator().manual_seed(seed)
    means = [gate_gradients(model, rows, entries, draw=draw).square().mean(0) for rows in kinds if rows]
    return Fisher(tuple(map(tuple, kinds)), seed, dict(entries), torch.stack(means).mean(0))


def damped(fisher: Tensor) -> Tensor:
    """Fisher information plus ``DAMPING`` times its mean, so that no gate seems free to move."""
    return fisher + DAMPING * float(fisher.mean()) + 1e-12


def _start(model: LoadedModel, layer: int, site: Site) -> int:
    """Where a site begins in the state of its (maybe fused) module."""
    return model.architecture.gate_module(layer, site).span.start
