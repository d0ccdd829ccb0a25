"""Circuits in every family: contrasts, edges, paths, faithfulness and its curves, where what must come out is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.families import TINY, model_of
from tests.helpers.tiny_facts import capitals
from workbench.types.edge_graph import EdgeGraph
from workbench.types.faithfulness import CircuitAblation

FACTS = capitals()
CLOSE = 1e-3
"""In the logit difference, which is about 14: rounding in single precision."""


ABLATIONS: tuple[CircuitAblation, ...] = ("swap", "mean", "zero", "noise")


def contrast_of(model: wb.LoadedModel, fact: int = 0) -> wb.Contrast:
    return wb.Contrast.of(model, FACTS[fact], form="cloze", pool=FACTS)


def everything(model: wb.LoadedModel) -> str:
    """All heads and MLPs."""
    return " ".join(f"L{layer}ATTN L{layer}MLP" for layer in range(model.shape.n_layers))


@pytest.mark.parametrize("name", TINY)
def test_contrasts_give_what_their_facts_give(name: str) -> None:
    model = model_of(name)
    options: dict[str, Any] = {"corruption": "swap", "form": "cloze", "pool": FACTS, "progress": False}
    contrast, fact = contrast_of(model), FACTS[0]
    trace, of_fact = wb.causal_trace(model, contrast, progress=False), wb.causal_trace(model, fact, **options)
    assert torch.allclose(trace.values, of_fact.values, atol=CLOSE)
    heads, of_fact = wb.attribute(model, contrast, progress=False), wb.attribute(model, fact, **options)
    assert torch.allclose(heads.values, of_fact.values, atol=CLOSE * 10)
    edges, by_fact = wb.edges(model, contrast, progress=False), wb.edges(model, fact, **options)
    assert torch.allclose(edges.values, by_fact.values, atol=CLOSE * 10, equal_nan=True)
    # The same runs as token ids and as states, and one with noise in the place of the corrupted run.
    ids = wb.Contrast(clean=contrast.clean, corrupted=contrast.corrupted, answer=contrast.answer, wrong=contrast.wrong)
    assert torch.allclose(wb.edges(model, ids, progress=False).values, edges.values, atol=CLOSE, equal_nan=True)
    noise = wb.Contrast(clean=contrast.clean, noise=3.0, noise_at=[3], answer=contrast.answer, wrong=contrast.wrong)
    noisy = wb.edges(model, noise, samples=2, progress=False)
    assert noisy.corruption == "noise"
    assert noisy.clean == pytest.approx(edges.clean, abs=CLOSE)
    assert noisy.corrupted != pytest.approx(edges.corrupted, abs=CLOSE)


@pytest.mark.parametrize("name", TINY)
def test_edges_paths_and_faithfulness(name: str) -> None:
    model = model_of(name)
    contrast, graph = contrast_of(model), EdgeGraph.of(model)
    edges = wb.edges(model, contrast, progress=False)
    assert edges.n_edges == graph.n_edges
    exact = wb.edges(model, contrast, method="patching", chosen=edges.top(10), progress=False)
    assert exact.n_edges == 10
    # The whole of the embedding's corrupted write is the corrupted run; a path is the exact score of its edge.
    swapped = wb.path_patch(model, contrast, "embedding", "logits")
    assert swapped.total == pytest.approx(edges.corrupted - edges.clean, abs=CLOSE)
    first = next(iter(exact.top(1)))
    path = wb.path_patch(model, contrast, first.sender, first.receiver)
    assert path.effect == pytest.approx(exact[first], abs=CLOSE)
    # Of all edges nothing is cut, and with all cut the run is the corrupted one.
    whole = wb.faithfulness(model, contrast, edges.top(graph.n_edges), minimality=False)
    assert whole.alone == pytest.approx((edges.clean,), abs=CLOSE)
    assert whole.without == pytest.approx((edges.corrupted,), abs=CLOSE)
    of_nodes = wb.faithfulness(model, contrast, everything(model), minimality=False)
    assert of_nodes.alone == pytest.approx((edges.clean,), abs=CLOSE)


@pytest.mark.parametrize("name", TINY)
def test_every_ablation_keeps_the_whole_and_takes_all(name: str) -> None:
    """Recovery is 1 where nothing is ablated, whatever stands in, and the swapped run is what all nodes of it give."""
    model = model_of(name)
    items = [contrast_of(model, fact) for fact in range(2)]
    whole, circuit = wb.Selection(everything(model)), wb.Circuit.from_selection(everything(model), model)
    for ablation in ABLATIONS:
        for part in (whole, circuit):
            found = wb.faithfulness(model, items, part, ablation=ablation, minimality=False, samples=2, progress=False)
            assert (found.ablation, found.recovery.n) == (ablation, 2)
            assert found.alone == pytest.approx(found.clean, abs=CLOSE)
            assert found.without == pytest.approx(found.empty, abs=CLOSE)


@pytest.mark.parametrize("name", TINY)
def test_curves_of_edges_and_nodes_are_points_of_faithfulness(name: str) -> None:
    model = model_of(name)
    items = [contrast_of(model, fact) for fact in range(2)]
    edges = wb.edges(model, items, progress=False)
    curve = wb.faithfulness_curve(model, items, edges, sizes=(0.2, 0.6), random=1, progress=False)
    point = wb.faithfulness(model, items, edges.top(0.6), minimality=False, progress=False)
    assert curve.alone["eap-ig"][1] == pytest.approx(point.alone, abs=CLOSE)
    maps = wb.attribute(model, items, ("head", "mlp"), method="patching", progress=False)
    nodes = wb.faithfulness_curve(model, items, {"patching": maps}, sizes=(0.2, 0.6), random=1, progress=False)
    ranking = [one.component for one in wb.ranked(maps, k=nodes.counts[1], by="abs")]
    point = wb.faithfulness(model, items, wb.Selection(ranking), minimality=False, progress=False)
    assert nodes.alone["patching"][1] == pytest.approx(point.alone, abs=CLOSE)
    assert nodes.clean == pytest.approx(curve.clean, abs=CLOSE)


@pytest.mark.parametrize("name", TINY)
def test_wholes_are_receivers_and_senders_of_paths(name: str) -> None:
    """What only the logits read is direct, a total does not depend on the receiver, and a parallel layer has no edge
    from its attention to its MLP."""
    model, contrast = model_of(name), contrast_of(model_of(name))
    last = model.shape.n_layers - 1
    direct = wb.path_patch(model, contrast, f"L{last}MLP", "logits")
    assert direct.effect == pytest.approx(direct.direct)
    assert direct.total == pytest.approx(direct.direct, abs=CLOSE)  # only the logits read the last MLP
    for receiver in ("L1H1", "L1KV0", "L1ATTN", "L1MLP"):
        path = wb.path_patch(model, contrast, "L0ATTN", receiver)
        assert path.clean == pytest.approx(direct.clean, abs=CLOSE)
        assert path.total == pytest.approx(wb.path_patch(model, contrast, "L0ATTN", "logits").total, abs=CLOSE)
    if model.architecture.traits.parallel:
        with pytest.raises(ValueError, match="no edge L1H1 -> L1MLP"):
            wb.path_patch(model, contrast, "L1H1", "L1MLP")
    else:
        assert wb.path_patch(model, contrast, "L1H1", "L1MLP").n == 1
