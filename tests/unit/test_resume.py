"""Resuming a forward pass at a layer and after a prefix equals the plain Hugging Face forward."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GraniteConfig, GraniteForCausalLM

from tests.helpers.tiny import N_VOCAB, loaded, tiny_gpt2, tiny_llama, tiny_phi3, tiny_qwen2
from tests.helpers.traces import hooked
from workbench.models.engine import Change, HookSite, KeysValues, Resumable, pooled_engine
from workbench.models.layerwise import Layerwise
from workbench.models.load import LoadedModel

MAKERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tiny_llama(bias=True),
    "gpt2": tiny_gpt2,
    "phi3": tiny_phi3,
}
FAMILIES = pytest.mark.parametrize("family", MAKERS)
IDS = torch.randint(5, N_VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
TOKENS = IDS.shape[1]
MODULES: dict[str, dict[str, tuple[str, bool]]] = {
    "llama": {
        "resid": ("model.layers.{}", True),
        "attn": ("model.layers.{}.self_attn", False),
        "mlp": ("model.layers.{}.mlp", False),
        "z": ("model.layers.{}.self_attn.o_proj", True),
        "post": ("model.layers.{}.mlp.down_proj", True),
    },
    "gpt2": {
        "resid": ("transformer.h.{}", True),
        "attn": ("transformer.h.{}.attn", False),
        "mlp": ("transformer.h.{}.mlp", False),
        "z": ("transformer.h.{}.attn.c_proj", True),
        "post": ("transformer.h.{}.mlp.c_proj", True),
    },
}
MODULES["phi3"] = MODULES["llama"]


@lru_cache
def made(family: str) -> tuple[LoadedModel, Resumable, Tensor]:
    """A tiny model, its engine and the plain forward's logits."""
    model = loaded(MAKERS[family]())
    with torch.no_grad():
        return model, Resumable(model), model.hf(IDS).logits


def keys_values(engine: Resumable, ids: Tensor, tokens: int) -> KeysValues | None:
    """Keys and values of the first tokens of a text, by the pass that records the whole of it."""
    return engine.record_from(tokens, engine.embed(ids), ())[1]


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def plain(hf: Any, ids: Tensor, hooks: dict[str, tuple[bool, Callable[[Tensor], Tensor]]]) -> Tensor:
    """All logits of the plain model with changes at module inputs (True) or outputs, by plain hooks."""
    with hooked(hf, hooks):
        return hf(ids).logits


@FAMILIES
@settings(max_examples=25)
@given(start=st.integers(0, 2), length=st.integers(0, TOKENS - 1))
def test_any_start_layer_and_prefix(family: str, start: int, length: int) -> None:
    _, engine, logits = made(family)
    with torch.no_grad():
        prefix = keys_values(engine, IDS[:1], length)
        resid = engine.entering(IDS[:1], start)[:, length:]
        close(engine.run(resid, start=start, prefix=prefix), logits[:1, -1])


@FAMILIES
def test_several_rows_share_a_prefix(family: str) -> None:
    model, engine, _ = made(family)
    ids = IDS.clone()
    ids[1, :4] = ids[0, :4]
    with torch.no_grad():
        prefix = keys_values(engine, ids[:1], 4)
        resid = engine.entering(ids, 1)[:, 4:]
        close(engine.run(resid, start=1, prefix=prefix), model.hf(ids).logits[:, -1])


@FAMILIES
def test_an_empty_prefix_is_none(family: str) -> None:
    _, engine, _ = made(family)
    assert keys_values(engine, IDS[:1], 0) is None


@FAMILIES
def test_embed_and_entering_are_the_hidden_states(family: str) -> None:
    model, engine, _ = made(family)
    with torch.no_grad():
        states = model.hf(IDS, output_hidden_states=True).hidden_states
        close(engine.embed(IDS), states[0])
        for layer in range(3):
            close(engine.entering(IDS, layer), states[layer])


@FAMILIES
def test_a_run_leaves_the_engine_as_it_was(family: str) -> None:
    _, engine, logits = made(family)
    with torch.no_grad():
        resid = engine.entering(IDS[:1], 2)

        def fail(value: Tensor) -> Tensor:
            raise RuntimeError("in the middle")

        with pytest.raises(RuntimeError, match="in the middle"):
            engine.run(resid, start=2, changes={("mlp", 2): fail})
        close(engine.run(engine.embed(IDS)), logits[:, -1])


@FAMILIES
@pytest.mark.parametrize("site", ["resid", "attn", "mlp", "z", "post"])
@pytest.mark.parametrize("layer", [0, 2])
def test_a_change_at_any_site_equals_a_plain_hook(family: str, site: Any, layer: int) -> None:
    model, engine, logits = made(family)

    def some_entries(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, -2:, ::3] = 2 * value[:, -2:, ::3] - 0.5
        return value

    name, on_input = MODULES[family][site]
    with torch.no_grad():
        expected = plain(model.hf, IDS, {name.format(layer): (on_input, some_entries)})[:, -1]
        assert (expected - logits[:, -1]).abs().max() > 1e-3  # the change matters
        close(engine.run(engine.embed(IDS), changes={(site, layer): some_entries}), expected)
        resid = engine.entering(IDS, layer)
        close(engine.run(resid, start=layer, changes={(site, layer): some_entries}), expected)


@FAMILIES
def test_several_changes_and_a_prefix_at_once(family: str) -> None:
    """Both runs change only positions after the prefix."""
    model, engine, _ = made(family)
    names = MODULES[family]

    def scaled(by: float) -> Callable[[Tensor], Tensor]:
        def change(value: Tensor) -> Tensor:
            value = value.clone()
            value[:, -3:] *= by
            return value

        return change

    with torch.no_grad():
        expected = plain(
            model.hf,
            IDS[:1],
            {names["mlp"][0].format(1): (False, scaled(0.5)), names["z"][0].format(2): (True, scaled(-1.0))},
        )[:, -1]
        prefix = keys_values(engine, IDS[:1], 5)
        resid = engine.entering(IDS[:1], 1)[:, 5:]
        changes: dict[tuple[HookSite, int], Change] = {("mlp", 1): scaled(0.5), ("z", 2): scaled(-1.0)}
        close(engine.run(resid, start=1, prefix=prefix, changes=changes), expected)


@FAMILIES
def test_record_keeps_the_plain_states(family: str) -> None:
    model, engine, logits = made(family)
    sites: tuple[HookSite, ...] = ("resid", "attn", "mlp", "z", "post")
    on_input: tuple[HookSite, ...] = ("resid", "z", "post")
    outputs_of: tuple[HookSite, ...] = ("attn", "mlp")
    kept: dict[tuple[HookSite, int], Tensor] = {}

    def keeper(key: tuple[HookSite, int]) -> Callable[[Tensor], Tensor]:
        def keep(value: Tensor) -> Tensor:
            kept[key] = value
            return value

        return keep

    hooks = {
        MODULES[family][site][0].format(layer): (MODULES[family][site][1], keeper((site, layer)))
        for site in on_input
        for layer in range(3)
    }
    with torch.no_grad():
        plain(model.hf, IDS, hooks)
        outputs = {
            MODULES[family][site][0].format(layer): (False, keeper((site, layer)))
            for site in outputs_of
            for layer in range(3)
        }
        plain(model.hf, IDS, outputs)
        recording = engine.record(engine.embed(IDS), sites)
        later, _ = engine.record_from(4, engine.embed(IDS[:1]), sites)
    close(recording.logits, logits[:, -1])
    close(later.logits, logits[:1, -1])
    assert set(recording.states) == set(later.states) == set(kept)
    for key, state in kept.items():
        close(recording.states[key], state)
        close(later.states[key], state[:1, 4:])


def plain_from(hf: Any, family: str, ids: Tensor, layer: int, resid: Tensor) -> Tensor:
    """The plain forward with the residual stream entering a layer replaced, as a function of it."""
    return plain(hf, ids, {MODULES[family]["resid"][0].format(layer): (True, lambda _: resid)})


@FAMILIES
@pytest.mark.parametrize("start", [0, 1, 2])
@pytest.mark.parametrize("shared", [0, 1, 4])
def test_logits_at_places_with_a_shared_prefix(family: str, start: int, shared: int) -> None:
    """Rows of 9 and 7 tokens that share their first ones; values and gradients against the plain forward."""
    model, engine, _ = made(family)
    ids = IDS.clone()
    ids[1, :4] = ids[0, :4]
    texts = [ids[0].tolist(), ids[1, :7].tolist()]
    places = [(0, 8), (0, 5), (1, 6), (1, 4)]
    with torch.no_grad():
        whole = [engine.entering(torch.tensor([text]), start)[0] for text in texts]
    weights = torch.linspace(-1, 1, len(places) * N_VOCAB).view(len(places), -1)

    padded = torch.nn.utils.rnn.pad_sequence([w[shared:] for w in whole], batch_first=True).requires_grad_(True)
    prefix = engine.resumed_keys_values(whole[0][None, :shared], start) if shared else None
    rows, positions = torch.tensor([r for r, _ in places]), torch.tensor([p - shared for _, p in places])
    got = engine.logits_at(padded, rows, positions, start=start, prefix=prefix)
    (gradient,) = torch.autograd.grad((got * weights).sum(), padded)

    for row, text in enumerate(texts):
        resid = whole[row][None].clone().requires_grad_(True)
        logits = plain_from(model.hf, family, torch.tensor([text]), start, resid)[0]
        mine = [i for i, (r, _) in enumerate(places) if r == row]
        expected = torch.stack([logits[places[i][1]] for i in mine])
        close(got[mine].detach(), expected.detach())
        (reference,) = torch.autograd.grad((expected * weights[mine]).sum(), resid)
        torch.testing.assert_close(gradient[row, : len(text) - shared], reference[0, shared:], atol=1e-4, rtol=1e-5)
        assert bool((gradient[row, len(text) - shared :] == 0).all())  # padding has no influence


@lru_cache
def windowed() -> tuple[LoadedModel, Resumable]:
    model = loaded(tiny_qwen2())
    return model, Resumable(model)


@pytest.mark.parametrize("start", [0, 1, 2])
def test_layers_keep_their_own_attention_window(start: int) -> None:
    model, engine = windowed()
    with torch.no_grad():
        expected = model.hf(IDS[:1]).logits[:, -1]
        close(engine.run(engine.entering(IDS[:1], start), start=start), expected)


@pytest.mark.parametrize("length", [1, 5])
def test_a_prefix_longer_than_the_attention_window(length: int) -> None:
    model, engine = windowed()
    with torch.no_grad():
        expected = model.hf(IDS[:1]).logits[:, -1]
        prefix = keys_values(engine, IDS[:1], length)
        close(engine.run(engine.embed(IDS[:1])[:, length:], prefix=prefix), expected)


def test_the_head_is_the_models_own() -> None:
    """With what follows the output embeddings: Granite divides its logits."""
    config = GraniteConfig(
        vocab_size=N_VOCAB,
        hidden_size=48,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        logits_scaling=4.0,
        embedding_multiplier=3.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=4,
    )
    torch.manual_seed(0)
    model = loaded(GraniteForCausalLM(config).eval())
    with torch.no_grad():
        expected = model.hf(IDS).logits
        engine = Resumable(model)
        rows, positions = torch.tensor([0, 1, 1]), torch.tensor([3, 0, 8])
        for start in (0, 2):
            found = engine.logits_at(engine.entering(IDS, start), rows, positions, start=start)
            close(found, expected[rows, positions])
        close(engine.unembed(engine.stream(IDS))[:, -1], expected[:, -1])
    assert float(expected.std()) > 1e-3


def test_an_engine_is_lent_to_one_at_a_time_and_kept_for_the_next() -> None:
    """Also made in inference mode it can be differentiated; another kind, another model, or a pass that failed gets a
    new one."""
    model, other = loaded(tiny_llama()), loaded(tiny_llama())
    with torch.inference_mode(), pooled_engine(Resumable, model) as first, pooled_engine(Resumable, model) as second:
        assert first is not second
        first.embed(IDS)
    with (
        pooled_engine(Resumable, model) as again,
        pooled_engine(Layerwise, model) as layerwise,
        pooled_engine(Resumable, other) as its,
    ):
        assert again in (first, second) and isinstance(layerwise, Layerwise) and its not in (first, second)
        start = again.embed(IDS).clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(again.run(start).sum(), start)
        assert float(gradient.abs().max()) > 0

    def fail() -> None:
        with pooled_engine(Resumable, other) as failed:
            assert failed is its
            raise RuntimeError("broke")

    with pytest.raises(RuntimeError, match="broke"):
        fail()
    with pooled_engine(Resumable, other) as new:
        assert new is not its


def test_a_kept_engine_is_that_of_the_weights_as_they_are() -> None:
    """Changed in place, or replaced in the network that is run."""
    model = loaded(tiny_llama())

    def check() -> Resumable:
        with pooled_engine(Resumable, model) as engine, torch.no_grad():
            torch.testing.assert_close(engine.run(engine.embed(IDS)), model.runner(IDS).logits[:, -1])
        return engine

    first, weight = check(), model.runner.get_output_embeddings().weight
    with torch.no_grad():
        weight.neg_()
    assert check() is first
    weight.data = torch.randn_like(weight)
    assert check() is not first


def test_threads_borrow_engines_of_their_own() -> None:
    """As panels do: every result is that of its own text."""
    model = loaded(tiny_llama())
    texts = [IDS[:, n:] for n in range(6)]
    with torch.no_grad():
        expected = [model.hf(ids).logits[:, -1] for ids in texts]

    def run(ids: Tensor) -> Tensor:
        with torch.no_grad(), pooled_engine(Resumable, model) as engine:
            return engine.run(engine.entering(ids, 1), start=1)

    with ThreadPoolExecutor(4) as threads:
        for found, wanted in zip(threads.map(run, texts * 8), expected * 8, strict=True):
            torch.testing.assert_close(found, wanted)
