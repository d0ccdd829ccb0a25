"""PromptReader: what one probe found, its prompts as a list, one prompt's texts side by side, and its layers.

Lens is ``lens`` at the base and at each stage, in the background, through the lens of the report. It follows what
counts as the old and the new answer in that prompt (``ProbeRow``), so in a two-hop question the two ends of the path,
and in one that must stay its own answer and the edit's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ipywidgets import HTML, VBox

from workbench.editing.applied import applied
from workbench.evaluation.answer_slots import answers_at
from workbench.facts.known import load_facts
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.probing.lens_choice import choose_lens, fits_first, text_pool
from workbench.tracing.lens import LensKeywords, lens
from workbench.types import Edit, Fact, FactSet, Lens, LensKind, ProbeReport, ProbeRow
from workbench.widgets.probe import views as probe_views
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.controls import Select
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.sync import WholeMessages
from workbench.widgets.shared.voice import person


class PromptList(WholeMessages, Select):
    """A list whose lines a job's thread and the kernel's both change."""


class PromptReader:
    """The part of a ``ProbePanel`` that reads one probe; empty until one is opened. It tells of what went wrong, and
    shows no alert of its own.

    Args:
        model, edit, fact, pool: As in ``ProbePanel``.
        lock: Held while what a job gave is shown.
        on_read: Called after a reading is shown, so that the code follows.
        on_refused: Called with the reason why a prompt has no lens.
        on_error: Called with the error of a reading that failed.
    """

    def __init__(
        self,
        model: LoadedModel,
        edit: Edit,
        fact: Fact,
        pool: FactSet | None,
        lock: threading.RLock,
        *,
        on_read: Callable[[], object],
        on_refused: Callable[[str], object],
        on_error: Callable[[BaseException], object],
    ) -> None:
        self.job: Job[list[Lens]] | None = None
        self.code = ""
        """Python that repeats the reading in sight; empty without one."""
        self.fact = fact
        """The fact that the probes are of."""
        self._model, self._edit, self._pool, self._lock = model, edit, pool, lock
        self._on_read, self._on_refused, self._on_error = on_read, on_refused, on_error
        self._report: ProbeReport | None = None
        self.opened: str | None = None
        """The probe that is read."""
        self._found, self._texts, self._layers, self._all = HTML(), HTML(), HTML(), HTML()
        self._list = PromptList(description="Prompt", options=[], rows=7, layout={"width": "min(100% - 4px, 900px)"})
        self._list.add_class("wb-prompts")
        tip = "What each layer would answer to this prompt, at the base and after each stage"
        self._look = layout.quiet_button("Lens", icon="search", tooltip=tip)
        self._prompts = VBox([layout.fields(self._list), self._texts, layout.row(self._look), self._layers, self._all])
        self.widget = VBox([self._found, self._prompts])
        self._look.on_click(lambda _: self.look())
        self._list.observe(lambda _: self._show_texts(), names="value")
        self._show_list()

    @property
    def row(self) -> ProbeRow | None:
        """The prompt that is chosen: its row of the base."""
        return self._list.value if isinstance(self._list.value, ProbeRow) else None

    def show(self, report: ProbeReport | None, *, of: tuple[Edit, Fact] | None = None) -> None:
        """Read this report, or none; the probe that was opened stays open where it has something to read.

        Args:
            report: The report.
            of: The edit and the fact, where they are others.
        """
        if of is not None:
            self._edit, self.fact = of
        self._report, self.code = report, ""
        readable = probe_views.readable(report) if report is not None else ()
        if self.opened not in readable:
            self.opened = probe_views.most_telling(report) if report is not None else None
        self._show_list()

    def open(self, probe: str) -> None:
        """Read this probe."""
        self.opened, self.code = probe, ""
        self._show_list()
        self._on_read()

    def look(self) -> Job[list[Lens]] | None:
        """Read the chosen prompt layer by layer; see ``ProbePanel.look``."""
        with self._lock:
            if self.job is not None and self.job.running:
                return self.job
            row = self.row
            if row is None:
                self._on_refused("No prompt is chosen. Run probes, then click one of their prompts.")
                return None
            if row.probe == "requantise":
                why = "The lens reads the edit's own weights, not rounded ones. Choose a prompt of another probe."
                self._on_refused(why)
                return None
            try:
                asked = self._asked(row)
            except ValueError as error:  # a cloze without the subject
                self._on_refused(f"The lens cannot follow this prompt: {person(error)}")
                return None
            self._look.disabled = True
            kind = self._kind()
            first = fits_first(self._model, kind)
            self._layers.value = markup.block(f"Reading the layers ...{first and f' {first}.'}")
            work, done = partial(self._read, row, asked, kind), partial(self._looked, self._report, row, asked, kind)
            self.job = Job(work, on_done=done)
            return self.job

    def _asked(self, row: ProbeRow) -> Fact:
        """The fact that a row is judged by, asked in the row's own words. Where it is in no list (the two ends of a
        two-hop path), the edited one with the row's answers; the row does not hold their aliases."""
        control = self._report.control if self._report else None
        pool = load_facts() if self._pool is None else self._pool
        known = (f for f in (self.fact, control, *pool) if f is not None and f.id == row.fact_id)
        fact = next(known, self.fact)
        if row.old != fact.answer:
            fact = replace(fact, answer=row.old, answer_aliases=())
        if row.new != fact.target:
            fact = replace(fact, target=row.new, target_aliases=())
        fact = replace(fact, paraphrases=(), heldout=(), cloze_paraphrases=())
        return replace(fact, **{"question" if row.form == "chat" else "prompt": row.prompt})

    def _kind(self) -> LensKind:
        """The lens that the report's own readings went through; the logit lens where it has none."""
        choice = self._report.lens_choice if self._report is not None else None
        return "logit" if choice is None else choice.kind

    def _read(self, row: ProbeRow, asked: Fact, kind: LensKind, cancel: threading.Event) -> list[Lens]:
        _, tuned = choose_lens(self._model, kind, pool=self._pool, progress=False, cancel=cancel)
        through = tuned or "logit"
        place = traced_prompt(self._model, asked, form=row.form, start=row.start, needs_subject=False)
        refusal = answers_at(place, asked, self._edit.recipe.answer_style)["refusal"]
        given: LensKeywords = {"form": row.form, "refusal": refusal, "start": row.start, "kind": through}
        readings = [lens(self._model, asked, **given)]
        for stage in self._edit.stage_names:
            with applied(self._model, self._edit, stage) as edited:
                readings.append(lens(edited, asked, **given))
        return readings

    def _looked(
        self, report: ProbeReport | None, row: ProbeRow, asked: Fact, kind: LensKind, job: Job[list[Lens]]
    ) -> None:
        with self._lock:
            self._look.disabled = self._list.value is None
            if self._report is not report or self._list.value is not row:
                return  # another prompt is in sight by now
            self._layers.value = probe_views.layers(job.result, row.prompt) if job.result else ""
            if job.error is not None:
                self._on_error(job.error)
            if job.result:
                refusal = answers_at(job.result[0].prompt, asked, self._edit.recipe.answer_style)["refusal"]
                fit = "" if text_pool(self._pool) is None else "wb.tuned_lens(model, pool=pool)"
                through = "" if kind == "logit" else fit or repr(kind)
                stages = self._edit.stage_names
                self.code = probe_views.lens_code(asked, row.form, stages, refusal, row.start, through)
                self._on_read()

    def _show_list(self) -> None:
        report, probe = self._report, self.opened
        rows = report.rows if report is not None else ()
        base = [r for r in rows if r.stage == "base" and r.probe == probe]
        self._list.options = [(probe_views.row_label(r), r) for r in base]
        self._list.index = 0 if base else None
        self._look.disabled = not base
        shown = report is not None and probe is not None
        self._found.value = probe_views.found(report, probe) if report is not None and probe is not None else ""
        self._all.value = probe_views.all_texts(report, base) if report is not None and base else ""
        layout.show(self.widget, shown)
        layout.show(self._prompts, bool(base))
        self._show_texts()

    def _show_texts(self) -> None:
        self._layers.value = ""
        row = self.row
        self._texts.value = probe_views.texts(self._report, row) if self._report is not None and row is not None else ""
