"""What a model is besides the values of its weights, to notice what changes it after it was loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

Layout = dict[str, Any]


def layout_of(hf: Any) -> Layout:
    """What decides a model's computation besides its weights' values, by where it is: the type of each module and the
    numbers it holds, the shape of each weight, the numbers of the configuration. Flags (``training``, gradient
    checkpointing), dropout and token ids are left out: they change nothing that is computed here."""
    found: Layout = {}
    for name, module in hf.named_modules():
        found[name] = type(module)
        if not isinstance(module, nn.Dropout):
            found |= _numbers(f"{name}.", vars(module))
    tensors = hf.state_dict(keep_vars=True)
    found |= {f"{name} (shape)": tuple(tensor.shape) for name, tensor in tensors.items()}
    return found | _numbers("config.", vars(hf.config))


def _numbers(where: str, values: Mapping[str, Any]) -> Layout:
    """The numbers of an object by name, but for flags, dropout and token ids."""
    return {
        where + name: value
        for name, value in values.items()
        if type(value) in (int, float)
        and name[0] != "_"
        and "dropout" not in name
        and not name.endswith(("token_id", "padding_idx"))
    }


def changed_in(before: Layout, after: Layout) -> str | None:
    """What differs between two layouts, in words; None where nothing does."""
    for name, value in before.items():
        if name not in after:
            return f"{name.lstrip('.')} is gone"
        if after[name] != value:
            return f"{name.lstrip('.') or 'the model'} is {_shown(after[name])}, and was {_shown(value)}"
    return next((f"{name.lstrip('.')} is new" for name in after if name not in before), None)


def _shown(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)
