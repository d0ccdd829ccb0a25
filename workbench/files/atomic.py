"""Files and folders that appear whole or not at all: written under a temporary name beside the target, then renamed.

What was there before stays until the new one is complete and on the disk, whatever ends the write: a full disk, an
error, or an interrupt.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from pathlib import Path

from workbench.files.paths import user_path

TRIES, PAUSE = 20, 0.05
"""How often a rename is tried, and the seconds between: about one in all."""


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
    path = user_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with open(temporary, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def rename(old: Path, new: Path) -> None:
    """Give a file or folder another name; a file that is there is replaced, and an empty folder too.

    Windows refuses it while another program (a virus scanner, an indexer, an editor) has one of the files open, mostly
    for a moment: so it is tried again for about a second.

    Raises:
        OSError: It cannot be done; a PermissionError after the last try.
    """
    for left in reversed(range(TRIES)):
        try:
            os.replace(old, new)
        except PermissionError:
            if not left:
                raise
            time.sleep(PAUSE)
        else:
            return


@contextmanager
def new_folder(
    path: str | Path, may_replace: Callable[[Path], bool], *, ours: Collection[str] = ()
) -> Generator[Path, None, None]:
    """An empty folder to fill in a ``with`` block; it gets its name when the block ends without an error.

    Args:
        path: The folder's name; the folders above it are made when missing.
        may_replace: Asked about a folder of that name that is not empty, before the block and after it; False refuses.
        ours: Names that such a folder may hold; a refusal names the others.

    Yields:
        The folder under its temporary name.

    Raises:
        FileExistsError: There is a file of that name, or a folder that may not be replaced.
        OSError: It cannot be written; the old folder is as it was and nothing temporary is left behind.
    """
    path = user_path(path).resolve()  # a link to a folder stays a link
    _check_free(path, may_replace, ours)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _beside(path), _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb+") as stream:
                    os.fsync(stream.fileno())
        _check_free(path, may_replace, ours)
        try:
            if path.exists():
                rename(path, old)
            rename(temporary, path)
        finally:
            if old.exists() and not path.exists():  # the second rename failed or was interrupted
                rename(old, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():  # never the only copy
            shutil.rmtree(old, ignore_errors=True)


LITTER = frozenset(
    {".ipynb_checkpoints", ".virtual_documents", ".DS_Store", ".AppleDouble", ".directory", "__pycache__"}
    | {"desktop.ini", "thumbs.db", "ehthumbs.db"}
)
"""What JupyterLab and file managers leave in folders that somebody has looked at, as it is or in small letters."""
_LITTER_BEGINS = ("._", ".nfs", ".fuse_hidden", ".goutputstream-")
"""How names begin that file systems give: macOS on foreign disks, and what is deleted while it is open."""


def contents(folder: Path) -> set[str]:
    """Names of what is in a folder, but for what programs leave there."""
    names = {path.name for path in folder.iterdir()}
    return {n for n in names if not ({n, n.lower()} & LITTER or n.startswith(_LITTER_BEGINS))}


def _check_free(path: Path, may_replace: Callable[[Path], bool], ours: Collection[str]) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path} is a file, but a folder is to be written. Choose another name.")
    there = contents(path)
    if there and not may_replace(path):
        in_the_way = sorted(there - set(ours)) or sorted(there)
        named = ", ".join(in_the_way[:3]) + (f" and {len(in_the_way) - 3} more" if len(in_the_way) > 3 else "")
        raise FileExistsError(
            f"The folder {path} holds something else than what is to be written ({named}), so it is not replaced. "
            "Choose another name, or remove it yourself."
        )


def _beside(path: Path) -> Path:
    """A name for a temporary file or folder on the same disk; hidden, and short enough whatever the path's own name."""
    return path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:12]}.tmp")
