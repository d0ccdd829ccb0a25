"""Wall time of what may run on an accelerator, and whether a goal is met."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def met(value: float, kind: str, level: float) -> str:
    """Whether a goal ("at least" or "at most" a level) is met, in a table's words."""
    return "yes" if (value >= level if kind == "at least" else value <= level) else "no"


def seconds(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Wall time of a call, and what it gives."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, found
