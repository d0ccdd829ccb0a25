"""What ``load_model`` refuses, a sentence each, and the dtypes that it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from torch import nn

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.tiny import loaded, random_edit, tiny_gpt2, tiny_llama, tiny_phi3, tiny_tokenizer
from tests.helpers.tiny_facts import capitals, knowing
from workbench.models.load import load_model
from workbench.models.refusals import ModelRefused

LORA = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tiny_llama(), tmp_path / "saved")


def saved(hf: Any, path: Path) -> Path:
    hf.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def with_config(folder: Path, **fields: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return folder


# In memory


def compiled() -> Any:
    return torch.compile(tiny_llama())


def compiled_in_place() -> Any:
    hf = tiny_llama()
    hf.compile()
    return hf


def compiled_forward() -> Any:
    hf = tiny_llama()
    hf.forward = torch.compile(hf.forward)
    return hf


def compiled_part() -> Any:
    hf = tiny_llama()
    hf.model.layers[1] = torch.compile(hf.model.layers[1])
    return hf


def compiled_part_in_place() -> Any:
    hf = tiny_llama()
    hf.model.layers[1].compile()
    return hf


def with_adapter() -> Any:
    hf = tiny_llama()
    hf.add_adapter(LORA)
    return hf


def with_a_removed_adapter() -> Any:
    """The flag of transformers is gone, the adapter is there."""
    hf = with_adapter()
    hf._hf_peft_config_loaded = False
    return hf


def of_peft() -> Any:
    config = IA3Config(task_type="CAUSAL_LM", target_modules=["down_proj"], feedforward_modules=["down_proj"])
    return get_peft_model(tiny_llama(), config)


def inside_peft() -> Any:
    return get_peft_model(tiny_llama(), LORA).base_model.model


class Linear4bit(nn.Linear):
    """As bitsandbytes' layer looks from outside."""


Linear4bit.__module__ = "bitsandbytes.nn.modules"


def four_bit() -> Any:
    hf = tiny_llama()
    hf.model.layers[0].mlp.down_proj = Linear4bit(56, 42, bias=False)
    return hf


def of_whole_numbers() -> Any:
    hf = tiny_llama()
    packed = torch.zeros(42, 28, dtype=torch.uint8)
    hf.model.layers[0].mlp.down_proj.weight = nn.Parameter(packed, requires_grad=False)
    return hf


class Packed(nn.Parameter):
    """As bitsandbytes' parameter looks from outside."""


def of_packed_parameters() -> Any:
    hf = tiny_llama()
    linear = hf.model.layers[0].mlp.down_proj
    linear.weight = Packed(linear.weight.detach(), requires_grad=False)
    return hf


def by_its_configuration() -> Any:
    hf = tiny_llama()
    hf.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    return hf


def by_its_quantizer() -> Any:
    hf = tiny_llama()
    hf.hf_quantizer = SimpleNamespace()
    return hf


def dynamically() -> Any:
    return torch.ao.quantization.quantize_dynamic(tiny_llama(), {nn.Linear})


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "compiled": (compiled, r"^The model is compiled \(OptimizedModule\): .*model\._orig_mod"),
    "compiled in place": (compiled_in_place, r"^The model is compiled \(LlamaForCausalLM\)"),
    "a compiled forward": (compiled_forward, r"^The model's forward \(at its top\) was replaced"),
    "a compiled layer": (compiled_part, r"^The model is compiled in part \(at 'model\.layers\.1'\)"),
    "a layer compiled in place": (compiled_part_in_place, r"^The model is compiled in part \(at 'model\.layers\.1'\)"),
    "with an adapter": (with_adapter, r"^The model carries a PEFT adapter \(at 'model\.layers\.0\..*merge_and_unload"),
    "with a removed adapter": (with_a_removed_adapter, r"^The model carries a PEFT adapter"),
    "of PEFT": (of_peft, r"got PeftModelForCausalLM.*adapters must be merged first"),
    "out of PEFT": (inside_peft, r"^The model carries a PEFT adapter"),
    "4 bit": (four_bit, r"'model\.layers\.0\.mlp\.down_proj' \(Linear4bit\) is quantised: .*dtype=\"bfloat16\""),
    "of whole numbers": (of_whole_numbers, r"'model\.layers\.0\.mlp\.down_proj\.weight' \(uint8\) is quantised"),
    "of packed parameters": (of_packed_parameters, r"down_proj\.weight' \(Packed\) is quantised"),
    "by its configuration": (by_its_configuration, r"^The model is quantised \(gptq\): "),
    "by its quantizer": (by_its_quantizer, r"^The model is quantised: "),
    "dynamically quantised": (dynamically, r"\(DynamicQuantizedLinear|is quantised"),
    "wrapped": (lambda: nn.DataParallel(tiny_llama()), r"got DataParallel .*Take it out of its wrapper: model\.module"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_in_memory(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(ModelRefused, match=words) as refused:
        load_model(make(), tokenizer=tiny_tokenizer())
    assert isinstance(refused.value, ValueError)


def test_a_bridge_is_a_value_that_is_refused() -> None:
    bridge = knowing(tiny_llama(tied=False), capitals()).bridge
    with pytest.raises(ValueError, match="bridges are made from it"):
        load_model(bridge, tokenizer=tiny_tokenizer())


def test_sources_that_are_none() -> None:
    for source in (3, loaded(tiny_llama()), tiny_llama().config, ["a"]):
        with pytest.raises(ValueError, match=f"source must be None, a folder.*got {type(source).__name__}"):
            load_model(mistyped(source))


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_phi3])
def test_plain_models_are_taken(make: Callable[[], Any]) -> None:
    """With hooks, a bound forward of the user's own, half precision, and after an adapter was merged."""
    hf = make()
    hf.register_forward_hook(lambda *_: None)
    hf.lm_head.forward = hf.lm_head.forward
    assert load_model(hf, tokenizer=tiny_tokenizer())
    assert load_model(make().half(), tokenizer=tiny_tokenizer()).dtype == torch.float16
    merged = get_peft_model(make(), LoraConfig(target_modules="all-linear")).merge_and_unload()
    assert load_model(merged, tokenizer=tiny_tokenizer()).fingerprint


# Folders


def test_an_adapter_in_the_place_of_a_model(tmp_path: Path) -> None:
    base = loaded(tiny_llama(), name="my-base")
    ours = random_edit(base, "L1N5").to_peft(tmp_path / "ours")
    get_peft_model(tiny_llama(), LORA).save_pretrained(str(tmp_path / "lora"))
    with pytest.raises(ValueError, match=r"ours is a PEFT adapter for 'my-base', not a model\. .*wb\.load_edit"):
        load_model(ours)
    with pytest.raises(ValueError, match=r"lora is a PEFT adapter, not a model\. .*merged with peft first"):
        load_model(tmp_path / "lora")


def test_an_adapter_beside_a_model(folder: Path) -> None:
    """transformers would load both, and the adapter would be part of the base."""
    get_peft_model(tiny_llama(), LORA).save_pretrained(str(folder))
    with pytest.raises(ValueError, match=r"saved has a PEFT adapter beside its model\. Load the base alone"):
        load_model(folder)


def test_an_edit_in_the_place_of_a_model(tmp_path: Path) -> None:
    edit = random_edit(loaded(tiny_llama())).save(tmp_path / "edit")
    with pytest.raises(ValueError, match=r"edit is a saved edit, not a model\. Load its base.*wb\.load_edit\(folder\)"):
        load_model(edit)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8", "mxfp4"])
def test_a_quantised_folder(method: str, folder: Path) -> None:
    """Also where the package that could read it is missing, or its settings are for a part of the model."""
    settings = {"quant_method": method, "load_in_4bit": True}
    with pytest.raises(ValueError, match=rf"saved is quantised \({method}\): its weights are no plain numbers"):
        load_model(with_config(folder, quantization_config=settings))
    with pytest.raises(ValueError, match=rf"saved is quantised \({method}\)"):
        load_model(with_config(folder, quantization_config=None, text_config={"quantization_config": settings}))


def test_folders_of_other_things(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", with_config(folder, model_type="no-such-model", architectures=["NoSuchModel"])):
        with pytest.raises(ValueError, match=rf"Cannot load .*{path.name}' as a folder"):
            load_model(path)


# Dtypes


NAMES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
    "torch.bfloat16": torch.bfloat16,
    "half": torch.float16,
    "bf16": torch.bfloat16,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_dtype_by_its_name(name: str, folder: Path) -> None:
    model = load_model(folder, dtype=name)
    assert {parameter.dtype for parameter in model.hf.parameters()} == {NAMES[name]}
    assert model.fingerprint == load_model(folder, dtype=NAMES[name]).fingerprint


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", "float31", torch.int64, torch.float8_e5m2, 16, ""])
def test_other_dtypes(dtype: Any, folder: Path) -> None:
    with pytest.raises(ValueError, match=r'^dtype must be "auto" .*or one of float32, float16, bfloat16, float64, '):
        load_model(folder, dtype=dtype)
    with pytest.raises(ValueError, match=r'^dtype must be "auto"'):
        load_model(dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("said", [True, False])
def test_the_checkpoints_own_dtype(dtype: torch.dtype, said: bool, tmp_path: Path) -> None:
    """As its configuration says, or as its weights are."""
    path = saved(tiny_llama().to(dtype), tmp_path / "own")
    if not said:
        file = path / "config.json"
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "dtype"}))
    assert load_model(path, dtype="auto").dtype == dtype
    assert load_model(path).dtype == torch.float32, "the default"


def test_a_model_in_half_precision_is_as_transformers_loads_it(folder: Path) -> None:
    """Only weights are in it: a cast of the whole model would round the frequencies of rotary positions too."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    model = load_model(folder, dtype="bfloat16")
    assert {n: b.dtype for n, b in model.hf.named_buffers()} == {n: b.dtype for n, b in theirs.named_buffers()}
    ids = torch.tensor([model.token_ids("The capital of France is" * 9)])
    with torch.no_grad():
        assert torch.equal(model.runner(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_a_gguf_file_in_another_dtype(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the cache, and where that cannot be written."""
    (file := tmp_path / "tiny.gguf").write_bytes(b"GGUF and more")
    monkeypatch.setattr("workbench.models.bundled.read_gguf", lambda _: (tiny_llama(), tiny_tokenizer()))
    wanted = loaded(tiny_llama().to(torch.float32 if dtype == "auto" else torch.bfloat16)).fingerprint
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    cached = [load_model(file, dtype=dtype) for _ in range(2)]
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "a file"))
    with pytest.warns(UserWarning, match="cannot be written"):
        bare = load_model(file, dtype=dtype)
    for model in (*cached, bare):
        assert model.fingerprint == wanted
        assert {b.dtype for b in model.hf.buffers()} == {torch.float32}
        assert model.hf.lm_head.weight is model.hf.model.embed_tokens.weight
        assert model.hf.config.dtype == model.dtype


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gates_are_float32_whatever_the_weights_are(dtype: str, tmp_path: Path) -> None:
    pool = capitals()
    path = saved(knowing(tiny_llama(tied=False), pool).hf, tmp_path / "model")
    model = load_model(path, dtype=dtype)
    recipe = wb.Recipe(steps=2, early_stop=None, retain_size=2)
    edit = wb.rewrite(model, pool[0], "L1N5 L2H1", recipe=recipe, pool=pool, progress=False)
    assert {tensor.dtype for tensor in edit.delta().tensors().values()} == {torch.float32}
    with wb.applied(model, edit) as edited:
        gates = [p for name, p in edited.runner.named_parameters() if "ia3" in name]
        assert gates and {gate.dtype for gate in gates} == {torch.float32}
        assert edited.dtype == model.dtype
    lora = wb.rewrite(model, pool[0], recipe=wb.recipes.LoRA(steps=2, retain_size=2), pool=pool, progress=False)
    assert {tensor.dtype for tensor in lora.delta().tensors().values()} == {torch.float32}
