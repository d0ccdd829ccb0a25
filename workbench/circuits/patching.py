"""Exact patching of edges: a forward pass for each, from the layer of its receiver on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from workbench.circuits.rewire import Given, run_rewired
from workbench.circuits.runs import EdgeRuns
from workbench.circuits.wiring import Part, Wired

MOST_TOKENS = 4096
"""So many tokens are computed at once."""


def exact_scores(wired: Wired, runs: EdgeRuns, wanted: Tensor, max_rows: int | None = None) -> Tensor:
    """The metric's change in the clean run where one edge carries the corrupted write, [receivers, senders].

    Args:
        wired: The model.
        runs: The item.
        wanted: Which edges, [receivers, senders]; the others are 0.
        max_rows: Most tokens computed at once.
    """
    values = torch.zeros(wanted.shape)
    samples = runs.differences.shape[1]
    batch = max(1, (max_rows or MOST_TOKENS) // (runs.clean_start.shape[1] * samples))
    with torch.no_grad():
        for layer, part, places in _by_part(wired, wanted):
            for at in range(0, len(places), batch):
                some = places[at : at + batch]
                measured = _measured(wired, runs, layer, part, some).view(len(some), samples).mean(1)
                for (receiver, sender), value in zip(some, measured.tolist(), strict=True):
                    values[receiver, sender] = value - runs.clean_measure
    return values


def _by_part(wired: Wired, wanted: Tensor) -> Iterator[tuple[int, Part | None, list[tuple[int, int]]]]:
    """The wanted edges of each part of each layer (None for the logits)."""
    width = wired.graph.attention_readers + 1
    grouped: dict[tuple[int, Part | None], list[tuple[int, int]]] = {}
    places = cast("list[list[int]]", wanted.nonzero().tolist())
    for receiver, sender in places:
        layer, local = divmod(receiver, width)
        part: Part | None = None if layer == wired.n_layers else "mlp" if local == width - 1 else "attn"
        grouped.setdefault((layer, part), []).append((receiver, sender))
    for (layer, part), found in grouped.items():
        yield layer, part, found


def _measured(wired: Wired, runs: EdgeRuns, layer: int, part: Part | None, places: Sequence[tuple[int, int]]) -> Tensor:
    """The metric with each edge patched, [edges x samples]."""
    senders = torch.tensor([sender for _, sender in places])
    differences = runs.differences[senders].flatten(0, 1)  # [edges x samples, tokens, d_model]
    if part is None:
        states = runs.clean.final[:, -1] + differences[:, -1].to(runs.clean.final)
        return runs.setup.measure(wired.unembed(states).float())
    samples, width = runs.differences.shape[1], wired.graph.attention_readers + 1
    rows: dict[int, list[int]] = {}
    for i, (receiver, _) in enumerate(places):
        local = 0 if part == "mlp" else receiver % width
        rows.setdefault(local, []).extend(range(i * samples, (i + 1) * samples))
    index = [torch.tensor(of, device=differences.device) for of in rows.values()]
    given = Given(list(rows), index, [differences[of] for of in index])
    entering = runs.clean.inputs["attn", layer].repeat(len(differences), 1, 1)
    return runs.setup.measure(run_rewired(wired, entering, layer, part, given, prefix=runs.prefix).float())
