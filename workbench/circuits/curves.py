"""Faithfulness curves of rankings of edges or nodes, beside random ones: the areas of the MIB benchmark.

Source: CPR and CMD of Mueller et al. 2025 (MIB: A Mechanistic Interpretability Benchmark, arXiv 2504.13151): the area
under recovery over the share of edges (or nodes) that are kept, and the area between it and 1, by trapezoids over
shares 0.001 to 1, as in its ``evaluate_area_under_curve``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch

from workbench.circuits.faithfulness import Measured, check_differs
from workbench.circuits.rankings import Ranked, Ranking
from workbench.circuits.wiring import Wired
from workbench.models.engine import pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.metric import Metric, metric_name
from workbench.types import Fact, FactSet, FaithfulnessCurve, Form
from workbench.types.contrast import Traced
from workbench.types.edge_map import Order
from workbench.types.faithfulness import CircuitAblation
from workbench.types.faithfulness_curve import RANDOM, SIZES
from workbench.types.plain import is_whole
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def faithfulness_curve(
    model: LoadedModel,
    contrasts: Traced,
    rankings: Ranking | Mapping[str, Ranking],
    *,
    sizes: Sequence[float] = SIZES,
    by: Order = "abs",
    random: int = 3,
    ablation: CircuitAblation = "swap",
    metric: Metric = "logit_diff",
    form: Form | None = None,
    token: Literal["answer", "target"] = "answer",
    partner: Fact | None = None,
    pool: FactSet | None = None,
    samples: int = 4,
    noise: float = 3.0,
    seed: int = 0,
    progress: bool = True,
) -> FaithfulnessCurve:
    """Measure recovery by the first edges or nodes of rankings, at several sizes, beside random ones of that number.

    A ranking of edges keeps edges, as ``faithfulness`` of a circuit does; a ranking of nodes keeps outputs, as that of
    a selection does. All nodes are all heads and MLPs, and the embedding stays; where any ranking names neurons of a
    layer, that layer's neurons take the place of its MLP. An attention layer stands for its heads in order, an MLP that
    is taken apart for its neurons.

    Args:
        model: A base or edited model; it is not changed.
        contrasts: Facts or contrasts that the rankings were not made of; intervals are over them.
        rankings: Of edges: an ``EdgeMap``, or a ``Circuit`` whose edges are in order. Of nodes: a ``Selection`` in
            order (or its text), an ``EffectMap`` of ``attribute``, several by unit as ``attribute`` gives them, or
            scores ``{"L23H4": 0.7, ...}``. Or a dict of such by name.
        sizes: Shares of all edges or nodes, growing, each between 0 and 1.
        by: How scores are ranked: ``"abs"`` for any effect, ``"lowest"`` or ``"highest"``. The answer rests on the
            *lowest* of an edge map (the metric falls where they are corrupted) and on the *highest* of an effect map
            (what supports the answer most). MIB has the same choice.
        random: So many random rankings of all edges or nodes; their mean is ``"random"``.
        ablation, metric, form, token, partner, pool, samples, noise, progress: As in ``faithfulness``.
        seed: Of the random rankings, and of noise.

    Returns:
        Recovery by ranking and size, with intervals over items, and its areas ``.cpr`` and ``.cmd``.

    Raises:
        ValueError: Sizes that are no growing shares, a ranking with fewer edges or nodes than the largest size, of
            another model, of nodes beside one of edges, scores that are not finite, a map with positions, a component
            that writes nothing by itself, or as ``faithfulness``.
        TypeError: Something is no ranking.

    Source: see the module's docstring. Deviations: edges without a path to the logits count, as they were ranked; the
    embedding is no node.

    Example:
        >>> edges = wb.edges(model, fact, pool=facts)
        >>> curve = wb.faithfulness_curve(model, fact, {"eap-ig": edges}, sizes=(0.1, 0.3, 0.5), random=1, pool=facts)
        >>> curve.to_frame()["ranking"].unique().tolist(), curve.ablation
        (['eap-ig', 'random'], 'swap')
        >>> maps = wb.attribute(model, fact, ("head", "mlp"), corruption="swap", pool=facts)
        >>> rankings = {"attribution": maps, "by hand": wb.Selection("L0H4 L1MLP L2MLP")}
        >>> curve = wb.faithfulness_curve(model, fact, rankings, sizes=(0.05, 0.1), random=1, pool=facts)
        >>> curve.parts, curve.counts  # of 18 heads and 3 MLPs
        ('heads and MLPs', (1, 2))
    """
    if by not in get_args(Order):
        raise ValueError(f"by must be one of {get_args(Order)}, got {by!r}.")
    if not is_whole(random) or random < 0:
        raise ValueError(f"random must be a whole number of random rankings (0 for none), got {random!r}.")
    ranked = Ranked.of(model, rankings, by)
    counts = _counts(sizes, len(ranked.every), ranked.parts)
    ranked.check(sizes, counts)
    generator = torch.Generator().manual_seed(seed)
    drawn = {
        f"{RANDOM} {draw}": ranked.every[torch.randperm(len(ranked.every), generator=generator)]
        for draw in range(random)
    }
    orders = {**ranked.orders, **drawn}
    measured = Measured.of(
        model, contrasts, "faithfulness_curve", ablation=ablation, metric=metric, form=form, token=token,
        partner=partner, pool=pool, samples=samples, noise=noise, seed=seed,
    )  # fmt: skip
    with torch.no_grad(), pooled_engine(Wired, model) as wired:
        level = ranked.level(wired)
        masks = [level.mask(ranked.every[:0]), *(level.mask(o[:n]) for o in orders.values() for n in counts)]
        clean, rows = measured.measure(wired, level, masks, progress)
    check_differs(ablation, clean, [row[0] for row in rows], metric_name(metric))
    alone: dict[str, Any] = {}
    for i, name in enumerate(orders):
        first = 1 + i * len(counts)
        alone[name] = tuple(tuple(row[first + j] for row in rows) for j in range(len(counts)))
    return FaithfulnessCurve(
        sizes=tuple(sizes),
        counts=counts,
        ablation=ablation,
        metric=metric_name(metric),
        items=tuple(item.id for item in measured.items),
        clean=tuple(clean),
        empty=tuple(row[0] for row in rows),
        alone=alone,
        unit=ranked.unit,
        parts=ranked.parts,
        base_fingerprint=model.fingerprint,
    )


def _counts(sizes: Sequence[float], every: int, parts: str) -> tuple[int, ...]:
    """How many edges or nodes each size is."""
    if not sizes or not all(0 < size < 1 for size in sizes) or sorted(set(sizes)) != list(sizes):
        raise ValueError(f"sizes must be shares of all {parts} between 0 and 1, growing, got {sizes!r}.")
    return tuple(int(size * every) for size in sizes)
