"""MapQueue: maps computed in the background, one after the other, for whoever shows them.

What was asked for before the fact changed is dropped, even when it is half done. A map that fails does not keep the
others from being computed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from workbench.types.cancelling import Cancelled
from workbench.widgets.shared.job import Job

TICK_SECONDS = 1.0
Look = Callable[[], None]
Item = tuple[str, Callable[[Look], Any]]
"""A name, and what computes it; that may call what it is given now and then, which raises ``Dropped``."""


class Dropped(Exception):
    """A computation is not of interest any more: it was cancelled, or another fact is shown."""


class MapQueue:
    """A queue of named computations with one thread.

    Args:
        lock: Held while a result is handed over.
        on_result: Called with the name and the result, in the job's thread.
        on_change: Called without arguments whenever ``now``, ``waiting`` or ``failed`` has changed.
        on_tick: Called every ``TICK_SECONDS`` while something is computed, in a thread of its own: to show that time
            goes by.
    """

    def __init__(
        self,
        lock: threading.RLock,
        on_result: Callable[[str, Any], object],
        on_change: Callable[[], object],
        on_tick: Callable[[], object],
    ) -> None:
        self.failed: dict[str, Exception] = {}
        """Why a map is missing, by name; forgotten when it is asked for again."""
        self.job: Job[None] | None = None
        self.finished = 0
        """How many computations have ended since the queue was last empty."""
        self._lock, self._on_result, self._on_change, self._on_tick = lock, on_result, on_change, on_tick
        self._items: list[Item] = []
        self._worker: object = None
        self._began = self._item_began = time.perf_counter()

    @property
    def waiting(self) -> tuple[str, ...]:
        """What is asked for; the first one is being computed."""
        return tuple(name for name, _ in self._items)

    @property
    def seconds(self) -> float:
        """Since the queue was last empty."""
        return time.perf_counter() - self._began

    @property
    def seconds_of_first(self) -> float:
        """Since the first of ``waiting`` was begun."""
        return time.perf_counter() - self._item_began

    def add(self, items: Iterable[Item], *, soon: bool = False) -> Job[None]:
        """Ask for results; a name that waits already is not asked for twice.

        Args:
            items: Names with what computes them.
            soon: Before all that waits, after what is being computed.

        Returns:
            The job that computes them: the one that is going, or a new one. Its ``wait`` raises the first error.
        """
        with self._lock:
            if not self._items:
                self._begin()
            for name, function in items:
                self.failed.pop(name, None)
                if name not in self.waiting:
                    self._items.insert(1 if soon else len(self._items), (name, function))
            if self._worker is None or self.job is None or self.job.cancelling:
                self._worker = token = object()
                self.job = Job(lambda cancel: self._work(cancel, token), on_done=lambda _: self._on_change())
                self.job.every(TICK_SECONDS, self._on_tick)
            self._on_change()
            return self.job

    def clear(self) -> None:
        """Drop everything that was asked for, and the errors."""
        with self._lock:
            self._items, self.failed = [], {}
            self._on_change()

    def cancel(self) -> None:
        """Drop everything that was asked for; the job ends as cancelled where it next looks."""
        with self._lock:
            self._items = []
            if self.job is not None and self._worker is not None:
                self.job.cancel()
            self._on_change()

    def _begin(self) -> None:
        self._began, self.finished = time.perf_counter(), 0

    def _work(self, cancel: threading.Event, token: object) -> None:
        first: Exception | None = None
        try:
            while True:
                with self._lock:
                    if cancel.is_set():
                        raise Cancelled("The maps were cancelled.")
                    if not self._items:
                        self._worker = None  # under the lock: whoever asks from now on starts another job
                        break
                    item = self._items[0]
                    self._item_began = time.perf_counter()
                self._on_change()
                error = self._compute(item)
                first = first or error
        finally:
            with self._lock:
                if self._worker is token:
                    self._worker, self._items = None, []
        if first is not None:
            raise first

    def _compute(self, item: Item) -> Exception | None:
        """Compute and hand over one result; returns the error, if it is still of interest."""
        name, function = item
        result, error = None, None

        def look() -> None:
            with self._lock:
                if not self._items or self._items[0] is not item:
                    raise Dropped(f"{name} is not asked for any more.")

        try:
            result = function(look)
        except (Cancelled, Dropped):
            return None
        except Exception as problem:
            error = problem
        with self._lock:
            if not self._items or self._items[0] is not item:  # dropped meanwhile
                return None
            self._items.pop(0)
            self.finished += 1
            if error is None:
                try:
                    self._on_result(name, result)
                except Exception as problem:
                    error = problem
            if error is not None:
                self.failed[name] = error
        return error
