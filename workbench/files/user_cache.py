"""The folder of what could be computed again: it saves time where it can be written, and nothing fails where not."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

_WARNED_ABOUT: set[Path] = set()


def cache_folder() -> Path:
    """``$WORKBENCH_CACHE``, else ``circuit-workbench`` in the user's cache folder."""
    if os.environ.get("WORKBENCH_CACHE"):
        return Path(os.environ["WORKBENCH_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "circuit-workbench"


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
