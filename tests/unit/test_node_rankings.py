"""Faithfulness curves of nodes: the order that each kind of ranking gives, points, random nodes, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.edges import FACTS, FRANCE
from tests.helpers.families import model_of
from tests.helpers.plain_hooks import single
from workbench.circuits.all_nodes import AllNodes
from workbench.circuits.rankings import Ranked
from workbench.types import ModelShape

SHAPE = ModelShape(n_layers=2, n_heads=4, n_kv_heads=2, d_head=3, d_mlp=5, d_model=12, d_vocab=7)
OPTIONS: dict[str, Any] = {"form": "cloze", "pool": FACTS, "progress": False}


def curve_of(rankings: Any, item: Any = FRANCE, **options: Any) -> wb.FaithfulnessCurve:
    return wb.faithfulness_curve(single(), item, rankings, **{**OPTIONS, **options})


def heads(values: list[list[float]], **options: Any) -> wb.EffectMap:
    """A map of the heads of a model with three layers of six."""
    labels = {"layer": ("L0", "L1", "L2"), "head": tuple(f"H{i}" for i in range(6))}
    given: dict[str, Any] = {"unit": "head", "metric": "logit_diff", "method": "patching", "clean": 3.0} | options
    return wb.EffectMap(values=torch.tensor(values), axes=("layer", "head"), labels=labels, **given)


def names(order: torch.Tensor) -> list[str]:
    """The components of places among the 21 heads and MLPs of the small model."""
    every = [*(f"H{i}" for i in range(6)), "MLP"]
    return [f"L{place // 7}{every[place % 7]}" for place in order.tolist()]


def order_of(ranking: Any, by: Any = "abs") -> list[str]:
    (order,) = Ranked.of(single(), ranking, by).orders.values()
    return names(order)


def test_all_nodes_are_heads_then_the_mlp_or_its_neurons() -> None:
    whole, apart = AllNodes(SHAPE), AllNodes(SHAPE, frozenset({1}))
    assert (whole.count, whole.words) == (10, "heads and MLPs")
    assert (apart.count, apart.words) == (4 + 1 + 4 + 5, "heads, MLPs and neurons")
    assert AllNodes(SHAPE, frozenset({0, 1})).words == "heads and neurons"
    assert whole.order(wb.Selection("L1MLP L0H2 L0ATTN L1H0")).tolist() == [9, 2, 0, 1, 3, 5]
    assert apart.order(wb.Selection("L1N3 L1MLP L0MLP")).tolist() == [12, 9, 10, 11, 13, 4]
    kept = torch.zeros(14, dtype=torch.bool)
    kept[[2, 12]] = True
    entries = apart.entries(kept)
    assert list(entries) == [("z", 0), ("mlp", 0), ("z", 1), ("post", 1)]
    assert entries["z", 0].tolist() == [False] * 6 + [True] * 3 + [False] * 3
    assert entries["post", 1].tolist() == [False, False, False, True, False]
    assert not entries["mlp", 0].any()
    assert not entries["z", 1].any()


def test_kinds_of_rankings_give_orders() -> None:
    values = [[0.1, -5.0, 2.0, 0, 0, 0], [0] * 6, [0, 0, 0, 0, 0, 3.0]]
    assert order_of(heads(values))[:3] == ["L0H1", "L2H5", "L0H2"]
    assert order_of(heads(values), "highest")[:3] == ["L2H5", "L0H2", "L0H0"]
    assert order_of(heads(values), "lowest")[0] == "L0H1"
    falling = heads(values, metric="rank", clean=1.0)  # less of a rank is more support
    assert order_of(falling, "highest")[0] == "L0H1"
    mlps = replace(
        heads(values), values=torch.tensor([4.0, 0.2, -2.5]), axes=("layer",), unit="mlp",
        labels={"layer": ("L0", "L1", "L2")},
    )  # fmt: skip
    both = {"mine": {"head": heads(values), "mlp": mlps}}
    assert order_of(both)[:5] == ["L0H1", "L0MLP", "L2H5", "L2MLP", "L0H2"]
    assert order_of({"L1H2": 0.5, "L2MLP": -2, "L0H0": 1.0}) == ["L2MLP", "L0H0", "L1H2"]
    assert order_of({"L1H2": 0.5, "L2MLP": -2, "L0H0": 1.0}, "lowest") == ["L2MLP", "L1H2", "L0H0"]
    assert order_of(wb.Selection("L2H1 L0MLP")) == order_of("L2H1 L0MLP") == ["L2H1", "L0MLP"]


def test_a_point_is_the_recovery_of_that_selection_and_random_ones_are_beside_it() -> None:
    model, some = single(), FACTS[:2]
    maps = wb.attribute(model, some, ("head", "mlp"), method="patching", corruption="swap", **OPTIONS)
    ranking = [one.component for one in wb.ranked(maps, k=21, by="abs")]
    turned = wb.Selection(reversed(ranking))
    curve = curve_of({"patching": maps, "turned": turned}, some, sizes=(0.1, 0.3, 0.5))
    assert (curve.unit, curve.parts, curve.counts) == ("node", "heads and MLPs", (2, 6, 10))
    assert curve.rankings == ("patching", "turned", "random")
    for size, count in enumerate(curve.counts):
        part = wb.Selection(ranking[:count])
        faithful = wb.faithfulness(model, some, part, minimality=False, **OPTIONS)
        found = curve.recovery("patching")[size]
        assert (found.value, found.low, found.n) == pytest.approx(
            (faithful.recovery.value, faithful.recovery.low, 2), abs=1e-4
        )
    assert curve.cmd["patching"] < min(curve.cmd["turned"], curve.cmd["random"])
    assert "of heads and MLPs, n = 2 of logit_diff" in curve.words
    frame = curve.to_frame()
    assert frame["nodes"].tolist() == [2, 6, 10] * 3
    assert "heads and MLPs put out" in curve.plot().layout.title.subtitle.text


def test_random_nodes_are_drawn_by_seed_from_all() -> None:
    one, same, other = (curve_of("L0MLP L1MLP", sizes=(0.05, 0.1), random=2, seed=seed) for seed in (1, 1, 2))
    assert one.alone == same.alone
    assert one.alone["random 0"] != one.alone["random 1"]
    assert one.alone["random 0"] != other.alone["random 0"]
    every = [order.tolist() for order in [Ranked.of(single(), "L0H1", "abs").every]]
    assert every == [list(range(21))]


def test_neurons_take_the_place_of_their_mlp() -> None:
    model = single()
    neurons = wb.default_selection(model, FRANCE, pool=FACTS, k=3 * 56, progress=False)
    curve = curve_of({"neurons": neurons, "mlps": "L0MLP L2MLP"}, sizes=(0.2, 0.5), random=1)
    every = 3 * (6 + 56)
    assert (curve.parts, curve.counts) == ("heads and neurons", (int(0.2 * every), int(0.5 * every)))
    part = wb.Selection(list(neurons)[: curve.counts[0]])
    faithful = wb.faithfulness(model, FRANCE, part, minimality=False, **OPTIONS)
    assert curve.alone["neurons"][0] == pytest.approx(faithful.alone, abs=1e-4)
    # An MLP stands for its neurons in order; before them are the six heads of its layer.
    orders = Ranked.of(model, {"a": neurons, "b": "L0MLP L2H1"}, "abs").orders
    assert orders["b"].tolist() == [*range(6, 62), 2 * 62 + 1]


def test_one_list_takes_maps_of_components_and_one_of_each_kind() -> None:
    effects = heads([[1.0, 2, 3, 4, 5, 6]] * 3)
    labels = {"layer": ("L0", "L1", "L2")}
    states = wb.EffectMap(
        values=torch.ones(3),
        axes=("layer",),
        labels=labels,
        unit="resid",
        metric="logit_diff",
        method="patching",
        clean=3.0,
    )
    assert wb.ranked([effects, states]) == wb.ranked([effects]), "a state is no component"
    with pytest.raises(ValueError, match="one map a kind"):
        wb.ranked([effects, replace(effects, unit="z")])


def test_what_is_refused() -> None:
    model = single()
    trace = wb.causal_trace(model, FRANCE, "mlp", corruption="swap", **OPTIONS)
    groups = wb.attribute(model, FRANCE, "kv", corruption="swap", **OPTIONS)
    other = wb.attribute(model_of("gpt2"), FRANCE, corruption="swap", **OPTIONS)
    for ranking, words in (
        (trace, r"has positions, and a node counts at all of them.*trace.top\(20, role="),
        (groups, "writes nothing by itself; maps that rank nodes"),
        (other, "is of another model"),
        ("L0K1", "L0K1 writes nothing by itself"),
        ("L7H1", "the model has 3 layers"),
        ({"L0H1": float("nan")}, r"must be finite, got \{'L0H1': nan\}"),
        ("L0H1 L1H1", r"has 2 of all 21 heads and MLPs.*sizes=\(0.001, .*0.1\) fit"),
    ):
        with pytest.raises(ValueError, match=words):
            curve_of(ranking)
    for ranking in (torch.ones(3), {"mine": [0.1, 0.2]}):
        with pytest.raises(TypeError, match="is no ranking"):
            curve_of(ranking)
