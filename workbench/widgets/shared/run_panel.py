"""RunPanel: a panel that runs one thing at a time in the background, with Run, Cancel, progress and its errors.

A subclass says what runs (``_order``) and what comes of it (``_finished``), names its buttons in ``WORDS``, and calls
``_lay_out_run`` with its own controls. The lock, the refusal of a second run, the alert and the line of progress are
the same for all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from ipywidgets import HTML, Button, HBox, Widget

from workbench.widgets.shared import markup
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.panel import Panel

T = TypeVar("T")
SECONDS_BETWEEN_DRAWINGS = 0.2
"""Progress is drawn at most five times a second: more messages would make the browser wait, not the reader wiser."""
_ROW = {"flex_flow": "row wrap", "align_items": "center"}


@dataclass(frozen=True, kw_only=True)
class RunWords:
    """What the two buttons of a panel say.

    Args:
        label, icon, tip: Of the button that runs.
        cancel_tip: Of the one that cancels.
        refused: The alert of a second click while one run is going on.
        cancelling: The line of progress after Cancel.
        bold: Whether the button's label is bold.
        bar: Whether a moving bar stands before the words of progress.
    """

    label: str
    icon: str
    tip: str
    cancel_tip: str
    refused: str
    cancelling: str
    bold: bool = True
    bar: bool = True


class RunPanel(Panel, Generic[T]):
    """A panel with one job at a time, whose result is a ``T``."""

    WORDS: RunWords

    def __init__(self) -> None:
        super().__init__()
        self._job: Job[T] | None = None
        self._busy = False
        self._status = ""
        self._drawn_at = float("-inf")
        self._end_listeners: list[Callable[[Any], object]] = []
        self._status_listeners: list[Callable[[], object]] = []
        self._heading, self._progress = HTML(), HTML()
        words = self.WORDS
        self._run = Button(description=words.label, icon=words.icon, tooltip=words.tip)
        if words.bold:
            self._run.style.font_weight = "bold"
        self._cancel = Button(description="Cancel", icon="stop", tooltip=words.cancel_tip, disabled=True)
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

    def run(self) -> Job[T]:
        """Start a run in the background. While one is going on, this only says so.

        Returns:
            The job: the new one, or the one that is going on. Wrong settings make it fail at once.
        """
        with self._lock:
            if self._busy and self._job is not None:
                self._tell(markup.Message(self.WORDS.refused))
                return self._job
            self._clear()
            self._set_busy(True)
            self._job = Job(self._ordered(), on_done=self._ended)
            return self._job

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

    def _order(self) -> Callable[[threading.Event], T]:
        """What the job does, with the settings of this moment; what this raises, the job raises."""
        raise NotImplementedError

    def _finished(self, job: Job[T]) -> None:
        """Take over what an ended job gave. Called in its thread, with the lock; a failure is shown already."""
        raise NotImplementedError

    def _clear(self) -> None:
        """Forget the run before."""
        self._fail(None)

    def _enable(self, enabled: bool) -> None:
        """Let the settings be changed, or not."""

    def _duration(self, seconds: float) -> str:
        return f"{seconds:.0f} s"

    # What it does for a subclass

    def _lay_out_run(self, settings: Sequence[Widget], results: Sequence[Widget]) -> None:
        """Put heading, settings, buttons with progress, alert, results and code below each other."""
        buttons = HBox([self._run, self._cancel, self._progress], layout=_ROW)
        self._lay_out(self._heading, *settings, buttons, self._alert, *results, self._code)

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

    def _ordered(self) -> Callable[[threading.Event], T]:
        try:
            return self._order()
        except Exception as error:
            return partial(_raise, error)

    def _set_busy(self, busy: bool) -> None:
        self._busy = busy
        self._run.disabled, self._cancel.disabled = busy, not busy
        self._enable(not busy)
        self._tell_status()

    def _ended(self, job: Job[T]) -> None:
        with self._lock:
            self._set_busy(False)
            self._say_plainly(f"{job.state} after {self._duration(job.seconds)}")
            if job.state == "failed":
                self._fail(job.error)
            self._finished(job)
            for callback in self._end_listeners:
                callback(self)


def _raise(error: Exception, cancel: threading.Event) -> Any:
    raise error
