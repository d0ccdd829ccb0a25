"""EditPanel: choose a recipe, run it in the background, watch it, and read what the edit did.

Run is ``rewrite`` followed by ``evaluate`` with the settings shown and nothing else. No number is computed here: an
edit that was clicked equals the same edit from a script to the bit, and ``panel.code`` is that script.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ipywidgets import VBox

from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Edit, EvalReport, Fact, FactSet, Selection, Step
from workbench.widgets.edit import views as edit_views
from workbench.widgets.edit.dry_run_panel import DryRunPanel
from workbench.widgets.edit.job import fit_and_evaluate
from workbench.widgets.edit.no_fact import NoFact
from workbench.widgets.edit.progress import RunProgress
from workbench.widgets.edit.results import EditResults
from workbench.widgets.edit.settings import EditSettings, edited_facts, title_of
from workbench.widgets.edit.timeline import Phase, Speeds, probe_seconds
from workbench.widgets.shared import layout
from workbench.widgets.shared.code import EditLines, edit_lines, facts_code, start_code
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.markup import Message
from workbench.widgets.shared.run_panel import RunPanel, RunWords
from workbench.widgets.shared.text_card import text_card_png
from workbench.widgets.shared.timing import duration


class EditPanel(RunPanel[EvalReport]):
    """The panel runs an edit and its evaluation from a cell.

    Args:
        model: A base model; it is not changed.
        fact: One fact, or several that are rewritten together. ``panel.fact = other`` changes it.
        selection_source: What may move: None (the default selector), a ``Selection``, its text, or anything with a
            ``selection``, such as a ``Circuit`` (its nodes), a ``CircuitPicker`` or a ``CircuitGraph``, whose selection
            is read when Run is pressed.
        pool: Where the retain set, controls and neighbours come from; the bundled facts by default.
        recipe: What the controls show first: a recipe of any method, the name of a built-in one, or None for the first.
        max_controls: Draw at most so many controls in the evaluation; None for all.

    Raises:
        ValueError: No fact, an unknown recipe, or a selection that cannot be read.
        TypeError: A contrast, which has neither a question nor a target.

    Example:
        >>> panel = wb.EditPanel(model, fact, "L1H3 L2MLP", pool=facts)
        >>> panel
        EditPanel(france-capital: unlearn-then-learn, not run)
        >>> "wb.rewrite(" in panel.code, panel.edit
        (True, None)
    """

    WORDS = RunWords(
        label="Run",
        icon="play",
        tip="Fit the edit, then evaluate it, in the background",
        cancel_tip="Stop at the next step, or after the prompts at hand",
        refused="An edit is running already; this click changed nothing. Wait for it, or cancel it first.",
        cancelling="Cancelling: it stops at the next step, or after the prompts at hand.",
    )
    TICK_SECONDS = 1.0

    def __init__(
        self,
        model: LoadedModel,
        fact: Fact | FactSet | Sequence[Fact],
        selection_source: Any = None,
        *,
        pool: FactSet | None = None,
        recipe: BaseRecipe | str | None = None,
        max_controls: int | None = 40,
    ) -> None:
        super().__init__()
        self._model, self._pool, self._max_controls = model, pool, max_controls
        self._facts = edited_facts(fact)
        self._ran: EditLines | None = None  # of the last run, until a setting changes
        self._made_by: EditLines | None = None  # of the edit that is shown
        self._edit: Edit | None = None
        self._report: EvalReport | None = None
        self._control_report: EvalReport | None = None
        self._callbacks: list[Callable[[EditPanel], object]] = []
        self._leads: list[Callable[[EditPanel, str], object]] = []
        self.elsewhere: Callable[[], str] = str
        """Says why no edit can start now whatever is chosen here, such as another panel's edit; empty if it can."""
        self.no_fact = NoFact(self._recheck, lambda: self._go("chooser"))
        self.settings = EditSettings(model, selection_source, recipe)
        self._run_progress = RunProgress(Speeds(lambda: probe_seconds(model)))
        self._results = EditResults(self._go)
        self.planner = DryRunPanel(model, self.settings, lambda: self._facts, self._start, pool, self.no_fact)
        """The dry run, before Run."""
        left = VBox([self.settings, self._buttons(), self.planner])
        right = VBox([self.planner.outcome, self._run_progress, self._alert, self._mark, self._results])
        body = layout.columns(left, right, widths=("0 0 320px", "1 1 420px"))
        self._lay_out(self._heading, self.no_fact, body, self._code)
        self._heading.value = edit_views.heading(self._facts)
        self._show_code()
        self.settings.on_change(self._settings_changed)
        self._recheck()

    def __repr__(self) -> str:
        state = self._job.state if self._job is not None else "not run"
        return f"EditPanel({', '.join(self._facts.ids[:3])}: {self.settings.controls.name}, {state})"

    @property
    def fact(self) -> Fact | FactSet:
        """The fact, or the facts. Setting it empties the panel; refused with a RuntimeError while an edit runs."""
        return self._facts[0] if len(self._facts) == 1 else self._facts

    @fact.setter
    def fact(self, fact: Fact | FactSet | Sequence[Fact]) -> None:
        with self._lock:
            if self._busy:
                message = "An edit is running on the fact shown. Cancel it or wait, then choose another fact."
                self._tell(Message(message))
                raise RuntimeError(message)
            self._facts = edited_facts(fact)
            self._heading.value = edit_views.heading(self._facts)
            self._job = self._ran = self._elapsed = None
            self._run_progress.clear()
            self._clear()
            self.planner.forget()
            self._say_plainly("")
            self._recheck()
            self._show_code()

    @property
    def selection_source(self) -> Any:
        """Where the selection comes from. Settable."""
        return self.settings.train.source

    @selection_source.setter
    def selection_source(self, source: Any) -> None:
        self.settings.train.source = source

    @property
    def selection(self) -> Selection | None:
        """What Run would train: the picked components, or None for the default selector."""
        return self.settings.selection

    @property
    def recipe(self) -> BaseRecipe:
        """The recipe as the controls say it. Settable.

        Raises:
            ValueError: On reading, a setting that is out of range.
        """
        return self.settings.recipe

    @recipe.setter
    def recipe(self, recipe: BaseRecipe) -> None:
        self.settings.recipe = recipe

    @property
    def running(self) -> bool:
        """Whether an edit or its evaluation is going on."""
        return self.busy

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
        return self.settings.random_control

    @random_control.setter
    def random_control(self, wanted: bool) -> None:
        self.settings.random_control = wanted

    @property
    def control_report(self) -> EvalReport | None:
        """The evaluation of the random control; None where none was asked for."""
        return self._control_report

    @property
    def status(self) -> str:
        """The phase that is going on and how far it is, or how the run ended and how long it took."""
        return self.phase_words if self._busy and self._going else self._status

    @property
    def phase_words(self) -> str:
        """What is going on, such as ``"learn 2 of 4"``; empty when nothing is."""
        return self._run_progress.words if self._busy else ""

    @property
    def phases(self) -> str:
        """The markup of the phases of the run that goes on; empty when none does."""
        return self._run_progress.markup if self._busy else ""

    @property
    def subject(self) -> str:
        """What is edited, in a word or two."""
        return edit_views.subject(self._facts)

    @property
    def code(self) -> str:
        """Python that repeats the last run; before it, and after a setting was changed, what Run would do."""
        try:
            return self._script(self._ran or self._lines_for(self.selection, self.recipe))
        except ValueError as error:
            return f"# These settings do not work: {error}\n"

    @property
    def edit_code(self) -> str | None:
        """Python that makes the edit that is shown, and its report, whatever settings were changed since."""
        return None if self._made_by is None else self._script(self._made_by)

    @property
    def edit_lines(self) -> EditLines | None:
        """The part of ``edit_code`` after the model and the facts."""
        return self._made_by

    def show(
        self,
        edit: Edit | None,
        report: EvalReport | None,
        *,
        control_report: EvalReport | None = None,
        edit_code: str | None = None,
        elapsed: float | None = None,
    ) -> None:
        """Show an edit that was fitted before, and its evaluation; None empties the panel.

        Args:
            edit, report: What is shown.
            control_report: The evaluation of the random control that was run beside it. The box is ticked if there is
                one.
            edit_code: Python that makes ``edit`` and ``report`` (and ``control_report``), for ``.code``; None for what
                Run would do.
            elapsed: Seconds that its run took, where that is known.

        Raises:
            RuntimeError: An edit is running.
        """
        with self._lock:
            self.fact = self._facts if edit is None else edit.facts
            if edit is None:
                return
            self.random_control = control_report is not None
            self.settings.train.show_choice_of(edit)
            self.recipe = edit.asked_recipe
            self._edit, self._report, self._control_report = edit, report, control_report
            self._elapsed = elapsed
            self._results.show_edit(edit, self._facts)
            if report is not None:
                self._results.show_report(report, control_report, self._facts)
            self._ran = self._made_by = None if edit_code is None else EditLines(edit_code)
            settings = self.settings.values(edit)
            self._mark.show(title_of(settings), settings, at=edit_views.made_at(edit))
            self._recheck()
            self._show_code()

    def on_done(self, callback: Callable[[EditPanel], object]) -> None:
        """Call ``callback(panel)`` after each run that made an edit, in the background thread: also where its
        evaluation was cancelled or failed; ``panel.report`` is None then."""
        self._callbacks.append(callback)

    def on_go(self, callback: Callable[[EditPanel, str], object]) -> None:
        """Show buttons that lead on from an edit, and call ``callback(panel, where)`` when one is pressed: with where
        ``"comparison"`` or ``"probing"``, or ``"chooser"`` where a fact is to be written."""
        self._leads.append(callback)
        self._results.lead_on()

    def _go(self, where: str) -> None:
        for callback in self._leads:
            callback(self, where)

    def refresh(self) -> None:
        """Show how large the source's selection is. Called by itself where the source tells of its changes."""
        with self._lock:
            self.settings.train.refresh()

    def _problem(self) -> str:
        return " ".join(filter(None, (self.no_fact.problem, self.settings.problem, self.elsewhere())))

    def _settings(self) -> dict[str, Any]:
        return self.settings.values()

    def _run_title(self) -> str:
        return title_of(self._settings())

    def _estimate(self) -> str:
        return self._run_progress.estimate(self._phases())

    def _phases(self) -> tuple[Phase, ...]:
        return self.settings.phases(self._facts, self._pool, self._max_controls)

    def _order(self) -> Callable[[threading.Event], EvalReport]:
        selection, recipe = self.settings.checked()
        if why := self.elsewhere():
            raise RuntimeError(why)
        self._ran = self._lines_for(selection, recipe)
        self._show_code()
        self._say_plainly("")
        self._run_progress.begin(self._phases(), recipe, self._facts)
        order = partial(
            fit_and_evaluate,
            self._model,
            self._facts,
            selection,
            recipe,
            pool=self._pool,
            max_controls=self._max_controls,
            on_step=self._stepped,
            on_edit=self._fitted,
            on_report=self._evaluated,
            on_control=self._compared if self.random_control else None,
            follow=self._follow_run,
        )
        return lambda cancel: order(cancel=cancel)

    # From the job's thread

    def _stepped(self, step: Step) -> None:
        with self._lock:
            self._run_progress.step(step, self._due)

    def _follow_run(self, phase: str, done: float, total: float, words: str) -> None:
        with self._lock:
            self._run_progress.follow(phase, done, total, words, self._due)

    def _tick(self) -> None:
        with self._lock:
            if self._busy:
                self._run_progress.draw()
                self._tell_status()

    def _fitted(self, edit: Edit) -> None:
        with self._lock:
            self._supersede()
            self._run_progress.fitted()
            self._edit, self._made_by = edit, self._ran
            self._results.show_edit(edit, self._facts)

    def _evaluated(self, report: EvalReport) -> None:
        self._report = report

    def _compared(self, report: EvalReport) -> None:
        self._control_report = report

    def _finished(self, job: Job[EvalReport]) -> None:
        self._report = job.result or self._report
        if self._edit is not None:
            self._results.show_report(self._report, self._control_report, self._facts, job.state)

    def _ended(self, job: Job[EvalReport]) -> None:
        with self._lock:  # no other run may begin before this one is told of
            self._run_progress.end(job.state == "done")
            super()._ended(job)
            for callback in self._callbacks if self._superseded else ():
                try:
                    callback(self)
                except Exception as error:
                    self._fail(error)
                    raise

    def _clear(self) -> None:
        super()._clear()
        self._edit = self._report = self._control_report = self._made_by = None
        self._results.clear()

    def _enable(self, enabled: bool) -> None:
        self.settings.enable(enabled)

    def _duration(self, seconds: float) -> str:
        return duration(seconds)

    def _settings_changed(self) -> None:
        if not self._busy:
            self._ran = None
            self._show_code()
        self._recheck()

    def _script(self, lines: EditLines) -> str:
        return f"{self._start()}{lines}"

    def _start(self) -> str:
        return f"{start_code(self._model)}{facts_code(self._facts, self._pool)}"

    def _lines_for(self, selection: Selection | None, recipe: BaseRecipe) -> EditLines:
        control = self.random_control
        return edit_lines(selection, recipe, pool=self._pool, max_controls=self._max_controls, control=control)

    def _picture(self) -> bytes:
        lines = edit_views.card_lines(self._facts[0], self.settings.controls.name, self._report)
        return text_card_png("Edit panel", lines)
