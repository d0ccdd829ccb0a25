"""Faithfulness: circuits against a slow pass that gives every reader its own input, selections against plain hooks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.edges import FACTS, FRANCE, Plain
from tests.helpers.families import TINY, model_of
from tests.helpers.plain_hooks import single
from workbench.circuits.circuit_run import run_cut
from workbench.circuits.patching import exact_scores
from workbench.circuits.runs import EdgeRuns, edge_runs
from workbench.circuits.wiring import Wired
from workbench.tracing.corruption import set_up
from workbench.tracing.setup import SetupOptions

OPTIONS = SetupOptions(corruption="swap", form="cloze", samples=1, pool=FACTS)
NODES = "L0H1 L0H4 L0MLP L1H2 L1MLP L2MLP"


def faithful(model: wb.LoadedModel, part: Any, item: Any = FRANCE, **options: Any) -> wb.Faithfulness:
    given = {"form": "cloze", "pool": FACTS, "progress": False, **options}
    return wb.faithfulness(model, item, part, **given)


def item_of(name: str) -> tuple[Wired, EdgeRuns]:
    model = model_of(name, double=True)
    wired = Wired(model)
    return wired, edge_runs(wired, set_up(model, wired, FRANCE, OPTIONS))


def slow_gpt2(hf: Any, start: Tensor, stand_ins: Tensor, cut: Tensor) -> Tensor:
    """GPT-2 with an input of its own for every query, key, value and MLP, by hand, on one text [tokens, d_model]."""
    heads, width, tokens = hf.config.n_head, hf.config.n_embd // hf.config.n_head, len(start)
    future = torch.ones(tokens, tokens).triu(1).bool()
    writes, reader = [start], 0

    def read() -> Tensor:
        nonlocal reader
        found = sum(stand_ins[i] if cut[reader, i] else write for i, write in enumerate(writes))
        reader += 1
        assert isinstance(found, Tensor)
        return found

    for block in hf.transformer.h:
        weight, bias = block.attn.c_attn.weight, block.attn.c_attn.bias
        parts: list[Tensor] = []
        for kind in range(3):
            for head in range(heads):
                at = slice((kind * heads + head) * width, (kind * heads + head + 1) * width)
                parts.append(block.ln_1(read()) @ weight[:, at] + bias[at])
        new: list[Tensor] = []
        for head in range(heads):
            query, key, value = parts[head], parts[heads + head], parts[2 * heads + head]
            pattern = (query @ key.T / width**0.5).masked_fill(future, -torch.inf).softmax(-1)
            out = block.attn.c_proj.weight[head * width : (head + 1) * width]
            new.append(pattern @ value @ out + block.attn.c_proj.bias / heads)
        writes += new
        writes.append(block.mlp(block.ln_2(read())))
    return hf.lm_head(hf.transformer.ln_f(read()))[-1]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_edges_equal_a_slow_pass_with_an_input_for_every_reader(share: float) -> None:
    wired, runs = item_of("gpt2")
    hf = model_of("gpt2", double=True).hf
    stand_ins = wired.read(runs.setup.whole).writes[:, 0]
    generator = torch.Generator().manual_seed(0)
    cut = wired.graph.mask & (torch.rand(3, *wired.graph.mask.shape, generator=generator) < share)
    found = run_cut(wired, runs.setup.clean, stand_ins, cut)
    with torch.no_grad():
        for row in range(3):
            expected = slow_gpt2(hf, runs.setup.clean[0], stand_ins, cut[row])
            assert torch.allclose(found[row], expected, atol=1e-9)


@pytest.mark.parametrize("name", TINY)
def test_all_cut_is_the_corrupted_run_none_the_clean_one_and_one_the_exact_edge(name: str) -> None:
    wired, runs = item_of(name)
    mask = wired.graph.mask
    one = torch.zeros_like(mask)
    one[wired.graph.attention_readers + 3, 2] = True
    cut = torch.stack([mask, torch.zeros_like(mask), one])
    logits = run_cut(wired, runs.clean_start, runs.corrupted.writes[:, 0], cut, prefix=runs.prefix)
    measured = runs.setup.measure(logits)
    exact = float(exact_scores(wired, runs, one)[one])
    expected = (runs.corrupted_measure, runs.clean_measure, runs.clean_measure + exact)
    assert measured.tolist() == pytest.approx(list(expected), abs=3e-4)


def test_shares_are_those_of_the_passes() -> None:
    model = single()
    found = faithful(model, wb.Circuit.from_selection(NODES, model))
    (clean,), (empty,), (alone,), (without,) = found.clean, found.empty, found.alone, found.without
    assert found.recovery.value == pytest.approx((alone - empty) / (clean - empty))
    assert found.completeness.value == pytest.approx((clean - without) / (clean - empty))
    assert set(found.minimality) == set(NODES.split())
    (lacking,) = found.lacking["L0MLP"]
    assert found.minimality["L0MLP"].value == pytest.approx((alone - lacking) / (clean - empty))
    edges = wb.edges(model, FRANCE, form="cloze", pool=FACTS)
    assert (clean, empty) == pytest.approx((edges.clean, edges.corrupted), abs=1e-4)
    assert not found.recovery.has_interval
    assert "by swap ablation" in found.words
    assert set(found.to_frame()["ablation"]) == {"swap"}


def test_the_whole_model_is_faithful_to_itself() -> None:
    model = single()
    every = " ".join(f"L{layer}ATTN L{layer}MLP" for layer in range(3))
    for part in (wb.Circuit.from_selection(every, model), wb.Selection(every)):
        for ablation in ("swap", "zero", "noise"):
            found = faithful(model, part, ablation=ablation, minimality=False, samples=2)
            assert found.recovery.value == pytest.approx(1, abs=1e-3)
            assert found.completeness.value == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox", "granite"])
def test_nodes_equal_plain_hooks(name: str) -> None:
    """Everything but two heads and an MLP has the corrupted run's output, by plain hooks."""
    plain = Plain(name)
    width, kept = plain.shape.d_head, {(0, 1), (1, 2)}
    hooks: dict[str, Any] = {}
    for layer in range(plain.shape.n_layers):
        out = plain.at(layer, plain.names.out)
        z = plain.state(out, True, plain.corrupted)

        def put(value: Tensor, layer: int = layer, z: Tensor = z) -> Tensor:
            new = z[None].clone()
            for head in range(plain.shape.n_heads):
                at = slice(head * width, (head + 1) * width)
                new[..., at] = value[..., at] if (layer, head) in kept else new[..., at]
            return new

        hooks[out] = True, put
        if layer != 1:
            added = plain.at(layer, plain.names.mlp_added)
            mlp = plain.state(added, False, plain.corrupted)
            hooks[added] = False, lambda _, mlp=mlp: mlp[None].clone()
    found = faithful(plain.model, "L0H1 L1H2 L1MLP", minimality=False)
    assert found.alone[0] == pytest.approx(plain.run(plain.clean, hooks), abs=2e-5)


def test_neurons_of_a_layer_are_told_apart() -> None:
    model = single()
    neurons = " ".join(f"L1N{i}" for i in range(56))
    whole, apart = faithful(model, "L0MLP L1MLP"), faithful(model, f"L0MLP {neurons}", minimality=False)
    assert apart.alone == pytest.approx(whole.alone, abs=1e-4)
    assert apart.without == pytest.approx(whole.without, abs=1e-4)
    assert faithful(model, "L0MLP L1N3", minimality=False).without != pytest.approx(whole.without, abs=1e-2)


@pytest.mark.parametrize("ablation", ["swap", "mean", "zero", "noise"])
@pytest.mark.parametrize("part", ["L0MLP L1H2 L1MLP L2MLP", "embedding -> L0MLP -> L1MLP -> logits"])
def test_intervals_are_over_items_and_the_ablation_is_named(ablation: str, part: str) -> None:
    model = single()
    found = faithful(model, part, FACTS[:3], ablation=ablation, samples=2)
    assert (found.recovery.n, found.recovery.clusters) == (3, 3)
    assert found.recovery.low <= found.recovery.value <= found.recovery.high
    assert f"by {ablation} ablation" in found.words
    whole = sum(found.clean) - sum(found.empty)
    assert found.recovery.value == pytest.approx((sum(found.alone) - sum(found.empty)) / whole)


def test_contrasts_have_their_own_runs() -> None:
    model = single()
    contrast = wb.Contrast.of(model, FRANCE, form="cloze", pool=FACTS)
    of_fact = faithful(model, NODES, minimality=False)
    assert wb.faithfulness(model, contrast, NODES, minimality=False).alone == pytest.approx(of_fact.alone, abs=1e-4)
    noisy = wb.faithfulness(model, contrast, NODES, ablation="noise", minimality=False)
    assert noisy.empty != pytest.approx(of_fact.empty, abs=1e-3)
    noise = wb.Contrast.of(model, FRANCE, form="cloze", corruption="noise")
    with pytest.raises(ValueError, match="ablation='noise'"):
        wb.faithfulness(model, noise, NODES)


@pytest.mark.parametrize(
    ("part", "options", "words"),
    [
        ("", {}, "selection is empty"),
        (wb.Circuit(), {}, "circuit is empty"),
        (wb.Circuit("L0H1 -> L1MLP", base_fingerprint="0" * 64), {}, "another model"),
        ("L2H1 -> L1MLP", {}, "runs backwards"),
        ("L0H1 -> L7MLP", {}, "the model has 3 layers"),
        ("L0K1", {}, "writes nothing by itself"),
        ("L0H1", {"ablation": "mean"}, "there is one"),
        ("L0H1", {"ablation": "resample"}, "ablation must be one of"),
    ],
)
def test_what_is_refused(part: Any, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        faithful(single(), part, **options)


def test_an_edge_within_a_parallel_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="no edge L1H2 -> L1MLP"):
        faithful(model_of("gpt-neox"), "L1H2 -> L1MLP")
