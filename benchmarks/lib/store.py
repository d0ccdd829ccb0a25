"""One compressed file for the results of a benchmark, a line each.

A line is a JSON object ``{"name", "settings", "code", "result"}``; lines are in the order of their names, so that the
same results are the same bytes. The file is compressed by xz: what the untouched model says to a control is in the
result of nearly every edit, too far apart for gzip to see. ``xz -dc FILE`` shows the lines, ``lzma.open(FILE, "rt")``
reads them.

A write reads the file, changes lines and replaces the file whole, under a lock on its folder: a process that is stopped
leaves the old file or the new one, and processes that write at the same time lose nothing of each other.
"""

from __future__ import annotations

import json
import lzma
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lib.code import Code
from workbench.files.atomic import write_bytes

FOLDER = Path("benchmarks/results")
ENDING = ".jsonl.xz"
FIELDS = {"name", "settings", "code", "result"}


@dataclass(frozen=True)
class Line:
    """One result on file.

    Args:
        name: What it is called; no other line of the file has this name.
        settings: All that the measurement depends on, besides the code.
        code: Which code made it.
        result: What was measured, as JSON values.
    """

    name: str
    settings: dict[str, Any]
    code: Code
    result: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The line as JSON values."""
        return {"name": self.name, "settings": self.settings, "code": self.code.to_dict(), "result": self.result}


class Store:
    """The file of a benchmark's results.

    Args:
        path: Its path, which ends in ``.jsonl.xz``. It need not exist yet.

    Raises:
        ValueError: The path ends otherwise.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.name.endswith(ENDING):
            raise ValueError(f"A file of results is called NAME{ENDING}, got {self.path}.")
        self._read: tuple[tuple[int, int], dict[str, Line]] = ((0, 0), {})

    def lines(self) -> dict[str, Line]:
        """All results by name, in order; none where there is no file.

        Raises:
            ValueError: The file is damaged; the message names it and what to do.
        """
        if not self.path.is_file():
            return {}
        state = self.path.stat()
        version = (state.st_ino, state.st_mtime_ns)  # every write makes another file
        if self._read[0] != version:
            self._read = (version, self._parsed())
        return dict(self._read[1])

    def put(self, line: Line) -> None:
        """Write a result; one of the same name is replaced. The others, also those that another process has written
        meanwhile, stay."""
        self._change(lambda lines: lines | {line.name: line})

    def replace(self, lines: Iterable[Line]) -> None:
        """Write several results at once, each in the place of the one of its name."""
        given = {line.name: line for line in lines}
        self._change(lambda there: there | given)

    def remove(self, names: Iterable[str]) -> None:
        """Remove results.

        Raises:
            KeyError: One is not there; none is removed then.
        """
        given = list(names)

        def without(lines: dict[str, Line]) -> dict[str, Line]:
            missing = [name for name in given if name not in lines]
            if missing:
                raise KeyError(f"No result {missing} in {self.path}; `list` shows the names of the {len(lines)} there.")
            return {name: line for name, line in lines.items() if name not in given}

        self._change(without)

    def _change(self, change: Callable[[dict[str, Line]], Mapping[str, Line]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.parent):
            write_bytes(self.path, packed(change(self.lines()).values()))

    def _parsed(self) -> dict[str, Line]:
        try:
            with lzma.open(self.path, "rt", encoding="utf-8") as stream:
                return {line.name: line for line in map(_line, stream)}
        except (OSError, EOFError, ValueError, TypeError, KeyError, lzma.LZMAError) as error:
            raise ValueError(
                f"{self.path} is damaged or no file of results ({error}). Take it from git: git checkout -- {self.path}"
            ) from error


def packed(lines: Iterable[Line]) -> bytes:
    """The content of a file with these lines."""
    rows = [line.to_dict() for line in sorted(lines, key=lambda line: line.name)]
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    return lzma.compress(text.encode())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the results of a folder for a ``with`` block: of all processes that ask for it one is inside at a time."""
    if sys.platform == "win32":  # no such lock there: run one benchmark at a time
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # which ends the lock


def _line(text: str) -> Line:
    fields = json.loads(text)
    if not isinstance(fields, dict) or fields.keys() != FIELDS:
        raise ValueError(f"a line must have the fields {sorted(FIELDS)}")
    return Line(fields["name"], fields["settings"], Code.from_dict(fields["code"]), fields["result"])
