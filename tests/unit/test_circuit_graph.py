"""CircuitGraph without a browser: what is drawn, what is selected, and what it refuses."""

from __future__ import annotations

import json
import threading
from itertools import pairwise
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.panels import FACTS, FRANCE, tiny, until
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import knowing
from tests.helpers.wire import enter, message
from workbench.plots.graph_layout import HALF_HEIGHT, graph_layout
from workbench.plots.graph_svg import graph_of, graph_svg
from workbench.types import EdgeGraph, EdgeMap
from workbench.types.cancelling import Cancelled
from workbench.types.circuit import Edge
from workbench.types.shape import ModelShape
from workbench.widgets.graph.view import GraphView

POOL = wb.FactSet(FACTS, name="capitals")


def scores_of(model: Any, seed: int = 0) -> EdgeMap:
    """A map of random scores, none of them twice."""
    graph = EdgeGraph.of(model)
    drawn = torch.randn(graph.mask.shape, generator=torch.Generator().manual_seed(seed))
    return EdgeMap(
        values=drawn.masked_fill(~graph.mask, float("nan")),
        senders=tuple(map(str, graph.senders)),
        receivers=tuple(map(str, graph.receivers)),
        metric="logit_diff",
        method="eap",
        clean=1.0,
        corrupted=-1.0,
        base_fingerprint=model.fingerprint,
    )


def graph(**options: Any) -> wb.CircuitGraph:
    options = {"edges": scores_of(tiny()), "pool": POOL, "count": 5} | options
    return wb.CircuitGraph(tiny(), FRANCE, **options)


def pick(one: wb.CircuitGraph, *names: str) -> None:
    """What the browser sends when these are selected."""
    enter(one.view, picked=list(names), seq=one.view.ack + 1)


def send(one: wb.CircuitGraph, event: str, item: Any) -> None:
    message(one.view, {"method": "custom", "content": {"event": event, "item": item}})


def ends(edge: Edge) -> list[str]:
    """The nodes of an edge: a head for its query, a group for its key and value."""
    receiver = str(edge.receiver).replace("Q", "H").replace("K", "KV") if edge.receiver != "logits" else "logits"
    return [str(edge.sender), receiver if "KV" in receiver else receiver.replace("V", "KV")]


def test_the_largest_edges_are_drawn_with_their_ends() -> None:
    scores = scores_of(tiny())
    one = graph(edges=scores)
    top = list(scores.top(5))
    assert one.view.edges == list(map(str, top)) and list(one.drawn) == top and one.edges is scores
    assert one.view.scores == pytest.approx([scores[edge] for edge in top])
    assert set(one.view.nodes) == {"embedding", "logits"} | {name for edge in top for name in ends(edge)}
    for edge, start, end in zip(top, one.view.starts, one.view.ends, strict=True):
        assert [one.view.nodes[start], one.view.nodes[end]] == ends(edge)
    assert (one.view.total, one.view.count, one.view.most, one.view.limit) == (
        304,
        5,
        300,
        max(map(abs, one.view.scores)),
    )
    assert "rank 2 of 304" in one.view.notes[1]


def test_layers_go_upwards_and_edges_touch_their_nodes() -> None:
    one = graph(count=300)
    at = dict(zip(one.view.nodes, zip(one.view.xs, one.view.ys, strict=True), strict=True))
    assert at["embedding"][1] > at["L0H0"][1] > at["L0MLP"][1] > at["L1H0"][1] > at["L2MLP"][1] > at["logits"][1]
    assert at["L1MLP"][0] > max(at[f"L1H{i}"][0] for i in range(6))
    for start, end, curve in zip(one.view.starts, one.view.ends, one.view.curves, strict=True):
        assert curve[:2] == pytest.approx([one.view.xs[start], one.view.ys[start] - HALF_HEIGHT], abs=0.11)
        assert curve[7] == pytest.approx(one.view.ys[end] + HALF_HEIGHT, abs=0.11)
        assert curve[1] > curve[7]  # from below upwards
    for x, y in at.values():
        assert 0 < x < one.view.size[0] and 0 < y < one.view.size[1]


def test_the_slider_draws_more_and_what_is_selected_stays() -> None:
    one = graph()
    fifth = one.view.edges[4]
    pick(one, fifth)
    send(one, "count", 2)
    assert one.count == 2 and one.view.edges == [*map(str, scores_of(tiny()).top(2)), fifth]
    assert fifth in one.view.selected
    send(one, "count", 300)
    assert len(one.view.edges) == 300 and len(set(one.view.edges)) == 300
    for bad in (0, 301, True, "5", None):
        send(one, "count", bad)
        assert one.count == 300 and "'count' takes here" in one.view.problem


def test_a_click_on_an_edge_selects_it_with_its_ends() -> None:
    one = graph()
    edge = Edge.parse(one.view.edges[0])
    pick(one, str(edge))
    assert str(one.circuit) == str(edge) and one.circuit.base_fingerprint == tiny().fingerprint
    assert set(one.view.selected) == {str(edge), *ends(edge)}
    parts = {name for name in ends(edge) if name not in ("embedding", "logits") and "KV" not in name}
    assert set(map(str, one.selection)) == parts
    assert f"circuit = wb.Circuit('{edge}')" in one.code
    pick(one)
    assert len(one.circuit) == 0 == len(one.selection) and one.view.selected == []


def test_a_circuit_set_in_python_is_drawn_however_small() -> None:
    one = graph(count=1)
    scores = scores_of(tiny())
    smallest = min(scores.top(304), key=lambda edge: abs(scores[edge]))
    one.circuit = wb.Circuit([smallest])
    assert one.view.edges[-1] == str(smallest) and str(smallest) in one.view.selected
    with pytest.raises(ValueError, match="L9H0"):
        one.circuit = "L9H0 -> logits"
    assert list(one.circuit) == [smallest]


def test_the_picker_follows_and_leads() -> None:
    picker = wb.CircuitPicker(tiny(), FRANCE, pool=POOL, compute=False)
    picker.selection = "L1H3 L2N7"
    one = graph(picker=picker)
    assert one.view.selected == ["L1H3"] and list(map(str, one.selection)) == ["L1H3", "L2N7"]
    pick(one, "L1H3", one.view.edges[0])
    wanted = {"L1H3", "L2N7", *(n for n in ends(Edge.parse(one.view.edges[0])) if "H" in n or "MLP" in n)}
    assert set(map(str, picker.selection)) == wanted  # the neuron, which no graph draws, stays
    picker.selection = "L0H2"
    assert one.view.selected == [n for n in one.view.nodes if n in ("L0H2", *one._ends_chosen)]
    assert list(map(str, one.selection)) == ["L0H2"]
    send(one, "path", ["nothing", 3])
    message(one.view, {"method": "custom", "content": {"event": "undo"}})
    assert set(map(str, picker.selection)) == wanted == set(map(str, one.selection))


def test_two_nodes_give_the_exact_path_between_them() -> None:
    one = graph()
    one.selection = "L0H4 L1MLP"
    send(one, "path", ["L1MLP", "L0H4"])  # from the lower to the upper one
    assert one.path.job is not None
    found = one.path.job.wait(60)
    exact = wb.path_patch(tiny(), FRANCE, "L0H4", "L1MLP", pool=POOL)
    assert (found.sender, found.receiver) == ("L0H4", "L1MLP")
    assert found.effect == pytest.approx(exact.effect, abs=1e-5)
    assert exact.words[:20].replace(">", "&gt;") in one.path.value and one.view.path_ends == ["L0H4", "L1MLP"]
    assert "wb.path_patch(model, fact, 'L0H4', 'L1MLP'" in one.code
    assert one.patch("L1H0", "L1H3") is None
    assert "lies within layer 1" in one.path.value and one.path.result is None


def test_only_what_is_drawn_is_sent() -> None:
    state = json.dumps(graph(count=300).view.get_state(drop_defaults=True), default=lambda value: None)
    few = json.dumps(graph(count=5).view.get_state(drop_defaults=True), default=lambda value: None)
    assert len(few) < 12_000 and len(state) < 120_000
    assert state.count('" -> ') == 0 and state.count(" -> ") == 300


def test_it_scores_in_the_background_and_can_be_cancelled() -> None:
    one = wb.CircuitGraph(tiny(), [*FACTS[:2]], pool=POOL, count=5, compute=False)
    assert one.edges is None and "not scored" in repr(one) and one.view.edges == []
    with pytest.raises(ValueError, match="not scored yet"):
        one.circuit = "L0H4 -> L1MLP"
    one.circuit = wb.Circuit()  # of no edge no score is needed
    scores = one.run().wait(120)
    until(lambda: one.view.edges)
    assert one.edges is scores and scores.n == 2 and "standard error" in one.view.notes[0]
    flag = threading.Event()
    flag.set()
    with pytest.raises(Cancelled, match="between two items"):
        wb.edges(tiny(), FRANCE, pool=POOL, cancel=flag)
    before = list(one.view.edges)
    job = one.run()
    one.cancel()
    until(lambda: not one.busy)
    assert job.state == "cancelled" and one.view.edges == before  # what was there stays


def test_wrong_input_is_refused() -> None:
    other = scores_of(tiny(), 1)
    object.__setattr__(other, "base_fingerprint", "f" * 64)
    with pytest.raises(ValueError, match="map of another model"):
        graph(edges=other)
    with pytest.raises(ValueError, match="circuit= is empty"):
        graph(circuit=wb.Circuit())
    with pytest.raises(ValueError, match="another model"):
        graph(circuit=wb.Circuit("L0H4 -> L1MLP", base_fingerprint="f" * 64))
    for count in (0, 301, 2.5, True):
        with pytest.raises(ValueError, match="from 1 to 300"):
            graph(count=count)
    with pytest.raises(ValueError, match="picker is of another model"):
        graph(picker=wb.CircuitPicker(knowing(tiny_llama(tied=True), FACTS), FRANCE, pool=POOL, compute=False))
    with pytest.raises(ValueError, match="at least one fact"):
        wb.CircuitGraph(tiny(), [], pool=POOL)


def test_a_circuit_alone_is_drawn() -> None:
    one = graph(circuit=wb.Circuit("L0MLP -> L1H4, embedding -> L0MLP"))
    names = ["L0MLP -> L1Q4", "L0MLP -> L1K1", "L0MLP -> L1V1", "embedding -> L0MLP"]
    assert sorted(one.view.edges) == sorted(names)
    assert set(one.view.nodes) == {"embedding", "L0MLP", "L1KV1", "L1H4", "logits"}


def test_eighty_layers_keep_their_size_and_scroll() -> None:
    shape = ModelShape(n_layers=80, n_heads=64, n_kv_heads=8, d_model=512, d_head=8, d_mlp=64, d_vocab=9)
    edges = [
        Edge.parse(text) for text in ("embedding -> L3MLP", "L3MLP -> L79Q63", "L79H63 -> L79MLP", "L79MLP -> logits")
    ]
    drawn = graph_layout(edges, shape)
    assert [words for words, _ in drawn.rows] == ["L0–2", "L3", "L4–78", "L79"]
    assert drawn.width > 64 * 50 and drawn.height < 500
    every = graph_layout([Edge.parse(f"L{i}MLP -> L{i + 1}MLP") for i in range(79)], shape)
    ys = sorted(node.y for node in every.nodes)
    assert min(b - a for a, b in pairwise(ys)) > 2 * HALF_HEIGHT


def test_nodes_of_a_row_do_not_overlap() -> None:
    one = graph(count=300)
    boxes = list(zip(one.view.xs, one.view.ys, strict=True))
    for i, (x, y) in enumerate(boxes):
        for other_x, other_y in boxes[i + 1 :]:
            assert abs(x - other_x) > 48 or abs(y - other_y) > 18


def test_a_saved_graph_is_drawn_without_scripts_and_trusts_nothing() -> None:
    one = graph()
    pick(one, one.view.edges[0])
    html = one.snapshot().html
    assert html.count('class="wbg-edge') == 5 and "wbg-picked" in html and "wbg-halo" in html
    assert "<script" not in html and one.view.snapshot().data.startswith(b"\x89PNG")
    evil = "<img src=x onerror=alert(1)>"
    state: dict[str, Any] = {
        "nodes": [evil], "xs": [1], "ys": [1], "edges": [evil], "scores": [1.0], "curves": [[0] * 8], "size": [9, 9],
        "rows": [evil], "row_ys": [3], "title": evil, "alt": evil, "unit": evil,
    }  # fmt: skip
    found = graph_of(state)
    assert found is not None and "<img" not in graph_svg(found, "g")
    for broken in ({"curves": [[0] * 7]}, {"size": [9]}, {"xs": []}, {"size": [1e9, 9]}, {"edges": None}):
        assert graph_of(state | broken) is None


def test_a_contrast_is_written_as_code() -> None:
    contrast = wb.Contrast(
        clean="The capital of France is", corrupted="The capital of Italy is", answer=" Paris", wrong=" Rome"
    )
    one = wb.CircuitGraph(tiny(), contrast, edges=scores_of(tiny()), metric="probability", compute=False)
    names: dict[str, Any] = {}
    lines = one.code.split("contrast = ")[1].split("edges = ")[0]
    exec(f"contrast = {lines}", {"wb": wb}, names)
    assert names["contrast"] == contrast
    assert "wb.edges(model, contrast, metric='probability')" in one.code


def test_what_a_graph_refuses_is_said_and_changes_nothing() -> None:
    view: GraphView = graph().view
    enter(view, picked=["L9H9"], seq=1)
    assert view.selected == [] and view.ack == 1 and "no node or edge" in view.problem
    enter(view, nodes=["x"])
    assert "only Python sets this" in view.problem and "x" not in view.nodes


def test_recovery_follows_what_is_selected_while_it_is_ticked() -> None:
    one = graph(count=100)
    pick(one, "L0MLP")
    assert one.recovery.job is None and one.recovery.words == ""  # nothing runs that nobody asked for
    one.recovery.live.value = True
    until(lambda: one.recovery.result)
    assert one.recovery.result is not None
    exact = wb.faithfulness(tiny(), FRANCE, wb.Selection("L0MLP"), minimality=False, pool=POOL)
    assert one.recovery.result.part.recovery.value == pytest.approx(exact.recovery.value, abs=1e-4)
    drawn = [wb.Selection("L0MLP").random_like(tiny(), seed=seed) for seed in range(3)]
    assert [found.part for found in one.recovery.result.random] == drawn
    for name in one.view.edges[:3]:  # faster than it is measured: the last one counts
        pick(one, name)
    until(lambda: one.recovery.result is not None and one.recovery.result.part.part == one.circuit)
    assert "1 selected edge:" in one.recovery.words and "3 random parts" in one.recovery.words
    assert "swap" in one.recovery.words
    one.recovery.live.value = False
    assert one.recovery.words == "" and one.recovery.result is None


def test_another_fact_is_measured_as_the_one_before() -> None:
    one = graph(corruption="noise", form="cloze")
    pair = wb.Contrast(clean="The capital of France is", corrupted="The capital of Spain is", answer=" Paris")
    one.contrast = FACTS[1]
    assert "corruption='noise', form='cloze'" in one.code
    one.contrast = pair
    assert "noise" not in one.code and "cloze" not in one.code, "a contrast has its own"
    one.contrast = FRANCE
    assert "corruption='noise', form='cloze'" in one.code
    one.show(FRANCE, corruption="swap", form=None)
    assert "noise" not in one.code and "cloze" not in one.code


def test_recovery_of_a_contrast_is_by_its_own_corruption() -> None:
    noisy = wb.Contrast(
        clean="The capital of France is", noise=2.0, noise_at="France", answer=" Paris", wrong=" Madrid"
    )
    assert noisy.corruption == "noise"
    one = wb.CircuitGraph(tiny(), noisy, edges=scores_of(tiny()), compute=False)
    exact = wb.faithfulness(tiny(), noisy, wb.Selection("L0MLP"), ablation="noise", minimality=False)
    assert one._faithful(wb.Selection("L0MLP")) == exact
