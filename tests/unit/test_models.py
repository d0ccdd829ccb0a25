"""Loading models from memory and from folders, their fingerprints, and the views of one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.deltas import gates_of
from tests.helpers.mistyped import mistyped
from tests.helpers.tiny import loaded, tiny_gpt2, tiny_llama, tiny_phi3, tiny_tokenizer
from tests.helpers.tiny_facts import tokenizer_from_files
from workbench.models.load import load_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


# Sources


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_phi3])
def test_from_memory(make: Callable[[], Any]) -> None:
    hf, tokenizer = make(), tiny_tokenizer()
    model = load_model(hf, tokenizer=tokenizer, name="mine")
    assert model.hf is hf
    assert model.tokenizer is tokenizer
    assert model.name == "mine"
    assert model.base is model
    assert model.applied == ()
    assert gates_of(model.delta) == {}
    assert model.shape.n_layers == 3
    assert model.dtype == torch.float32
    assert model.device.type == "cpu"
    assert "mine" in repr(model)
    assert "float32 on cpu" in repr(model)


def test_shape_of_a_grouped_query_model() -> None:
    shape = loaded(tiny_llama()).shape
    assert (shape.n_heads, shape.n_kv_heads, shape.d_head, shape.d_mlp, shape.d_model) == (6, 2, 8, 56, 42)
    assert shape.n_heads * shape.d_head != shape.d_model


def test_a_model_in_memory_needs_its_tokenizer() -> None:
    with pytest.raises(ValueError, match=r"needs its tokenizer: load_model\(hf_model, tokenizer=...\)"):
        load_model(tiny_llama())


def test_a_model_in_memory_is_not_moved_or_cast() -> None:
    moves: tuple[dict[str, Any], ...] = ({"dtype": torch.float16}, {"device": "cpu"})
    for options in moves:
        with pytest.raises(ValueError, match="stays as it is: move or cast it yourself"):
            load_model(tiny_llama(), tokenizer=tiny_tokenizer(), **options)


def test_a_bridge_is_refused() -> None:
    bridge = load_model(tiny_llama(), tokenizer=tokenizer_from_files()).bridge
    with pytest.raises(
        TypeError, match=r"plain HF causal language model, got TransformerBridge.*bridges are made from"
    ):
        load_model(bridge, tokenizer=tiny_tokenizer())


def test_a_peft_model_is_refused() -> None:
    from peft import IA3Config, get_peft_model

    config = IA3Config(task_type="CAUSAL_LM", target_modules=["down_proj"], feedforward_modules=["down_proj"])
    adapted = get_peft_model(tiny_llama(), config)
    with pytest.raises(TypeError, match=r"got PeftModelForCausalLM.*adapters must be merged first"):
        load_model(adapted, tokenizer=tiny_tokenizer())


def test_other_modules_and_sources_are_refused() -> None:
    with pytest.raises(TypeError, match="Expected a plain HF causal language model, got Linear"):
        load_model(nn.Linear(2, 3), tokenizer=tiny_tokenizer())
    with pytest.raises(TypeError, match=r"source must be None, a folder.*got int"):
        load_model(mistyped(3))


def test_an_unsupported_family_is_named() -> None:
    from transformers import ArceeConfig
    from transformers.models.arcee import ArceeForCausalLM

    config = ArceeConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    words = r"ArceeForCausalLM is of no supported decoder family, .* Supported: Llama, SmolLM3, Mistral,"
    with pytest.raises(ValueError, match=words):
        load_model(ArceeForCausalLM(config), tokenizer=tiny_tokenizer())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "saved"
    tiny_llama().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def test_from_a_folder(folder: Path) -> None:
    model = load_model(folder)
    assert model.name == "saved"
    assert model.fingerprint == loaded(tiny_llama()).fingerprint
    assert not model.hf.training
    assert not any(p.requires_grad for p in model.hf.parameters())
    assert model.token_ids(" Paris") == tiny_tokenizer()(" Paris")["input_ids"]
    assert load_model(str(folder)).fingerprint == model.fingerprint
    assert load_model(folder, name="other").name == "other"


def test_a_folder_in_another_dtype(folder: Path) -> None:
    half = load_model(folder, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.fingerprint != load_model(folder).fingerprint


def test_a_tokenizer_of_ones_own(folder: Path, tmp_path: Path) -> None:
    plain = tiny_tokenizer(chat=False)
    plain.save_pretrained(tmp_path / "tokenizer")
    assert load_model(folder).chat_template is not None
    assert load_model(folder, tokenizer=plain).tokenizer is plain
    assert load_model(folder, tokenizer=tmp_path / "tokenizer").chat_template is None


def test_the_folder_itself_as_the_tokenizers(folder: Path) -> None:
    assert load_model(folder, tokenizer=folder).token_ids("Paris")


def test_unknown_sources(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"There is no folder ./nowhere"):
        load_model("./nowhere")
    with pytest.raises(
        ValueError, match=r"Cannot load 'nobody/nothing' as a hub id \(there is no folder of that name\)"
    ):
        load_model("nobody/nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"Cannot load .*empty' as a folder"):
        load_model(tmp_path / "empty")


def test_remote_code_is_off_unless_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    seen: list[tuple[Any, Any]] = []
    real = transformers.AutoModelForCausalLM.from_pretrained

    def spy(source: Any, **options: Any) -> Any:
        seen.append((options.get("trust_remote_code"), options.get("local_files_only")))
        return real(source, **options)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", spy)
    load_model(folder)
    load_model(folder, trust_remote_code=True)
    with pytest.raises(ValueError):
        load_model("nobody/nothing")
    assert seen == [(False, True), (True, True), (False, False)]


# Fingerprints


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_the_fingerprint_changes_with_any_weight(make: Callable[[], Any]) -> None:
    hf = make()
    model = loaded(hf)
    seen = {model.fingerprint}
    parameters = list(hf.named_parameters())
    for _, parameter in parameters:
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-3
        seen.add(model.fingerprint)
    assert len(seen) == len(parameters) + 1


def test_the_fingerprint_depends_on_the_weights_alone(tmp_path: Path) -> None:
    model = loaded(tiny_llama(), name="a")
    again = loaded(tiny_llama(), name="b", chat=False)
    assert model.fingerprint == again.fingerprint
    assert len(model.fingerprint) == 64
    assert loaded(tiny_llama(seed=1)).fingerprint != model.fingerprint
    trained = tiny_llama().train().requires_grad_(True)
    assert loaded(trained).fingerprint == model.fingerprint
    assert loaded(copy.deepcopy(trained).double()).fingerprint != model.fingerprint


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_phi3])
def test_saving_and_loading_keeps_the_fingerprint(make: Callable[[], Any], tmp_path: Path) -> None:
    hf = make()
    hf.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert load_model(tmp_path).fingerprint == loaded(hf).fingerprint


def test_a_change_is_noticed_after_the_fingerprint_was_read() -> None:
    hf = tiny_llama()
    model = loaded(hf)
    before = model.fingerprint
    with torch.no_grad():
        hf.model.norm.weight[3] += 1
    assert model.fingerprint != before
    with torch.no_grad():
        hf.model.norm.weight[3] -= 1
    assert model.fingerprint == before


def test_a_replaced_parameter_is_noticed() -> None:
    hf = tiny_llama()
    model = loaded(hf)
    seen = set()
    for shift in range(3):
        hf.model.norm.weight = nn.Parameter(hf.model.norm.weight.detach() + shift)
        seen.add(model.fingerprint)
    assert len(seen) == 3


# Views of the model


def test_the_runner_shares_the_weights_but_is_another_module() -> None:
    hf = tiny_llama().train().requires_grad_(True)
    model = loaded(hf)
    runner = model.runner
    assert runner is not hf
    assert not runner.training
    assert not any(p.requires_grad for p in runner.parameters())
    shared = {p.data_ptr() for p in hf.parameters()}
    assert {p.data_ptr() for p in runner.parameters()} == shared
    assert model.runner is runner


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_the_bridge_computes_the_same(make: Callable[[], Any]) -> None:
    model = load_model(make(), tokenizer=tokenizer_from_files())
    ids = torch.tensor([model.token_ids("The capital of France is")])
    with torch.no_grad():
        torch.testing.assert_close(model.bridge(ids), model.hf(ids).logits, atol=1e-4, rtol=0)
    assert model.bridge is model.bridge


def test_a_bridge_with_a_tokenizer_that_was_never_saved() -> None:
    assert loaded(tiny_llama()).bridge.cfg.n_layers == 3


def test_settings_that_decide_what_weights_compute_are_part_of_the_fingerprint() -> None:
    """The same weights with another rotary base, another norm or fewer wider heads are another model."""
    own = tiny_llama(tied=False)

    def fingerprint(**changes: Any) -> str:
        other = tiny_llama(tied=False, **changes)
        other.load_state_dict(own.state_dict())
        return load_model(other, tokenizer=tiny_tokenizer()).fingerprint

    fingerprints = [
        fingerprint(**changes) for changes in ({}, {"rope_theta": 50.0}, {"rms_norm_eps": 1e-3}, {"hidden_act": "gelu"})
    ]
    assert len(set(fingerprints)) == 4
    assert fingerprint(initializer_range=0.5, attention_dropout=0.1) == fingerprints[0]
    assert fingerprint(rms_norm_eps=1.0000000001e-6) == fingerprints[0], "rounding of a file is none"
