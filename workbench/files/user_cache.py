"""The folder of what could be computed again: it saves time where it can be written, and nothing fails where not."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import warnings
from pathlib import Path

from workbench.files.paths import user_path

_WARNED_ABOUT: set[Path] = set()


def cache_folder() -> Path:
    """``$WORKBENCH_CACHE``, else ``circuit-workbench`` in the user's cache folder; in the system's folder for temporary
    files where the user has no home (as in some containers)."""
    if os.environ.get("WORKBENCH_CACHE"):
        return user_path(os.environ["WORKBENCH_CACHE"])
    try:
        return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "circuit-workbench"
    except ValueError:
        return Path(tempfile.gettempdir()) / "circuit-workbench"


def free_bytes(path: str | Path) -> int:
    """Free space on the disk of a path, bytes; of the nearest folder above it, where it is not there yet."""
    path = user_path(path).absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(there).free


def check_space(path: str | Path, needed: int) -> None:
    """Raise an OSError (ENOSPC) where less than so many bytes are free on the disk of a path."""
    free = free_bytes(path)
    if free < needed:
        words = f"No space left: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free"
        raise OSError(errno.ENOSPC, words, str(path))


def warn_not_written(error: Exception) -> None:
    """Warn that the cache folder cannot be written, the first time that it cannot.

    Args:
        error: What the write ended in.
    """
    folder = cache_folder()
    if folder in _WARNED_ABOUT:
        return
    _WARNED_ABOUT.add(folder)
    warnings.warn(
        f"The cache folder {folder} cannot be written ({type(error).__name__}: {error}). All works without it, but the "
        "next session computes the same again. Set WORKBENCH_CACHE to a folder that can be written.",
        stacklevel=3,
    )
