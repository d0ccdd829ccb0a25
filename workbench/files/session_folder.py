"""SessionFolder: a session's folder that one kernel writes to, part by part, as its runs end.

What is there is not written again: a run's folder appears once, whole, and ``session.json``, replaced at the end of
each write, says what of the folder is the session. Whatever ends a write half way, the folder is the session before
it, or that with the new run.

The folder belongs to the kernel that opened it last: ``owner.json`` says which. Another one that still has it open
finds this out before it writes, and writes nothing.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.files.atomic import contents, write_bytes
from workbench.files.runs import remove_run, save_run, update_run
from workbench.files.session import (
    EDIT_PARTS,
    HALF_WRITTEN,
    MAPS,
    MAPS_FOLDER,
    OWNER_FILE,
    RUNS,
    Session,
    is_session,
    write_index,
    write_maps,
    write_session,
)
from workbench.types import EffectMap
from workbench.types.plain import is_mapping
from workbench.types.run import Run


class SessionTaken(RuntimeError):
    """The folder belongs to another kernel by now."""


@dataclass(frozen=True)
class Owner:
    """Who writes to a session's folder.

    Args:
        token: Of one ``SessionFolder``.
        host, pid: The machine and process.
        since: When it took the folder, UTC.
    """

    token: str
    host: str
    pid: int
    since: str

    @property
    def elsewhere(self) -> bool:
        """Whether it is another process of this machine that still runs."""
        if self.host != platform.node() or self.pid == os.getpid():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # it runs, and is somebody else's
            return True
        return True


def owner_of(folder: Path) -> Owner | None:
    """Who writes to a folder; None where nobody says so."""
    try:
        given: Any = json.loads((folder / OWNER_FILE).read_text(encoding="utf-8"))
        return Owner(**given) if is_mapping(given) else None
    except (OSError, ValueError, TypeError):
        return None


def free_name(path: Path) -> Path:
    """This path, or the first of ``path-2``, ``path-3``, ... that is not there yet."""
    free, n = path, 1
    while free.exists() or free.is_symlink():
        n += 1
        free = path.with_name(f"{path.name}-{n}")
    return free


def free_page(folder: Path, name: str) -> Path:
    """A file name in a folder for one more page of something: ``name-1.html``, or the first number that is free."""
    n = 1
    while (path := folder / f"{name}-{n}.html").exists():
        n += 1
    return path


class SessionFolder:
    """The folder of a session that is written part by part.

    Args:
        path: The folder.
        session: What it holds.
    """

    def __init__(self, path: Path, session: Session) -> None:
        self.path = path.resolve()
        self._token = uuid.uuid4().hex
        self._owned = False
        self._runs: dict[str, Run] = {run.id: run for run in session.runs}
        self._maps: Mapping[str, EffectMap] | None = None
        self._maps_folder = MAPS

    @classmethod
    def create(cls, path: Path, session: Session, *, replace: bool = False) -> SessionFolder:
        """Write a whole session to a folder and own it.

        Args:
            path: The folder.
            session: What it shall hold.
            replace: Whether another session that is there may be replaced.

        Raises:
            FileExistsError: There is something of that name, or, with ``replace``, something else than a session.
            OSError: It cannot be written.
        """
        write_session(session, path, is_session if replace else lambda _: False)
        made = cls(path, session)
        made._maps = dict(session.maps)
        made._take()
        return made

    @property
    def taken(self) -> str:
        """In words, that another kernel writes to it: one that runs on this machine, or whoever took or replaced the
        folder after this one; empty where none does."""
        owner = owner_of(self.path)
        if owner is None:
            return f"Another notebook has replaced the session {self.path}." if self._owned else ""
        if owner.token == self._token or not (self._owned or owner.elsewhere):
            return ""
        return f"Another notebook writes to the session {self.path} since {owner.since}."

    def write(self, session: Session) -> None:
        """Write what has changed since the last write.

        Raises:
            SessionTaken: Another kernel writes to the folder. Nothing is written.
            ValueError: The session's edit is no run.
            OSError: It cannot be written, or is not there any more; what was there can be read as before.
        """
        if session.edit is not None and session.shown is None:
            raise ValueError("A session's folder takes runs only, and the edit of this session is none.")
        if not self.path.is_dir():
            raise FileNotFoundError(f"The session's folder {self.path} is not there any more.")
        if words := self.taken:
            raise SessionTaken(words)
        if not self._owned:
            self._take()
        for run in session.runs:
            self._write_run(run)
        maps_folder = self._write_maps(session.maps)
        write_index(session, self.path, maps_folder)  # from here on the folder is the new session
        self._maps, self._maps_folder = dict(session.maps), maps_folder
        self._clean(session)

    def _take(self) -> None:
        """Own the folder from now on. Raises OSError where it cannot be written."""
        owner = Owner(self._token, platform.node(), os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"))
        write_bytes(self.path / OWNER_FILE, (json.dumps(asdict(owner)) + "\n").encode())
        self._owned = True

    def _write_run(self, run: Run) -> None:
        before, folder = self._runs.get(run.id), self.path / RUNS / run.id
        if before is run:
            return
        if before is not None and before.edit.id == run.edit.id and folder.is_dir():
            update_run(run, folder)
        else:
            try:
                save_run(run, folder)
            except FileExistsError as error:
                raise SessionTaken(f"Another notebook wrote a run {run.id!r} to the session {self.path}.") from error
        self._runs[run.id] = run

    def _write_maps(self, maps: Mapping[str, EffectMap]) -> str:
        """Write maps to a folder of their own, unless the last ones are the same. Returns its name."""
        before = self._maps
        if before is not None and list(before) == list(maps) and all(before[name] is maps[name] for name in maps):
            return self._maps_folder
        name = f"{MAPS}-{uuid.uuid4().hex[:12]}"
        write_maps(maps, self.path / name)
        return name

    def _clean(self, session: Session) -> None:
        """Remove what is not the session's any more, and what a kernel that died left half written."""
        kept = {run.id for run in session.runs}
        for id in [id for id in self._runs if id not in kept]:
            remove_run(self.path / RUNS / id)
            del self._runs[id]
        for name in contents(self.path):
            old_maps = MAPS_FOLDER.fullmatch(name) and name != self._maps_folder
            if old_maps or name in EDIT_PARTS or HALF_WRITTEN.fullmatch(name):
                path = self.path / name
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
