"""ProbePanel: tick probes in a table, run them in the background, read every text, and look at a prompt by layer.

Run is ``probe`` with what is ticked and nothing else, and Lens is ``lens`` at the base and at each stage;
``panel.code`` is the script of both. Probes that are run one after another stay in the table, as if they had been run
at once. A cancelled run keeps the rows that were finished.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from ipywidgets import HTML

from workbench.editing.applied import check_base
from workbench.models.load import LoadedModel
from workbench.probing.lens_choice import check_asked
from workbench.probing.outcome import joinable, joined
from workbench.probing.probe import probe
from workbench.probing.table import PROBES, QUICK
from workbench.types import Edit, Fact, FactSet, Lens, LensAsked, NullSize, ProbeReport, ProbeRow
from workbench.widgets.probe import views as probe_views
from workbench.widgets.probe.pace import Pace
from workbench.widgets.probe.reader import PromptReader
from workbench.widgets.probe.table import ProbeLine, ProbeTable
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.code import fact_call_in_a_line, facts_code, pool_argument, start_code
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.run_panel import RunPanel, RunWords
from workbench.widgets.shared.text_card import text_card_png

_DEFAULTS = {"max_new_tokens": 24, "seed": 0, "null": None, "lens": "auto"}


class ProbePanel(RunPanel[ProbeReport]):
    """The panel searches an edited model for what is left of the old fact.

    Args:
        model: The edit's base; it is not changed.
        edit: The edit.
        fact: Which of the edit's facts; the first by default.
        control: As in ``probe``.
        pool: Where controls and two-hop paths come from; the bundled facts by default.
        probes: Which are ticked at first; None for the quick ones.
        max_new_tokens, seed, null, lens: As in ``probe``.
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
    TICK_SECONDS = 1.0

    def __init__(
        self,
        model: LoadedModel,
        edit: Edit,
        *,
        fact: Fact | None = None,
        control: Fact | None = None,
        pool: FactSet | None = None,
        probes: tuple[str, ...] | None = None,
        max_new_tokens: int = 24,
        seed: int = 0,
        null: Literal["quick"] | bool | None = None,
        lens: LensAsked = "auto",
        edit_code: str | None = None,
    ) -> None:
        if model.applied:
            raise ValueError("ProbePanel puts the edit on by itself: pass the base model (model.base).")
        check_base(model, edit)
        NullSize.of(null)
        check_asked(lens)
        if fact is not None and fact not in edit.facts:
            raise ValueError(f"The edit does not hold the fact {fact.id!r}; it holds {[f.id for f in edit.facts]}.")
        ticked = QUICK if probes is None else probes
        _check(ticked)
        super().__init__()
        self._model, self._edit, self._fact = model, edit, fact or edit.facts[0]
        self._options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "seed": seed, "null": null}
        self._options["lens"] = lens
        self._control, self._pool, self._edit_code = control, pool, edit_code
        self._report: ProbeReport | None = None
        self._made_by = ""  # the code of the report that is shown
        self._kept: dict[tuple[str, str], tuple[ProbeReport, str]] = {}  # reports and their code, by edit and fact
        self._rows: list[ProbeRow] = []
        self._pace = Pace(model)
        self._table = ProbeTable(ticked, on_tick=self._ticked, on_open=self.read)
        self._verdict, self._rates = HTML(), HTML()
        self._reader = PromptReader(
            model,
            edit,
            self._fact,
            pool,
            self._lock,
            on_read=self._read,
            on_refused=lambda why: self._tell(markup.Message(why)),
            on_error=self._fail,
        )
        both = layout.columns(self._table.grid, self._reader.widget, widths=("1 1 780px", "1 1 540px"))
        row = layout.row(self._table.choices, self._buttons())
        self._lay_out(self._heading, self._verdict, row, self._alert, both, self._rates, self._code)
        self._show_heading()
        self._show_report()

    def __repr__(self) -> str:
        state = self._job.state if self._job is not None else "not run"
        return f"ProbePanel({self._fact.id}: {', '.join(self.probes) or 'no probe'}, {state})"

    @property
    def probes(self) -> tuple[str, ...]:
        """What is ticked. Settable; unknown names raise a ValueError."""
        return self._table.ticked

    @probes.setter
    def probes(self, probes: tuple[str, ...]) -> None:
        _check(probes)
        self._table.ticked = probes

    @property
    def looking(self) -> Job[list[Lens]] | None:
        """The last Lens job; its result holds the readings, the base first."""
        return self._reader.job

    @property
    def report(self) -> ProbeReport | None:
        """What all probes of this edit found; after Cancel it holds what was finished."""
        return self._report

    @property
    def edit(self) -> Edit:
        """The edit that is probed."""
        return self._edit

    @property
    def code(self) -> str:
        """Python that repeats the report and the Lens in sight; before any report what Run would do."""
        given = facts_code(self._edit.facts, self._pool)
        lines = self._edit_code or "edit = wb.load_edit('the folder that this edit was saved to')\n"
        return f"{start_code(self._model)}{given}{lines.rstrip()}\n\n{self.shown_code}"

    @property
    def shown_code(self) -> str:
        """What made the report and the Lens in sight, after ``model``, ``facts`` and ``edit`` (and ``pool``, where one
        was given) are there; before any report what Run would do."""
        asked = self.probes if self._report is None else _asked(self._report)
        return f"{self._made_by or self._run_code(asked)}{self._reader.code}"

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
            self._fact, self._job = report.fact, None
            self.probes = tuple(p for p in PROBES if p in _asked(report))
            ran_with = {"max_new_tokens": report.max_new_tokens, "seed": report.seed}
            self._options |= {name: value for name, value in ran_with.items() if value is not None}
            self._options["null"] = None if report.null is None else report.null.size.asked
            if report.lens_choice is not None:
                self._options["lens"] = report.lens_choice.asked
            self._say_plainly("")
            self._take(report, probes_code)

    def show_edit(self, edit: Edit, *, fact: Fact | None = None, edit_code: str | None = None) -> None:
        """Show another edit of the same base, with what its probes found in this panel; a run that is going on is
        cancelled, and keeps what was finished.

        Args:
            edit: The edit.
            fact: Which of its facts; the first by default.
            edit_code: As in the constructor.

        Raises:
            ValueError: It was fitted on another base, or does not hold the fact. Nothing has changed then.
        """
        check_base(self._model, edit)
        chosen = edit.facts[0] if fact is None else fact
        if chosen not in edit.facts:
            raise ValueError(f"The edit does not hold the fact {chosen.id!r}; it holds {[f.id for f in edit.facts]}.")
        with self._lock:
            if self._busy and self._job is not None:
                self._job.cancel()
            self._fail(None)
            self._edit, self._fact, self._edit_code = edit, chosen, edit_code
            self._report, self._made_by = self._kept.get((edit.id, chosen.id), (None, ""))
            self._say_plainly("")
            self._show_report()

    def read(self, probe: str) -> None:
        """Show the texts, curves and readings of a probe.

        Raises:
            ValueError: An unknown probe.
        """
        _check((probe,))
        with self._lock:
            self._reader.open(probe)

    def look(self) -> Job[list[Lens]] | None:
        """Read the chosen prompt layer by layer, at the base and at each stage, in the background.

        The lens follows what counts as the old and the new answer in that prompt (``ProbeRow``), so in a two-hop
        question the two ends of the path, and in one that must stay its own answer and the edit's.

        Returns:
            The job; None where no prompt is chosen, or it was asked with rounded weights.
        """
        return self._reader.look()

    # The run

    def _problem(self) -> str:
        return "" if self.probes else "No probe is ticked. Tick at least one."

    def _estimate(self) -> str:
        n = len(self.probes)
        first = "".join(f"; {words}" for words in self._first().values())
        return f"{n} probe{'' if n == 1 else 's'}, {self._pace.about(self.probes, self._edit)}{first}"

    def _first(self) -> dict[str, str]:
        """By ticked probe, what it makes of the model before its own work, where that is not there yet."""
        words = {name: PROBES[name].first(self._model, self._options["lens"]) for name in self.probes}
        return {name: made for name, made in words.items() if made}

    def _order(self) -> Callable[[threading.Event], ProbeReport]:
        asked = self.probes
        if not asked:
            raise ValueError(f"probes must be some of {list(PROBES)}, got []: none is ticked.")
        self._say("Choosing a control fact.")
        self._rows = []
        self._pace.start(asked, self._edit, apart=self._first())
        given: dict[str, Any] = {"fact": self._fact, "control": self._control, "pool": self._pool, **self._options}
        order = partial(probe, self._model, self._edit, probes=list(asked), progress=False, **given)
        return lambda cancel: order(cancel=cancel, on_row=self._row, on_probe=self._begin)

    def _enable(self, enabled: bool) -> None:
        self._table.enable(enabled)

    def _begin(self, name: str) -> None:
        self._pace.begin(name)
        self._drawn_at = float("-inf")
        self._draw_progress()

    def _row(self, row: ProbeRow) -> None:  # probe takes False as "cancel"
        self._rows.append(row)
        self._draw_progress()

    def _tick(self) -> None:
        with self._lock:
            if self._busy:
                self._draw_progress()

    def _draw_progress(self) -> None:
        now = self._pace.now
        if now is None or not self._going or not self._due():
            return
        here = sum(row.probe == now for row in self._rows)
        done, total = self._pace.progress(here)
        first = PROBES[now].first(self._model, self._options["lens"])
        words = f"{PROBES[now].title}: {first + '; ' * bool(first)}{self._pace.words(here)}"
        self._say(markup.Progress(words, round(100 * done / total), 100))
        self._show_lines()

    def _ended(self, job: Job[ProbeReport]) -> None:
        with self._lock:
            self._pace.end(job.result.probes if job.result is not None else ())
            super()._ended(job)
            self._show_lines()

    def _finished(self, job: Job[ProbeReport]) -> None:
        report = job.result
        if report is None:
            return
        key = (str(report.edit_id), report.fact.id)
        before = self._kept.get(key, (None, ""))[0]
        whole = report if before is None or not joinable(before, report) else joined(before, report)
        self._kept[key] = (whole, "")
        if (self._edit.id, self._fact.id) == key:
            self._report, self._made_by = whole, ""
            self._show_report()
        if report.partial:
            words = f"Ended early: {report.partial}; {len(report.rows)} finished answers are kept."
            self._tell(markup.Message(words))

    # What it shows

    def _take(self, report: ProbeReport, code: str) -> None:
        self._report, self._made_by = report, code
        self._kept[self._edit.id, self._fact.id] = (report, code)
        self._show_report()

    def _ticked(self) -> None:
        self._recheck()
        self._show_code()

    def _read(self) -> None:
        """Another probe or a reading of a prompt is in sight."""
        self._show_lines()
        self._show_code()

    def _show_heading(self) -> None:
        words = f"{self._fact.prompt} {self._fact.answer} → {self._fact.target}"
        note = "a prompt on which the base model itself fails says nothing about forgetting"
        self._heading.value = markup.panel_title(f"What is left: {words}", note)

    def _show_report(self) -> None:
        report = self._report
        self._show_heading()
        self._verdict.value = probe_views.verdict(report) if report is not None else ""
        self._rates.value = probe_views.all_rates(report) if report is not None else ""
        self._reader.show(report, of=(self._edit, self._fact))
        self._show_lines()
        self._recheck()
        self._show_code()

    def _show_lines(self) -> None:
        readable = probe_views.readable(self._report) if self._report is not None else ()
        lines = {
            name: ProbeLine(
                time=self._pace.time(name, self._edit),
                result=self._pace.state(name, self._rows) or words,
                share=share,
                opens=name in readable,
            )
            for name in PROBES
            for words, share in (probe_views.result(self._report, name),)
        }
        self._table.show(lines, self._reader.opened)

    def _picture(self) -> bytes:
        lines = [self._fact.question, f"{self._fact.answer} -> {self._fact.target}"]
        rates = probe_views.card_lines(self._report) if self._report is not None else []
        return text_card_png("ProbePanel", [*lines, *rates, "Run this cell to use the panel."])


def _asked(report: ProbeReport) -> tuple[str, ...]:
    return tuple(report.asked or report.probes)


def _check(probes: tuple[str, ...]) -> None:
    unknown = [p for p in probes if p not in PROBES]
    if unknown:
        raise ValueError(f"probes must be some of {list(PROBES)}, got {unknown}.")
