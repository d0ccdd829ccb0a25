"""The runs of a comparison: each is fitted up to where it is read, and evaluated there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from workbench.comparing.arms import ARMS, Arm, Fitting, NotPossible, Plan, located, n_trained, not_run, plan_arms
from workbench.comparing.method_arms import drawn_beside, teaches
from workbench.comparing.validation import Reader, Reading, new_accuracy, reading_of
from workbench.editing.applied import applied
from workbench.editing.methods.table import Recipe
from workbench.editing.selector import default_selection, selection_facts
from workbench.evaluation.answering import Answering
from workbench.evaluation.chosen import relations_of
from workbench.evaluation.evaluate import evaluate_views
from workbench.facts.known import pool_or_bundled
from workbench.facts.retained import retain_pool
from workbench.models.load import LoadedModel
from workbench.models.provenance import provenance
from workbench.types import Edit, Fact, FactSet, Selection
from workbench.types.arms import ArmRow, ArmTable
from workbench.types.cancelling import Cancelled, check_cancel


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the facts of a comparison share.

    Args:
        model, recipe, draws, pool, threshold, read_every, answering, progress: As in ``compare``.
        arms: All of them, by name.
        by_name: Those that were asked for by this name.
        evaluation: Further options of ``evaluate``.
        options: Further options of a fit.
    """

    model: LoadedModel
    arms: Mapping[str, Arm]
    by_name: Sequence[str]
    recipe: Recipe
    draws: Sequence[int]
    pool: FactSet | None
    threshold: float
    read_every: int
    answering: Answering
    evaluation: dict[str, Any]
    options: dict[str, Any]
    progress: bool

    def of(
        self,
        fact: Fact,
        retain: FactSet,
        selection: Selection | None,
        on_arm: Callable[[ArmRow], Any] | None,
        bar: Any,
    ) -> ArmTable:
        """All arms of one fact."""
        recipe, pool, progress = self.recipe, self.pool, self.progress
        asked: dict[str, Any] = {"pool": pool, "seed": recipe.seed, "progress": progress}
        chooses = not selection and any(not arm.is_method or arm.unit == "gates" for arm in self.arms.values())
        spared = selection_facts(self.model, [fact], **asked) if chooses else FactSet(name="none")
        picked = default_selection(self.model, fact, **asked) if chooses else selection or Selection()
        options: dict[str, Any] = {"among": self.arms, "by_name": self.by_name, "given": selection is not None}
        plans, notes = plan_arms(self.model, picked, list(self.arms), recipe, self.draws, **options)
        plans = located(self.model, fact, plans, notes, pool, progress, self.arms)
        reading = reading_of(self.answering, fact)
        fitting = Fitting(model=self.model, fact=fact, retain=retain, spared=spared, pool=pool, options=self.options)
        rows: list[ArmRow] = []
        made: dict[str, Edit | None] = {}
        left_out: set[str] = set()
        for plan in plans:
            if plan.arm in left_out:
                continue
            check_cancel(self.options["cancel"], f"before the arm {plan.arm!r} of {fact.id!r}")
            bar.set_postfix(fact=fact.id, arm=plan.arm)
            try:
                run = self.fit(fitting, reading, plan, made, notes)
            except NotPossible as why:
                left_out.add(plan.arm)
                notes.append(not_run(plan.arm, why))
                continue
            made[plan.arm] = run.edit
            rows.append(self.row(fitting, reading, run))
            bar.update()
            if on_arm is not None and on_arm(rows[-1]) is False:
                raise Cancelled(f"Cancelled by on_arm after the arm {plan.arm!r} of {fact.id!r}.")
        if chooses:
            notes.append(
                "The selection is the default selector's, gain over Fisher information: what is cheap to move. It is "
                "not a localisation, so that it beats other arms says nothing of where the fact is."
            )
        settings = {
            "recipe": recipe.to_dict(),
            "read_every": self.read_every,
            "draws": list(self.draws),
            "seed": self.evaluation["seed"],
            "max_controls": self.evaluation["max_controls"],
        }
        return ArmTable(
            rows=tuple(rows),
            threshold=self.threshold,
            validation={fact.id: reading.questions},
            words={name: arm.words for name, arm in (ARMS | {**self.arms}).items()},
            notes=tuple(notes),
            settings=settings,
            base_fingerprint=self.model.fingerprint,
            provenance=provenance(self.model),
        )

    def _every(self, plan: Plan, notes: list[str]) -> int:
        """After how many steps a run is looked at."""
        arm = self.arms[plan.arm]
        if not arm.spread:
            return self.read_every
        every = self.read_every * math.ceil(plan.recipe.stage_steps[-1] / self.recipe.stage_steps[-1])
        whose = arm.words[:1].upper() + arm.words[1:]
        note = f"{whose} was looked at every {every} steps, the other arms every {self.read_every}."
        notes += [note] if note not in notes else []
        return every

    def fit(
        self, fitting: Fitting, reading: Reading, plan: Plan, made: Mapping[str, Edit | None], notes: list[str]
    ) -> _Run:
        """Fit one run up to where it is read.

        Raises:
            NotPossible: A method refuses what it is given, or there is nothing to draw a random selection from.
        """
        began = time.perf_counter()
        arm = self.arms[plan.arm]
        if plan.beside is not None:
            plan = drawn_beside(self.model, plan, made.get(plan.beside), notes)
        if arm.fit is None:
            return _Run(plan, None, None, began)
        accuracy = partial(new_accuracy, self.answering, reading=reading)
        every = self._every(plan, notes) if arm.path else self.read_every
        last = plan.recipe.stage_steps[-1] if arm.path else 0
        reader = Reader(lambda view: accuracy(view), self.threshold, every, last)
        try:
            edit = arm.fit(fitting, plan, reader.stop if arm.path else None)
        except ValueError as error:
            if not arm.is_method:
                raise
            raise NotPossible(str(error)) from error
        if not teaches(plan.recipe):
            return _Run(plan, edit, None, began)
        if not arm.path:
            with applied(self.model, edit) as edited:
                reader.look(edited)
        return _Run(plan, edit, reader, began)

    def row(self, fitting: Fitting, reading: Reading, run: _Run) -> ArmRow:
        """Evaluate one run where it was read."""
        plan, edit, reader = run.plan, run.edit, run.reader
        arm = self.arms[plan.arm]
        asked_beside = retain_pool(pool_or_bundled(self.pool)).filter(role="retain") if self.methods else ()
        report = evaluate_views(
            self.model,
            [reading.fact],
            {} if edit is None else {edit.stage_names[-1]: partial(applied, self.model, edit)},
            used=() if edit is None else edit.used_ids,
            used_facts=[*fitting.retain, *fitting.spared, *asked_beside],
            closed=() if edit is None else edit.closed_relations,
            retained=() if edit is None else relations_of(edit.retain_ids, self.pool),
            answering=self.answering,
            progress=False,
            arm=plan.arm,
            retain=list(fitting.retain.ids),
            **self.evaluation,
        )
        steps = {} if edit is None else {step.stage: step.step for step in edit.history}
        moved = plan.selection if edit is None or not arm.is_method else edit.selection or None
        return ArmRow(
            fact_id=fitting.fact.id,
            arm=plan.arm,
            seed=plan.seed,
            report=report,
            reached=None if reader is None else reader.reached,
            step=steps.get(edit.stage_names[-1], 0) if edit is not None else 0,
            updates=sum(steps.values()),
            validation=None if reader is None else reader.validation,
            trained=0 if edit is None else n_trained(self.model, edit),
            unit=arm.unit,
            selection=moved if arm.is_method or arm.unit == "gates" else None,
            recipe=plan.recipe.name,
            seconds=round(time.perf_counter() - run.began, 1),
            beside=plan.beside,
        )

    @property
    def methods(self) -> bool:
        """Whether a method is an arm. What methods measure on retained facts is left out of the controls of all arms
        then, so that all are asked the same."""
        return any(arm.is_method for arm in self.arms.values())


@dataclass(frozen=True)
class _Run:
    """A run, fitted up to where it is read.

    Args:
        plan: What was run.
        edit: Its edit; None for none.
        reader: What was read; None where there is no new answer to read it by.
        began: When it began, by ``time.perf_counter``.
    """

    plan: Plan
    edit: Edit | None
    reader: Reader | None
    began: float
