"""Estimates from a configuration: parameters counted exactly, operations beside those that torch counts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, GPT2Config, LlamaConfig, MambaConfig, Phi3Config, Qwen2Config

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.tiny import loaded, tiny_gpt2, tiny_llama, tiny_phi3, tiny_qwen2, tiny_tokenizer
from tests.helpers.tiny_facts import capitals, knowing
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel

POOL = capitals()
FRANCE, SPAIN = POOL["france-capital"], POOL["spain-capital"]

PHI3_MINI_4K = Phi3Config(
    vocab_size=32064,
    hidden_size=3072,
    intermediate_size=8192,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
)
LLAMA3_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)


# Memory of weights


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_phi3, tiny_qwen2])
def test_parameters_are_counted_exactly(make: Any) -> None:
    hf = make()
    wanted = sum(p.numel() for p in hf.parameters())
    for source in (hf.config, hf, loaded(hf)):
        found = wb.estimate(source, speed=1e9)
        assert found.n_parameters == wanted
        assert found.weights_bytes == 4 * wanted
        assert found.peak_bytes == found.weights_bytes + found.working_bytes


@pytest.mark.parametrize(("config", "n"), [(PHI3_MINI_4K, 3_821_079_552), (LLAMA3_8B, 8_030_261_248)])
def test_models_that_do_not_fit_here(config: Any, n: int) -> None:
    """Their parameters as their makers count them, and only from their configurations."""
    for what in ("trace", "attribute", "fit"):
        found = wb.estimate(config, what, dtype="bfloat16", speed=1e12)
        assert found.n_parameters == n
        assert found.weights_bytes == 2 * n
        assert 0 < found.working_bytes < found.weights_bytes


def test_the_dtype_is_read_as_in_load_model() -> None:
    config = LlamaConfig(dtype="float16", num_hidden_layers=1)
    sizes = {
        dtype: wb.estimate(config, dtype=dtype, speed=1).dtype for dtype in (None, "auto", "bfloat16", torch.float64)
    }
    assert sizes == {None: "float32", "auto": "float16", "bfloat16": "bfloat16", torch.float64: "float64"}
    assert wb.estimate(LlamaConfig(num_hidden_layers=1), dtype="auto", speed=1).dtype == "float32"
    assert wb.estimate(loaded(tiny_llama().half()), speed=1).dtype == "float16"
    with pytest.raises(ValueError, match="dtype must be"):
        wb.estimate(config, dtype="int8")


# Operations


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """Wide and shallow enough that what is not counted (norms, softmax) is little."""
    return knowing(tiny_llama(tied=False, n_layers=4), POOL)


def operations(call: Any) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def noisy(model: LoadedModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a trace, and the same for its estimate."""
    prompt = traced_prompt(model, FRANCE, form="cloze")
    tokens = len(prompt.token_ids)
    options = {"corruption": "noise", "form": "cloze", "pool": POOL, "progress": False}
    return options, {"tokens": tokens, "changed": tokens - prompt.subject[0]}


def test_a_trace_takes_no_more_than_estimated_and_not_much_less(model: LoadedModel) -> None:
    options, sizes = noisy(model)
    wb.causal_trace(model, FRANCE, samples=1, **options)  # a model is checked once, which is not counted
    found = operations(lambda: wb.causal_trace(model, FRANCE, samples=6, **options))
    estimated = wb.estimate(model, samples=6, speed=1, **sizes).operations
    assert 0.5 * estimated < found <= 1.1 * estimated


def test_an_attribution_takes_no_more_than_estimated_and_not_much_less(model: LoadedModel) -> None:
    options, sizes = noisy(model)
    wb.attribute(model, FRANCE, samples=1, **options)
    found = operations(lambda: wb.attribute(model, FRANCE, samples=30, **options))
    estimated = wb.estimate(model, "attribute", samples=30, speed=1, **sizes).operations
    assert 0.5 * estimated < found <= 1.1 * estimated


def test_a_fit_takes_about_what_is_estimated(model: LoadedModel) -> None:
    """Its rows are of several lengths: within a factor of two."""
    recipe = wb.Recipe(steps=5, early_stop=None, retain_size=3, draw_back=None)
    given: dict[str, Any] = {"recipe": recipe, "pool": POOL, "progress": False}
    found = operations(lambda: wb.rewrite(model, FRANCE, "L0N5 L0H1", **given))
    estimated = wb.estimate(model, "fit", tokens=28, recipe=recipe, speed=1).operations
    assert 0.5 * estimated < found < 2 * estimated


def test_more_takes_more() -> None:
    config = Qwen2Config(num_hidden_layers=2)
    base = wb.estimate(config, tokens=20, changed=10, samples=4, speed=1e9)
    for more in ({"tokens": 40}, {"changed": 20}, {"samples": 8}):
        options: dict[str, Any] = {"tokens": 20, "changed": 10, "samples": 4, "speed": 1e9} | more
        larger = wb.estimate(config, **options)
        assert larger.operations > base.operations and larger.working_bytes >= base.working_bytes
    assert wb.estimate(config, tokens=20, samples=4, speed=1e9).operations > base.operations, "all tokens, by default"
    assert wb.estimate(config, tokens=20, changed=10, samples=4, speed=2e9).seconds == base.seconds / 2
    assert wb.estimate(config, device="cuda", speed=1e9).working_bytes > wb.estimate(config, speed=1e9).working_bytes


def test_the_speed_is_measured_where_none_is_given() -> None:
    found = wb.estimate(tiny_llama())
    assert found.speed > 1e6 and found.seconds == found.operations / found.speed


# Sources and words


def test_sources(tmp_path: Path) -> None:
    hf = tiny_gpt2()
    hf.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    for file in (tmp_path / "model").glob("*.safetensors"):
        file.unlink()  # weights are not read
    assert wb.estimate(tmp_path / "model", speed=1).n_parameters == sum(p.numel() for p in hf.parameters())
    assert wb.estimate(str(tmp_path / "model"), speed=1).model == str(tmp_path / "model")
    with pytest.raises(ValueError, match=r"Cannot read a configuration from '.*nowhere'"):
        wb.estimate(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"source must be a configuration of transformers, .* got int"):
        wb.estimate(3)
    with pytest.raises(ValueError, match=r"MambaForCausalLM is refused: it has no attention\."):
        wb.estimate(MambaConfig(num_hidden_layers=1))
    with pytest.raises(ValueError, match="no causal language model for T5Config"):
        wb.estimate(AutoConfig.for_model("t5"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"what": "train"}, r"what must be one of \('trace', 'attribute', 'fit'\), got 'train'"),
        ({"tokens": 0}, "tokens must be more than 0, got 0"),
        ({"samples": -1}, "samples must be more than 0"),
        ({"speed": 0.0}, "speed must be more than 0"),
        ({"tokens": 5, "changed": 6}, r"at most 5 \(tokens=\), got 6"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wb.estimate(GPT2Config(n_layer=1), **mistyped(options))


def test_the_words() -> None:
    found = wb.estimate(LLAMA3_8B, "attribute", dtype="bfloat16", speed=1e12)
    assert str(found) == found.words
    assert found.words.startswith("An attribution on Llama (8.03 billion parameters in bfloat16): about 16.")
    assert "16.1 GB of it weights, and from " in found.words
    assert "a clean pass, and 4 noise samples forward and backward" in found.words
    long = dataclasses.replace(found, operations=1e16, speed=1e12)
    assert "from 3 hours to 6 hours" in long.words and "10.0 quadrillion operations at 1.0 trillion" in long.words
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.speed = 1  # pyright: ignore[reportAttributeAccessIssue]
