"""Scores of all edges: attribution patching of edges, its integrated gradients, and exact patching of chosen ones.

All three say by how much the metric of the clean run changes where one reader alone reads a sender's corrupted write:

* ``eap``: to first order, by the gradient of the clean run (Syed et al. 2023, arXiv 2310.10348);
* ``eap-ig``: by the mean gradient over runs between the corrupted and the clean inputs (Hanna et al. 2024, arXiv
  2403.17806, EAP-IG of inputs);
* ``patching``: by a forward pass for each edge.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from workbench.circuits.gradients import reader_gradients
from workbench.circuits.items import prepared
from workbench.circuits.patching import exact_scores
from workbench.circuits.runs import EdgeRuns, edge_runs
from workbench.circuits.wiring import Wired
from workbench.models.engine import pooled_engine
from workbench.models.load import LoadedModel
from workbench.models.provenance import provenance
from workbench.tracing.corruption import set_up
from workbench.tracing.metric import Metric, metric_name, rule_of
from workbench.types import Circuit, EdgeGraph, EdgeMap, Fact, FactSet, Form
from workbench.types.cancelling import CancelFlag, check_cancel
from workbench.types.cell_intervals import mean_and_error
from workbench.types.contrast import Traced
from workbench.types.edge_map import EdgeMethod
from workbench.types.effect import Corruption
from workbench.types.plain import check_count
from workbench.types.torch_settings import own_torch_settings

MOST_PATCHED = 5000
"""So many edges are patched one by one without being chosen."""


@own_torch_settings()
def edges(
    model: LoadedModel,
    contrasts: Traced,
    *,
    method: EdgeMethod = "eap-ig",
    steps: int = 5,
    chosen: Circuit | Iterable[Any] | str | None = None,
    metric: Metric = "logit_diff",
    corruption: Corruption = "swap",
    form: Form | None = None,
    token: Literal["answer", "target"] = "answer",
    partner: Fact | None = None,
    pool: FactSet | None = None,
    samples: int = 4,
    noise: float = 3.0,
    seed: int = 0,
    max_rows: int | None = None,
    progress: bool = True,
    cancel: CancelFlag | None = None,
) -> EdgeMap:
    """Score every edge from what a component writes to what another reads: how much of the difference between two runs
    it carries.

    Senders are the embedding (what enters layer 0), every query head and every MLP. Receivers are every head's query,
    every key-value group's key and value, every MLP and the logits; groups are not taken apart. A score is the metric's
    change in the *clean* run where the edge alone carries the sender's *corrupted* write, at all positions; an edge
    that the answer rests on has a negative one. In families with a norm after a sublayer, what a head writes is taken
    through that norm at the scale that it has in that run.

    Args:
        model: A base or edited model; it is not changed.
        contrasts: Facts or contrasts, one or several: scores are means over them.
        method: See the module's docstring. ``"patching"`` needs ``chosen`` in larger models.
        steps: Runs from the corrupted to the clean inputs, of ``"eap-ig"``: at shares 1/steps to 1 of the clean one.
        chosen: The edges to score; by default all.
        metric: ``"logit_diff"`` by default, which is linear in the last residual.
        corruption, form, token, partner, pool, noise, seed: As in ``causal_trace``, of facts; a contrast has its own
            runs.
        samples: Noise samples; scores are means over them.
        max_rows: Most tokens computed at once in exact patching; None for what is fast and fits.
        progress: Show a bar over items.
        cancel: A flag that is looked at before each item.

    Returns:
        Scores [receivers, senders] in units of the metric, with standard errors over several items.

    Raises:
        ValueError: An unknown method, steps below 1, a chosen circuit that is empty or of another model, exact patching
            of all edges of a large model, writes that do not add up to what is read, a metric without a gradient, or as
            ``causal_trace``.
        Cancelled: The flag is set.

    Source: as in the module's docstring. Deviations from EAP-IG's code: a group of key-value heads is one reader, with
    the sum of its heads' gradients; the sign is that of patching the clean run.

    Example:
        >>> edges = wb.edges(model, fact, pool=facts)
        >>> tuple(edges.values.shape), edges.n_edges
        ((34, 22), 304)
        >>> exact = wb.edges(model, fact, method="patching", chosen=edges.top(3), pool=facts)
        >>> exact.n_edges
        3
    """
    graph = EdgeGraph.of(model)
    wanted, words = _check(model, graph, method, steps, chosen), rule_of(metric).words
    _check_gradient(method, metric)
    items, options = prepared(
        model, contrasts, "edges", corruption=corruption, metric=metric, form=form, token=token, partner=partner,
        pool=pool, samples=samples, noise=noise, seed=seed,
    )  # fmt: skip
    from tqdm.auto import tqdm

    found: list[_Scored] = []
    with pooled_engine(Wired, model) as wired:
        for item in tqdm(items, desc="Scoring edges", disable=not progress or len(items) == 1):
            check_cancel(cancel, "between two items")
            runs = edge_runs(wired, set_up(model, wired, item, options))
            runs.setup.warn_if_alike(runs.clean_measure, runs.corrupted_measure)
            values = (
                exact_scores(wired, runs, wanted, max_rows)
                if method == "patching"
                else _first_order(wired, runs, steps if method == "eap-ig" else None)
            )
            found.append(_Scored(values.masked_fill(~wanted, float("nan")), runs.clean_measure, runs.corrupted_measure))
    mean, error = mean_and_error(torch.stack([one.values for one in found]))
    settings = {"method": method, "steps": steps, "items": [item.id for item in items]}
    return EdgeMap(
        values=mean,
        senders=tuple(map(str, graph.senders)),
        receivers=tuple(map(str, graph.receivers)),
        metric=words.name,
        words=words,
        method=method,
        steps=steps if method == "eap-ig" else None,
        clean=sum(one.clean for one in found) / len(found),
        corrupted=sum(one.corrupted for one in found) / len(found),
        stderr=error,
        n=len(found),
        corruption=options.corruption,
        base_fingerprint=model.fingerprint,
        provenance=provenance(model, **options.settings, **settings),
    )


@dataclass(frozen=True)
class _Scored:
    """One item's scores [receivers, senders], and the metric of its runs."""

    values: Tensor
    clean: float
    corrupted: float


def _check(
    model: LoadedModel, graph: EdgeGraph, method: str, steps: int, chosen: Circuit | Iterable[Any] | str | None
) -> Tensor:
    """Which edges are scored, [receivers, senders]; a ValueError for options that do not fit."""
    if method not in get_args(EdgeMethod):
        raise ValueError(f"method must be one of {get_args(EdgeMethod)}, got {method!r}.")
    check_count("steps", steps)
    if chosen is None:
        if method == "patching" and graph.n_edges > MOST_PATCHED:
            raise ValueError(
                f"Patching each of {graph.n_edges} edges takes a forward pass for each; choose some with chosen=, such "
                "as chosen=wb.edges(model, contrast).top(100)."
            )
        return graph.mask
    circuit = chosen if isinstance(chosen, Circuit) else Circuit(chosen)
    if not circuit:
        raise ValueError("chosen= is an empty circuit: there is no edge to score. Leave it out for all edges.")
    circuit.check(model)
    return graph.mask_of(circuit)


def _check_gradient(method: str, metric: Metric) -> None:
    """Raise a ValueError for a metric that has no gradient, or none that says anything, where one is needed."""
    if method == "patching":
        return
    rule, name = rule_of(metric), metric_name(metric)
    if not rule.gradient:
        raise ValueError(f"metric={name!r} has no gradient, which method={method!r} needs. Use method='patching'.")
    if method == "eap" and rule.against_clean:
        raise ValueError(
            f"metric={name!r} is least at the clean run, so its gradient there is 0 for every edge. Use "
            "method='eap-ig', or another metric."
        )


def _first_order(wired: Wired, runs: EdgeRuns, steps: int | None) -> Tensor:
    """Scores by gradients: of the clean run, or the mean over runs from the corrupted input to the clean one."""
    clean, differences = runs.clean_start, runs.differences
    if steps is None:
        gradients, _ = reader_gradients(wired, clean, runs.setup.measure, prefix=runs.prefix)
        return _products(wired.graph, gradients, differences.mean(1)).cpu()
    total = torch.zeros(wired.graph.mask.shape, device=clean.device)
    shares = torch.arange(1, steps + 1, device=clean.device)[:, None, None] / steps
    for sample, corrupted in enumerate(runs.corrupted_start):
        between = corrupted + shares.to(clean) * (clean - corrupted)
        gradients, _ = reader_gradients(wired, between, runs.setup.measure, prefix=runs.prefix)
        total += _products(wired.graph, gradients, differences[:, sample])
    return (total / len(runs.corrupted_start)).cpu()


def _products(graph: EdgeGraph, gradients: Tensor, differences: Tensor) -> Tensor:
    """Each receiver's gradient times each sender's difference [..., tokens, d_model], [receivers, senders]: a product
    of two matrices a layer and part, since receivers of one read the same senders."""
    found = torch.zeros(graph.mask.shape, device=gradients.device)
    read, written = gradients.flatten(1), differences.float().flatten(1)
    start = 0
    for end in range(1, len(graph.counts) + 1):
        if end == len(graph.counts) or graph.counts[end] != graph.counts[start]:
            count = graph.counts[start]
            found[start:end, :count] = read[start:end] @ written[:count].T
            start = end
    return found
