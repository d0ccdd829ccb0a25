"""ReadingPanel: a chosen fact as the model reads it, in the background; the half of a ``FactChooser`` that reads."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from workbench.models.load import LoadedModel
from workbench.types import Fact, Form, TracedPrompt
from workbench.widgets.facts.own import OwnFact
from workbench.widgets.facts.preview import Preview
from workbench.widgets.facts.reading import Reading, read, seconds_of_maps
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.panel import Panel


class ReadingPanel(Panel):
    """Reads a fact with a base model, one at a time; those that were overtaken are skipped.

    Args:
        model: A base model.
    """

    _fact: Fact
    _own: OwnFact
    _preview: Preview

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self._model = model
        self._reading_lock = threading.Lock()
        self._job: Job[Any] | None = None
        self._reading: Reading | None = None
        self._seconds = float("inf")  # for one token of a pass; the first pass of all takes much longer than others
        self._form: Form | None = None
        self._partner: Fact | None = None
        self._swaps = False  # whether a partner was asked for: it may not be found yet

    # What a subclass does

    def _announce(self) -> None:
        """The fact that is chosen, its form or its partner has changed."""
        raise NotImplementedError

    def _forms_of(self, fact: Fact) -> tuple[str, ...] | None:
        """The forms in which a fact is known; None where not all were asked yet."""
        raise NotImplementedError

    # Inside

    def _read(self, fact: Fact) -> None:
        """Show how the model reads the fact, in the background."""
        with self._lock:
            self._reading = None
            self._fail(None)
            self._preview.fact(fact, self._forms_of(fact))
            self._preview.waiting(self._form)
            self._show_code()
            if self._job is not None:
                self._job.cancel()
            work = partial(self._read_now, fact, self._form)
            self._job = Job(work, on_done=partial(self._read_ended, fact, self._form))

    def _read_now(self, fact: Fact, form: Form | None, cancel: threading.Event) -> TracedPrompt | None:
        with self._reading_lock:  # one at a time; those that were overtaken are skipped
            if cancel.is_set():
                return None
            reading = read(self._model, fact, form)
            if self._seconds == float("inf"):
                reading = read(self._model, fact, form)
            self._seconds = min(self._seconds, reading.seconds)
        with self._lock:
            if self._is_now(fact, form):
                self._reading = reading
                self._preview.read(reading, seconds_of_maps(self._model, reading.corrupted, self._seconds))
        if reading.error is not None:
            raise reading.error
        return reading.prompt

    def _read_ended(self, fact: Fact, form: Form | None, job: Job[Any]) -> None:
        with self._lock:
            if job.state == "failed" and self._is_now(fact, form):
                if self._reading is None:
                    self._preview.unread()
                self._fail(job.error)

    def _is_now(self, fact: Fact, form: Form | None) -> bool:
        return fact is self._fact and form == self._form

    def _find_partner(self, fact: Fact) -> None:
        """Find the fact to swap with that the form names, after the reading that it needs."""
        reading_job, form = self._job, self._form
        subject, answer = self._own.swap
        self._swaps = bool(subject)
        if reading_job is None or not subject:
            return

        def find(cancel: threading.Event) -> TracedPrompt:
            prompt = reading_job.wait()
            with self._reading_lock:
                partner = None if cancel.is_set() else self._own.partner(fact, prompt, subject, answer)
            with self._lock:
                if not self._is_now(fact, form) or cancel.is_set():
                    return prompt
                self._partner = partner
                self._show_code()
            self._announce()
            return prompt

        def done(job: Job[Any]) -> None:
            if job.state == "failed" and job.error is not reading_job.error:
                self._fail(job.error)

        self._job = Job(find, on_done=done)
