"""A checkpoint that does not give every weight of its model is refused, with the first names; a whole one loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.helpers.tiny import loaded, tiny_gpt2, tiny_llama, tiny_tokenizer
from workbench.models import bundled
from workbench.models.load import load_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 538090408\n"
DOWN = "model.layers.2.mlp.down_proj.weight"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tiny_llama(), tmp_path / "saved")


def saved(hf: Any, path: Path, **options: Any) -> Path:
    hf.save_pretrained(path, **options)
    tiny_tokenizer().save_pretrained(path)
    return path


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """The folder with other tensors in its file of weights."""
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(change(tensors), file, metadata={"format": "pt"})
    return folder


# What does not fit


def without(*names: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in names}


CHANGES: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "one missing": (without(DOWN), rf"does not fit LlamaForCausalLM: 1 weight of the model missing \({DOWN}\)\."),
    "many missing": (
        lambda tensors: {name: tensor for name, tensor in tensors.items() if ".layers.1." not in name},
        r"9 weights of the model missing \(model\.layers\.1\.input_layernorm\.weight, .*, \.\.\.\)\.",
    ),
    "unexpected": (
        lambda tensors: tensors | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(48)},
        r"LlamaForCausalLM: 1 that the model has no place for \(model\.layers\.0\.self_attn\.q_proj\.bias\)",
    ),
    "reshaped": (
        lambda tensors: tensors | {DOWN: torch.zeros(42, 55)},
        rf"LlamaForCausalLM: 1 of another shape \({DOWN}: 42x55 instead of 42x56\)",
    ),
    "transposed": (
        lambda tensors: tensors | {DOWN: tensors[DOWN].T.contiguous()},
        rf"1 of another shape \({DOWN}: 56x42 instead of 42x56\)",
    ),
    "of a compiled model": (
        lambda tensors: {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()},
        r"29 weights of the model missing .*29 that the model has no place for \(_orig_mod\.model\..*was compiled when",
    ),
    "of a wrapped model": (
        lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
        r"29 weights of the model missing .*begin with \"module\.\": .*Save model\.module",
    ),
    "of a PEFT model": (
        lambda tensors: {f"base_model.model.{name}": tensor for name, tensor in tensors.items()},
        r"29 weights of the model missing .*Merge it first",
    ),
    "empty": (
        lambda _: {"x": torch.zeros(2)},
        r"29 weights of the model missing .*; 1 that the model has no place for \(x\)",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_weights_that_do_not_fit(name: str, folder: Path) -> None:
    change, words = CHANGES[name]
    with pytest.raises(ValueError, match=words):
        load_model(rewritten(folder, change))


def test_untied_output_embeddings_that_are_missing(tmp_path: Path) -> None:
    folder = saved(tiny_llama(tied=False), tmp_path / "untied")
    assert load_model(folder).fingerprint == loaded(tiny_llama(tied=False)).fingerprint
    with pytest.raises(ValueError, match=r"1 weight of the model missing \(lm_head\.weight\)"):
        load_model(rewritten(folder, without("lm_head.weight")))


def test_a_configuration_that_belongs_to_another_checkpoint(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(ValueError, match=r"9 weights of the model missing \(model\.layers\.3\."):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(ValueError, match=r"9 that the model has no place for \(model\.layers\.2\."):
        load_model(folder)


# What fits


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_two_loads_have_one_fingerprint(make: Callable[[], Any], tmp_path: Path) -> None:
    folder = saved(make(), tmp_path / "model")
    assert load_model(folder).fingerprint == load_model(folder).fingerprint == loaded(make()).fingerprint


def test_tied_weights_may_be_saved_twice_or_once(folder: Path) -> None:
    once = load_model(folder).fingerprint
    twice = rewritten(
        folder, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    )
    assert load_model(twice).fingerprint == once


def test_tables_that_older_versions_saved_are_no_weights(tmp_path: Path) -> None:
    """Frequencies of rotary positions, and GPT-2's causal masks."""
    llama = rewritten(
        saved(tiny_llama(), tmp_path / "llama"),
        lambda tensors: tensors | {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(4) for n in range(3)},
    )
    assert load_model(llama).fingerprint == loaded(tiny_llama()).fingerprint
    masks = {
        f"transformer.h.{n}.attn.{name}": torch.ones(1, 1, 4, 4) for n in range(3) for name in ("bias", "masked_bias")
    }
    gpt2 = rewritten(saved(tiny_gpt2(), tmp_path / "gpt2"), lambda tensors: tensors | masks)
    assert load_model(gpt2).fingerprint == loaded(tiny_gpt2()).fingerprint


def test_masks_and_biases_are_told_apart() -> None:
    from workbench.models.checkpoints import check_loaded

    hf = tiny_gpt2()
    check_loaded(hf, {"unexpected_keys": {"h.0.attn.bias", "transformer.h.1.attn.masked_bias"}}, "x")
    with pytest.raises(ValueError, match=r"1 that the model has no place for \(h\.0\.ln_1\.bias\)"):
        check_loaded(hf, {"unexpected_keys": {"h.0.ln_1.bias"}}, "x")
    with pytest.raises(ValueError, match=r"1 that the model has no place for \(elsewhere\.bias\)"):
        check_loaded(hf, {"unexpected_keys": {"elsewhere.bias"}}, "x")


def test_weights_as_pickled_by_pytorch(folder: Path) -> None:
    """Of tensors alone: transformers reads nothing else from such a file."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert load_model(folder).fingerprint == loaded(tiny_llama()).fingerprint
    torch.save({name: tensor for name, tensor in tensors.items() if name != DOWN}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=rf"1 weight of the model missing \({DOWN}\)"):
        load_model(folder)


# Files that are not there, or not whole


@pytest.fixture
def split(tmp_path: Path) -> Path:
    folder = saved(tiny_llama(), tmp_path / "split", max_shard_size="40KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    return folder


def test_a_split_checkpoint(split: Path) -> None:
    files = sorted(split.glob("model-*.safetensors"))
    assert load_model(split).fingerprint == loaded(tiny_llama()).fingerprint
    files[1].unlink()
    with pytest.raises(
        ValueError, match=rf"lacks 1 file of {len(files)} of a split checkpoint, with .*: {files[1].name}"
    ):
        load_model(split)


@pytest.mark.parametrize("name", [None, "model.safetensors"])
def test_one_shard_alone(name: str | None, split: Path) -> None:
    """Under its own name, or under that of a whole file."""
    first, *others = sorted(split.glob("model-*.safetensors"))
    for file in (*others, split / "model.safetensors.index.json"):
        file.unlink()
    if name is None:
        words = rf"holds 1 of {len(others) + 1} files of a split checkpoint. It lacks {others[0].name}"
    else:
        first.rename(split / name)
        words = r"does not fit LlamaForCausalLM: \d+ weights of the model missing"
    with pytest.raises(ValueError, match=words):
        load_model(split)


def test_all_shards_without_their_index(split: Path) -> None:
    (split / "model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match=r"It lacks model\.safetensors\.index\.json, which says what is where"):
        load_model(split)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_pointer_of_git_lfs(name: str, folder: Path) -> None:
    (folder / name).write_text(POINTER)
    with pytest.raises(ValueError, match=rf"{name} is a git-lfs pointer \(\d+ bytes\).*Run `git lfs pull`"):
        load_model(folder)


def test_a_pointer_in_the_place_of_a_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_text(POINTER)
    with pytest.raises(ValueError, match=r"x\.gguf is a git-lfs pointer"):
        load_model(tmp_path / "x.gguf")


@pytest.mark.parametrize("keep", [0, 5, 300, -1, -1000])
def test_weights_that_are_cut_short(keep: int, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"Cannot load .*saved' as a folder: "):
        load_model(folder)


def test_a_damaged_index_and_a_damaged_configuration(split: Path) -> None:
    (split / "model.safetensors.index.json").write_text('{"weight_map": ')
    with pytest.raises(ValueError, match=r"index\.json is damaged \(JSONDecodeError"):
        load_model(split)
    (split / "model.safetensors.index.json").unlink()
    (split / "config.json").write_text("{")
    with pytest.raises(ValueError):
        load_model(split)


def test_a_file_or_a_folder_in_the_place_of_the_other(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors is a file\. Give the folder of the model"):
        load_model(folder / "model.safetensors")
    for file in folder.glob("*.safetensors"):
        file.unlink()
    (folder / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"holds a \.gguf file: give the file itself, load_model\('.*model\.gguf'\)"):
        load_model(folder)


# .gguf files


def write_gguf(path: Path, *, parts: int | None = None) -> Path:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    if parts is not None:
        writer.add_uint16("split.count", parts)
    writer.add_tensor("x.weight", torch.arange(96, dtype=torch.float32).reshape(8, 12).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("name", "parts"),
    [("m-00001-of-00003.gguf", None), ("m-00001-of-00003.gguf", 3), ("renamed.gguf", 3), ("m-00002-of-00003.GGUF", 3)],
)
def test_one_part_of_a_split_gguf(name: str, parts: int | None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{name} is one of 3 files of a split model.*llama-gguf-split --merge"):
        load_model(write_gguf(tmp_path / name, parts=parts))


def test_a_whole_gguf_is_no_part(tmp_path: Path) -> None:
    for name, parts in (("whole.gguf", None), ("one-00001-of-00001.gguf", 1)):
        bundled.check_gguf(write_gguf(tmp_path / name, parts=parts))


def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, list[Path]]:
    """A .gguf file that was loaded once: the file, its entry in the cache, and what was converted."""
    (file := tmp_path / "tiny.gguf").write_bytes(b"GGUF and more")
    calls: list[Path] = []

    def convert(path: Path) -> tuple[Any, Any]:
        calls.append(path)
        return tiny_llama(), tiny_tokenizer()

    monkeypatch.setattr("workbench.models.bundled.read_gguf", convert)
    load_model(file)
    (entry,) = (tmp_path / "cache" / "models").iterdir()
    return file, entry, calls


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


HARM: dict[str, Callable[[Path], object]] = {
    "no weights": lambda entry: (entry / "model.safetensors").unlink(),
    "weights cut short": lambda entry: cut(entry / "model.safetensors"),
    "empty weights": lambda entry: (entry / "model.safetensors").write_bytes(b""),
    "no settings": lambda entry: (entry / "config.json").unlink(),
    "damaged settings": lambda entry: (entry / "config.json").write_text("{"),
    "no tokenizer": lambda entry: (entry / "tokenizer.json").unlink(),
    "a weight missing": lambda entry: rewritten(entry, without(DOWN)),
    "nothing": lambda entry: (shutil.rmtree(entry), entry.mkdir()),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_converted_copy_that_is_not_whole_is_converted_anew(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, entry, calls = converted(tmp_path, monkeypatch)
    assert load_model(file).fingerprint == loaded(tiny_llama()).fingerprint and len(calls) == 1
    HARM[harm](entry)
    assert load_model(file).fingerprint == loaded(tiny_llama()).fingerprint
    assert len(calls) == 2
    assert load_model(file).fingerprint == loaded(tiny_llama()).fingerprint
    assert len(calls) == 2, "the new copy is whole"
