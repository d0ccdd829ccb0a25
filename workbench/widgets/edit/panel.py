"""EditPanel: choose a recipe, run it in the background, watch it, and read what the edit did.

Run is ``rewrite`` followed by ``evaluate`` with the settings shown and nothing else. No number is computed here: an
edit that was clicked equals the same edit from a script to the bit, and ``panel.code`` is that script.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ipywidgets import HTML, Button, Checkbox, HBox

from workbench.editing.methods.ia3 import harder
from workbench.models.load import LoadedModel
from workbench.types import Edit, EvalReport, Fact, FactSet, Selection, Step, TrainedRecipe
from workbench.widgets.edit import views as edit_views
from workbench.widgets.edit.job import fit_and_evaluate
from workbench.widgets.edit.recipe_controls import WRAP, RecipeControls
from workbench.widgets.edit.train_choice import TrainChoice
from workbench.widgets.shared import markup
from workbench.widgets.shared.code import edit_code as code_of_edit
from workbench.widgets.shared.code import facts_code, start_code
from workbench.widgets.shared.connection import Connection
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.panel import Panel
from workbench.widgets.shared.text_card import text_card_png

SECONDS_BETWEEN_DRAWINGS = 0.2


class EditPanel(Panel):
    """Run an edit and its evaluation from a cell.

    Args:
        model: A base model; it is not changed.
        fact: One fact, or several that are rewritten together. ``panel.fact = other`` changes it.
        selection_source: What may move: None (the default selector), a ``Selection``, its text, or anything with a
            ``selection``, such as a ``CircuitPicker``, whose selection is read when Run is pressed.
        pool: Where the retain set, controls and neighbours come from; the bundled facts by default.
        recipe: What the controls show first: a ``Recipe``, the name of a built-in one, or None for the first.
        max_controls: Draw at most so many controls in the evaluation; None for all.

    Raises:
        ValueError: No fact, an unknown recipe, or a selection that cannot be read.
    """

    def __init__(
        self,
        model: LoadedModel,
        fact: Fact | FactSet | Sequence[Fact],
        selection_source: Any = None,
        *,
        pool: FactSet | None = None,
        recipe: TrainedRecipe | str | None = None,
        max_controls: int | None = 40,
    ) -> None:
        self._model, self._pool, self._max_controls = model, pool, max_controls
        self._facts = _fact_set(fact)
        self._lock = threading.RLock()  # the job's thread and the kernel's both write here
        self._busy = False
        self._ran: str | None = None  # the code of the last run, until a setting changes
        self._made_by: str | None = None  # the code of the edit that is shown
        self._job: Job[EvalReport] | None = None
        self._edit: Edit | None = None
        self._report: EvalReport | None = None
        self._control_report: EvalReport | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[EditPanel], object]] = []
        self._history: list[Step] = []
        self._tries_harder = False
        self._first_step_at = self._drawn_at = 0.0

        self._heading = HTML(markup.STYLE + edit_views.heading(self._facts))
        self._alert, self._progress, self._charts, self._results, self._code = (HTML() for _ in range(5))
        self._train = TrainChoice(model, selection_source)
        self._controls = RecipeControls(recipe)
        self._beside = Checkbox(
            description="random control",
            tooltip="The same recipe on as many random components too, for comparison: twice the time",
            indent=False,
        )
        self._run = Button(description="Run", icon="play", tooltip="Fit the edit, then evaluate it, in the background")
        self._run.style.font_weight = "bold"
        self._cancel = Button(description="Cancel", icon="stop", tooltip="Stop at the next step", disabled=True)
        buttons = HBox([self._run, self._cancel, self._progress], layout={**WRAP, "align_items": "center"})
        shown = (Connection(), self._heading, self._train, self._controls, self._beside, buttons)
        super().__init__([*shown, self._alert, self._charts, self._results, self._code])
        self.add_class("wb-panel")
        self._show_code()
        self._train.on_change(self._settings_changed)
        self._controls.on_change(self._settings_changed)
        self._beside.observe(lambda _: self._settings_changed(), names="value")
        self._run.on_click(lambda _: self.run())
        self._cancel.on_click(lambda _: self.cancel())

    # What it holds

    def __repr__(self) -> str:
        state = self._job.state if self._job is not None else "not run"
        return f"EditPanel({', '.join(self._facts.ids[:3])}: {self._controls.name}, {state})"

    @property
    def fact(self) -> Fact | FactSet:
        """The fact, or the facts. Setting it empties the panel; refused with a RuntimeError while an edit runs."""
        return self._facts[0] if len(self._facts) == 1 else self._facts

    @fact.setter
    def fact(self, fact: Fact | FactSet | Sequence[Fact]) -> None:
        with self._lock:
            if self._busy:
                message = "An edit is running on the fact shown. Cancel it or wait, then choose another fact."
                self._alert.value = markup.alert(message, "info")
                raise RuntimeError(message)
            self._facts = _fact_set(fact)
            self._heading.value = markup.STYLE + edit_views.heading(self._facts)
            self._job = None
            self._clear()
            self._show_code()

    @property
    def selection_source(self) -> Any:
        """Where the selection comes from. Settable."""
        return self._train.source

    @selection_source.setter
    def selection_source(self, source: Any) -> None:
        self._train.source = source

    @property
    def selection(self) -> Selection | None:
        """What Run would train: the picked components, or None for the default selector."""
        return self._train.selection

    @property
    def recipe(self) -> TrainedRecipe:
        """The recipe as the controls say it. Settable.

        Raises:
            ValueError: On reading, a setting that is out of range.
        """
        return self._controls.recipe

    @recipe.setter
    def recipe(self, recipe: TrainedRecipe) -> None:
        self._controls.recipe = recipe

    @property
    def job(self) -> Job[EvalReport] | None:
        """The last run; ``panel.job.wait()`` waits for its report and raises its error again."""
        return self._job

    @property
    def running(self) -> bool:
        """Whether an edit or its evaluation is going on."""
        return self._busy

    @property
    def edit(self) -> Edit | None:
        """The fitted edit, as soon as the fit is done."""
        return self._edit

    @property
    def report(self) -> EvalReport | None:
        """The evaluation of the edit."""
        return self._report

    @property
    def random_control(self) -> bool:
        """Whether Run also fits and evaluates a random selection of the same size. Settable."""
        return bool(self._beside.value)

    @random_control.setter
    def random_control(self, wanted: bool) -> None:
        self._beside.value = wanted

    @property
    def control_report(self) -> EvalReport | None:
        """The evaluation of the random control; None where none was asked for."""
        return self._control_report

    @property
    def error(self) -> BaseException | None:
        """What went wrong last, else None. A cancelled run is no error."""
        return self._error

    @property
    def code(self) -> str:
        """Python that repeats the last run; before it, and after a setting was changed, what Run would do."""
        if self._ran is not None:
            return self._ran
        try:
            return self._code_for(self.selection, self.recipe)
        except ValueError as error:
            return f"# These settings do not work: {error}\n"

    @property
    def edit_code(self) -> str | None:
        """Python that makes the edit that is shown, and its report; settings that were changed since do not matter."""
        return self._made_by

    # What it does

    def run(self) -> Job[EvalReport]:
        """Start the edit and its evaluation in the background. While one is going, this only says so.

        Returns:
            The job: the new one, or the one that is going. Wrong settings make it fail at once.
        """
        with self._lock:
            if self._busy and self._job is not None:
                message = "An edit is running already; this click changed nothing. Wait for it, or cancel it first."
                self._alert.value = markup.alert(message, "info")
                return self._job
            self._clear()
            self._set_busy(True)
            self._job = Job(self._order(), on_done=self._ended)
            return self._job

    def cancel(self) -> None:
        """Ask the running edit to stop at its next step. No effect when none runs."""
        with self._lock:
            if self._busy and self._job is not None:
                self._job.cancel()
                self._cancel.disabled = True
                self._say("Cancelling: it stops at the next step.")

    def show(
        self,
        edit: Edit | None,
        report: EvalReport | None,
        *,
        control_report: EvalReport | None = None,
        edit_code: str | None = None,
    ) -> None:
        """Show an edit that was fitted before, and its evaluation; None empties the panel.

        Args:
            edit, report: What is shown.
            control_report: The evaluation of the random control that was run beside it. The box is ticked if there is
                one.
            edit_code: Python that makes ``edit`` and ``report`` (and ``control_report``), for ``.code``; None for what
                Run would do.

        Raises:
            RuntimeError: An edit is running.
        """
        with self._lock:
            self.fact = self._facts if edit is None else edit.facts
            if edit is None:
                return
            self.random_control = control_report is not None
            if isinstance(edit.asked_recipe, TrainedRecipe):
                self.recipe = edit.asked_recipe
            self._edit, self._report, self._control_report = edit, report, control_report
            self._charts.value = edit_views.fit_charts(edit.history, edit.recipe, self._facts)
            self._alert.value = edit_views.fitted(edit)
            self._results.value = edit_views.results(report, control_report) if report is not None else ""
            if edit_code is not None:
                self._ran = f"{start_code(self._model)}{facts_code(self._facts, self._pool)}{edit_code}"
            self._made_by = self._ran
            self._show_code()

    def on_done(self, callback: Callable[[EditPanel], object]) -> None:
        """Call ``callback(panel)`` after each run that made an edit, in the background thread: also where its
        evaluation was cancelled or failed; ``panel.report`` is None then."""
        self._callbacks.append(callback)

    def refresh(self) -> None:
        """Show how many gates the source's selection has. Called by itself where the source tells of its changes."""
        with self._lock:
            self._train.refresh()

    def _order(self) -> Callable[[threading.Event], EvalReport]:
        """What the job does, with the settings of this moment; wrong ones raise in the job."""
        try:
            selection, recipe = self.selection, self.recipe
            self._ran = self._code_for(selection, recipe)
            on_control = self._compared if self.random_control else None
        except ValueError as error:
            return partial(_raise, error)
        self._show_code()
        self._say("Preparing: retained answers, and what to train. No step yet.")
        order = partial(fit_and_evaluate, self._model, self._facts, selection, recipe)
        on_step, on_edit = partial(self._step, recipe), self._fitted
        options: dict[str, Any] = {"pool": self._pool, "max_controls": self._max_controls, "say": self._say}
        options |= {"on_report": self._evaluated, "on_control": on_control}
        return lambda cancel: order(cancel=cancel, on_step=on_step, on_edit=on_edit, **options)

    # From the job's thread

    def _step(self, recipe: TrainedRecipe, step: Step) -> None:
        now = time.perf_counter()
        again = bool(self._history) and step.step == 0 and step.stage == recipe.stages[0]
        if again:
            self._history, self._tries_harder = [], True
        if self._tries_harder:
            recipe = harder(recipe)
        if not self._history:
            self._first_step_at = now
        self._history.append(step)
        if now - self._drawn_at < SECONDS_BETWEEN_DRAWINGS:
            return
        self._drawn_at = now
        with self._lock:
            self._charts.value = edit_views.fit_charts(self._history, recipe, self._facts)
            if self._job is not None and not self._job.cancelling:
                told = edit_views.fit_progress(self._history, recipe, now - self._first_step_at)
                self._progress.value = (edit_views.AGAIN if self._tries_harder else "") + told

    def _fitted(self, edit: Edit) -> None:
        with self._lock:
            self._edit, self._made_by = edit, self._ran
            self._charts.value = edit_views.fit_charts(edit.history, edit.recipe, self._facts)
            self._say("Fitted. Looking for facts to compare with.")

    def _evaluated(self, report: EvalReport) -> None:
        self._report = report

    def _compared(self, report: EvalReport) -> None:
        self._control_report = report

    def _ended(self, job: Job[EvalReport]) -> None:
        with self._lock:
            self._set_busy(False)
            took = f"{job.state} after {edit_views.duration(job.seconds)}"
            self._progress.value = markup.block(markup.text(took))
            self._report = job.result or self._report
            if job.state == "failed":
                self._fail(job.error)
            elif job.state == "cancelled":
                self._alert.value = markup.alert(job.error, "info")
            elif self._edit is not None:
                self._alert.value = edit_views.fitted(self._edit)
            if self._edit is not None and self._report is None:
                how = "failed" if job.state == "failed" else "was cancelled"
                self._results.value = markup.alert(f"Not evaluated: the evaluation {how}.", "info")
            elif self._edit is not None and self._report is not None:
                self._results.value = edit_views.results(self._report, self._control_report)
        for callback in self._callbacks if job.state == "done" or self._edit is not None else ():
            try:
                callback(self)
            except Exception as error:
                self._fail(error)
                raise

    # What it shows

    def _say(self, message: str) -> None:
        with self._lock:
            self._progress.value = markup.progress(None, 1, message)

    def _fail(self, error: BaseException | None) -> None:
        self._error = error
        self._alert.value = markup.alert(f"{type(error).__name__}: {error}")

    def _clear(self) -> None:
        self._edit = self._report = self._control_report = self._error = self._ran = self._made_by = None
        self._history, self._tries_harder = [], False
        for area in (self._alert, self._progress, self._charts, self._results):
            area.value = ""

    def _set_busy(self, busy: bool) -> None:
        self._busy = busy
        self._run.disabled, self._cancel.disabled = busy, not busy
        self._train.enable(not busy)
        self._controls.enable(not busy)
        self._beside.disabled = busy

    def _settings_changed(self) -> None:
        if not self._busy:
            self._ran = None
            self._show_code()

    def _code_for(self, selection: Selection | None, recipe: TrainedRecipe) -> str:
        return code_of_edit(
            self._model,
            self._facts,
            selection,
            recipe,
            pool=self._pool,
            max_controls=self._max_controls,
            control=self.random_control,
        )

    def _show_code(self) -> None:
        self._code.value = markup.code(self.code)

    def _picture(self) -> bytes:
        fact: Fact = next(iter(self._facts))
        lines = [fact.question, f"{fact.answer} -> {fact.target}", f"Recipe: {self._controls.name}"]
        found = edit_views.card_lines(self._report) if self._report is not None else []
        return text_card_png("Edit panel", [*lines, *found, "Run this cell to use the panel."])


def _fact_set(fact: Fact | FactSet | Sequence[Fact]) -> FactSet:
    facts = FactSet([fact] if isinstance(fact, Fact) else fact, name="edited facts")
    if not len(facts):
        raise ValueError("EditPanel needs at least one fact, got none.")
    return facts


def _raise(error: Exception, cancel: threading.Event) -> EvalReport:
    raise error
