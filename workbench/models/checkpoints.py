"""Whether a checkpoint is whole, and whether all of its weights went into the model.

transformers draws what a checkpoint lacks at random and leaves out what the model has no place for, with a table in the
log. Here both are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from workbench.models.refusals import count, first_names

POINTER = b"version https://git-lfs"
"""How a file begins that stands for one that git-lfs has not fetched."""
WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
"""How files of weights end; the first two are what transformers reads from a folder."""
_SHARD = re.compile(r"(?P<stem>.+)-(?P<at>\d{5})-of-(?P<of>\d{5})(?P<suffix>\.\w+)")
_BUFFERS = frozenset({"bias", "masked_bias", "causal_mask", "inv_freq", "position_ids", "embed_positions"})
"""Tables that older versions of transformers saved with the weights, by their last name: masks and positions, which
every model computes by itself."""
_PREFIXES = {
    "_orig_mod.": "the model was compiled when it was saved. Save model._orig_mod instead",
    "module.": "the model was within a wrapper (DataParallel, say) when it was saved. Save model.module instead",
    "base_model.model.": "it is the state of a PEFT model. Merge it first (merge_and_unload), and save that",
    "model.base_model.": "it is the state of a PEFT model. Merge it first (merge_and_unload), and save that",
}


class CheckpointError(ValueError):
    """Weights that do not fit their model."""


def check_files(folder: Path) -> None:
    """Raise a ValueError where a folder's files are pointers of git-lfs, or one of several that belong together is
    missing.

    Args:
        folder: The folder of a checkpoint.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for path in files:
        if path.suffix in (*WEIGHTS, ".json", ".model"):
            check_pointer(path)
    names = {path.name for path in files}
    for name in sorted(n for n in names if n.endswith(".index.json")):
        _check_index(folder / name, names)
    index = any(n.endswith(".index.json") for n in names)
    whole = any(n in names for n in ("model.safetensors", "pytorch_model.bin"))
    shards = [found for found in map(_SHARD.fullmatch, sorted(names)) if found and found["suffix"] in WEIGHTS[:2]]
    if shards and not index and not whole:
        first = shards[0]
        every = [f"{first['stem']}-{n:05d}-of-{first['of']}{first['suffix']}" for n in range(1, int(first["of"]) + 1)]
        missing = [name for name in every if name not in names]
        what = f"{first['stem']}{first['suffix']}.index.json, which says what is where"
        raise ValueError(
            f"{folder} holds {len(every) - len(missing)} of {len(every)} files of a split checkpoint. It lacks "
            f"{first_names(missing) if missing else what}. Get the others, and what lies beside them."
        )
    gguf = next((n for n in sorted(names) if n.endswith(".gguf")), None)
    if gguf is not None and not any(n.endswith(WEIGHTS) and not n.endswith(".gguf") for n in names):
        raise ValueError(f"{folder} holds a .gguf file: give the file itself, load_model({str(folder / gguf)!r}).")


def check_pointer(path: Path) -> None:
    """Raise a ValueError where a file is a pointer of git-lfs."""
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ValueError(
                f"{path} is a git-lfs pointer ({path.stat().st_size} bytes) in the place of the file. Run `git lfs "
                f"pull` in {path.parent}, or download the file."
            )


def _check_index(index: Path, names: set[str]) -> None:
    """Raise a ValueError where the files of a split checkpoint are not all there."""
    try:
        places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        wanted = sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is damaged ({type(error).__name__}: {error}). Get it again.") from error
    missing = [name for name in wanted if name not in names]
    if missing:
        weights = sum(place in missing for place in places.values())
        raise ValueError(
            f"{index.parent} lacks {count(len(missing), 'file')} of {len(wanted)} of a split checkpoint, with "
            f"{count(weights, 'weight')}: {first_names(missing)}. Get the others."
        )


def is_whole_safetensors(path: Path) -> bool:
    """Whether a .safetensors file has all the bytes that its header speaks of."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        ends = (fields["data_offsets"][1] for name, fields in header.items() if name != "__metadata__")
        return path.stat().st_size == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


# What went into the model


def load_with_info(source: str | Path, **options: Any) -> tuple[Any, Mapping[str, Any]]:
    """A causal language model by transformers, and what became of the checkpoint's weights: ``check_loaded`` judges it.

    Args:
        source: A folder or hub id.
        options: For ``from_pretrained``.
    """
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    # With these two, weights that do not fit are told with their names, instead of in the log.
    return auto.from_pretrained(source, output_loading_info=True, ignore_mismatched_sizes=True, **options)


def check_loaded(hf: nn.Module, info: Mapping[str, Any], source: object) -> None:
    """Raise a ``CheckpointError`` that says how many weights of a checkpoint do not fit, and which first.

    Args:
        hf: The model as transformers loaded it.
        info: Its ``output_loading_info``.
        source: What was loaded, for the message.
    """
    parameters = {name for name, _ in hf.named_parameters(remove_duplicate=False)}
    lacking = set(info.get("missing_keys", ()))
    tied = {name for name, source_name in getattr(hf, "all_tied_weights_keys", {}).items() if source_name in lacking}
    missing = sorted(lacking & parameters - tied)  # what is tied counts once, and what is no weight not at all
    unexpected = sorted(name for name in info.get("unexpected_keys", ()) if not _is_old_buffer(hf, name))
    reshaped = sorted(tuple(entry) for entry in info.get("mismatched_keys", ()))
    errors = [str(error) for error in info.get("error_msgs", ())]
    if not (missing or unexpected or reshaped or errors):
        return
    parts: list[str] = []
    if missing:
        parts.append(f"{count(len(missing), 'weight')} of the model missing ({first_names(missing)})")
    if reshaped:
        shapes = [f"{name}: {_shape(there)} instead of {_shape(wanted)}" for name, there, wanted in reshaped]
        parts.append(f"{len(reshaped)} of another shape ({first_names(shapes)})")
    if unexpected:
        parts.append(f"{len(unexpected)} that the model has no place for ({first_names(unexpected)})")
    parts += errors[:1]
    raise CheckpointError(
        f"The checkpoint {source} does not fit {type(hf).__name__}: {'; '.join(parts)}. What is missing would be drawn "
        f"at random. {_advice(unexpected)}"
    )


def _shape(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes))


def _is_old_buffer(hf: nn.Module, name: str) -> bool:
    """Whether a surplus tensor is a table of an older version. Weights lie in modules without modules of their own:
    "attn.bias" beside "attn.c_attn" is a mask, and "c_attn.bias" is none."""
    path, _, leaf = name.rpartition(".")
    if leaf not in _BUFFERS:
        return False
    if leaf != "bias":
        return True
    prefix = getattr(hf, "base_model_prefix", "")
    modules = dict(hf.named_modules())
    owner = modules.get(path) or modules.get(f"{prefix}.{path}")
    return owner is not None and any(owner.children())


def _advice(unexpected: Iterable[str]) -> str:
    """What the names of surplus tensors give away."""
    for name in unexpected:
        for prefix, why in _PREFIXES.items():
            if name.startswith(prefix):
                return f'Its names begin with "{prefix}": {why}.'
    return "Get the whole checkpoint, with the config.json that belongs to it."
