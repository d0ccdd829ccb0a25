"""What tells one model from another: its weights, and the settings that decide what is computed with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from workbench.files.checked_json import sha256

DECIDING = (
    *("rope", "rotary", "alibi", "window", "layer_types", "every", "parallel"),
    *("heads", "n_head", "head_dim", "hidden_act", "activation_function", "eps", "softcap"),
    *("scal", "multiplier", "per_tok", "topk", "temperature"),
)
"""Parts of the names of a configuration's settings that decide what the same weights compute. Settings that decide
which weights there are, or that only training reads, are not among them."""
IGNORED = ("dropout", "loss", "jitter")
WEIGHTS_ALONE = {
    "1b319e18c70ff47006ccc81304a43ecd950a101005ea814fcf1ccccaf6373b6c": (
        "65a00301a25125615e8774bb13d5200ded90bc7a0b571fb0f4291c5d112fd56d"
    )
}
"""The digest of the settings of the bundled model by that of its weights: with these settings its fingerprint is that
of its weights alone, by which all that is on file names it."""


def fingerprint_of(hf: Any) -> str:
    """SHA-256 over a model's weights, and over the settings of its configuration that decide what is computed.

    Args:
        hf: A model of transformers.
    """
    weights = _digest_of_weights(dict(sorted(hf.state_dict().items())))
    settings = _digest_of_settings(hf.config)
    return weights if WEIGHTS_ALONE.get(weights) == settings else sha256(f"{weights}|{settings}".encode())


def deciding_settings(config: Any) -> dict[str, Any]:
    """The settings of a configuration that decide what the same weights compute, by name; numbers to six digits, and
    without what is off."""
    return dict(sorted(_deciding(config.to_dict(), "", inside=False)))


def _deciding(values: Mapping[Any, Any], above: str, *, inside: bool) -> Iterator[tuple[str, Any]]:
    """Those of a configuration, or of a part of it that is one; all that stands ``inside`` a deciding one."""
    for key, value in values.items():
        name = f"{above}{key}"
        decides = (inside or any(part in str(key) for part in DECIDING)) and not any(p in str(key) for p in IGNORED)
        if isinstance(value, Mapping):
            yield from _deciding(value, f"{name}.", inside=decides)
        elif decides and value is not None and value is not False:
            yield name, _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{float(value):.6g}" if number else str(value)


def _digest_of_settings(config: Any) -> str:
    return sha256(json.dumps(deciding_settings(config)).encode())


def _digest_of_weights(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if key in seen:  # tied weights count once
            continue
        seen.add(key)
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        data = tensor.detach().to("cpu").contiguous().flatten()
        digest.update(data.view(torch.uint8).numpy().data)
    return digest.hexdigest()
