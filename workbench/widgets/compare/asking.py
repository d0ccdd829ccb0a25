"""Asking: a free prompt to the base and to the edited model, at one stage and strength; with history.

Every answer keeps the stage and the strength at which it was given, and says them: a text without them would be read as
that of another model. What was asked before is a row of buttons, which ask again at the strength of now.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ipywidgets import HTML, Button, Text, VBox

from workbench.editing.applied import applied
from workbench.evaluation.ask import ask
from workbench.models.load import LoadedModel
from workbench.plots.style import visible
from workbench.types import Edit
from workbench.widgets.compare.words import after_words
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.job import Job

KEPT = 24
"""Answers of an edit that are kept; the oldest go first."""
CHIPS = 8
"""Past questions that are offered again."""
SETTLING = 0.15
"""Seconds from Enter to the question: the key's message may overtake that of the last letters."""
_EMPTY = "Write a question first."


@dataclass(frozen=True)
class Answered:
    """One question as the base and the edited model answered it.

    Args:
        question: What was asked.
        stage, strength: Of the edited model.
        base, edited: The answers.
    """

    question: str
    stage: str
    strength: float
    base: str
    edited: str


class Asking(VBox):
    """A question box, past questions, and a table of answers; empty until ``show``.

    Args:
        at: The stage and the strength at which a question is asked now.
    """

    def __init__(self, at: Callable[[], tuple[str, float]]) -> None:
        self.job: Job[Answered] | None = None
        self._at, self._model, self._edit = at, None, None
        self._callbacks: list[Callable[[BaseException | None], object]] = []
        self._answers: dict[str, list[Answered]] = {}  # by edit
        self._asked: list[str] = []
        self._question = Text(
            description="Ask",
            placeholder="any question, then Enter",
            layout={"width": "min(100%, 560px)"},
        )
        self._button = Button(
            description="Ask both",
            tooltip="The base, and the edited model at the stage and the strength above, in the background",
        )
        self._said, self._chips, self._table = HTML(), layout.row(), HTML()
        super().__init__([layout.fields(self._question, self._button), self._said, self._chips, self._table])
        self._button.on_click(lambda _: self.ask())
        self._question.on_msg(self._key)

    @property
    def answers(self) -> tuple[Answered, ...]:
        """What was answered about the edit in sight, the oldest first."""
        return tuple(self._answers.get(self._edit.id, ())) if self._edit is not None else ()

    def show(self, model: LoadedModel, edit: Edit, question: str) -> None:
        """Ask these from now on; the question is put into the box, and earlier answers of this edit are shown again."""
        self._model, self._edit = model, edit
        self._question.value, self._said.value = question, ""
        self._show_answers()

    def on_answer(self, callback: Callable[[BaseException | None], object]) -> None:
        """Call ``callback(error)`` when a question was answered (None) or refused."""
        self._callbacks.append(callback)

    def ask(self, question: str | None = None) -> Job[Answered] | None:
        """Ask in the background; a second question while one is being answered changes nothing.

        Args:
            question: None for the one in the box.

        Returns:
            The job, whose result holds both answers; None for an empty question.
        """
        if self.job is not None and self.job.running:
            return self.job
        if question is not None:
            self._question.value = question
        text, model, edit = self._question.value.strip(), self._model, self._edit
        if not text or model is None or edit is None:
            self._refuse(_EMPTY, ValueError("The question is empty; write one."))
            return None
        stage, strength = self._at()
        self._button.disabled = True
        self._said.value = markup.block(markup.text("Answering ..."))
        work = partial(_answer, model, edit, text, stage, strength)
        self.job = Job(work, on_done=partial(self._done, edit))
        return self.job

    def _key(self, _: Any, content: Any, buffers: Any) -> None:
        if isinstance(content, dict) and content.get("event") == "submit":
            later = threading.Timer(SETTLING, self.ask)
            later.daemon = True
            later.start()

    def _done(self, edit: Edit, job: Job[Answered]) -> None:
        self._button.disabled = False
        if job.result is not None:
            kept = self._answers.setdefault(edit.id, [])
            kept.append(job.result)
            del kept[:-KEPT]
            self._asked = [job.result.question, *(q for q in self._asked if q != job.result.question)][:CHIPS]
        if self._edit is not edit:  # another one is in sight by now
            self._said.value = ""
            self._show_answers()
            return
        if job.error is not None:
            self._refuse(f"It could not be answered: {job.error}", job.error)
            return
        self._said.value = ""
        self._show_answers()
        self._tell(None)

    def _refuse(self, words: str, error: BaseException) -> None:
        """Say at the field why there is no answer."""
        self._said.value = markup.alert(words, "info")
        self._tell(error)

    def _tell(self, error: BaseException | None) -> None:
        for callback in self._callbacks:
            callback(error)

    def _show_answers(self) -> None:
        chips = [self._chip(question) for question in self._asked]
        old, self._chips.children = self._chips.children, chips
        for chip in old:
            chip.close()
        self._table.value = tables(self.answers)

    def _chip(self, question: str) -> Button:
        tip = f"Ask again, at the strength of now: {visible(question, 300)}"
        chip = layout.quiet_button(visible(question, 40), tooltip=tip)
        chip.on_click(lambda _: self.ask(question))
        return chip


def _answer(
    model: LoadedModel, edit: Edit, question: str, stage: str, strength: float, cancel: threading.Event
) -> Answered:
    base = ask(model, question)
    with applied(model, edit, stage, strength) as edited:
        return Answered(question, stage, strength, base, ask(edited, question))


def tables(answers: Sequence[Answered]) -> str:
    """The newest answer and all at its stage and strength below one header, then the others with theirs; the newest
    first."""
    if not answers:
        return ""
    newest = answers[-1]
    at = (newest.stage, newest.strength)
    now = [[a.question, a.base, a.edited] for a in reversed(answers) if (a.stage, a.strength) == at]
    before = [
        [a.question, after_words(a.stage, a.strength), a.base, a.edited]
        for a in reversed(answers)
        if (a.stage, a.strength) != at
    ]
    shown = markup.table(["question", "base", after_words(*at)], now, "What they answer")
    if before:
        shown += markup.table(["question", "edited model", "base", "its answer"], before, "Asked before")
    return shown


def asked_code(answers: Sequence[Answered]) -> str:
    """Python that repeats these answers, once ``model`` and ``edit`` are there; empty without any."""
    if not answers:
        return ""
    asked = "".join(f"    ({a.question!r}, {a.stage!r}, {a.strength!r}),\n" for a in answers)
    return (
        f"answers = []\nfor question, stage, strength in [\n{asked}]:\n"
        "    with wb.applied(model, edit, stage, strength=strength) as edited:\n"
        "        answers.append((wb.ask(model, question), wb.ask(edited, question)))\n"
    )
