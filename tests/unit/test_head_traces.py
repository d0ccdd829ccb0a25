"""Traces of heads and groups at single tokens, and severed traces: what ``causal_trace`` makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.plain_hooks import FACTS, FRANCE, ITALY, SPAIN, single
from tests.helpers.slow_cells import slow_trace
from tests.helpers.tiny_facts import FAMILIES
from workbench.models.engine import Resumable
from workbench.tracing.cell_effects import TraceSite
from workbench.tracing.corruption import set_up
from workbench.tracing.setup import Setup, SetupOptions

HEAD_SITES: tuple[TraceSite, ...] = ("z", "q", "k", "v")
OPTIONS: dict[str, Any] = {"pool": FACTS, "progress": False, "form": "cloze", "metric": "logit_diff"}
SWAP: dict[str, Any] = {**OPTIONS, "corruption": "swap", "partner": SPAIN}


def set_up_of(model: Any, **options: Any) -> Setup:
    return set_up(model, Resumable(model), FRANCE, SetupOptions(metric="logit_diff", form="cloze", **options))


@FAMILIES
def test_heads_are_traced_as_by_plain_hooks(family: str) -> None:
    model = single(family)
    maps = wb.causal_trace(model, FRANCE, HEAD_SITES, samples=2, **OPTIONS)
    setup = set_up_of(model, samples=2)
    for site in HEAD_SITES:
        torch.testing.assert_close(maps[site].values, slow_trace(model, FRANCE, setup, site), atol=1e-4, rtol=1e-3)
        assert maps[site].values.abs().max() > 0.02, site


@FAMILIES
@pytest.mark.parametrize("severed", ["mlp", "attn"])
def test_severed_traces_are_those_of_plain_hooks(family: str, severed: Any) -> None:
    """Of every kind of site: also of those that lie within what is severed, and of windows."""
    model = single(family)
    sites: tuple[TraceSite, ...] = ("resid", "mlp", "attn", "z", "k")
    maps = wb.causal_trace(model, FRANCE, sites, severed=severed, window=2, **SWAP)
    whole = wb.causal_trace(model, FRANCE, sites, window=2, **SWAP)
    setup = set_up_of(model, corruption="swap", partner=SPAIN, pool=wb.FactSet(FACTS))
    for site in sites:
        wanted = slow_trace(model, FRANCE, setup, site, 2 if site in ("mlp", "attn") else 1, severed)
        torch.testing.assert_close(maps[site].values, wanted, atol=1e-4, rtol=1e-3)
        assert (maps[site].values - whole[site].values).abs().max() > 0.02, f"nothing is severed from {site}"


def test_what_has_no_mlps_has_none_to_sever() -> None:
    """A model whose MLPs add nothing gives the whole trace; and with its attention severed, the embedding of a token
    that is not the last reaches the answer through other tokens' attention all the same."""
    model = single()
    with torch.no_grad():
        kept = [layer.mlp.down_proj.weight.clone() for layer in model.hf.model.layers]
        for layer in model.hf.model.layers:
            layer.mlp.down_proj.weight.zero_()
    try:
        base = wb.Contrast(clean="The capital of France is", corrupted="The capital of Spain is", answer=4, wrong=5)
        one, other, third = (wb.causal_trace(model, base, severed=s, progress=False) for s in (None, "mlp", "attn"))
    finally:
        with torch.no_grad():
            for layer, weight in zip(model.hf.model.layers, kept, strict=True):
                layer.mlp.down_proj.weight.copy_(weight)
    torch.testing.assert_close(one.values, other.values)
    assert third.values[0, 3].abs() > 1e-6


@pytest.mark.parametrize("severed", [None, "mlp"])
def test_transformerlens_gives_the_same_heads(severed: Any) -> None:
    maps = [
        wb.causal_trace(single(), FRANCE, ("resid", *HEAD_SITES), severed=severed, engine=engine, samples=2, **OPTIONS)
        for engine in mistyped(("auto", "transformerlens"))
    ]
    for site, fast in maps[0].items():
        assert torch.allclose(fast.values, maps[1][site].values, atol=2e-4), site


def test_a_contrast_of_a_fact_gives_the_heads_of_the_fact() -> None:
    model = single()
    contrast = wb.Contrast.of(model, FRANCE, partner=SPAIN, pool=FACTS, form="cloze")
    by_fact = wb.causal_trace(model, FRANCE, HEAD_SITES, severed="attn", **SWAP)
    by_contrast = wb.causal_trace(
        model, contrast, HEAD_SITES, severed="attn", metric="logit_diff", normalise=True, progress=False
    )
    for site, effects in by_contrast.items():
        gap = effects.clean - float(effects.corrupted or 0)
        assert torch.allclose(effects.values * gap, by_fact[site].values, atol=1e-5)


def test_several_facts_are_means_over_roles() -> None:
    both = wb.causal_trace(single(), FACTS[:2], "z", samples=2, **OPTIONS)
    alone = [wb.causal_trace(single(), fact, "z", samples=2, **OPTIONS) for fact in FACTS[:2]]
    assert both.axes == ("layer", "head", "position") and both.labels["head"] == tuple(f"H{i}" for i in range(6))
    assert both.labels["position"][-1] == "last token"
    assert torch.allclose(both.values[..., -1], (alone[0].values[..., -1] + alone[1].values[..., -1]) / 2, atol=1e-6)
    assert both.stderr is not None and both.stderr.shape == both.values.shape


def test_a_map_of_heads_is_read_at_a_token(tmp_path: Any) -> None:
    keys = wb.causal_trace(single(), FRANCE, "k", samples=3, **OPTIONS)
    assert keys.labels["kv"] == ("KV0", "KV1") and keys.title == "keys of groups (noise)"
    at = int(keys.subject[-1])
    read, by_role = keys.read_at(position=at), keys.read_at(role="last subject token")
    assert torch.equal(read.values, keys.values[..., at]) and torch.equal(read.values, by_role.values)
    assert keys.stderr is not None and read.stderr is not None and torch.equal(read.stderr, keys.stderr[..., at])
    assert read.axes == ("layer", "kv") and by_role.title == "keys of groups (noise, last subject token)"
    (best,) = read.top(1)
    assert best.kind == "K" and read.top(1) == keys.top(1, position=at)
    assert read.plot() is not None and wb.EffectMap.load(read.save(tmp_path / "a.safetensors")).top(1) == read.top(1)
    before = keys.read_at(role="tokens before the subject")
    assert before.stderr is not None and before.stderr.shape == before.values.shape
    with pytest.raises(ValueError, match="Read it at one token first"):
        keys.plot()
    with pytest.raises(ValueError, match="got neither"):
        keys.read_at()
    with pytest.raises(ValueError, match="has no positions"):
        read.read_at(position=0)


def test_only_what_is_asked_for_is_computed_and_told() -> None:
    told: list[tuple[str, int, Tensor]] = []
    queries = wb.causal_trace(
        single(), FRANCE, "q", layers=[1], positions=["last token"], on_layer=lambda *what: told.append(what), **SWAP
    )
    whole = wb.causal_trace(single(), FRANCE, "q", **SWAP)
    assert torch.allclose(queries.values[1, :, -1], whole.values[1, :, -1], atol=1e-5)
    assert int(queries.values.isfinite().sum()) == 6
    ((site, layer, values),) = told
    assert (site, layer, values.shape) == ("q", 1, queries.values.shape[1:])
    assert torch.equal(values[:, -1], queries.values[1, :, -1])


@pytest.mark.filterwarnings("ignore:.*hardly changes")
def test_the_effect_on_a_whole_answer_is_the_sum_over_its_tokens() -> None:
    texts: dict[str, Any] = {"clean": "The capital of France is", "corrupted": "The capital of Spain is"}
    longer: dict[str, Any] = {name: f"{text} Paris" for name, text in texts.items()}
    whole = wb.Contrast(**texts, answer=" Paris Rome")
    steps = wb.Contrast(**texts, answer=" Paris"), wb.Contrast(**longer, answer=" Rome")
    maps = [wb.causal_trace(single(), one, "v", metric="log_prob", progress=False).values for one in (whole, *steps)]
    assert maps[0].shape == (3, 2, 5)
    assert torch.allclose(maps[0], maps[1] + maps[2][..., :5], atol=1e-4) and maps[2].abs().max() > 1e-3


def test_severed_traces_say_so() -> None:
    trace = wb.causal_trace(single(), FRANCE, severed="mlp", **SWAP)
    assert trace.title == "residual stream (swap, MLPs severed)" and trace.corruption == "swap"
    assert trace.provenance["settings"]["severed"] == "mlp"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"severed": "heads"}, r"severed must be one of .*'mlp'.*'attn'.*got 'heads'"),
        ({"site": "z", "window": 2}, r"window= is for the sites .*'mlp', 'attn'.*got 2"),
        ({"site": "heads"}, r"site must be one of .*'z', 'q', 'k', 'v'.*got 'heads'"),
    ],
)
def test_what_does_not_fit(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        wb.causal_trace(single(), ITALY, **{**OPTIONS, **options})
