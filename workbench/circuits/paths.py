"""The path between two components, patched exactly: one reads what the other writes in the corrupted run.

Source: path patching (Wang et al. 2022, arXiv 2211.00593; Goldowsky-Dill et al. 2023, arXiv 2304.05969), of a single
edge and with everything after the receiver free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from workbench.circuits.items import prepared
from workbench.circuits.rewire import Given, run_rewired
from workbench.circuits.runs import EdgeRuns, edge_runs
from workbench.circuits.wiring import Part, Wired
from workbench.models.engine import Change, HookSite, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.corruption import set_up
from workbench.tracing.metric import Metric, metric_name
from workbench.types import Circuit, Component, Fact, FactSet, Form, PathEffect
from workbench.types.circuit import Edge, as_node
from workbench.types.contrast import Traced
from workbench.types.edge_graph import EMBEDDING, LOGITS, Node
from workbench.types.effect import Corruption
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def path_patch(
    model: LoadedModel,
    contrast: Traced,
    sender: Component | str,
    receiver: Component | str,
    *,
    metric: Metric = "logit_diff",
    corruption: Corruption = "swap",
    form: Form | None = None,
    token: Literal["answer", "target"] = "answer",
    partner: Fact | None = None,
    pool: FactSet | None = None,
    samples: int = 4,
    noise: float = 3.0,
    seed: int = 0,
) -> PathEffect:
    """Measure what the path from one component to another carries of the difference between two runs.

    In the clean run only the receiver reads what the sender writes in the corrupted run, directly and at all positions,
    and everything after the receiver follows. In families with a norm after a sublayer, what a head writes is taken
    through that norm at the scale that it has in its run.

    Args:
        model: A base or edited model; it is not changed.
        contrast: A fact or contrast, or several: effects are means over them.
        sender: ``"embedding"``, a head, an MLP, or an attention layer (all its heads).
        receiver: A head (its query, and its own reading of its group's key and value: the group's other heads stay as
            they are), one query (``"L9Q4"``), a group's key or value or both (``"L9K1"``, ``"L9V1"``, ``"L9KV1"``, for
            all heads of the group), an MLP, an attention layer, or ``"logits"``.
        metric, corruption, form, token, partner, pool, samples, noise, seed: As in ``edges``.

    Returns:
        ``.effect`` (patched minus clean), ``.direct`` (the logits alone read it) and ``.total`` (everything reads it),
        in units of the metric.

    Raises:
        ValueError: The path runs backwards, or within a layer where the architecture has none; or as ``edges``.

    Source: Wang et al. 2022; Goldowsky-Dill et al. 2023. Deviation from the former: MLPs between the two do not pass
    the change on either, so that the path is one edge.

    Example:
        >>> path = wb.path_patch(model, fact, "L0H4", "L1MLP", pool=facts)
        >>> path.sender, path.receiver, path.effect != path.direct
        ('L0H4', 'L1MLP', True)
        >>> wb.path_patch(model, fact, "L1MLP", "logits", pool=facts).n
        1
    """
    edge = Edge(as_node(sender), as_node(receiver))
    Circuit([edge]).edges_in(model)
    items, options = prepared(
        model, contrast, "path_patch", corruption=corruption, metric=metric, form=form, token=token, partner=partner,
        pool=pool, samples=samples, noise=noise, seed=seed,
    )  # fmt: skip
    found: list[_Measured] = []
    with torch.no_grad(), pooled_engine(Wired, model) as wired:
        for item in items:
            runs = edge_runs(wired, set_up(model, wired, item, options))
            runs.setup.warn_if_alike(runs.clean_measure, runs.corrupted_measure)
            found.append(_measured(wired, runs, edge))
    return PathEffect(
        sender=str(edge.sender),
        receiver=str(edge.receiver),
        metric=metric_name(metric),
        clean=tuple(one.clean for one in found),
        corrupted=tuple(one.corrupted for one in found),
        effects=tuple(one.effect - one.clean for one in found),
        directs=tuple(one.direct - one.clean for one in found),
        totals=tuple(one.total - one.clean for one in found),
        corruption=options.corruption,
        base_fingerprint=model.fingerprint,
    )


@dataclass(frozen=True)
class _Measured:
    """The metric of one item in each run."""

    clean: float
    corrupted: float
    effect: float
    direct: float
    total: float


def _measured(wired: Wired, runs: EdgeRuns, edge: Edge) -> _Measured:
    senders = torch.tensor([wired.graph.sender_index[node] for node in wired.graph.sent_by(edge.sender)])
    difference = runs.differences[senders].sum(0)  # [samples, tokens, d_model]
    logits = _read_by(wired, runs, edge.receiver, difference)
    directly = logits if edge.receiver == LOGITS else _read_by(wired, runs, LOGITS, difference)
    measures = [_mean(runs, of) for of in (logits, directly, _read_by_all(wired, runs, edge.sender, difference))]
    return _Measured(runs.clean_measure, runs.corrupted_measure, *measures)


def _mean(runs: EdgeRuns, logits: Tensor) -> float:
    return float(runs.setup.measure(logits.float()).mean())


def _read_by(wired: Wired, runs: EdgeRuns, receiver: Node, difference: Tensor) -> Tensor:
    """Logits [samples, d_vocab] of the clean run in which the receiver reads something more."""
    if not isinstance(receiver, Component):
        return wired.unembed(runs.clean.final[:, -1] + difference[:, -1].to(runs.clean.final))
    layer, part = receiver.layer, "mlp" if receiver.kind == "MLP" else "attn"
    entering = runs.clean.inputs["attn", layer].repeat(len(difference), 1, 1)
    given = _given(wired, receiver, part, difference)
    if receiver.kind != "H":
        return run_rewired(wired, entering, layer, part, given, prefix=runs.prefix)
    # A head reads its group's key and value alone: what it makes of them goes into a pass that is otherwise clean.
    place: tuple[HookSite, int] = ("z", layer)
    kept: list[Tensor] = []
    run_rewired(wired, entering, layer, part, given, prefix=runs.prefix, changes={place: _keep(kept)})
    width = wired.graph.shape.d_head
    first = (receiver.index or 0) * width
    put = _put(slice(first, first + width), kept[0])
    return wired.run(entering, start=layer, prefix=runs.prefix, changes={place: put})


def _given(wired: Wired, receiver: Component, part: Part, difference: Tensor) -> Given:
    """All rows of what a receiver is given."""
    every = wired.graph.readers_of(receiver.layer)
    readers = [0] if part == "mlp" else [every.index(_component(node)) for node in wired.graph.read_by(receiver)]
    return Given(readers, [slice(None)] * len(readers), [difference] * len(readers))


def _component(node: Node) -> Component:
    assert isinstance(node, Component)  # the logits stand for themselves alone
    return node


def _keep(kept: list[Tensor]) -> Change:
    def keep(value: Tensor) -> Tensor:
        kept.append(value)
        return value

    return keep


def _put(entries: slice, states: Tensor) -> Change:
    def put(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., entries] = states[..., entries]
        return value

    return put


def _read_by_all(wired: Wired, runs: EdgeRuns, sender: Node, difference: Tensor) -> Tensor:
    """Logits [samples, d_vocab] of the clean run in which everything after the sender reads its corrupted write."""
    if sender == EMBEDDING:
        return wired.run(runs.clean_start + difference, prefix=runs.prefix)
    assert isinstance(sender, Component)
    entering = runs.clean.inputs["attn", sender.layer].repeat(len(difference), 1, 1)
    site: HookSite = "mlp" if sender.kind == "MLP" else "attn"
    add: Change = lambda value: value + (difference / wired.scale).to(value)  # noqa: E731
    return wired.run(entering, start=sender.layer, prefix=runs.prefix, changes={(site, sender.layer): add})
