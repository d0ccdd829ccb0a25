"""The dtypes that a model's weights may have, and how they are named."""

from __future__ import annotations

from typing import Any, Literal

import torch

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
_ALSO = {"float": "float32", "half": "float16", "double": "float64", "fp32": "float32", "fp16": "float16"} | {
    "bf16": "bfloat16",
    "fp64": "float64",
}
Auto = Literal["auto"]


def read_dtype(dtype: Any) -> torch.dtype | Auto:
    """A dtype as ``load_model`` takes it: None is float32; ``"auto"`` stays; a string is a dtype of torch.

    Args:
        dtype: A ``torch.dtype``, its name (with or without "torch."), ``"auto"`` or None.

    Raises:
        ValueError: No dtype of floating numbers that the workbench computes in; the message lists them.
    """
    if dtype is None:
        return torch.float32
    if dtype == "auto":
        return "auto"
    name = str(dtype).removeprefix("torch.").lower()
    name = _ALSO.get(name, name)
    if isinstance(dtype, (str, torch.dtype)) and name in DTYPES:
        return DTYPES[name]
    given = repr(dtype) if isinstance(dtype, str) else str(dtype)
    raise ValueError(
        f'dtype must be "auto" (as the checkpoint has it) or one of {", ".join(DTYPES)}, as a string or of torch, got '
        f"{given}."
    )


def set_weights_dtype(hf: Any, dtype: torch.dtype) -> None:
    """Give a freshly loaded model's weights another dtype, as transformers does when it loads: tables such as the
    frequencies of rotary positions stay as they are, and tied weights stay tied."""
    for parameter in hf.parameters():
        parameter.data = parameter.data.to(dtype)
    hf.config.dtype = dtype
