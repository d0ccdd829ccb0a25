"""Contrasts as plain JSON values, for what is saved with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from workbench.types import Contrast
from workbench.types.plain import is_mapping, is_tuple


def contrast_fields(contrast: Contrast) -> dict[str, Any]:
    """A contrast's fields as JSON has them; runs that are states as numbers, with their type."""
    return {each.name: _plain(getattr(contrast, each.name)) for each in fields(Contrast)}


def contrast_from(given: Mapping[str, Any]) -> Contrast:
    """The contrast of such fields.

    Raises:
        ValueError: They make no contrast.

    Example:
        >>> from workbench.files.contrasts import contrast_fields, contrast_from
        >>> contrast = wb.Contrast(clean="A B", corrupted="A C", answer=" D", wrong=(" E", 7), positions={"last": -1})
        >>> contrast_from(contrast_fields(contrast)) == contrast
        True
    """
    try:
        return Contrast(**{name: _made(value) for name, value in given.items()})
    except TypeError as error:
        raise ValueError(f"its contrast has other fields than a Contrast: {sorted(given)}.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        rows: Any = value.float().cpu().numpy().tolist()
        return {"states": rows, "dtype": str(value.dtype).removeprefix("torch.")}
    if is_mapping(value):
        return {str(name): _plain(at) for name, at in value.items()}
    return list(value) if is_tuple(value) else value


def _made(value: Any) -> Any:
    if is_mapping(value) and set(value) == {"states", "dtype"}:
        dtype: Any = getattr(torch, str(value["dtype"]), None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"its contrast has states of the type {value['dtype']!r}, which there is not.")
        return torch.tensor(value["states"]).to(dtype)
    return value
