"""Where a model comes from: a folder, a hub id, a .gguf file, the bundled one, or an HF model in memory."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.files.paths import user_path
from workbench.models.bundled import NAME, bundled_file, load_gguf
from workbench.models.checkpoints import check_files, check_loaded, load_with_info
from workbench.models.dtypes import Auto
from workbench.models.quiet import no_loading_bars
from workbench.models.refusals import (
    ModelRefused,
    check_folder,
    check_in_memory,
    method_of,
    out_of_memory,
    quantised_words,
)


@dataclass(frozen=True)
class Placing:
    """How weights are to be loaded.

    Args:
        dtype: Theirs; ``"auto"`` as the checkpoint has it.
        device: Where they are all put; None leaves them where they are loaded (the CPU).
        device_map: Where accelerate puts each part, as transformers takes it; None for one device.
        trust_remote_code: Run code that a hub repository brings along.
    """

    dtype: torch.dtype | Auto = torch.float32
    device: str | torch.device | None = None
    device_map: Any = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        _check_device(self.device)
        if self.device is not None and self.device_map is not None:
            raise ValueError(
                f"device ({self.device}) and device_map ({self.device_map!r}) both say where the model goes: give one."
            )

    @property
    def options(self) -> dict[str, Any]:
        """For ``from_pretrained``."""
        where = {} if self.device_map is None else {"device_map": self.device_map}
        return {"dtype": self.dtype, **where}


def _check_device(device: object) -> None:
    """Raise a ValueError unless weights can be put on a device here, and computed with."""
    if device is None:
        return
    there = "" if torch.cuda.is_available() else "; torch sees no GPU here (torch.cuda.is_available() is False)"
    advice = f'Give "cpu", or a device that torch has here, "cuda:0" say{there}.'
    if not isinstance(device, (str, torch.device)):
        raise ValueError(f"device must be a string or a torch.device, got {device!r}. {advice}")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch built without it, or no such device
        words = str(error).partition("\n")[0].removesuffix(".")
        raise ValueError(f"Cannot put a model on the device {str(device)!r}: {words}. {advice}") from error
    if torch.device(device).type == "meta":
        raise ValueError(f"The device meta holds no weights, only their shapes. {advice}")


def from_memory(hf: nn.Module, tokenizer: Any, placing: dict[str, Any], name: str | None) -> tuple[Any, Any, str]:
    """An HF model in memory as model, tokenizer and name; it is left as it is.

    Args:
        hf, tokenizer, name: As ``load_model`` was given them.
        placing: The options that say where and how a model is to be loaded, by name: all None.

    Raises:
        ValueError: No tokenizer, an option that would change the model, or a model that is refused.
    """
    if tokenizer is None:
        raise ValueError("A model in memory needs its tokenizer: load_model(hf_model, tokenizer=...).")
    if any(value is not None for value in placing.values()):
        raise ValueError("A model in memory stays as it is: move or cast it yourself before load_model.")
    check_in_memory(hf)
    label = name or getattr(hf.config, "name_or_path", "") or type(hf).__name__
    return hf, tokenizer, str(label)


def from_source(source: str | Path | None, placing: Placing, *, tokenizer: bool) -> tuple[Any, Any, str]:
    """A model that is to be loaded, with its own tokenizer and its name.

    Args:
        source: None for the bundled model, a .gguf file, a folder, or a hub id.
        placing: How.
        tokenizer: Whether its own is wanted (else it is None, or what came with a .gguf file).

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: It cannot be loaded, or not whole.
    """
    if source is None:
        return *_of_gguf(bundled_file(), placing), NAME
    if not str(source).strip():
        raise ValueError("source is an empty text. Give a folder, a .gguf file or a hub id; None is the bundled model.")
    path = user_path(source)
    if path.suffix.lower() == ".gguf" and not path.is_dir():
        return *_of_gguf(path, placing), path.stem
    if path.is_file():
        raise ValueError(f"{path} is a file. Give the folder of the model ({path.parent}), or a .gguf file.")
    if path.is_dir():
        check_folder(path)
        check_files(path)
        return *_pretrained(path, placing, tokenizer=tokenizer), path.name
    if path.is_absolute() or str(source).startswith((".", "~")):
        raise FileNotFoundError(f"There is no folder {path if str(source).startswith('~') else source}.")
    return *_pretrained(source, placing, tokenizer=tokenizer), str(source)


def _of_gguf(path: Path, placing: Placing) -> tuple[Any, Any]:
    hf, own = load_gguf(path, placing.options)
    check_in_memory(hf)
    return hf, own


def own_tokenizer(tokenizer: Any, trust_remote_code: bool) -> Any:
    """A tokenizer as ``load_model`` takes it: itself, or loaded from a folder or hub id.

    Raises:
        ValueError: It is none, or cannot be loaded.
    """
    from transformers import AutoTokenizer

    if not isinstance(tokenizer, (str, Path)):
        if not (callable(tokenizer) and hasattr(tokenizer, "convert_ids_to_tokens")):
            raise ValueError(
                "tokenizer must be an HF tokenizer, or the folder or hub id to load it from, got "
                f"{type(tokenizer).__name__}."
            )
        return tokenizer
    path = user_path(tokenizer)
    local = path.is_dir()
    try:
        return AutoTokenizer.from_pretrained(
            path if local else tokenizer, local_files_only=local, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # as in `_pretrained`
        raise ValueError(f"Cannot load a tokenizer from {str(tokenizer)!r}: {error}") from error


def _pretrained(source: str | Path, placing: Placing, *, tokenizer: bool) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    local = isinstance(source, Path) and source.is_dir()
    options = {"local_files_only": local, "trust_remote_code": placing.trust_remote_code}
    try:
        with no_loading_bars() if local else nullcontext():  # a download has bars
            hf, info = load_with_info(source, **placing.options, **options)
        own = AutoTokenizer.from_pretrained(source, **options) if tokenizer else None
    except Exception as error:  # a damaged file ends in errors of json, safetensors, pickle or torch
        if out_of_memory(error):
            raise
        if method := _quantisation(source, placing):
            raise ModelRefused(quantised_words(str(source), method)) from error
        kind = "folder" if local else "hub id (there is no folder of that name)"
        words = str(error) if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {error}"
        raise ValueError(f"Cannot load {str(source)!r} as a {kind}: {words}") from error
    check_in_memory(hf)
    check_loaded(hf, info, source)
    return hf, own


def _quantisation(source: str | Path, placing: Placing) -> str | None:
    """How a model that could not be loaded is quantised, from its configuration on this machine; None where it is
    not, or that cannot be read."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=placing.trust_remote_code)
    except Exception:  # the first error says what is wrong
        return None
    settings = getattr(config, "quantization_config", None)
    return None if settings is None else method_of(settings) or "by a method of its own"
