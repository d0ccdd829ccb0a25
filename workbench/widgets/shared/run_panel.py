"""RunPanel: a panel that runs one thing at a time in the background, with Run, Cancel, progress and its errors.

A subclass says what runs (``_order``) and what comes of it (``_finished``), names its buttons in ``WORDS``, and calls
``_lay_out_run`` with its own controls. The lock, the refusal of a second run, the alert and the line of progress are
the same for all.

No result is lost to a run that gives none. Before a run, ``_problem`` says why it cannot start: the button is off then,
with the reason beside it. What is shown stays until the run has a first result of its own; then ``_clear`` takes it
away. A run that fails or is cancelled before that leaves it, under the line that says of which run it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from ipywidgets import HTML, HBox, Widget

from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.panel import Panel
from workbench.widgets.shared.run_mark import RunMark

T = TypeVar("T")
SECONDS_BETWEEN_DRAWINGS = 0.2
"""Progress is drawn at most five times a second: more messages would make the browser wait, not the reader wiser."""


@dataclass(frozen=True, kw_only=True)
class RunWords:
    """What the two buttons of a panel say.

    Args:
        label, icon, tip: Of the button that runs.
        cancel_tip: Of the one that cancels.
        refused: The alert of a second click while one run is going on.
        cancelling: The line of progress after Cancel.
        bold: Whether the button is the primary one of its tab.
        bar: Whether a moving bar stands before the words of progress.
        named: What a run is called above its results.
    """

    label: str
    icon: str
    tip: str
    cancel_tip: str
    refused: str
    cancelling: str
    bold: bool = True
    bar: bool = True
    named: str = "Run"


class RunPanel(Panel, Generic[T]):
    """A panel with one job at a time, whose result is a ``T``."""

    WORDS: RunWords
    TICK_SECONDS: float | None = None
    """How often ``_tick`` is called while a run goes on; None: never."""

    def __init__(self) -> None:
        super().__init__()
        self._job: Job[T] | None = None
        self._busy = self._superseded = False
        self._status = ""
        self._elapsed: float | None = None
        self._asked_with: tuple[str, dict[str, Any]] = ("", {})  # title and settings of the run that goes on
        self._drawn_at = float("-inf")
        self._end_listeners: list[Callable[[Any], object]] = []
        self._status_listeners: list[Callable[[], object]] = []
        self._heading, self._progress, self._note = HTML(), HTML(), HTML()
        self._mark = RunMark(self.WORDS.named)
        words = self.WORDS
        button = layout.primary if words.bold else layout.quiet_button
        self._run = button(words.label, icon=words.icon, tooltip=words.tip)
        self._cancel = layout.quiet_button("Cancel", icon="stop", tooltip=words.cancel_tip)
        self._cancel.disabled = True
        layout.show(self._cancel, False)
        self._run.on_click(lambda _: self.run())
        self._cancel.on_click(lambda _: self.cancel())

    @property
    def job(self) -> Job[T] | None:
        """The last run; ``panel.job.wait()`` waits for its result and raises its error again."""
        return self._job

    @property
    def busy(self) -> bool:
        """Whether a run is going on."""
        return self._busy

    @property
    def status(self) -> str:
        """The words of the line of progress: how far the run is, or how it ended and how long it took."""
        return self._status

    def on_end(self, callback: Callable[[Any], object]) -> None:
        """Call ``callback(panel)`` after each run, however it ended: in its thread, with the panel's lock, so that no
        other run can have begun."""
        self._end_listeners.append(callback)

    def on_status(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` whenever ``status`` or ``busy`` changes, in any thread and perhaps with the panel's lock:
        it may show something, and ask nothing of this panel but these two."""
        self._status_listeners.append(callback)

    @property
    def elapsed(self) -> float | None:
        """Seconds that the last run took, or that the one going on has taken so far; None before the first."""
        return self._job.seconds if self._busy and self._job is not None else self._elapsed

    @property
    def problem(self) -> str:
        """Why Run cannot start now, in words for a person; empty if it can."""
        return self._problem()

    @property
    def run_words(self) -> str:
        """Of which run the results are, and what was changed since; empty without results."""
        return self._mark.words

    def run(self) -> Job[T]:
        """Start a run in the background. While one is going on, this only says so.

        Returns:
            The job: the new one, or the one that is going on. Wrong settings make it fail at once; what is shown stays.
        """
        with self._lock:
            if self._busy and self._job is not None:
                self._tell(markup.Message(self.WORDS.refused))
                return self._job
            problem = self._problem()
            try:
                order = self._order()
                if problem:
                    raise ValueError(problem)
            except Exception as error:
                return self._refuse(error, problem)
            self._fail(None)
            self._superseded, self._asked_with = False, (self._run_title(), self._settings())
            self._set_busy(True)
            self._job = Job(order, on_done=self._ended)
            self._tell_status()
            if self.TICK_SECONDS is not None:
                self._job.every(self.TICK_SECONDS, self._tick)
            return self._job

    def _refuse(self, error: Exception, problem: str) -> Job[T]:
        """A job that fails with this error. Nothing else changes but the alert, which says it to a person."""
        self._job = Job(partial(_raise, error))
        self._say_plainly("Not started.")
        self._fail(error)
        if problem:
            self._tell(markup.Message(problem, "error"))
        return self._job

    def still(self) -> AbstractContextManager[object]:
        """As long as it is held, a run of this panel does not end."""
        return self._lock

    def cancel(self) -> None:
        """Ask the run to stop where it next looks. No effect when none is going on."""
        with self._lock:
            if self._busy and self._job is not None:
                self._job.cancel()
                self._cancel.disabled = True
                self._say(self.WORDS.cancelling)

    def wait(self, timeout: float | None = None) -> T:
        """Wait for the last run and return its result.

        Args:
            timeout: Most seconds to wait; None for ever.

        Raises:
            BaseException: What ended the run, ``Cancelled`` included.
            TimeoutError: It is still going on.
            RuntimeError: Nothing was run.
        """
        if self._job is None:
            raise RuntimeError(f"{type(self).__name__} has not run yet: nothing to wait for. Call run() first.")
        return self._job.wait(timeout)

    # What a subclass says

    def _problem(self) -> str:
        """Why a run cannot start with the settings of this moment, in words for a person; empty if it can. It is asked
        often (``_recheck``), so it is quick and changes nothing."""
        return ""

    def _estimate(self) -> str:
        """How long a run would take, in words, such as "about 2 to 3 min"; empty where nothing can be said."""
        return ""

    def _settings(self) -> dict[str, Any]:
        """The settings of this moment by name: results of others are marked. ``str`` gives their words. Never raises,
        also where they do not work."""
        return {}

    def _run_title(self) -> str:
        """The settings of this moment in a line, for the title of their results."""
        return ", ".join(map(str, self._settings().values()))

    def _order(self) -> Callable[[threading.Event], T]:
        """What the job does, with the settings of this moment; what this raises, the job raises. It raises before it
        changes anything."""
        raise NotImplementedError

    def _finished(self, job: Job[T]) -> None:
        """Take over what a job gave: it is done, or it called ``_supersede``. Called in its thread, with the lock and
        after ``_clear``; a failure is shown already."""
        raise NotImplementedError

    def _clear(self) -> None:
        """Forget the results of the run before. Called when there is a first result of the next."""
        self._fail(None)
        self._mark.clear()

    def _tick(self) -> None:
        """Show that time goes by. Called now and then in a thread of its own."""

    def _enable(self, enabled: bool) -> None:
        """Let the settings be changed, or not."""

    def _duration(self, seconds: float) -> str:
        return f"{seconds:.0f} s"

    # What it does for a subclass

    def _lay_out_run(self, settings: Sequence[Widget], results: Sequence[Widget]) -> None:
        """Put heading, settings, buttons with progress, alert, results and code below each other."""
        self._lay_out(self._heading, *settings, self._buttons(), self._alert, self._mark, *results, self._code)
        self._recheck()

    def _buttons(self) -> HBox:
        """Run and Cancel, beside them why it cannot start or how long it takes, and the progress."""
        return layout.row(self._run, self._cancel, self._note, self._progress)

    def _follow(self, *controls: Widget) -> None:
        """Look again whether a run can start, and whether the results are of other settings, when one of these
        changes."""
        for control in controls:
            control.observe(lambda _: self._recheck(), names="value")

    def _recheck(self) -> None:
        """To be called when settings have changed: the button, what stands beside it, and the mark of the results."""
        with self._lock:
            problem = "" if self._busy else self._problem()
            estimate = "" if self._busy or problem else self._estimate()
            self._run.disabled = self._busy or bool(problem)
            words = markup.text(problem or estimate)
            kind = "wb-problem" if problem else "wb-muted"
            self._note.value = markup.block(f'<span class="{kind}" role="status">{words}</span>') if words else ""
            self._mark.compare(self._settings())

    def _supersede(self) -> None:
        """The run that goes on has a first result: take away those of the run before. Later calls do nothing."""
        with self._lock:
            if not self._superseded:
                self._superseded = True
                self._clear()
                title, settings = self._asked_with
                if title:
                    self._mark.show(title, settings)

    def _say(self, progress: markup.Progress | str) -> None:
        """Show how far the run is; of a text, with a bar that only moves."""
        shown = markup.Progress(progress) if isinstance(progress, str) else progress
        with self._lock:
            self._status = shown.words
            bar = markup.progress(shown.done, shown.total, shown.words)
            note = markup.block(markup.text(shown.note)) if shown.note else ""
            self._progress.value = note + bar if self.WORDS.bar else markup.block(markup.text(shown.words))
        self._tell_status()

    def _say_plainly(self, words: str) -> None:
        """Words in the line of progress without a bar: nothing is going on."""
        self._status = words
        self._progress.value = markup.block(markup.text(words)) if words else ""
        self._tell_status()

    def _tell_status(self) -> None:
        for callback in self._status_listeners:
            callback()

    def _due(self) -> bool:
        """Whether progress may be drawn again; if so, counts it as drawn."""
        now = time.perf_counter()
        if now - self._drawn_at < SECONDS_BETWEEN_DRAWINGS:
            return False
        self._drawn_at = now
        return True

    @property
    def _going(self) -> bool:
        """Whether the run goes on and was not asked to stop, so that there is progress to show."""
        return self._job is not None and not self._job.cancelling

    def _set_busy(self, busy: bool) -> None:
        self._busy = busy
        self._cancel.disabled = not busy
        layout.show(self._cancel, busy)
        self._enable(not busy)
        self._recheck()
        self._tell_status()

    def _ended(self, job: Job[T]) -> None:
        with self._lock:
            self._elapsed = job.seconds
            self._set_busy(False)
            self._say_plainly(f"{job.state} after {self._duration(job.seconds)}")
            if job.state == "failed":
                self._fail(job.error)
            elif job.state == "cancelled":
                self._tell(markup.Message(str(job.error)))
            else:
                self._supersede()
            if self._superseded:
                self._finished(job)
            else:
                self._mark.after(job.state)
            for callback in self._end_listeners:
                callback(self)


def _raise(error: Exception, cancel: threading.Event) -> Any:
    raise error
