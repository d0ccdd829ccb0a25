"""ProbePanel: pick probes, run them in the background, read every text side by side, and look at a prompt by layer.

Run is ``probe`` with what is ticked and nothing else, and Lens is ``lens`` at the base and at each stage;
``panel.code`` is the script of both. A cancelled run keeps the rows that were finished.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ipywidgets import HTML, Checkbox, HBox

from workbench.editing.applied import check_base
from workbench.models.load import LoadedModel
from workbench.probing.probe import probe
from workbench.probing.table import PROBES
from workbench.types import Edit, Fact, FactSet, Lens, ProbeReport, ProbeRow
from workbench.widgets.probe import views as probe_views
from workbench.widgets.probe.reader import PromptReader
from workbench.widgets.shared import markup
from workbench.widgets.shared.code import fact_call_in_a_line, facts_code, pool_argument, start_code
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.run_panel import RunPanel, RunWords
from workbench.widgets.shared.text_card import text_card_png

_DEFAULTS = {"max_new_tokens": 24, "seed": 0}
_ROW = {"flex_flow": "row wrap", "align_items": "center"}


class ProbePanel(RunPanel[ProbeReport]):
    """The panel searches an edited model for what is left of the old fact.

    Args:
        model: The edit's base; it is not changed.
        edit: The edit.
        fact: Which of the edit's facts; the first by default.
        control: As in ``probe``.
        pool: Where controls and two-hop paths come from; the bundled facts by default.
        probes: Which are ticked at first; all by default.
        max_new_tokens, seed: As in ``probe``.
        edit_code: Python that makes ``edit`` from ``model``, for ``.code``, such as ``edit = wb.load_edit("folder")``.

    Raises:
        ValueError: An edited model, an edit of another base, a fact that the edit does not hold, or an unknown probe.

    Example:
        >>> panel = wb.ProbePanel(model, edit, pool=facts, probes=("lens",))
        >>> panel
        ProbePanel(france-capital: lens, not run)
        >>> print(panel.code.splitlines()[-1])
        probes = wb.probe(model, edit, probes=['lens'], pool=pool)
    """

    WORDS = RunWords(
        label="Run",
        icon="play",
        tip="Ask every stage the probes' prompts, in the background",
        cancel_tip="Stop; finished rows are kept",
        refused="Probes are running already; wait for them or cancel.",
        cancelling="Cancelling: it stops after the prompts at hand.",
    )

    def __init__(
        self,
        model: LoadedModel,
        edit: Edit,
        *,
        fact: Fact | None = None,
        control: Fact | None = None,
        pool: FactSet | None = None,
        probes: tuple[str, ...] = tuple(PROBES),
        max_new_tokens: int = 24,
        seed: int = 0,
        edit_code: str | None = None,
    ) -> None:
        if model.applied:
            raise ValueError("ProbePanel puts the edit on by itself: pass the base model (model.base).")
        check_base(model, edit)
        if fact is not None and fact not in edit.facts:
            raise ValueError(f"The edit does not hold the fact {fact.id!r}; it holds {[f.id for f in edit.facts]}.")
        _check(probes)
        super().__init__()
        self._model, self._edit, self._fact = model, edit, fact or edit.facts[0]
        self._options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "seed": seed}
        self._control, self._pool, self._edit_code = control, pool, edit_code
        self._report: ProbeReport | None = None
        self._ran: tuple[str, ...] | None = None  # the probes of the report that is shown
        self._asking: tuple[str, ...] = ()  # of the run that goes on
        self._made_by = ""  # the code of the report that is shown
        self._rows: list[ProbeRow] = []
        self._probe = ""
        self._boxes = {p: self._box(p, p in probes) for p in PROBES}
        self._results = HTML()
        self._reader = PromptReader(
            model,
            edit,
            self._fact,
            pool,
            self._lock,
            on_read=self._show_code,
            on_refused=lambda why: self._tell(markup.Message(why)),
            on_error=self._fail,
        )
        boxes = HBox(list(self._boxes.values()), layout=_ROW)
        self._lay_out_run([boxes], [self._results, *self._reader.widgets])
        self._show_heading()
        self._show_code()

    def _box(self, name: str, ticked: bool) -> Checkbox:
        box = Checkbox(description=PROBES[name].title, value=ticked, indent=False, layout={"width": "190px"})
        box.observe(lambda _: self._show_code(), names="value")
        self._follow(box)
        return box

    def __repr__(self) -> str:
        state = self._job.state if self._job is not None else "not run"
        return f"ProbePanel({self._fact.id}: {', '.join(self.probes) or 'no probe'}, {state})"

    @property
    def probes(self) -> tuple[str, ...]:
        """What is ticked. Settable; unknown names raise a ValueError."""
        return tuple(p for p in PROBES if self._boxes[p].value)

    @probes.setter
    def probes(self, probes: tuple[str, ...]) -> None:
        _check(probes)
        for name, box in self._boxes.items():
            box.value = name in probes

    @property
    def looking(self) -> Job[list[Lens]] | None:
        """The last Lens job; its result holds the readings, the base first."""
        return self._reader.job

    @property
    def report(self) -> ProbeReport | None:
        """The last report; after Cancel it holds what was finished."""
        return self._report

    @property
    def code(self) -> str:
        """Python that repeats the report and the Lens in sight; once other probes are ticked, what Run would do."""
        given = facts_code(self._edit.facts, self._pool)
        lines = self._edit_code or "edit = wb.load_edit('the folder that this edit was saved to')\n"
        repeats = self._ran in (None, self.probes)
        shown = self.shown_code if repeats else f"{self._run_code(self.probes)}{self._reader.code}"
        return f"{start_code(self._model)}{given}{lines.rstrip()}\n\n{shown}"

    @property
    def shown_code(self) -> str:
        """What made the report and the Lens in sight, after ``model``, ``facts`` and ``edit`` (and ``pool``, where one
        was given) are there; before any report what Run would do."""
        made = self._made_by or self._run_code(self.probes if self._ran is None else self._ran)
        return f"{made}{self._reader.code}"

    def _run_code(self, asked: tuple[str, ...]) -> str:
        chosen = "" if asked == tuple(PROBES) else f", probes={list(asked)!r}"
        which = "" if self._fact == self._edit.facts[0] else f", fact={self._fact.id!r}"
        control = "" if self._control is None else f", control={fact_call_in_a_line(self._control)}"
        more = "".join(f", {k}={v!r}" for k, v in self._options.items() if v != _DEFAULTS[k])
        return f"probes = wb.probe(model, edit{which}{chosen}{control}{pool_argument(self._pool)}{more})\n"

    # What it does

    def show(self, report: ProbeReport, *, probes_code: str = "") -> None:
        """Show what probes of this edit found before.

        Args:
            report: The report. Its probes are ticked.
            probes_code: Python that makes ``probes``, for ``.code``; by default what Run would do.

        Raises:
            ValueError: It is of another edit, or about a fact that the edit does not hold.
            RuntimeError: Probes are running.
        """
        if report.edit_id not in (None, self._edit.id) or report.fact not in self._edit.facts:
            raise ValueError(
                f"The probes are of {report.fact.id} and the edit {str(report.edit_id)[:16]}; this panel is for the "
                f"edit {self._edit.id[:16]} of {[f.id for f in self._edit.facts]}."
            )
        with self._lock:
            if self._busy:
                raise RuntimeError("Probes are running. Wait for them or cancel, then show others.")
            self._fail(None)
            self._mark.clear()
            self._fact, self._report, self._job = report.fact, report, None
            self._reader.fact = report.fact
            self._show_heading()
            asked = report.asked or report.probes
            self.probes = tuple(p for p in PROBES if p in asked)
            ran_with = {"max_new_tokens": report.max_new_tokens, "seed": report.seed}
            self._options |= {name: value for name, value in ran_with.items() if value is not None}
            self._made_by, self._ran = probes_code, self.probes
            self._say_plainly("")
            self._show_report(report)
            self._show_code()

    def look(self) -> Job[list[Lens]] | None:
        """Read the chosen prompt layer by layer, at the base and at each stage, in the background.

        The lens follows what counts as the old and the new answer in that prompt (``ProbeRow``), so in a two-hop
        question the two ends of the path, and in one that must stay its own answer and the edit's.

        Returns:
            The job; None where no prompt is chosen, or it was asked with rounded weights.
        """
        return self._reader.look()

    def _problem(self) -> str:
        return "" if self.probes else "No probe is ticked. Tick at least one."

    def _settings(self) -> dict[str, Any]:
        titles = [PROBES[p].title for p in self.probes]
        return {"probes": "all ten" if len(titles) == len(PROBES) else ", ".join(titles)}

    def _order(self) -> Callable[[threading.Event], ProbeReport]:
        asked = self.probes
        if not asked:
            raise ValueError(f"probes must be some of {list(PROBES)}, got []: none is ticked.")
        self._say("Choosing a control fact.")
        self._asking, self._rows = asked, []
        given: dict[str, Any] = {"fact": self._fact, "control": self._control, "pool": self._pool, **self._options}
        order = partial(probe, self._model, self._edit, probes=list(asked), progress=False, **given)
        return lambda cancel: order(cancel=cancel, on_row=self._row, on_probe=self._begin)

    # From the job's thread

    def _begin(self, name: str) -> None:
        self._probe, self._drawn_at = name, float("-inf")
        self._draw_progress()

    def _row(self, row: ProbeRow) -> None:  # probe takes False as "cancel"
        self._rows.append(row)
        self._draw_progress()

    def _draw_progress(self) -> None:
        if not self._going or not self._due():
            return
        asked = self._asking
        at, every = asked.index(self._probe) if self._probe in asked else 0, len(asked)
        words = f"{PROBES[self._probe].title}: probe {at + 1} of {every}, {len(self._rows)} answers so far"
        self._say(markup.Progress(words, at, every))

    def _finished(self, job: Job[ProbeReport]) -> None:
        self._report = job.result
        if job.result is not None:
            self._show_report(job.result)

    # What it shows

    def _clear(self) -> None:
        super()._clear()
        self._report, self._made_by = None, ""
        self._ran = self._asking
        self._results.value = ""
        self._reader.show(None)
        self._show_code()

    def _show_heading(self) -> None:
        words = f"{self._fact.prompt} {self._fact.answer} → {self._fact.target}"
        note = "ten probes; a prompt on which the base model itself fails says nothing about forgetting"
        self._heading.value = markup.panel_title(f"What is left: {words}", note)

    def _show_report(self, report: ProbeReport) -> None:
        if report.partial:
            message = f"Ended early: {report.partial}; {len(report.rows)} finished answers are kept."
            self._tell(markup.Message(message))
        self._results.value = probe_views.results(report)
        self._reader.show(report)

    def _picture(self) -> bytes:
        lines = [self._fact.question, f"{self._fact.answer} -> {self._fact.target}"]
        rates = probe_views.card_lines(self._report) if self._report is not None else []
        return text_card_png("ProbePanel", [*lines, *rates, "Run this cell to use the panel."])


def _check(probes: tuple[str, ...]) -> None:
    unknown = [p for p in probes if p not in PROBES]
    if unknown:
        raise ValueError(f"probes must be some of {list(PROBES)}, got {unknown}.")
