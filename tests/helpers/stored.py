"""Saving put to the test: equality to the bit, damaged bytes, and a disk that is full at a given call."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from workbench.files import atomic
from workbench.types import GateDelta, Selection

FULL = OSError(28, "No space left on device")


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, NaN equal to NaN, and of the same types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a.hex() == b.hex()
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, Selection):
        return list(a) == list(b)
    if isinstance(a, GateDelta):
        return same(dict(a.gates), dict(b.gates))
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, f), getattr(b, f)) for f in a.__dataclass_fields__)
    return a == b


def refused(load: Callable[[Path], Any], path: Path) -> bool:
    """Whether a file is refused with a ValueError that names it."""
    try:
        load(path)
    except ValueError as error:
        return str(path) in str(error)
    return False


def damaged(whole: bytes, data: st.DataObject) -> bytes:
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        return whole[:at]
    return whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]


def fail_at(patch: pytest.MonkeyPatch, call: str, error: BaseException) -> None:
    """Make the n-th call of a function that the atomic writes use raise."""
    name, _, number = call.partition("-")
    left = [int(number or 1)]
    owner: Any = {"open": atomic, "mkdir": Path}.get(name, os)
    real = open if name == "open" else getattr(owner, name)

    def failing(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise error
        return real(*args, **kwargs)

    patch.setattr(owner, name, failing, raising=False)
