"""PromptPair: a pair of prompts of one's own, with the tokens of both side by side, and what the metric says of it."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ipywidgets import HTML, VBox

from workbench.models.load import LoadedModel
from workbench.types import Contrast, Form
from workbench.widgets.facts import pair_views as views
from workbench.widgets.facts.field_form import FieldForm
from workbench.widgets.facts.pair_reading import PairReading, aligned, check_pair, read_pair
from workbench.widgets.facts.preview import FORM_LABELS
from workbench.widgets.facts.reading import seconds_of_maps
from workbench.widgets.shared import markup
from workbench.widgets.shared.contrast_words import contrast_answers
from workbench.widgets.shared.controls import ToggleButtons
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.layout import fields, primary, quiet_button, row, show
from workbench.widgets.shared.voice import person

FIELDS = {
    "clean": ("Clean prompt", "When Mary and John went to the store, John gave a drink to"),
    "corrupted": ("Corrupted prompt", "When Mary and John went to the store, Mary gave a drink to"),
    "answer": ("Answer", "Mary"),
    "wrong": ("Wrong answer", "John"),
}
TIPS = {
    "clean": "A text that ends right before the answer",
    "corrupted": "The same text with what you ask about changed, in as many tokens",
    "answer": "What the clean prompt should go on with",
    "wrong": "What it should not go on with; most often what the corrupted prompt goes on with",
}
ROWS = (("clean",), ("corrupted",), ("answer", "wrong"))
_HINT = (
    "What is measured is how much likelier the answer is than the wrong one, after the last token. Where the prompt "
    "ends in a word, a space is added before the answers. White space at the ends of both prompts is removed."
)
_NO_TEXTS = "Made in Python: its runs are no two texts with one answer each, so it is not shown in the form."
_AS_TEXTS = (
    "Made in Python: the form would read it otherwise, so it is not shown there. It has one line for a text, removes "
    "white space at the ends of prompts and after answers, and adds a space before an answer that follows a word."
)
_PLACE = "Every value of the maps says how much of that difference a place in the model carries."


class PairForm(FieldForm):
    """The fields of a pair of prompts, and a button. Enter in any field is the button.

    Args:
        on_use: Called without arguments when the button or Enter is pressed.
        on_change: Called when a field or the form has changed.
    """

    def __init__(self, on_use: Callable[[], object], on_change: Callable[[], object]) -> None:
        self.switch = ToggleButtons(
            options=FORM_LABELS,
            value="cloze",
            description="Prompts as",
            tooltips=["The user's message in the chat template", "As they are, to be gone on with"],
        )
        self.switch.style.button_width = "auto"
        use = primary("Use this pair", tooltip="Check the prompts written here and study them; Enter in any field")
        use.on_click(lambda _: on_use())
        below = [fields(self.switch), HTML(markup.hint(f"{_HINT} {_PLACE}")), row(use)]
        super().__init__(FIELDS, TIPS, ROWS, below, on_use, lambda _: on_change())
        self.switch.observe(lambda _: self._filling or on_change(), names="value")

    @property
    def form(self) -> Form:
        """How the prompts are read."""
        return "chat" if self.switch.value == "chat" else "cloze"

    @property
    def texts(self) -> dict[str, str]:
        """What is written, by field; the prompts without white space at their ends, the answers as they follow them."""
        return _as_read({name: field.value for name, field in self.fields.items()}, self.form)

    @property
    def contrast(self) -> Contrast:
        """The pair as it is written. Settable; a text that the form would change is left out, and what is no text.

        Raises:
            ValueError: On reading, something is missing or does not fit.
        """
        texts: dict[str, Any] = self.texts
        return Contrast(**texts, form=self.form)

    @contrast.setter
    def contrast(self, contrast: Contrast) -> None:
        kept = not is_written(contrast) or in_words(contrast)
        self._fill(_texts(contrast) if kept else dict.fromkeys(FIELDS, ""))
        self._filling = True
        try:
            self.switch.value = contrast.form
        finally:
            self._filling = False


def after(prompt: str, answer: str) -> str:
    """An answer as it follows a prompt: with a space before it, where both are words of a script that has spaces. An
    answer that begins with a space is taken as it is, and so are digits after digits.

    Example:
        >>> from workbench.widgets.facts.pair import after
        >>> after("The capital of France is", "Paris"), after("The war lasted from 1732 to 17", "45")
        (' Paris', '45')
    """
    first, last = answer[:1], prompt[-1:]
    if not first or not last or first.isspace() or not first.isalnum():
        return answer
    wide = unicodedata.east_asian_width(first) in "WF" or unicodedata.east_asian_width(last) in "WF"
    if wide or (first.isdigit() and last.isdigit()):
        return answer
    return f" {answer}" if last.isalnum() or last in ".,:;!?)]}%" else answer


class PromptPair(VBox):
    """The form, and beside it (``preview``) both prompts as the model reads them.

    Args:
        model: A base model.
        lock: Held while something is shown.
        on_use: Called with a contrast that fits, when it is used.
        on_go: Called when the circuit of the pair is to be shown.
    """

    def __init__(
        self,
        model: LoadedModel,
        lock: threading.RLock,
        *,
        on_use: Callable[[Contrast], object],
        on_go: Callable[[], object],
    ) -> None:
        self._model, self._lock, self._on_use = model, lock, on_use
        self.contrast: Contrast | None = None
        """The pair that is in use."""
        self.reading: PairReading | None = None
        self._filled: tuple[Form, dict[str, str]] | None = None  # what the form says where it shows that pair
        self.job: Job[PairReading] | None = None
        self.error: BaseException | None = None
        self.form = PairForm(self.use, self._show_draft)
        self._seconds = float("inf")  # for one token of a pass; the first pass of all takes much longer than others
        self._state, self._about, self._strip, self._bars, self._time = (HTML() for _ in range(5))
        self._go = primary("Show the circuit", tooltip="What tells the two prompts apart: the maps and edges of tab 2")
        self._go.on_click(lambda _: on_go())
        self._back = quiet_button("Show the pair in use", tooltip="Fill the form with the pair that the tabs are about")
        self._back.on_click(lambda _: self.contrast is not None and self.show(self.contrast))
        self.can_go = False
        self.preview = VBox([self._state, self._about, row(self._go, self._back, self._time), self._strip, self._bars])
        super().__init__([self.form])
        self._show_draft()

    def __repr__(self) -> str:
        return f"PromptPair({self.contrast!r})"

    @property
    def can_go(self) -> bool:
        """Whether somebody shows the circuit. Settable."""
        return self._can_go

    @can_go.setter
    def can_go(self, can: bool) -> None:
        self._can_go = can
        self._show_buttons()

    def use(self) -> None:
        """Check the pair in the form and use it; what does not fit is said at its field. The one in use stays as it is,
        with what the form has no field for (its id, named positions)."""
        if self.contrast is not None and self._is_in_form() and in_words(self.contrast):
            return self.show(self.contrast)
        contrast, problems = self._checked()
        self.form.tell({name: person(error) for name, error in problems.items()})
        self.error = next(iter(problems.values()), None)
        if contrast is not None:
            self.show(contrast)
            self._on_use(contrast)

    def show(self, contrast: Contrast) -> None:
        """Show a pair that is in use; one that the form cannot say as it is, is described."""
        with self._lock:
            self.contrast, self.reading, self.error = contrast, None, None
            self.form.contrast = contrast
            self._filled = self.form.form, self.form.texts
            self.form.tell({})
            if self.job is not None:
                self.job.cancel()
            self.job = None
            if in_words(contrast):
                self.job = Job(lambda _: read_pair(self._model, contrast), on_done=partial(self._read, contrast))
            self._show_used(contrast)

    def _show_used(self, contrast: Contrast) -> None:
        """The pair in use, as far as it is read."""
        self._state.value = markup.block('<p class="wb-muted">The tabs are about this pair.</p>')
        self._bars.value = self._time.value = ""
        failed = None if self.job is None else self.job.error
        if self.reading is not None:
            self._show_reading(self.reading)
        elif in_words(contrast):
            self._about.value = views.READING if failed is None else markup.alert(person(failed))
            self._show_strip()
        else:
            self._about.value = markup.title(contrast_answers(contrast), repr(contrast)) + markup.hint(
                _AS_TEXTS if is_written(contrast) else _NO_TEXTS
            )
            self._strip.value = ""
        self._show_buttons()

    def _checked(self) -> tuple[Contrast | None, dict[str, ValueError]]:
        """The pair in the form, or by field what does not fit."""
        texts = self.form.texts
        names = {"clean": "clean prompt", "corrupted": "corrupted prompt", "answer": "answer", "wrong": "wrong answer"}
        problems = {name: ValueError(f"Write the {names[name]}.") for name, text in texts.items() if not text.strip()}
        if problems:
            return None, problems
        shown = aligned(self._model, texts["clean"], texts["corrupted"], self.form.form)
        where = "corrupted" if all(shown.same) or not shown.fits else "wrong"
        try:
            contrast = self.form.contrast
            check_pair(self._model, contrast)
        except ValueError as error:
            return None, {where: error}
        return contrast, {}

    def _show_draft(self) -> None:
        """Both prompts as they are written so far: tokens alone, no pass."""
        with self._lock:
            if self.contrast is not None and self._is_in_form():
                return self._show_used(self.contrast)
            texts = self.form.texts
            self._about.value = self._bars.value = self._time.value = ""
            other = "The tabs are about another pair until this one is used." if self.contrast is not None else ""
            self._state.value = markup.hint(other)
            if not texts["clean"] or not texts["corrupted"]:
                self._strip.value = views.EMPTY
            else:
                self._show_strip()
            self._show_buttons()

    def _is_in_form(self) -> bool:
        """Whether the form is as the pair in use fills it."""
        return self._filled == (self.form.form, self.form.texts)

    def _show_strip(self, answers: tuple[str, str] | None = None) -> None:
        texts = self.form.texts
        try:
            shown = aligned(self._model, texts["clean"], texts["corrupted"], self.form.form)
        except ValueError as error:  # a base model has no chat template
            self._strip.value = markup.alert(person(error))
            return
        if answers is None and texts["answer"] and texts["wrong"]:
            answers = texts["answer"], texts["wrong"]
        self._strip.value = views.strip(shown, answers)

    def _read(self, contrast: Contrast, job: Job[PairReading]) -> None:
        with self._lock:
            if contrast is not self.contrast or job is not self.job:
                return
            self.reading, self.error = job.result, job.error or self.error
            if self._is_in_form():
                self._show_used(contrast)

    def _show_reading(self, reading: PairReading) -> None:
        self._seconds = min(self._seconds, reading.seconds)
        self._about.value = views.heading(reading)
        self._strip.value = views.strip(reading.aligned, views.answers_of(reading))
        self._bars.value = views.following(reading)
        from_change = len(reading.prompt.tokens) - min(reading.prompt.subject)
        self._time.value = markup.hint(seconds_of_maps(self._model, from_change, self._seconds).words)

    def _show_buttons(self) -> None:
        in_form = self.contrast is not None and self._is_in_form()
        show(self._go, self._can_go and in_form)
        show(self._back, self.contrast is not None and not in_form)


def is_written(contrast: Contrast) -> bool:
    """Whether a contrast is two texts with one answer and one wrong answer as text, as the form has them."""
    parts: tuple[Any, ...] = (contrast.clean, contrast.corrupted, contrast.answer, contrast.wrong)
    return all(isinstance(part, str) for part in parts)


def in_words(contrast: Contrast) -> bool:
    """Whether the form says a contrast as it is: it is written, and reading it from the fields changes no text."""
    given = _texts(contrast)
    one_line = all(len(text.splitlines()) == 1 for text in given.values())
    return is_written(contrast) and one_line and _as_read(given, contrast.form) == given


def _texts(contrast: Contrast) -> dict[str, str]:
    """The texts of a contrast by field, empty for what is no text."""
    parts: dict[str, Any] = {name: getattr(contrast, name) for name in FIELDS}
    return {name: part if isinstance(part, str) else "" for name, part in parts.items()}


def _as_read(given: Mapping[str, str], form: Form) -> dict[str, str]:
    """What the fields say, read as the form reads them."""
    texts = {name: given[name].strip() for name in ("clean", "corrupted")}
    for name in ("answer", "wrong"):
        answer = given[name].rstrip()
        texts[name] = answer if form == "chat" else after(texts["clean"], answer)
    return texts
