"""Wall time of what may run on an accelerator, the peak memory of a process, and whether a goal is met."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

PEAK = """
import sys
if sys.platform == "linux":
    # A process that was started by a larger one has that one's peak in getrusage; this is of its own memory.
    print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024)
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
"""Python that prints the largest resident set so far of the process it runs in, bytes."""


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest absolute difference of two series of the same length, NaN where one holds a NaN."""
    if len(one) != len(other):
        raise ValueError(f"Series of {len(one)} and {len(other)} values cannot be compared.")
    return float((torch.tensor(one, dtype=torch.float64) - torch.tensor(other, dtype=torch.float64)).abs().max())


def met(value: float, kind: str, level: float) -> str:
    """Whether a goal ("at least", "at most" or "exactly" a level) is met, in a table's words."""
    return "yes" if {"at least": value >= level, "at most": value <= level, "exactly": value == level}[kind] else "no"


def seconds(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Wall time of a call, and what it gives."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


def matrix_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of one large matrix product, the fastest of three."""
    size = 2048 if device.type == "cpu" else 8192
    x = torch.randn(size, size, device=device, dtype=dtype)
    _ = x @ x
    return 2 * size**3 / min(seconds(lambda: x @ x, device)[0] for _ in range(3))
