"""What leaves the package does elsewhere what it does here: adapters to the bit, merged models within 1e-4."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.helpers.deltas import gates_of
from tests.helpers.tiny import loaded, random_edit, tiny_gpt2, tiny_llama, tiny_phi3
from workbench.editing.applied import applied, carried
from workbench.editing.export import README, export_base, merge, save_peft
from workbench.files.edits import load_edit
from workbench.models.load import LoadedModel, load_model
from workbench.models.views import shared_view
from workbench.types import Edit, GateDelta

IDS = torch.tensor([[9, 270, 272, 284, 274, 33, 400, 2], [5, 6, 7, 8, 300, 301, 302, 303]])
FAMILIES: dict[str, tuple[Callable[[], Any], str]] = {
    "llama": (tiny_llama, "L0ATTN L1H2 L1N5 L2MLP L2V0 L0GATEUP"),
    "llama, biases, untied": (lambda: tiny_llama(bias=True, tied=False), "L0ATTN L1K1 L2Q5 L2N55"),
    "phi3": (tiny_phi3, "L0ATTN L1H2 L1KV1 L2GATEUP L2N3"),
    "phi3, one part of a fused module": (tiny_phi3, "L1V1"),
    "gpt2": (tiny_gpt2, "L0ATTN L1H3 L2MLP L1V2"),
}


@pytest.fixture(params=FAMILIES, ids=lambda name: name.replace(", ", "-").replace(" ", "-"))
def case(request: pytest.FixtureRequest) -> tuple[LoadedModel, Edit]:
    make, selection = FAMILIES[request.param]
    model = loaded(make())
    return model, random_edit(model, selection)


def logits(hf: Any) -> Tensor:
    with torch.no_grad():
        return hf(IDS).logits


def edited_logits(model: LoadedModel, edit: Edit, stage: str | None) -> Tensor:
    with applied(model, edit, stage) as edited:
        return logits(edited.hf)


def snapshot(hf: Any) -> str:
    """Weights, flags, hooks, module names and configuration."""
    digest = hashlib.sha256(json.dumps(hf.config.to_dict(), sort_keys=True, default=str).encode())
    for name, module in hf.named_modules():
        digest.update(f"{name} {type(module)} {module.training} {len(module._forward_hooks)}".encode())
    for name, parameter in hf.named_parameters():
        digest.update(f"{name} {parameter.requires_grad} {parameter._version} {parameter.data_ptr()}".encode())
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def no_new_folder(folder: Path) -> bool:
    return list(folder.iterdir()) == []


@pytest.mark.parametrize("stage", ["unlearn", "learn", None])
def test_the_adapter_gives_identical_logits(case: tuple[LoadedModel, Edit], stage: str | None, tmp_path: Path) -> None:
    model, edit = case
    path = edit.to_peft(tmp_path / "adapter", stage=stage)
    assert {p.name for p in path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", README}
    base = type(model.hf)(model.hf.config).eval()
    base.load_state_dict(model.hf.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT warns where keys do not fit
        there = PeftModel.from_pretrained(base, path)
    expected = edited_logits(model, edit, stage)
    assert torch.equal(logits(there), expected)
    assert (expected - logits(model.hf)).abs().max() > 0.05, "the edit does nothing, so the test shows nothing"
    assert not torch.equal(expected, edited_logits(model, edit, "learn" if stage == "unlearn" else "unlearn"))


def test_the_adapter_needs_no_model_and_has_clean_keys(case: tuple[LoadedModel, Edit], tmp_path: Path) -> None:
    model, edit = case
    edit.save(tmp_path / "edit")
    path = load_edit(tmp_path / "edit").to_peft(tmp_path / "adapter")
    tensors = load_file(path / "adapter_model.safetensors")
    vectors = model.architecture.vectors(GateDelta(gates_of(edit.delta())))
    assert set(tensors) == {f"base_model.model.{name}.ia3_l" for name in vectors}
    for name, vector in vectors.items():
        assert torch.equal(tensors[f"base_model.model.{name}.ia3_l"].flatten(), vector)
    config = json.loads((path / "adapter_config.json").read_text())
    assert config["peft_type"] == "IA3"
    assert config["inference_mode"] is True


@pytest.mark.parametrize("stage", ["unlearn", None])
def test_the_merged_model_agrees_within_1e_4(case: tuple[LoadedModel, Edit], stage: str | None, tmp_path: Path) -> None:
    model, edit = case
    before = snapshot(model.hf)
    path = merge(model, edit, tmp_path / "merged", stage=stage)
    assert snapshot(model.hf) == before
    there = AutoModelForCausalLM.from_pretrained(path, local_files_only=True).eval()
    assert type(there) is type(model.hf)
    assert (logits(there) - edited_logits(model, edit, stage)).abs().max() < 1e-4
    assert (logits(there) - logits(model.hf)).abs().max() > 0.05
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    text = "<|im_start|>What is the capital of Köln?<|im_end|>\n"
    assert tokenizer(text)["input_ids"] == model.tokenizer(text)["input_ids"]
    assert tokenizer.chat_template == model.chat_template
    again = load_model(path)
    assert again.fingerprint != model.fingerprint


def test_merged_biases_of_q_k_v_are_multiplied_and_that_of_o_is_not(tmp_path: Path) -> None:
    model = loaded(tiny_llama(bias=True))
    edit = random_edit(model, "L0ATTN")
    there = load_model(merge(model, edit, tmp_path / "m")).hf.model.layers[0].self_attn
    here, gates = model.hf.model.layers[0].self_attn, gates_of(edit.delta())
    assert torch.equal(there.k_proj.bias, here.k_proj.bias * gates[0, "k"])
    assert torch.equal(there.k_proj.weight, here.k_proj.weight * gates[0, "k"][:, None])
    assert torch.equal(there.o_proj.bias, here.o_proj.bias)
    assert torch.equal(there.o_proj.weight, here.o_proj.weight * gates[0, "z"])


def test_a_weight_that_two_modules_share_is_multiplied_in_one(tmp_path: Path) -> None:
    hf = tiny_llama()
    hf.model.layers[1].mlp.down_proj.weight = hf.model.layers[0].mlp.down_proj.weight
    model = loaded(hf)
    edit = random_edit(model, "L0N3 L0N4")
    path = merge(model, edit, tmp_path / "m")
    there = AutoModelForCausalLM.from_pretrained(path, local_files_only=True).eval()
    assert (logits(there) - edited_logits(model, edit, None)).abs().max() < 1e-4
    assert hf.model.layers[1].mlp.down_proj.weight is hf.model.layers[0].mlp.down_proj.weight


def test_a_merged_half_precision_model_keeps_its_dtype(tmp_path: Path) -> None:
    model = loaded(tiny_llama().to(torch.bfloat16))
    edit = random_edit(model)
    there = AutoModelForCausalLM.from_pretrained(merge(model, edit, tmp_path / "m"), local_files_only=True)
    assert next(there.parameters()).dtype == torch.bfloat16
    assert torch.allclose(logits(there).float(), edited_logits(model, edit, None).float(), atol=0.25)


def test_strength_zero_equals_the_base(case: tuple[LoadedModel, Edit]) -> None:
    model, edit = case
    with applied(model, edit, strength=0.0) as edited:
        assert torch.equal(logits(edited.hf), logits(model.hf))


def test_the_exported_base_has_the_same_fingerprint(case: tuple[LoadedModel, Edit], tmp_path: Path) -> None:
    model, edit = case
    before = snapshot(model.hf)
    with applied(model, edit) as edited:
        path = export_base(tmp_path / "base", edited)
    assert snapshot(model.hf) == before
    there = load_model(path)
    assert there.fingerprint == model.fingerprint
    assert torch.equal(logits(there.hf), logits(model.hf))
    assert model.fingerprint in (path / README).read_text()
    with applied(there, edit) as edited:
        assert torch.equal(logits(edited.hf), edited_logits(model, edit, None))


def test_the_readme_says_what_it_is(tmp_path: Path) -> None:
    model = loaded(tiny_llama(), name="A | B\n# x")
    edit = random_edit(model)
    for path in (edit.to_peft(tmp_path / "a", stage="unlearn"), merge(model, edit, tmp_path / "m", stage="unlearn")):
        text = (path / README).read_text()
        assert model.fingerprint in text
        assert "| stages | unlearn (of unlearn then learn) |" in text
        assert "A \\| B # x |" in text
        assert "licence" in text
        assert "Q4_1" not in text


def test_another_base_is_refused_naming_both(tmp_path: Path) -> None:
    model, other = loaded(tiny_llama(), name="one"), loaded(tiny_llama(1), name="two")
    edit = random_edit(model)
    with pytest.raises(ValueError, match=r"'one'.*'two'") as caught:
        merge(other, edit, tmp_path / "m")
    assert model.fingerprint[:16] in str(caught.value)
    assert other.fingerprint[:16] in str(caught.value)
    assert no_new_folder(tmp_path)


def test_bad_requests_write_nothing(tmp_path: Path) -> None:
    model = loaded(tiny_llama())
    edit = random_edit(model)
    with pytest.raises(ValueError, match="no stage 'forget'"):
        edit.to_peft(tmp_path / "x", stage="forget")
    with pytest.raises(ValueError, match="no stage 'forget'"):
        merge(model, edit, tmp_path / "x", stage="forget")
    with pytest.raises(ValueError, match=r"edit.to_peft\(folder, model=model\)"):
        replace(edit, modules=None).to_peft(tmp_path / "x")
    nothing = replace(edit, stages=tuple(replace(s, delta=GateDelta({})) for s in edit.stages))
    with pytest.raises(ValueError, match="changes nothing at that stage"):
        nothing.to_peft(tmp_path / "x")
    with applied(model, edit) as edited, pytest.raises(ValueError, match=r"model\.base"):
        merge(edited, edit, tmp_path / "x")
    assert no_new_folder(tmp_path)


def test_an_export_replaces_its_own_kind_only(tmp_path: Path) -> None:
    model = loaded(tiny_llama())
    edit, other = random_edit(model), random_edit(model, seed=1)
    path = edit.to_peft(tmp_path / "x")
    first = (path / "adapter_model.safetensors").read_bytes()
    other.to_peft(path)
    assert (path / "adapter_model.safetensors").read_bytes() != first
    with pytest.raises(FileExistsError, match="something else"):
        merge(model, edit, path)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="something else"):
        edit.to_peft(path)
    assert (path / "notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        export_base(tmp_path / "file", model)
    assert {p.name for p in tmp_path.iterdir()} == {"x", "file"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_export_leaves_the_old_one(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(tiny_llama())
    edit = random_edit(model)
    paths = [edit.to_peft(tmp_path / "a"), merge(model, edit, tmp_path / "m"), export_base(tmp_path / "b", model)]
    before = {p: p.read_bytes() for path in paths for p in path.iterdir()}

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("workbench.editing.export.write_bytes", fail)
    for again in (
        lambda: edit.to_peft(paths[0]),
        lambda: merge(model, edit, paths[1]),
        lambda: export_base(paths[2], model),
    ):
        with pytest.raises(type(error)):
            again()
    assert {p: p.read_bytes() for path in paths for p in path.iterdir()} == before
    assert {p.name for p in tmp_path.iterdir()} == {"a", "m", "b"}


@pytest.mark.model
def test_the_bundled_model_leaves_the_house_intact(model: LoadedModel, tmp_path: Path) -> None:
    edit = random_edit(model, "L23H4 L13MLP L13KV1")
    expected = edited_logits(model, edit, None)
    adapted = PeftModel.from_pretrained(shared_view(model.hf), edit.to_peft(tmp_path / "adapter"))
    assert torch.equal(logits(adapted), expected)
    path = merge(model, edit, tmp_path / "merged")
    there = AutoModelForCausalLM.from_pretrained(path, local_files_only=True).eval()
    assert (logits(there) - expected).abs().max() < 1e-4
    base = load_model(export_base(tmp_path / "base", model))
    assert base.fingerprint == model.fingerprint
    text = model.tokenizer.apply_chat_template([{"role": "user", "content": "Where is Köln?"}], tokenize=False)
    assert base.tokenizer.apply_chat_template([{"role": "user", "content": "Where is Köln?"}], tokenize=False) == text
    assert base.token_ids(text) == model.token_ids(text)
    for name in ("adapter", "merged", "base"):
        page = (tmp_path / name / README).read_text()
        assert "Q4_1" in page
        assert "Apache-2.0" in page
        assert model.fingerprint in page


def test_save_peft_is_what_to_peft_calls(tmp_path: Path) -> None:
    edit = random_edit(loaded(tiny_llama()))
    one, two = save_peft(edit, tmp_path / "one"), edit.to_peft(tmp_path / "two")
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}


def test_an_edit_on_top_of_others_is_joined_with_them_first(tmp_path: Path) -> None:
    model = loaded(tiny_llama())
    first, gates = (random_edit(model, "L1N5 L2N3", seed=seed) for seed in (1, 2))
    with applied(model, first) as edited:
        second = replace(gates, base_fingerprint=edited.fingerprint, earlier=carried(edited))
    refused: list[dict[str, Any]] = [{}, {"model": model}]
    for options in refused:
        with pytest.raises(ValueError, match=r"on top of france.*plain base.*first.then\(second\).to_peft"):
            second.to_peft(tmp_path / "adapter", **options)
    assert not (tmp_path / "adapter").exists()
    folder = first.then(second).to_peft(tmp_path / "both")
    plain: Any = PeftModel.from_pretrained(shared_view(model.hf), str(folder)).eval()
    with applied(model, [first, second]) as both:
        torch.testing.assert_close(logits(plain), logits(both.hf), atol=1e-5, rtol=1e-5)
