"""Scores of edges: exact ones against plain hooks, first-order ones against exact ones, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.edges import FACTS, FRANCE, NAMES, Plain
from tests.helpers.families import TINY, model_of
from tests.helpers.plain_hooks import single
from tests.helpers.tiny import random_edit, tiny_gpt2, tiny_llama
from tests.helpers.tiny_facts import knowing
from workbench.circuits.edges import _first_order
from workbench.circuits.patching import exact_scores
from workbench.circuits.runs import edge_runs
from workbench.circuits.wiring import Wired
from workbench.models.engine import pooled_engine
from workbench.tracing.corruption import set_up
from workbench.tracing.setup import SetupOptions
from workbench.types.edge_graph import EdgeGraph
from workbench.types.edge_map import EdgeMethod

OPTIONS = SetupOptions(
    corruption="swap", metric="logit_diff", form="cloze", token="answer", samples=1, noise=3.0, seed=0, partner=None,
    pool=FACTS,
)  # fmt: skip


def scores(model: wb.LoadedModel, fact: wb.Fact = FRANCE, **options: Any) -> wb.EdgeMap:
    return wb.edges(model, fact, **{"form": "cloze", "pool": FACTS, "progress": False, **options})


@pytest.mark.parametrize("name", NAMES)
def test_exact_edges_equal_plain_hooks(name: str) -> None:
    """Every 13th edge, of all kinds of senders and receivers."""
    plain = Plain(name)
    graph = EdgeGraph.of(plain.model)
    places = graph.mask.nonzero().tolist()[::13]
    pairs = [(graph.senders[s], graph.receivers[r]) for r, s in places]
    pairs += [(graph.senders[0], graph.receivers[-1]), (graph.senders[-1], graph.receivers[-1])]
    found = scores(plain.model, method="patching", chosen=wb.Circuit(pairs))
    kinds = set()
    for sender, receiver in pairs:
        expected = plain.edge(sender, receiver)
        assert found[f"{sender} -> {receiver}"] == pytest.approx(expected, abs=2e-5), (sender, receiver)
        kinds.add(getattr(receiver, "kind", receiver))
    assert kinds == {"Q", "K", "V", "MLP", "logits"}
    assert found.clean == pytest.approx(plain.run(plain.clean, {}), abs=1e-4)
    assert found.corrupted == pytest.approx(plain.run(plain.corrupted, {}), abs=1e-4)


def nearby(name: str, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Scores by EAP, by EAP-IG and exact, where the corrupted run is only so far from the clean one."""
    model = model_of(name, double=True)
    with pooled_engine(Wired, model) as wired:
        setup = set_up(model, wired, FACTS[2] if name == "olmo" else FRANCE, OPTIONS)  # France is at a kink of its clip
        clean = setup.clean[:, setup.start :]
        runs = edge_runs(wired, replace(setup, corrupted=clean + share * (setup.corrupted - clean)))
        exact = exact_scores(wired, runs, wired.graph.mask)
        return _first_order(wired, runs, None), _first_order(wired, runs, 5), exact


@pytest.mark.parametrize("name", TINY)
def test_first_order_tends_to_exact_in_every_family(name: str) -> None:
    eap, ig, exact = nearby(name, 2e-3)
    for found in (eap, ig):
        assert float((found - exact).norm() / exact.norm()) < 0.02
    assert float(exact.abs().max()) > 1e-3


def test_the_error_falls_with_the_difference_and_integrated_gradients_halve_it() -> None:
    errors = {}
    for share in (0.2, 0.02):
        eap, ig, exact = nearby("gpt2", share)
        errors[share] = [float((found - exact).norm() / exact.norm()) for found in (eap, ig)]
    assert errors[0.02][0] < errors[0.2][0] / 5
    assert errors[0.02][1] < errors[0.2][1] / 5
    assert errors[0.02][1] < errors[0.02][0]


def test_grouped_heads_equal_heads_ungrouped_by_hand() -> None:
    grouped, apart = tiny_llama(tied=False, bias=True), tiny_llama(tied=False, bias=True, num_key_value_heads=6)
    state = grouped.state_dict()
    for name, tensor in state.items():
        if ".k_proj." in name or ".v_proj." in name:
            state[name] = tensor.view(2, 8, -1).repeat_interleave(3, 0).reshape(48, *tensor.shape[1:])
    apart.load_state_dict(state)
    one, other = (scores(model, method="eap") for model in (knowing(grouped, FACTS), knowing(apart, FACTS)))
    for receiver in one.receivers:
        ours = one.values[one.receivers.index(receiver)]
        kind, group = receiver[2], receiver[3:]
        names = [receiver]
        if kind in "KV" and receiver != "logits":
            names = [f"{receiver[:3]}{head}" for head in range(3 * int(group), 3 * int(group) + 3)]
        theirs = torch.stack([other.values[other.receivers.index(name)] for name in names]).sum(0)
        assert torch.allclose(ours, theirs, atol=1e-4, equal_nan=True), receiver


def test_noise_takes_the_mean_over_samples() -> None:
    model = single()
    chosen = "embedding -> L0H1, L1MLP -> logits"
    found = scores(model, corruption="noise", samples=3, method="patching", chosen=chosen)
    assert found.corruption == "noise"
    assert found.n_edges == 4
    ig = scores(model, corruption="noise", samples=3)
    assert ig["L1MLP -> logits"] == pytest.approx(found["L1MLP -> logits"], rel=0.5)


def test_several_facts_are_means_with_errors() -> None:
    model = single()
    one, two = (scores(model, fact) for fact in FACTS[:2])
    both = wb.edges(model, FACTS[:2], form="cloze", pool=FACTS, progress=False)
    assert torch.allclose(both.values, (one.values + two.values) / 2, atol=1e-6, equal_nan=True)
    half = (one.values - two.values).abs() / 2
    assert both.stderr is not None
    assert torch.allclose(both.stderr, half, atol=1e-6, equal_nan=True)
    assert (both.n, both.clean) == (2, pytest.approx((one.clean + two.clean) / 2))


def test_a_contrast_of_a_fact_gives_what_the_fact_gives() -> None:
    model = single()
    contrast = wb.Contrast.of(model, FRANCE, form="cloze", pool=FACTS)
    fact, same = scores(model), wb.edges(model, contrast)
    assert torch.allclose(fact.values, same.values, atol=1e-5, equal_nan=True)
    assert same.corruption == "swap"
    noise = wb.Contrast.of(model, FRANCE, form="cloze", corruption="noise")
    assert wb.edges(model, noise, samples=2, progress=False).corruption == "noise"
    with pytest.raises(ValueError, match="Each contrast may be given once; 'france-capital' came more often"):
        wb.edges(model, [noise, noise], samples=2, progress=False)


def test_metrics_are_any_of_the_table_or_a_function() -> None:
    model = single()

    def first_logit(logits: Tensor) -> Tensor:
        return logits[:, 0]

    assert scores(model, metric=first_logit).metric == "first_logit"
    divergence = scores(model, metric="kl", method="patching", chosen="L1MLP -> logits")
    assert (divergence.clean, divergence["L1MLP -> logits"] > 0) == (pytest.approx(0, abs=1e-6), True)
    assert scores(model, metric="kl").n_edges == EdgeGraph.of(model).n_edges
    with pytest.raises(ValueError, match="its gradient there is 0"):
        scores(model, metric="kl", method="eap")
    with pytest.raises(ValueError, match="has no gradient"):
        scores(model, metric="rank")


def test_the_map_has_tops_rows_and_a_file(tmp_path: Any) -> None:
    model = single()
    found = scores(model)
    frame = found.to_frame()
    assert len(frame) == found.n_edges == EdgeGraph.of(model).n_edges
    assert [str(edge) for edge in found.top(5)] == frame["edge"][:5].tolist()
    assert frame["score"].abs().is_monotonic_decreasing
    lowest, highest = found.top(1, by="lowest"), found.top(1, by="highest")
    assert found[next(iter(lowest))] == frame["score"].min()
    assert found[next(iter(highest))] == frame["score"].max()
    assert len(found.top(0.1)) == int(0.1 * found.n_edges)
    back = wb.EdgeMap.load(found.save(tmp_path / "edges.safetensors"))
    assert torch.equal(back.values.nan_to_num(7), found.values.nan_to_num(7))
    assert (back.senders, back.receivers, back.words, back.top(3)) == (
        found.senders,
        found.receivers,
        found.words,
        found.top(3),
    )


@pytest.mark.parametrize("maker", [tiny_llama, tiny_gpt2])
def test_an_edited_model_gives_what_its_merged_weights_give(maker: Any, tmp_path: Any) -> None:
    """Gates on queries, keys, values, heads and neurons."""
    tied = {"tied": False, "bias": True} if maker is tiny_llama else {"tie_word_embeddings": False}
    model = knowing(maker(**tied), FACTS)
    edit = random_edit(model, "L0ATTN L1H2 L1N5 L2MLP L2V0 L2K1 L1Q3")
    contrast = wb.Contrast.of(model, FRANCE, form="cloze", pool=FACTS)
    merged = wb.load_model(wb.merge(model, edit, tmp_path / "merged"))
    with wb.applied(model, edit) as edited:
        methods: tuple[EdgeMethod, ...] = ("eap-ig", "patching")
        for method in methods:
            one, other = (wb.edges(m, contrast, method=method, progress=False) for m in (edited, merged))
            assert torch.allclose(one.values, other.values, atol=2e-4, equal_nan=True)
        part = wb.edges(edited, contrast, progress=False).top(100)
        found = wb.faithfulness(edited, contrast, part, minimality=False)
        expected = wb.faithfulness(merged, contrast, str(part), minimality=False)
        assert found.recovery.value == pytest.approx(expected.recovery.value, abs=1e-3)


def test_what_is_refused() -> None:
    model = single()
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"method": "acdc"}, "method must be one of"),
        ({"steps": 0}, "steps must be"),
        ({"chosen": ""}, "empty circuit"),
        ({"chosen": wb.Circuit("L0H1 -> L1MLP", base_fingerprint="0" * 64)}, "another model"),
        ({"chosen": "L2H1 -> L1MLP"}, "runs backwards"),
    )
    for options, words in refused:
        with pytest.raises(ValueError, match=words):
            scores(model, **options)
    with pytest.raises(ValueError, match=r"no edge L1H2 -> L1MLP"):
        scores(model_of("gpt-neox"), chosen="L1H2 -> L1MLP")
    found = scores(model)
    for k in (0, 10**6, True, -0.5, 1e-9):
        with pytest.raises(ValueError, match="k must be a number of edges"):
            found.top(k)
    with pytest.raises(KeyError, match="no score of L0MLP -> L1H2"):
        _ = found["L0MLP -> L1H2"]


def test_exact_patching_of_a_large_model_needs_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.circuits.edges.MOST_PATCHED", 10)
    with pytest.raises(ValueError, match=r"choose some with chosen="):
        scores(single(), method="patching")
