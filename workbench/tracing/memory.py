"""How much memory a sweep may take: what is free on the device, and on a CPU what a container still allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device; on a CPU no more than the control groups of the process allow."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return min([psutil.virtual_memory().available, *_allowances()])


def _allowances() -> Iterator[int]:
    """Bytes that each control group above the process still allows. Cached files count as free: they give way."""
    for folder, (limit, used, cached) in _groups():
        if not (folder / limit).is_file() or not (folder / used).is_file():
            continue
        most = (folder / limit).read_text().strip()
        if most.isdigit():  # "max" is no limit
            yield max(0, int(most) - int((folder / used).read_text()) + _entry(folder / "memory.stat", cached))


def _groups() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Folders of the process's control groups, from its own up, and what their files are called: of version 2 (no
    controllers named) and 1. Within a container the own path may be shown as seen from outside, so the root is read
    too."""
    lines = OWN_CGROUPS.read_text().splitlines() if OWN_CGROUPS.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            root = CGROUPS / "memory"
        else:
            continue
        folder = root / path.lstrip("/")
        for at in (folder, *folder.parents):
            if at.is_relative_to(root):
                yield at, names


def _entry(path: Path, name: str) -> int:
    """A number of a file of names and numbers; 0 where there is none."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
