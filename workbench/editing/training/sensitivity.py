"""How much gates matter to answers: log-likelihood gradients with respect to gates, and their Fisher information."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.editing.training.rows import Prepared, Row, shared_prefix, tokens_at_once
from workbench.models.engine import HookSite, KeysValues, Resumable
from workbench.models.load import LoadedModel
from workbench.tracing.packed import OWN_ATTENTION
from workbench.types import Site

DAMPING = 0.1


def gate_gradients(
    model: LoadedModel,
    rows: Sequence[Row],
    entries: Mapping[tuple[int, Site], Sequence[int]],
    *,
    draw: torch.Generator | None = None,
    hidden: dict[Row, Tensor] | None = None,
) -> Tensor:
    """For each row, the gradient of its answer's log-likelihood (mean over the tokens that count, nats) with respect
    to gates at 1: [rows, gates] float32, on the CPU.

    With ``draw``, of answer tokens drawn from the model's own distribution instead, summed: the score, whose mean
    outer product is the Fisher information. One forward and one backward pass for a few rows of like length at a time;
    what all prompts begin with goes forward once, and backward for each row.

    Args:
        model: A base model.
        rows: Prompts and answers.
        entries: The gates, as ``Selection.entries`` gives them; the columns are in their order.
        draw: Draws the answers.
        hidden: Takes what ``Resumable.logits_of`` makes each row's logits of, [tokens that count, d_model].
    """
    engine = Resumable(model)
    lowest = min(layer for layer, _ in entries)
    # Whose backward passes can be batched: other attention is given whole texts.
    shared = shared_prefix(rows) if model.runner.config._attn_implementation in OWN_ATTENTION else 0
    prepared = Prepared(engine, rows, lowest, shared)
    places: list[tuple[HookSite, int]] = [(site, layer) for layer, site in entries]
    columns = [torch.tensor(index) + _start(model, layer, site) for (layer, site), index in entries.items()]
    begun = None if prepared.beginning is None else _Beginning(engine, prepared.beginning, lowest, places)
    out = torch.zeros(len(rows), sum(map(len, columns)))
    for part in prepared.parts(range(len(rows))):
        batch = prepared.batch(part)
        with torch.enable_grad(), engine.keeping(places) as states:
            start = batch.resid.clone().requires_grad_(True)  # parameters are frozen: the graph has to start somewhere
            prefix = begun.of_each(len(part)) if begun else None
            found = engine.hidden_at(start, batch.row, batch.position, start=lowest, prefix=prefix)
            logits = engine.logits_of(found).float().log_softmax(-1)
            likelihood = torch.zeros((), device=logits.device)
            for one, i in zip(logits.split(batch.count), part, strict=True):
                answer = torch.tensor(rows[i].counted)
                if draw is not None:
                    answer = torch.multinomial(one.detach().exp().cpu(), 1, generator=draw)[:, 0]
                likely = one.gather(1, answer.to(one.device)[:, None])[:, 0]
                likelihood = likelihood + (likely.sum() if draw is not None else likely.mean())
            kept = [states[place] for place in places]
            read = [state for pair in (prefix or ())[lowest:] for state in pair]
            gradients = torch.autograd.grad(likelihood, [*kept, *read])
        if hidden is not None:
            hidden.update((rows[i], x) for i, x in zip(part, found.detach().split(batch.count), strict=True))
        sums = [_per_gate(*pair) for pair in zip(kept, gradients[: len(kept)], strict=True)]
        if begun:
            at_once = max(1, tokens_at_once(engine.device) // shared)
            for first in range(0, len(part), at_once):
                some = slice(first, first + at_once)
                for one, more in zip(sums, begun.gradients([g[some] for g in gradients[len(kept) :]]), strict=True):
                    one[some] += more
        out[part] = torch.cat([one.cpu()[:, index] for one, index in zip(sums, columns, strict=True)], 1)
    return out


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
        """Gradients with respect to the gates at 1, [rows, gates] by place, from those with respect to the keys and
        values of each row, layer by layer."""
        whole = [state for pair in self._keys_values[self._lowest :] for state in pair]
        rows, batched = len(of_each[0]), [one[:, None] for one in of_each]
        # Unused: the last layer's keys and values are read, what it makes of them is not.
        options: dict[str, Any] = {"retain_graph": True, "allow_unused": True, "is_grads_batched": True}
        found = torch.autograd.grad(whole, self._states, batched, **options)
        return [
            state.new_zeros(rows, state.shape[-1]).float() if one is None else _per_gate(state, one[:, 0])
            for state, one in zip(self._states, found, strict=True)
        ]


def fisher_information(
    model: LoadedModel,
    kinds: Sequence[Sequence[Row]],
    entries: Mapping[tuple[int, Site], Sequence[int]],
    seed: int,
) -> Tensor:
    """Diagonal Fisher information of gates on retained rows, each kind of rows that there is counting equally: [gates]
    in nats squared, in the order of ``entries``. ``seed`` draws the answers.

    The backward pass that some gates need gives it for every gate of their sites above the lowest. All are measured,
    and are then in the model's cache: what the selector measured serves the fit, and the fit's serves random selections
    and other recipes. What is cached equals what would be measured to the bit.
    """
    lowest = min(layer for layer, _ in entries)
    measured = _measured_on(kinds, seed, lowest)
    sites: list[Site] = sorted({site for _, site in entries})
    hidden: dict[Row, Tensor] = {}

    def measure(keys: Sequence[Hashable]) -> list[Tensor]:
        missing: list[Site] = [site for site in sites if (*measured, site) in keys]
        layers = range(lowest, model.shape.n_layers)
        every: dict[tuple[int, Site], range] = {
            (layer, site): range(model.shape.site_size(site)) for layer in layers for site in missing
        }
        draw = torch.Generator().manual_seed(seed)
        means = [gate_gradients(model, of, every, draw=draw, hidden=hidden).square().mean(0) for of in kinds if of]
        values = torch.stack(means).mean(0).split([len(gates) for gates in every.values()])
        by_place = dict(zip(every, values, strict=True))
        return [torch.stack([by_place[layer, site] for layer in layers]) for site in missing]

    fisher = model.cache.fisher.get_or_compute_all([(*measured, site) for site in sites], measure)
    if hidden:
        model.cache.hidden.get_or_compute(measured, lambda: hidden)
    of_site = dict(zip(sites, fisher, strict=True))
    return torch.cat([of_site[site][layer - lowest][list(index)] for (layer, site), index in entries.items()])


def hidden_states(
    model: LoadedModel, kinds: Sequence[Sequence[Row]], seed: int, lowest: int
) -> Mapping[Row, Tensor] | None:
    """Of each row that Fisher information was measured on, what the base makes its logits of (``Resumable.logits_of``),
    [tokens that count, d_model]; None where just these rows were not measured just so."""
    return model.cache.hidden.get(_measured_on(kinds, seed, lowest))


def _measured_on(kinds: Sequence[Sequence[Row]], seed: int, lowest: int) -> tuple[Hashable, ...]:
    """What decides a measurement: from another lowest layer rounding differs, and with it, rarely, an answer that is
    drawn."""
    return tuple(map(tuple, kinds)), seed, lowest


def damped(fisher: Tensor) -> Tensor:
    """Fisher information plus ``DAMPING`` times its mean, so that no gate seems free to move."""
    return fisher + DAMPING * float(fisher.mean()) + 1e-12


def _start(model: LoadedModel, layer: int, site: Site) -> int:
    """Where a site begins in the state of its (maybe fused) module."""
    return model.architecture.gate_module(layer, site).span.start
