"""A folder that one program writes to at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LOCK_FILE = ".lock"


class FolderInUse(RuntimeError):
    """Another program writes to a folder; nothing in it was changed."""


@contextmanager
def folder_lock(folder: Path, what: str) -> Generator[None]:
    """Hold a folder for the length of a ``with`` block, through a lock of the operating system on a file in it. It goes
    with the process, however that ends.

    Args:
        folder: The folder, which is there.
        what: What is written to it, for the message.

    Raises:
        FolderInUse: It is held, by another process or by another thread of this one.
        OSError: The lock file cannot be written, or the disk knows no locks.
    """
    with open(folder / LOCK_FILE, "a+b") as file:
        if not _take(file):
            file.seek(0)
            holder = file.read().decode("utf-8", "replace").strip() or "another process"
            raise FolderInUse(
                f"{what} is written to {folder} already, by {holder}. Wait for its end, or choose another folder."
            )
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            file.flush()
            yield
        finally:
            _give_back(file)


def _take(file: IO[bytes]) -> bool:
    """Take the lock of an open file; False where it is taken."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1 << 30)  # beyond the text, which stays readable
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _give_back(file: IO[bytes]) -> None:
    """Give back what `_take` took."""
    if os.name == "nt":
        import msvcrt

        file.seek(1 << 30)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)  # pyright: ignore
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
