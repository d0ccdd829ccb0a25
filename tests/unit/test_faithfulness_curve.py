"""Faithfulness curves: sizes, areas by hand, random rankings, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.edges import FACTS, FRANCE
from tests.helpers.plain_hooks import single
from workbench.types.edge_graph import EdgeGraph


def curve_of(rankings: Any, item: Any = FRANCE, **options: Any) -> wb.FaithfulnessCurve:
    given = {"form": "cloze", "pool": FACTS, "progress": False, **options}
    return wb.faithfulness_curve(single(), item, rankings, **given)


def made(alone: dict[str, tuple[tuple[float, ...], ...]]) -> wb.FaithfulnessCurve:
    return wb.FaithfulnessCurve(
        sizes=(0.2, 0.5),
        counts=(2, 5),
        ablation="swap",
        metric="logit_diff",
        items=("a", "b"),
        clean=(5.0, 3.0),
        empty=(1.0, -1.0),
        alone=alone,
    )


def test_areas_are_those_of_trapezoids_up_to_all_edges() -> None:
    """Both items have 4 between empty and whole; recoveries are 0.5, then 1.25."""
    curve = made({"mine": ((3.0, 1.0), (6.0, 4.0))})
    assert [rate.value for rate in curve.recovery("mine")] == pytest.approx([0.5, 1.25])
    assert curve.cpr["mine"].value == pytest.approx(0.3 * (0.5 + 1.25) / 2 + 0.5 * (1.25 + 1) / 2)
    assert curve.cmd["mine"] == pytest.approx(0.3 * (0.5 + 0.25) / 2 + 0.5 * 0.25 / 2)


def test_random_draws_are_one_ranking() -> None:
    curve = made({"random 0": ((3.0, 1.0), (5.0, 3.0)), "random 1": ((1.0, -1.0), (5.0, 3.0))})
    assert curve.rankings == ("random",)
    assert [rate.value for rate in curve.recovery("random")] == pytest.approx([0.25, 1.0])
    with pytest.raises(KeyError, match="no ranking 'eap'"):
        curve.recovery("eap")


def test_a_point_is_the_recovery_of_that_circuit() -> None:
    model = single()
    edges = wb.edges(model, FACTS[:2], form="cloze", pool=FACTS, progress=False)
    curve = curve_of({"ours": edges, "turned": wb.Circuit(reversed(list(edges.top(edges.n_edges))))}, FACTS[:2])
    assert curve.counts == tuple(int(size * edges.n_edges) for size in curve.sizes)
    for size in (0.1, 0.5):
        faithful = wb.faithfulness(
            model, FACTS[:2], edges.top(size), form="cloze", pool=FACTS, minimality=False, progress=False
        )
        found = curve.recovery("ours")[curve.sizes.index(size)]
        assert found.value == pytest.approx(faithful.recovery.value, abs=1e-4)
        assert found.low == pytest.approx(faithful.recovery.low, abs=1e-4)
    assert curve.cmd["ours"] < curve.cmd["turned"]
    assert curve.cmd["ours"] < curve.cmd["random"]
    frame = curve.to_frame()
    assert len(frame) == 3 * len(curve.sizes)
    assert set(frame["ablation"]) == {"swap"}
    assert "by swap ablation" in curve.words


def test_seeds_decide_the_random_rankings() -> None:
    edges = wb.edges(single(), FRANCE, form="cloze", pool=FACTS)
    one, same, other = (curve_of(edges, sizes=(0.3, 0.6), random=2, seed=seed) for seed in (1, 1, 2))
    assert one.alone == same.alone
    assert one.alone["random 0"] != one.alone["random 1"]
    assert one.alone["random 0"] != other.alone["random 0"]


def test_what_is_refused() -> None:
    edges = wb.edges(single(), FRANCE, form="cloze", pool=FACTS)
    some = edges.top(20)
    for rankings, options, words in (
        (edges, {"sizes": (0.5, 0.1)}, "growing"),
        (edges, {"sizes": (0.1, 1.5)}, "between 0 and 1"),
        (edges, {"sizes": ()}, "shares of all edges"),
        (some, {}, r"has 20 of all 304 edges.*sizes=\(0.001, 0.002, 0.005, 0.01, 0.02, 0.05\) fit"),
        ({}, {}, "rankings= is empty"),
        (edges, {"by": "value"}, "by must be one of"),
        ({"edges": edges, "nodes": "L0H1"}, {}, "'edges' ranks edges and 'nodes' ranks nodes"),
        ({"random 7": edges}, {}, "cannot be called"),
        (edges, {"random": -1}, "random must be"),
        (edges, {"ablation": "mean"}, "there is one"),
        (wb.Circuit(some, base_fingerprint="0" * 64), {"sizes": (0.01,)}, "another model"),
    ):
        with pytest.raises(ValueError, match=words):
            curve_of(rankings, **options)
    assert EdgeGraph.of(single()).n_edges == edges.n_edges
    assert not torch.is_inference_mode_enabled()
