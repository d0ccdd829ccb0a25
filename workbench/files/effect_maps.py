"""Effect maps as .safetensors files, with what they mean in the header."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open

from workbench.files.atomic import write_bytes
from workbench.files.checked_json import RETRY_HINT, errors_name, parse, tensors_sha256, unwrap, wrap
from workbench.files.paths import user_path
from workbench.types import EffectMap, TracedPrompt
from workbench.types.metric_words import MetricWords
from workbench.types.plain import lists_as_tuples

_HEADER = "workbench"


def save_effect_map(effects: EffectMap, path: str | Path) -> Path:
    """Write an effect map to one ``.safetensors`` file: values as tensors, everything else in the file's header.

    Returns:
        The path.

    Raises:
        ValueError: The provenance holds something that JSON cannot.
        OSError: The file cannot be written; what was there is as it was.
    """
    named = {"values": effects.values, "stderr": effects.stderr, "per_fact": effects.per_fact}
    tensors = {k: v.contiguous().clone() for k, v in named.items() if v is not None}
    fields = {
        "tensors_sha256": tensors_sha256(tensors),
        "axes": list(effects.axes),
        "labels": {k: list(v) for k, v in effects.labels.items()},
        **{k: getattr(effects, k) for k in ("unit", "metric", "method", "clean", "corrupted", "n", "corruption")},
        "prompts": [asdict(p) for p in effects.prompts],
        "base_fingerprint": effects.base_fingerprint,
        "normalised": effects.normalised,
        "provenance": effects.provenance,
        "words": None if effects.words is None else asdict(effects.words),
    }
    header = json.dumps(wrap("workbench-effect-map", fields))
    return write_bytes(path, safetensors.torch.save(tensors, metadata={_HEADER: header}))


def load_effect_map(path: str | Path) -> EffectMap:
    """Read an effect map written by ``EffectMap.save``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind or schema version, or damaged.
    """
    path = user_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        opened: Any = safe_open(path, framework="pt")
        with opened as file:
            metadata: dict[str, str] = file.metadata() or {}
            header = metadata.get(_HEADER)
            tensors: dict[str, Any] = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a .safetensors file, or is damaged or cut short ({error}). {RETRY_HINT}"
        ) from error
    if header is None:
        raise ValueError(f"{path} was not written by EffectMap.save: its header says nothing of this package.")
    fields = unwrap("workbench-effect-map", parse(header.encode(), path), path)
    with errors_name(path):
        if tensors_sha256(tensors) != fields.pop("tensors_sha256"):
            raise ValueError("its numbers do not have the checksum in its header.")
        fields["axes"] = tuple(fields["axes"])
        fields["labels"] = {k: tuple(v) for k, v in fields["labels"].items()}
        fields["prompts"] = tuple(TracedPrompt(**lists_as_tuples(p)) for p in fields["prompts"])
        fields["words"] = None if fields["words"] is None else MetricWords(**fields["words"])
        return EffectMap(**tensors, **fields)
