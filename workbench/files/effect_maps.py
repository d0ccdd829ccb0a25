"""Effect maps as .safetensors files, with what they mean in the header."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.files.tensors import load_tensors, save_tensors
from workbench.types import EffectMap, TracedPrompt
from workbench.types.metric_words import MetricWords
from workbench.types.plain import lists_as_tuples


def save_effect_map(effects: EffectMap, path: str | Path) -> Path:
    """Write an effect map to one ``.safetensors`` file: values as tensors, everything else in the file's header.

    Returns:
        The path.

    Raises:
        ValueError: The provenance holds something that JSON cannot.
        OSError: The file cannot be written; what was there is as it was.
    """
    named = {"values": effects.values, "stderr": effects.stderr, "per_fact": effects.per_fact}
    tensors = {k: v for k, v in named.items() if v is not None}
    fields = {
        "axes": list(effects.axes),
        "labels": {k: list(v) for k, v in effects.labels.items()},
        **{k: getattr(effects, k) for k in ("unit", "metric", "method", "clean", "corrupted", "n", "corruption")},
        "prompts": [asdict(p) for p in effects.prompts],
        "base_fingerprint": effects.base_fingerprint,
        "normalised": effects.normalised,
        "provenance": effects.provenance,
        "words": None if effects.words is None else asdict(effects.words),
    }
    return save_tensors("workbench-effect-map", path, tensors, fields)


def load_effect_map(path: str | Path) -> EffectMap:
    """Read an effect map written by ``EffectMap.save``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind or schema version, or damaged.
    """
    return load_tensors("workbench-effect-map", path, "EffectMap.save", _made)


def _made(tensors: dict[str, Any], fields: dict[str, Any]) -> EffectMap:
    fields["axes"] = tuple(fields["axes"])
    fields["labels"] = {k: tuple(v) for k, v in fields["labels"].items()}
    fields["prompts"] = tuple(TracedPrompt(**lists_as_tuples(p)) for p in fields["prompts"])
    fields["words"] = None if fields["words"] is None else MetricWords(**fields["words"])
    return EffectMap(**tensors, **fields)
