"""A free prompt that the base and each stage of an edit answer side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ipywidgets import HTML, Button, HBox, Text, VBox

from workbench.editing.applied import applied
from workbench.evaluation.evaluate import ask
from workbench.models.load import LoadedModel
from workbench.types import Edit
from workbench.widgets.shared import markup
from workbench.widgets.shared.job import Job


class AskAll(VBox):
    """A question box and a table of answers; empty until ``show``."""

    def __init__(self) -> None:
        self.asked: str | None = None
        self.job: Job[dict[str, str]] | None = None
        self._callbacks: list[Callable[[BaseException | None], object]] = []
        self._model: LoadedModel | None = None
        self._edit: Edit | None = None
        self._question = Text(
            description="Ask",
            placeholder="any question",
            style={"description_width": "72px"},
            layout={"width": "min(100%, 640px)"},
        )
        self._button = Button(description="Ask all", tooltip="Answers of the base and of each stage, in the background")
        self._answers = HTML()
        row: Any = {"flex_flow": "row wrap"}
        super().__init__([HBox([self._question, self._button], layout=row), self._answers])
        self._button.on_click(lambda _: self.ask())

    def show(self, model: LoadedModel, edit: Edit, question: str) -> None:
        """Ask these from now on; the question is put into the box."""
        self._model, self._edit, self.asked = model, edit, None
        self._question.value, self._answers.value = question, ""

    def on_answer(self, callback: Callable[[BaseException | None], object]) -> None:
        """Call ``callback(error)`` when a question was answered (None) or refused."""
        self._callbacks.append(callback)

    def ask(self, question: str | None = None) -> Job[dict[str, str]] | None:
        """Ask in the background; a second question while one is being answered changes nothing.

        Args:
            question: None for the one in the box.

        Returns:
            The job, whose result is the answers by model; None for an empty question.
        """
        if self.job is not None and self.job.running:
            return self.job
        if question is not None:
            self._question.value = question
        text, model, edit = self._question.value.strip(), self._model, self._edit
        if not text or model is None or edit is None:
            self._tell(ValueError("The question is empty; write one."))
            return None

        def work(cancel: threading.Event) -> dict[str, str]:
            answers = {"base": ask(model, text)}
            for stage in edit.stage_names:
                with applied(model, edit, stage) as edited:
                    answers[f"after {stage}"] = ask(edited, text)
            return answers

        def done(job: Job[dict[str, str]]) -> None:
            self._button.disabled = False
            if self._edit is not edit:
                return
            self._answers.value = ""
            if job.result is not None:
                self.asked = text
                headers, row = ["question", *job.result], [text, *job.result.values()]
                self._answers.value = markup.table(headers, [row], "What they answer")
            self._tell(job.error)

        self._button.disabled = True
        self._answers.value = markup.block("Answering ...")
        self.job = Job(work, on_done=done)
        return self.job

    def _tell(self, error: BaseException | None) -> None:
        for callback in self._callbacks:
            callback(error)
