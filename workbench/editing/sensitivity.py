"""How much gates matter to answers: log-likelihood gradients with respect to gates, and their Fisher information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from workbench.editing.batches import Prepared, Row
from workbench.models import LoadedModel
from workbench.resume import HookSite, Resumable
from workbench.types import Site

DAMPING = 0.1
REMEMBERED = 3


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
class _Fisher:
    """Fisher information of all gates of some sites, from the lowest layer on, and what it was measured on.

    Args:
        kinds: The rows, by kind.
        seed: Drew the answers.
        lowest: The layer at which the pass began: from another one rounding differs, and with it, rarely, an answer
            that is drawn.
        values: [gates of the site] by layer and site, in nats squared.
    """

    kinds: tuple[tuple[Row, ...], ...]
    seed: int
    lowest: int
    values: Mapping[tuple[int, Site], Tensor]


_LATEST: WeakKeyDictionary[LoadedModel, list[_Fisher]] = WeakKeyDictionary()


def fisher_information(
    model: LoadedModel,
    kinds: Sequence[Sequence[Row]],
    entries: Mapping[tuple[int, Site], Sequence[int]],
    seed: int,
) -> Tensor:
    """Diagonal Fisher information of gates on retained rows, each kind of rows that there is counting equally: [gates]
    in nats squared, in the order of ``entries``. ``seed`` draws the answers.

    The backward pass that some gates need gives it for every gate of their sites above the lowest. All are measured,
    and the last ``REMEMBERED`` measurements kept for as long as the model is there: what the selector measured serves
    the fit, and the fit's serves random selections and other recipes. What is remembered equals what would be measured
    to the bit.
    """
    rows = tuple(map(tuple, kinds))
    lowest = min(layer for layer, _ in entries)
    sites: list[Site] = sorted({site for _, site in entries})
    known = _LATEST.setdefault(model, [])
    found = next(
        (
            f
            for f in known
            if f.kinds == rows and (f.seed, f.lowest) == (seed, lowest) and entries.keys() <= f.values.keys()
        ),
        None,
    )
    if found is None:
        places: list[tuple[int, Site]] = [
            (layer, site) for layer in range(lowest, model.shape.n_layers) for site in sites
        ]
        every = {place: range(model.shape.site_size(place[1])) for place in places}
        draw = torch.Generator().manual_seed(seed)
        means = [gate_gradients(model, kind, every, draw=draw).square().mean(0) for kind in rows if kind]
        values = torch.stack(means).mean(0).split([len(gates) for gates in every.values()])
        found = _Fisher(rows, seed, lowest, dict(zip(places, values, strict=True)))
        known.insert(0, found)
        del known[REMEMBERED:]
    return torch.cat([found.values[place][list(index)] for place, index in entries.items()])


def damped(fisher: Tensor) -> Tensor:
    """Fisher information plus ``DAMPING`` times its mean, so that no gate seems free to move."""
    return fisher + DAMPING * float(fisher.mean()) + 1e-12


def _start(model: LoadedModel, layer: int, site: Site) -> int:
    """Where a site begins in the state of its (maybe fused) module."""
    return model.architecture.gate_module(layer, site).span.start
