"""ProbePanel: pick probes, run them in the background, read every text side by side, and look at a prompt by layer.

Run is ``probe`` with what is ticked and nothing else, and Lens is ``lens`` at the base and at each stage;
``panel.code`` is the script of both. A cancelled run keeps the rows that were finished.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from typing import Any

from ipywidgets import HTML, Button, Checkbox, HBox

from workbench.editing.applied import applied, check_base
from workbench.evaluation.answer_slots import answers_at
from workbench.facts.known import load_facts
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.probing.probe import probe
from workbench.probing.table import PROBES
from workbench.tracing.lens import lens
from workbench.types import Edit, Fact, FactSet, Lens, ProbeReport, ProbeRow, TracedPrompt
from workbench.widgets.probe import views as probe_views
from workbench.widgets.shared import markup
from workbench.widgets.shared.code import facts_code, start_code
from workbench.widgets.shared.connection import Connection
from workbench.widgets.shared.controls import Dropdown, Select
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.panel import Panel
from workbench.widgets.shared.text_card import text_card_png

SECONDS_BETWEEN_DRAWINGS = 0.2
_WRAP: dict[str, Any] = {"flex_flow": "row wrap", "align_items": "center"}


class ProbePanel(Panel):
    """Search an edited model for what is left of the old fact.

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
    """

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
        self._model, self._edit, self._fact = model, edit, fact or edit.facts[0]
        self._options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "seed": seed}
        self._control, self._pool, self._edit_code = control, pool, edit_code
        self._lock = threading.RLock()
        self._job: Job[ProbeReport] | None = None
        self._looking: Job[list[Lens]] | None = None
        self._report: ProbeReport | None = None
        self._error: BaseException | None = None
        self._lens_code, self._shown_from = "", ""
        self._ran: tuple[str, ...] | None = None
        self._rows: list[ProbeRow] = []
        self._probe, self._drawn_at = "", 0.0

        self._heading = HTML()
        self._say_what()
        self._alert, self._progress, self._results, self._texts, self._layers, self._code = (HTML() for _ in range(6))
        self._boxes = {p: self._box(p, p in probes) for p in PROBES}
        self._run = Button(
            description="Run", icon="play", tooltip="Ask every stage the probes' prompts, in the background"
        )
        self._run.style.font_weight = "bold"
        self._cancel = Button(description="Cancel", icon="stop", tooltip="Stop; finished rows are kept", disabled=True)
        style = {"description_width": "72px"}
        self._shown = Dropdown(description="Probe", options=[], style=style)
        self._list = Select(
            description="Prompt", options=[], rows=8, style=style, layout={"width": "min(100% - 4px, 900px)"}
        )
        self._look = Button(description="Lens", icon="search", tooltip="Layer by layer, for this prompt", disabled=True)
        super().__init__(
            [
                Connection(),
                self._heading,
                HBox(list(self._boxes.values()), layout=_WRAP),
                HBox([self._run, self._cancel, self._progress], layout=_WRAP),
                self._alert,
                self._results,
                HBox([self._shown, self._look], layout=_WRAP),
                self._list,
                self._texts,
                self._layers,
                self._code,
            ]
        )
        self.add_class("wb-panel")
        self._show_code()
        self._run.on_click(lambda _: self.run())
        self._cancel.on_click(lambda _: self.cancel())
        self._look.on_click(lambda _: self.look())
        self._shown.observe(lambda _: self._show_list(), names="value")
        self._list.observe(lambda _: self._show_texts(), names="value")

    def _box(self, name: str, ticked: bool) -> Checkbox:
        box = Checkbox(description=PROBES[name].title, value=ticked, indent=False, layout={"width": "190px"})
        box.observe(lambda _: self._show_code(), names="value")
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
    def job(self) -> Job[ProbeReport] | None:
        """The last run; ``panel.job.wait()`` waits for its report and raises its error again."""
        return self._job

    @property
    def looking(self) -> Job[list[Lens]] | None:
        """The last Lens job; its result holds the readings, the base first."""
        return self._looking

    @property
    def report(self) -> ProbeReport | None:
        """The last report; after Cancel it holds what was finished."""
        return self._report

    @property
    def error(self) -> BaseException | None:
        """What went wrong last, else None."""
        return self._error

    @property
    def code(self) -> str:
        """Python that repeats the report and the Lens in sight; once other probes are ticked, what Run would do."""
        given = facts_code(self._edit.facts, self._pool)
        lines = self._edit_code or "edit = wb.load_edit('the folder that this edit was saved to')\n"
        repeats = self._ran in (None, self.probes)
        return f"{start_code(self._model)}{given}{lines.rstrip()}\n\n" + (
            self.shown_code if repeats else f"{self._run_code(self.probes)}{self._lens_code}"
        )

    @property
    def shown_code(self) -> str:
        """What made the report and the Lens in sight, after ``model``, ``facts`` and ``edit`` (and ``pool``, where one
        was given) are there; before any report what Run would do."""
        made = self._shown_from or self._run_code(self.probes if self._ran is None else self._ran)
        return f"{made}{self._lens_code}"

    def _run_code(self, asked: tuple[str, ...]) -> str:
        chosen = "" if asked == tuple(PROBES) else f", probes={list(asked)!r}"
        which = "" if self._fact == self._edit.facts[0] else f", fact={self._fact.id!r}"
        control = "" if self._control is None else f", control={self._control!r}".replace("Fact(", "wb.Fact(", 1)
        pool = ", pool=pool" if "\npool = " in facts_code(self._edit.facts, self._pool) else ""
        more = "".join(f", {k}={v!r}" for k, v in self._options.items() if v != {"max_new_tokens": 24, "seed": 0}[k])
        return f"probes = wb.probe(model, edit{which}{chosen}{control}{pool}{more})\n"

    # What it does

    def run(self) -> Job[ProbeReport]:
        """Run the ticked probes in the background. While some are running, this only says so."""
        with self._lock:
            if self._job is not None and self._job.running:
                self._alert.value = markup.alert("Probes are running already; wait for them or cancel.", "info")
                return self._job
            self._fail(None)
            self._rows, self._report, self._lens_code, self._shown_from = [], None, "", ""
            self._ran = self.probes
            self._show_code()
            self._results.value = self._texts.value = self._layers.value = ""
            self._shown.options, self._list.options = [], []
            self._run.disabled, self._cancel.disabled = True, False
            self._progress.value = markup.progress(None, 1, "Choosing a control fact.")
            given: dict[str, Any] = {"fact": self._fact, "control": self._control, "pool": self._pool, **self._options}
            order = partial(probe, self._model, self._edit, probes=list(self.probes), progress=False, **given)
            self._job = Job(
                lambda cancel: order(cancel=cancel, on_row=self._row, on_probe=self._begin), on_done=self._ended
            )
            return self._job

    def show(self, report: ProbeReport, *, probes_code: str = "") -> None:
        """Show what probes of this edit found before.

        Args:
            report: The report. Its probes are ticked.
            probes_code: Python that makes ``probes``, for ``.code``; by default what Run would do.

        Raises:
            ValueError: It is of another edit, or about a fact that the edit does not hold.
            RuntimeError: Probes are running.
        """
        settings = report.provenance.get("settings", {})
        made_for = settings.get("edit")
        if made_for not in (None, self._edit.id) or report.fact not in self._edit.facts:
            raise ValueError(
                f"The probes are of {report.fact.id} and the edit {str(made_for)[:16]}; this panel is for the edit "
                f"{self._edit.id[:16]} of {[f.id for f in self._edit.facts]}."
            )
        with self._lock:
            if self._job is not None and self._job.running:
                raise RuntimeError("Probes are running. Wait for them or cancel, then show others.")
            self._fail(None)
            self._fact, self._report, self._job, self._lens_code = report.fact, report, None, ""
            self._say_what()
            asked = settings.get("probes", report.probes)
            self.probes = tuple(p for p in PROBES if p in asked)
            self._options = {k: settings.get(k, v) for k, v in self._options.items()}
            self._shown_from, self._ran = probes_code, self.probes
            self._progress.value = ""
            self._show_report(report)
            self._show_code()

    def cancel(self) -> None:
        """Ask the probes to stop after the prompts at hand; what is finished is kept."""
        with self._lock:
            if self._job is not None and self._job.running:
                self._job.cancel()
                self._cancel.disabled = True
                self._progress.value = markup.progress(None, 1, "Cancelling: it stops after the prompts at hand.")

    def look(self) -> Job[list[Lens]] | None:
        """Read the chosen prompt layer by layer, at the base and at each stage, in the background.

        The lens follows what counts as the old and the new answer in that prompt (``ProbeRow``), so in a two-hop
        question the two ends of the path, and in one that must stay its own answer and the edit's.

        Returns:
            The job; None where no prompt is chosen, or it was asked with rounded weights.
        """
        with self._lock:
            if self._looking is not None and self._looking.running:
                return self._looking
            row = self._list.value
            if not isinstance(row, ProbeRow):
                return self._no_lens("No prompt is chosen. Run probes, then click one of their prompts.")
            if row.probe == "requantise":
                return self._no_lens(
                    "The lens reads the edit's own weights, not rounded ones. Choose a prompt of another probe."
                )
            asked = replace(self._judge(row), paraphrases=(), heldout=(), cloze_paraphrases=())
            try:
                asked = replace(asked, **{"question" if row.form == "chat" else "prompt": row.prompt})
            except ValueError as error:  # a cloze without the subject
                return self._no_lens(f"The lens cannot follow this prompt: {error}")
            model, edit = self._model, self._edit

            def work(cancel: threading.Event) -> list[Lens]:
                place = traced_prompt(model, asked, form=row.form, start=row.start, needs_subject=False)
                refusal = self._refusal(place, asked)
                found = [lens(model, asked, form=row.form, refusal=refusal, start=row.start)]
                for stage in edit.stage_names:
                    with applied(model, edit, stage) as edited:
                        found.append(lens(edited, asked, form=row.form, refusal=refusal, start=row.start))
                return found

            self._look.disabled = True
            self._layers.value = markup.block("Reading the layers ...")
            self._looking = Job(work, on_done=partial(self._looked, self._report, row, asked))
            return self._looking

    def _judge(self, row: ProbeRow) -> Fact:
        """The fact that a row is judged by. Where it is in no list (the two ends of a two-hop path), the edited one
        with the row's answers; the row does not hold their aliases."""
        control = self._report.control if self._report else None
        pool = load_facts() if self._pool is None else self._pool
        known = (f for f in (self._fact, control, *pool) if f is not None and f.id == row.fact_id)
        fact = next(known, self._fact)
        if row.old != fact.answer:
            fact = replace(fact, answer=row.old, answer_aliases=())
        return fact if row.new == fact.target else replace(fact, target=row.new, target_aliases=())

    def _no_lens(self, why: str) -> None:
        self._alert.value = markup.alert(why, "info")

    def _refusal(self, place: TracedPrompt, fact: Fact) -> str:
        """What the edit teaches as a refusal there."""
        return answers_at(place, fact, self._edit.recipe.answer_style)["refusal"]

    # From the jobs' threads

    def _begin(self, name: str) -> None:
        with self._lock:
            self._probe = name
            self._drawn_at = 0.0
            self._draw_progress()

    def _row(self, row: ProbeRow) -> None:  # probe takes False as "cancel"
        self._rows.append(row)
        self._draw_progress()

    def _draw_progress(self) -> None:
        now = time.perf_counter()
        if now - self._drawn_at < SECONDS_BETWEEN_DRAWINGS or self._job is None or self._job.cancelling:
            return
        self._drawn_at = now
        with self._lock:
            ran = self._ran or self.probes
            at, every = ran.index(self._probe) if self._probe in ran else 0, len(ran)
            note = f"{PROBES[self._probe].title}: probe {at + 1} of {every}, {len(self._rows)} answers so far"
            self._progress.value = markup.progress(at, every, note)

    def _ended(self, job: Job[ProbeReport]) -> None:
        with self._lock:
            self._run.disabled, self._cancel.disabled = False, True
            self._progress.value = markup.block(markup.text(f"{job.state} after {job.seconds:.0f} s"))
            self._report = job.result
            if job.state == "failed":
                self._fail(job.error)
            elif job.result is not None:
                self._show_report(job.result)

    def _looked(self, report: ProbeReport | None, row: ProbeRow, asked: Fact, job: Job[list[Lens]]) -> None:
        with self._lock:
            self._look.disabled = self._list.value is None
            if self._report is not report or self._list.value is not row:
                return  # another prompt is in sight by now
            self._layers.value = probe_views.layers(job.result, row.prompt) if job.result else ""
            if job.error is not None:
                self._fail(job.error)
            if job.result:
                refusal = self._refusal(job.result[0].prompt, asked)
                self._lens_code = probe_views.lens_code(asked, row.form, self._edit.stage_names, refusal, row.start)
                self._show_code()

    # What it shows

    def _say_what(self) -> None:
        words = f"{self._fact.prompt} {self._fact.answer} → {self._fact.target}"
        note = "ten probes; a prompt on which the base model itself fails says nothing about forgetting"
        self._heading.value = markup.STYLE + markup.title(f"What is left: {words}", note)

    def _show_report(self, report: ProbeReport) -> None:
        if report.partial:
            kept = f"{report.partial}; {len(report.rows)} finished answers are kept"
            self._alert.value = markup.alert(f"Ended early: {kept}.", "info")
        self._results.value = probe_views.results(report)
        named = [p for p in PROBES if any(r.probe == p for r in report.rows)]
        self._shown.options = [(report.words_of(p).title, p) for p in named]
        self._shown.value = named[0] if named else None
        self._show_list()

    def _show_list(self) -> None:
        base = [r for r in self._base_rows() if r.probe == self._shown.value]
        self._list.options = [(probe_views.row_label(r), r) for r in base]
        self._list.index = 0 if base else None
        self._look.disabled = not base
        self._show_texts()

    def _base_rows(self) -> list[ProbeRow]:
        return [r for r in self._report.rows if r.stage == "base"] if self._report else []

    def _show_texts(self) -> None:
        row = self._list.value
        self._layers.value = ""
        self._texts.value = probe_views.texts(self._report, row) if self._report and isinstance(row, ProbeRow) else ""

    def _show_code(self) -> None:
        self._code.value = markup.code(self.code)

    def _fail(self, error: BaseException | None) -> None:
        self._error = error
        self._alert.value = markup.alert(f"{type(error).__name__}: {error}" if error else None)

    def _picture(self) -> bytes:
        lines = [self._fact.question, f"{self._fact.answer} -> {self._fact.target}"]
        found = probe_views.card_lines(self._report) if self._report is not None else []
        return text_card_png("ProbePanel", [*lines, *found, "Run this cell to use the panel."])


def _check(probes: tuple[str, ...]) -> None:
    unknown = [p for p in probes if p not in PROBES]
    if unknown:
        raise ValueError(f"probes must be some of {list(PROBES)}, got {unknown}.")
