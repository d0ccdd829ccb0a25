"""How much gates matter to answers: log-likelihood gradients with respect to gates, and their Fisher information."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.editing.training.batching import Prepared, shared_prefix, tokens_at_once
from workbench.editing.training.rows import Row
from workbench.models.engine import HookSite, KeysValues, Resumable
from workbench.models.load import LoadedModel
from workbench.tracing.packed import OWN_ATTENTION
from workbench.types import Site
from workbench.types.cancelling import PREPARING, CancelFlag, check_cancel

DAMPING = 0.1


def gate_gradients(
    model: LoadedModel,
    rows: Sequence[Row],
    entries: Mapping[tuple[int, Site], Sequence[int]],
    *,
    draw: torch.Generator | None = None,
    hidden: dict[Row, Tensor] | None = None,
    cancel: CancelFlag | None = None,
) -> Tensor:
    """Differentiate each row's answer's log-likelihood (mean over the tokens that count, nats) with respect to gates
    at 1.

    With ``draw``, the answer tokens are drawn from the model's own distribution instead, and summed: that is the score,
    whose mean outer product is the Fisher information. A few rows of like length go forward and backward at a time;
    what all prompts begin with goes forward once, and backward for each row.

    Args:
        model: A base model.
        rows: Prompts and answers.
        entries: The gates, as ``Selection.entries`` gives them; the columns are in their order.
        draw: Draws the answers.
        hidden: Takes what ``Resumable.logits_of`` makes each row's logits of, [tokens that count, d_model].
        cancel: Looked at before each batch.

    Returns:
        [rows, gates] float32, on the CPU.

    Raises:
        Cancelled: ``cancel`` was set.
    """
    engine = Resumable(model)
    lowest = min(layer for layer, _ in entries)
    # Whose backward passes can be batched: other attention is given whole texts.
    shared = shared_prefix(rows) if model.runner.config._attn_implementation in OWN_ATTENTION else 0
    prepared = Prepared(engine, rows, lowest, shared, cancel=cancel)
    places: list[tuple[HookSite, int]] = [(site, layer) for layer, site in entries]
    columns = [model.architecture.gate_module(*key).places(index) for key, index in entries.items()]
    beginning = None if prepared.beginning is None else _Beginning(engine, prepared.beginning, lowest, places)
    out = torch.zeros(len(rows), sum(map(len, columns)))
    for part in prepared.parts(prepared.rows):
        check_cancel(cancel, PREPARING)
        batch = prepared.batch([prepared.rows[i] for i in part])
        with torch.enable_grad(), engine.keeping(places) as states:
            start = batch.resid.clone().requires_grad_(True)  # parameters are frozen: the graph has to start somewhere
            prefix = beginning.of_each(len(part)) if beginning else None
            last = engine.hidden_at(start, batch.row, batch.position, start=lowest, prefix=prefix)
            logprobs = engine.logits_of(last).float().log_softmax(-1).split(batch.count)
            likelihood = _likelihood(logprobs, [rows[i] for i in part], draw)
            gated = [states[place] for place in places]
            read = [state for pair in (prefix or ())[lowest:] for state in pair]
            gradients = torch.autograd.grad(likelihood, [*gated, *read])
        if hidden is not None:
            hidden.update((rows[i], x) for i, x in zip(part, last.detach().split(batch.count), strict=True))
        sums = [_per_gate(*pair) for pair in zip(gated, gradients[: len(gated)], strict=True)]
        if beginning:
            at_once = max(1, tokens_at_once(engine.device) // shared)
            for first in range(0, len(part), at_once):
                check_cancel(cancel, PREPARING)
                some = slice(first, first + at_once)
                through = beginning.gradients([g[some] for g in gradients[len(gated) :]])
                for of_site, more in zip(sums, through, strict=True):
                    of_site[some] += more
        out[part] = torch.cat([of_site.cpu()[:, index] for of_site, index in zip(sums, columns, strict=True)], 1)
    return out


def _likelihood(logprobs: Sequence[Tensor], rows: Sequence[Row], draw: torch.Generator | None) -> Tensor:
    """Log-likelihood of some rows' answers, summed over rows: its gradient at a row's states is that row's own.

    Args:
        logprobs: Of each row, [tokens that count, d_vocab].
        rows: The rows; an answer's tokens count on average.
        draw: Draws the answers instead, whose tokens are summed.
    """
    likelihood = torch.zeros((), device=logprobs[0].device)
    for x, row in zip(logprobs, rows, strict=True):
        answer = torch.tensor(row.counted)
        if draw is not None:
            answer = torch.multinomial(x.detach().exp().cpu(), 1, generator=draw)[:, 0]
        likely = x.gather(1, answer.to(x.device)[:, None])[:, 0]
        likelihood = likelihood + (likely.sum() if draw is not None else likely.mean())
    return likelihood


def _per_gate(state: Tensor, gradient: Tensor) -> Tensor:
    """Gradients with respect to the gates at 1 of a state, [rows, gates]: a gate multiplies its state."""
    return (state.detach() * gradient).float().sum(1)


class _Beginning:
    """What all rows begin with: it goes forward once, and takes each row's gradients back.

    Args:
        engine: Runs the model.
        resid: Its residual stream entering the lowest layer, [1, tokens, d_model].
        lowest: The layer to begin at.
        places: The states whose gates are asked for.
    """

    def __init__(self, engine: Resumable, resid: Tensor, lowest: int, places: Sequence[tuple[HookSite, int]]) -> None:
        self._lowest = lowest
        with torch.enable_grad(), engine.keeping(places) as states:
            self._keys_values = engine.resumed_keys_values(resid.clone().requires_grad_(True), lowest)
        self._states = [states[place] for place in places]

    def of_each(self, rows: int) -> KeysValues:
        """Keys and values for so many rows, each of which gathers its own gradients."""
        return [
            (k.detach().expand(rows, -1, -1, -1).requires_grad_(), v.detach().expand(rows, -1, -1, -1).requires_grad_())
            for k, v in self._keys_values
        ]

    def gradients(self, of_each: Sequence[Tensor]) -> list[Tensor]:
        """Each row's gradients with respect to the gates at 1, [rows, gates] by place.

        Args:
            of_each: Gradients with respect to the keys and values that each row has read, layer by layer.
        """
        # Every row has read copies of the same keys and values, so by the chain rule a row's gradient goes through the
        # one graph of the beginning as if the row were alone. The rows' gradients are a batch of vectors of one
        # vector-Jacobian product: one backward pass for all, and the graph stays for the next rows.
        whole = [state for pair in self._keys_values[self._lowest :] for state in pair]
        rows, batched = len(of_each[0]), [gradient[:, None] for gradient in of_each]
        # Unused: the last layer's keys and values are read, what it makes of them is not.
        options: dict[str, Any] = {"retain_graph": True, "allow_unused": True, "is_grads_batched": True}
        gradients = torch.autograd.grad(whole, self._states, batched, **options)
        return [
            state.new_zeros(rows, state.shape[-1]).float() if gradient is None else _per_gate(state, gradient[:, 0])
            for state, gradient in zip(self._states, gradients, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class FisherMeasurement:
    """Fisher information of all gates of some sites, from the lowest layer on, and what it was measured on.

    Args:
        kinds: The rows, by kind.
        seed: Drew the answers.
        lowest: The layer at which the pass began: from another one rounding differs, and with it, rarely, an answer
            that is drawn.
        values: [gates of the site] by layer and site, in nats squared.
        hidden: Of each row, what the base makes its logits of (``Resumable.logits_of``), [tokens that count, d_model].
    """

    kinds: tuple[tuple[Row, ...], ...]
    seed: int
    lowest: int
    values: Mapping[tuple[int, Site], Tensor]
    hidden: Mapping[Row, Tensor]

    def of(self, entries: Mapping[tuple[int, Site], Sequence[int]]) -> Tensor:
        """The values of some gates, [gates] in nats squared, in the order of ``entries``."""
        return torch.cat([self.values[place][list(index)] for place, index in entries.items()])

    def hidden_of(self, kinds: Sequence[Sequence[Row]], start: int) -> Mapping[Row, Tensor] | None:
        """``hidden``, if it is of just these rows from this layer on; else None: it would differ in the last bits from
        what a pass of those rows gives."""
        return self.hidden if (self.kinds, self.lowest) == (tuple(map(tuple, kinds)), start) else None


def fisher_information(
    model: LoadedModel,
    kinds: Sequence[Sequence[Row]],
    entries: Mapping[tuple[int, Site], Sequence[int]],
    seed: int,
) -> Tensor:
    """Diagonal Fisher information of gates on retained rows: [gates] in nats squared, in the order of ``entries``.
    Arguments as in ``measure_fisher``."""
    return measure_fisher(model, kinds, entries, seed).of(entries)


def measure_fisher(
    model: LoadedModel,
    kinds: Sequence[Sequence[Row]],
    entries: Mapping[tuple[int, Site], Sequence[int]],
    seed: int,
    *,
    cancel: CancelFlag | None = None,
) -> FisherMeasurement:
    """Measure the diagonal Fisher information of gates on retained rows, each kind of rows counting equally.

    The backward pass that some gates need gives it for every gate of their sites above the lowest. All are measured,
    and are then in the model's cache: what the selector measured serves the fit, and the fit's serves random selections
    and other recipes. What is cached equals what would be measured to the bit.

    Args:
        model: A base model.
        kinds: The rows, by kind; a kind without rows does not count.
        entries: The gates, as ``Selection.entries`` gives them.
        seed: Draws the answers.
        cancel: Looked at before each batch. What was measured so far is then forgotten.

    Raises:
        Cancelled: ``cancel`` was set.
    """
    lowest = min(layer for layer, _ in entries)
    rows = tuple(map(tuple, kinds))
    # From another lowest layer rounding differs, and with it, rarely, an answer that is drawn.
    measured_on = rows, seed, lowest
    sites: list[Site] = sorted({site for _, site in entries})
    layers = range(lowest, model.shape.n_layers)
    hidden: dict[Row, Tensor] = {}

    def measure(keys: Sequence[Hashable]) -> list[Tensor]:
        missing: list[Site] = [site for site in sites if (*measured_on, site) in keys]
        every: dict[tuple[int, Site], range] = {
            (layer, site): range(model.shape.site_size(site)) for layer in layers for site in missing
        }
        draw = torch.Generator().manual_seed(seed)
        by_row = [gate_gradients(model, of, every, draw=draw, hidden=hidden, cancel=cancel) for of in rows if of]
        means = [gradients.square().mean(0) for gradients in by_row]
        values = torch.stack(means).mean(0).split([len(gates) for gates in every.values()])
        by_place = dict(zip(every, values, strict=True))
        return [torch.stack([by_place[layer, site] for layer in layers]) for site in missing]

    keys = [(*measured_on, site) for site in sites]
    fisher = model.cache.fisher.get_or_compute_all(keys, measure)
    if not hidden and model.cache.hidden.get(measured_on) is None:  # dropped to make room: both are of one pass
        fisher = measure(keys)
    states = model.cache.hidden.get_or_compute(measured_on, lambda: hidden)
    values: dict[tuple[int, Site], Tensor] = {}
    for site, by_layer in zip(sites, fisher, strict=True):
        values |= {(layer, site): by_layer[layer - lowest] for layer in layers}
    return FisherMeasurement(rows, seed, lowest, values, states)


def damped(fisher: Tensor) -> Tensor:
    """Fisher information plus ``DAMPING`` times its mean, so that no gate seems free to move."""
    return fisher + DAMPING * float(fisher.mean()) + 1e-12
