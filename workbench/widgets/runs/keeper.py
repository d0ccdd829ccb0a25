"""Keeper: saves a session by itself, each run as soon as it has ended, and never over a session that is not its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from workbench.files.session import Session
from workbench.files.session_folder import SessionFolder, SessionTaken, free_name
from workbench.types.run import Run

FOLDER = "my-session"
"""What the folder of a session is called where nobody says so."""


class Keeper:
    """Who writes the session of a Workbench to its folder.

    Args:
        folder: Where to, if nothing is there; else the first free name after it.
        session: Gives the session as it is.
        on: Whether it saves by itself.
    """

    def __init__(self, folder: Path, session: Callable[[], Session], *, on: bool) -> None:
        self.on = on
        self._wanted, self._session = folder, session
        self._folder: SessionFolder | None = None
        self._saved: tuple[Run, ...] = ()
        self._lock = threading.RLock()

    @property
    def folder(self) -> Path:
        """The session's folder; before anything was saved, where it would be written now."""
        return free_name(self._wanted).absolute() if self._folder is None else self._folder.path

    @property
    def own(self) -> Path | None:
        """The folder that this session was opened from or saved to."""
        return None if self._folder is None else self._folder.path

    def unsaved(self, runs: tuple[Run, ...]) -> int:
        """How many of these runs are not on disk as they are."""
        return sum(run not in self._saved for run in runs)

    def differs(self, runs: tuple[Run, ...]) -> bool:
        """Whether other runs are on disk than these."""
        return list(runs) != list(self._saved)

    def opened(self, folder: Path, session: Session, runs: tuple[Run, ...]) -> str:
        """Go on with a session that was read from a folder.

        Args:
            folder: The folder.
            session: What it holds.
            runs: Its runs; with its edit, where that is none.

        Returns:
            In words, that another notebook has it; empty where none does.
        """
        with self._lock:
            self._folder, self._saved = SessionFolder(folder, session), runs
            return self._folder.taken

    def save(self) -> str:
        """Write what has changed.

        Returns:
            In words, why it was written elsewhere; empty where it was not.

        Raises:
            OSError: It cannot be written.
        """
        with self._lock:
            session, why = self._session(), ""
            if self._folder is not None and self._folder.path.is_dir():
                try:
                    self._folder.write(session)
                except SessionTaken as taken:
                    why = str(taken)
                    self._folder = SessionFolder.create(free_name(self._folder.path), session)
            else:
                self._folder = SessionFolder.create(self.folder, session)
            self._saved = session.runs
            return why

    def save_as(self, folder: Path) -> str:
        """Write to this folder from now on; a session that is there is replaced once the new one is complete.

        Returns:
            As ``save``.

        Raises:
            FileExistsError: There is something else than a session.
            OSError: It cannot be written.
        """
        with self._lock:
            if self._folder is not None and folder.resolve() == self._folder.path:
                return self.save()
            session = self._session()
            self._folder = SessionFolder.create(folder, session, replace=True)
            self._saved = session.runs
            return ""
