"""Files and folders that appear whole or not at all: written under a temporary name beside the target, then renamed.

What was there before stays until the new one is complete and on the disk, whatever ends the write: a full disk, an
error, or an interrupt.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file whole or not at all.

    Args:
        path: The file; its folder is made when missing.
        content: The whole content.

    Returns:
        The path.

    Raises:
        OSError: The folder or file cannot be written; the old file is as it was and no temporary file is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with open(temporary, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@contextmanager
def new_folder(path: str | Path, may_replace: Callable[[Path], bool]) -> Generator[Path, None, None]:
    """An empty folder to fill in a ``with`` block; it gets its name when the block ends without an error.

    Args:
        path: The folder's name; the folders above it are made when missing.
        may_replace: Asked about a folder of that name that is not empty, before the block and after it; False refuses.

    Yields:
        The folder under its temporary name.

    Raises:
        FileExistsError: There is a file of that name, or a folder that may not be replaced.
        OSError: It cannot be written; the old folder is as it was and nothing temporary is left behind.
    """
    path = Path(path).resolve()  # a link to a folder stays a link
    _check_free(path, may_replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _beside(path), _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb+") as stream:
                    os.fsync(stream.fileno())
        _check_free(path, may_replace)
        try:
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
        finally:
            if old.exists() and not path.exists():  # the second rename failed or was interrupted
                os.rename(old, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():  # never the only copy
            shutil.rmtree(old, ignore_errors=True)


LITTER = {".ipynb_checkpoints", ".DS_Store", "__pycache__", "desktop.ini", "Thumbs.db"}
"""What JupyterLab and file managers leave in folders that somebody has looked at."""


def contents(folder: Path) -> set[str]:
    """Names of what is in a folder, but for what programs leave there."""
    return {p.name for p in folder.iterdir()} - LITTER


def _check_free(path: Path, may_replace: Callable[[Path], bool]) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path} is a file, but a folder is to be written. Choose another name.")
    if contents(path) and not may_replace(path):
        raise FileExistsError(
            f"The folder {path} holds something else than what is to be written, so it is not replaced. Choose another "
            "name, or remove it yourself."
        )


def _beside(path: Path) -> Path:
    """A name for a temporary file or folder on the same disk; hidden, and short enough whatever the path's own name."""
    return path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:12]}.tmp")
