"""Circuits: text, JSON, sets, nodes, and what no architecture or this one has not."""

from __future__ import annotations

import pytest

import workbench as wb
from tests.helpers.families import model_of
from tests.helpers.plain_hooks import single
from workbench.types.circuit import Edge
from workbench.types.edge_graph import EMBEDDING, LOGITS, EdgeGraph
from workbench.types.shape import ModelShape

TEXT = "embedding -> L0H4, L0H4 -> L1MLP, L0H4 -> L2Q1, L1MLP -> L2K0, L1MLP -> logits"


def test_text_and_json_come_back() -> None:
    circuit = wb.Circuit(TEXT, base_fingerprint="abc")
    assert str(circuit) == TEXT
    assert wb.Circuit.parse(str(circuit)) == circuit
    back = wb.Circuit.from_json(circuit.to_json())
    assert (list(back), back.base_fingerprint) == (list(circuit), "abc")
    assert wb.Circuit(" embedding->L0H4 ;\nL0H4 ->L1MLP") == wb.Circuit("embedding -> L0H4 -> L1MLP")


def test_sets_of_edges() -> None:
    one, other = wb.Circuit("L0H4 -> L1MLP, L1MLP -> logits"), wb.Circuit("L1MLP -> logits, embedding -> L0H4")
    assert str(one | other) == "L0H4 -> L1MLP, L1MLP -> logits, embedding -> L0H4"
    assert str(one - other) == "L0H4 -> L1MLP"
    assert str(one & other) == "L1MLP -> logits"
    assert one ^ other == wb.Circuit("L0H4 -> L1MLP, embedding -> L0H4")
    assert "L0H4 -> L1MLP" in one
    assert "nonsense" not in one
    assert (wb.Circuit("L0H4 -> L1MLP", base_fingerprint="a") | one).base_fingerprint == "a"


def test_circuits_of_two_models_do_not_mix() -> None:
    with pytest.raises(ValueError, match="different models"):
        _ = wb.Circuit("L0H4 -> L1MLP", base_fingerprint="a") - wb.Circuit("L0H4 -> L1MLP", base_fingerprint="b")


def test_nodes_become_a_selection() -> None:
    circuit = wb.Circuit(TEXT)
    assert circuit.selection == wb.Selection("L0H4 L1MLP L2H1")
    assert [str(node) for node in circuit.nodes[:3]] == ["embedding", "L0H4", "L1MLP"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("L2H1 -> L1MLP", r"runs backwards.*Did you mean L1MLP -> L2H1\?"),
        ("L2MLP -> L1K0", "runs backwards"),
        ("L1MLP -> L1H2", "within layer 1"),
        ("L1H1 -> L1H2", "within layer 1"),
        ("L1MLP -> L1MLP", "within layer 1"),
        ("L1N4 -> L2MLP", "L1N4 sends nothing"),
        ("logits -> L2MLP", "logits sends nothing"),
        ("L1MLP -> embedding", "embedding is no receiver"),
        ("L1MLP -> L2N3", "L2N3 is no receiver"),
        ("L1MLP", "needs a sender"),
        ("L1MLP -> ", "needs a sender"),
        ("L1MLP -> somewhere", "is not a component"),
    ],
)
def test_what_is_no_edge(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wb.Circuit(text)
    with pytest.raises(ValueError, match=r"newer|version|Expected"):
        wb.Circuit.from_json('{"kind": "workbench-circuit", "version": 99, "edges": []}')


def test_attention_to_the_mlp_of_a_parallel_layer_is_no_edge() -> None:
    serial, parallel = model_of("gpt-neox, sequential"), model_of("gpt-neox")
    circuit = wb.Circuit("L1H2 -> L1MLP")
    circuit.check(serial)
    with pytest.raises(ValueError, match=r"no edge L1H2 -> L1MLP.*layer 2 or later"):
        circuit.check(parallel)
    assert EdgeGraph.of(serial).n_edges - EdgeGraph.of(parallel).n_edges == 3 * 6


def test_a_circuit_of_another_model_is_refused() -> None:
    model = single()
    wb.Circuit("L0H4 -> L1MLP", base_fingerprint=model.fingerprint).check(model)
    with pytest.raises(ValueError, match="another model"):
        wb.Circuit("L0H4 -> L1MLP", base_fingerprint="0" * 64).check(model)
    with pytest.raises(ValueError, match="the model has 3 layers"):
        wb.Circuit("L0H4 -> L7MLP").check(model)


def test_the_bundled_shape_has_about_70_000_edges() -> None:
    graph = EdgeGraph(
        ModelShape(n_layers=30, n_heads=9, n_kv_heads=3, d_head=64, d_mlp=1536, d_model=576, d_vocab=49152)
    )
    assert (len(graph.senders), len(graph.receivers), graph.n_edges) == (301, 481, 70651)
    assert int(graph.mask.sum()) == graph.n_edges


def test_every_edge_of_the_graph_is_an_edge() -> None:
    graph = EdgeGraph.of(single())
    circuit = wb.Circuit((graph.senders[s], graph.receivers[r]) for r, s in graph.mask.nonzero().tolist())
    assert circuit.edges_in(graph) == list(circuit)
    assert len(circuit) == graph.n_edges


def test_a_selection_gives_all_edges_between_its_nodes() -> None:
    model = single()
    circuit = wb.Circuit.from_selection("L0H4 L1MLP", model)
    inner = {"L0H4 -> L1MLP"}
    ends = {f"{EMBEDDING} -> L0{kind}" for kind in ("Q4", "K1", "V1")} | {f"{EMBEDDING} -> L1MLP"}
    ends |= {f"{node} -> {LOGITS}" for node in (EMBEDDING, "L0H4", "L1MLP")}
    assert set(map(str, circuit)) == inner | ends
    assert set(map(str, wb.Circuit.from_selection("L0H4 L1MLP", model, ends=False))) == inner
    assert circuit.selection == wb.Selection("L0H4 L1MLP")
    with pytest.raises(ValueError, match="Of a neuron take its MLP"):
        wb.Circuit.from_selection("L1N4", model)


def test_wholes_stand_for_their_parts() -> None:
    model = single()
    assert set(map(str, wb.Circuit("L0ATTN -> L1KV1").edges_in(model))) == {
        f"L0H{head} -> L1{kind}1" for head in range(6) for kind in "KV"
    }
    assert Edge.parse("L0MLP -> L2H5") not in wb.Circuit("L0MLP -> L2H5").edges_in(model)
    assert len(wb.Circuit("L0MLP -> L2H5").random_like(model, seed=3)) == 3
    assert wb.Circuit("L0MLP -> L2H5").random_like(model, seed=3) == wb.Circuit("L0MLP -> L2H5").random_like(
        model, seed=3
    )
