"""RunHistory: the runs of a session in their order, which of them is on screen, and what was deleted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

from workbench.types import Fact, ProbeReport, slug
from workbench.types.run import LONGEST_NAME, Run


class RunHistory:
    """Runs that come and go; nothing of a panel. Several threads may change it.

    Every change is told to those who asked (``on_change``), without the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._runs: list[Run] = []
        self._deleted: list[tuple[int, Run]] = []
        self._shown: str | None = None
        self._used: set[str] = set()  # ids, those of deleted runs too
        self._listeners: list[Callable[[], object]] = []

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, the oldest first."""
        with self._lock:
            return tuple(self._runs)

    @property
    def shown(self) -> Run | None:
        """The run that is on screen."""
        with self._lock:
            return next((run for run in self._runs if run.id == self._shown), None)

    @property
    def deleted(self) -> Run | None:
        """The run that ``undo`` would bring back."""
        with self._lock:
            return self._deleted[-1][1] if self._deleted else None

    def __getitem__(self, id: str) -> Run:
        with self._lock:
            by_id = {run.id: run for run in self._runs}
        if id not in by_id:
            raise KeyError(f"There is no run {id!r}; there are {list(by_id)}.")
        return by_id[id]

    def newest(self, fact: Fact) -> Run | None:
        """The last run of a fact."""
        return next((run for run in reversed(self.runs) if fact in run.facts), None)

    def new_id(self, fact: Fact) -> str:
        """An id that no run has had: a number, and what it is about."""
        with self._lock:
            n = len(self._used) + 1
            while any(id.startswith(f"{n:03d}-") for id in self._used):
                n += 1
            about = "".join(c for c in slug(fact.id)[:40] if c.isascii()).strip("-")  # it names a folder
            id = f"{n:03d}-{about or 'fact'}"
            self._used.add(id)
            return id

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` after each change."""
        self._listeners.append(callback)

    # Changes

    def load(self, runs: Iterable[Run], shown: str | None) -> None:
        """These runs instead of those that are there."""
        with self._lock:
            self._runs, self._deleted, self._shown = list(runs), [], shown
            self._used = {run.id for run in self._runs}
        self._tell()

    def add(self, run: Run, *, shown: bool = True) -> None:
        """One more, which is on screen or not."""
        with self._lock:
            self._used.add(run.id)
            self._runs.append(run)
            if shown:
                self._shown = run.id
        self._tell()

    def show(self, id: str | None) -> None:
        """Say which run is on screen, if any."""
        with self._lock:
            if id == self._shown:
                return
            self._shown = id
        self._tell()

    def rename(self, id: str, name: str) -> Run:
        """Call a run something else.

        Raises:
            KeyError: There is no such run.
            ValueError: An empty or too long name.
        """
        return self._replace(replace(self[id], name=" ".join(name.split())))

    def probed(self, probes: ProbeReport) -> Run | None:
        """Keep what probes found with the run of their edit: the one on screen, if it is that, else the newest. What
        was broken off does not take the place of a whole report.

        Returns:
            The run; None where it was deleted, or there is nothing new to keep.
        """
        candidates = [*self.runs, *([self.shown] if self.shown is not None else [])]
        run = next((run for run in reversed(candidates) if run.edit.id == probes.edit_id), None)
        if run is None or run.probes is probes or (probes.partial and run.probes is not None):
            return None
        return self._replace(replace(run, probes=probes))

    def delete(self, id: str) -> Run:
        """Take a run out; ``undo`` brings it back.

        Raises:
            KeyError: There is no such run.
        """
        with self._lock:
            run = self[id]
            place = self._runs.index(run)
            del self._runs[place]
            self._deleted.append((place, run))
            if self._shown == id:
                self._shown = None
        self._tell()
        return run

    def undo(self) -> Run | None:
        """Bring the run back that was deleted last, to its place. Returns it; None where there is none."""
        with self._lock:
            if not self._deleted:
                return None
            place, run = self._deleted.pop()
            self._runs.insert(place, run)
        self._tell()
        return run

    def _replace(self, run: Run) -> Run:
        with self._lock:
            self._runs = [run if old.id == run.id else old for old in self._runs]
        self._tell()
        return run

    def _tell(self) -> None:
        for callback in self._listeners:
            callback()


def default_name(fact: Fact) -> str:
    """What a run is called until somebody calls it something else."""
    name = " ".join(f"{fact.subject}: {fact.answer} → {fact.target}".split())
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
