"""DryRunPanel: before an edit is made, what it would write and how far it would reach."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ipywidgets import HTML, VBox

from workbench.editing.dry_run import dry_run
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, DryRun, Fact, FactSet, Selection
from workbench.widgets.edit.no_fact import NoFact
from workbench.widgets.edit.settings import EditSettings, title_of
from workbench.widgets.edit.views import short_number, writes_table
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.code import pool_argument, recipe_code, selection_code
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.run_panel import RunPanel, RunWords
from workbench.widgets.shared.text_card import text_card_png

FIRST_FACTS = 3
"""Of each group those that are reached most are shown at once."""


class DryRunPanel(RunPanel[DryRun]):
    """A button; what a dry run says is in ``outcome``, for a place that is wide enough for its table.

    Args:
        model: The base model.
        settings: What would be edited with.
        facts: Gives the facts.
        start: Gives the lines of code that define the model, the facts and the pool.
        pool: As in ``dry_run``.
        no_fact: Says where there is no fact to plan for.
    """

    WORDS = RunWords(
        label="Dry run",
        icon="search",
        tip="What this edit would write, and which other facts it would reach. Nothing is changed",
        cancel_tip="Stop at the next step",
        refused="A dry run is going on already; this click changed nothing.",
        cancelling="Cancelling: it stops at the next step.",
        bold=False,
        named="Dry run",
    )

    def __init__(
        self,
        model: LoadedModel,
        settings: EditSettings,
        facts: Callable[[], FactSet],
        start: Callable[[], str],
        pool: FactSet | None,
        no_fact: NoFact,
    ) -> None:
        super().__init__()
        self._model, self._choices, self._facts, self._start, self._pool = model, settings, facts, start, pool
        self._no_fact = no_fact
        self._plan: DryRun | None = None
        self._asked_of: list[Fact] = []  # the facts of the last run
        self._shown = HTML()
        self._cancel.description = "Stop dry run"  # Cancel is the edit's
        self._lay_out(self._buttons())
        self.outcome = VBox([self._alert, self._mark, self._shown])
        """What the last dry run says, and of which settings; empty before one."""
        settings.on_change(self._recheck)
        no_fact.on_change(self._recheck)
        self._recheck()

    def __repr__(self) -> str:
        return f"DryRunPanel({'not run' if self._plan is None else self._plan.method})"

    @property
    def plan(self) -> DryRun | None:
        """The dry run that is shown."""
        return self._plan

    @property
    def code(self) -> str:
        """Python that repeats it."""
        try:
            selection, recipe = self._choices.checked()
        except ValueError as error:
            return f"# These settings do not work: {error}\n"
        return (
            f"{self._start()}plan = wb.dry_run(model, fact, {selection_code(selection)}, recipe={recipe_code(recipe)}"
            f"{pool_argument(self._pool)})\nprint(plan)\n"
        )

    def forget(self) -> None:
        """Nothing is shown: what would be edited is another fact."""
        with self._lock:
            self.cancel()
            self._clear()
            self._say_plainly("")

    def _recheck(self) -> None:
        super()._recheck()
        self._note.value = ""  # the reason stands beside Run

    def _problem(self) -> str:
        return " ".join(filter(None, (self._no_fact.problem, self._choices.problem)))

    def _settings(self) -> dict[str, Any]:
        return self._choices.values()

    def _run_title(self) -> str:
        return title_of(self._settings())

    def _order(self) -> Callable[[threading.Event], DryRun]:
        selection, recipe = self._choices.checked()
        facts, options = self._facts(), {"pool": self._pool, "progress": False}
        self._asked_of = list(facts)
        self._say("Reading what the edit would read, in the base")
        return lambda cancel: _planned(self._model, facts, selection, recipe, options, cancel)

    @property
    def _of_another(self) -> bool:
        """Whether the last run is of other facts than those on screen."""
        return self._asked_of != list(self._facts())

    def _ended(self, job: Job[DryRun]) -> None:
        with self._lock:
            super()._ended(job)
            if self._of_another:
                self._clear()
                self._say_plainly("")

    def _finished(self, job: Job[DryRun]) -> None:
        self._plan = None if self._of_another else job.result
        self._shown.value = "" if self._plan is None else plan_markup(self._plan)

    def _clear(self) -> None:
        super()._clear()
        self._plan, self._shown.value = None, ""

    def _enable(self, enabled: bool) -> None:
        layout.show(self._shown, enabled)

    def _picture(self) -> bytes:
        return text_card_png("Dry run", [] if self._plan is None else [self._plan.moves])


def _planned(
    model: LoadedModel,
    facts: FactSet,
    selection: Selection | None,
    recipe: BaseRecipe,
    options: dict[str, Any],
    cancel: threading.Event,
) -> DryRun:
    return dry_run(model, facts, selection, recipe=recipe, cancel=cancel, **options)


def plan_markup(plan: DryRun) -> str:
    """A dry run for a person: warnings first, then the reach by group, then what would be written."""
    parts = [markup.alert(words, "info") for words in plan.warnings]
    if not parts and plan.reach:
        parts.append(markup.hint("Nothing speaks against it: no other fact looked at is reached widely."))
    parts.append(markup.hint(f"{plan.moves}."))
    if plan.reach:
        assumed = "" if plan.known else " An update of random directions is assumed: this method trains."
        rows = [
            [group, len(reached), short_number(plan.mean_opening(group)), *_most(reached)]
            for group, reached in plan.groups.items()
        ]
        head = ["facts", "n", "mean opening", "reached most"]
        caption = "How far it reaches: 1 is as much as the edited subject sees." + assumed
        parts.append(markup.table(head, rows, caption))
    parts.append(writes_table(plan.writes, "What it would write"))
    parts += [markup.hint(note) for note in plan.notes]
    return "".join(parts)


def _most(reached: tuple[Any, ...]) -> list[str]:
    return [", ".join(f"{r.fact_id} {short_number(r.opening)}" for r in reached[:FIRST_FACTS])]
