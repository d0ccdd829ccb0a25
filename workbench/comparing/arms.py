"""Control arms: does it matter which components an edit trains?

The test is stated before it is run. The same fact is edited on the selection, on random selections with as many
components of each kind, on everything, and so on; all arms share rows, loss, retain set, controls and held-out
questions; each is read at the first step at which validation accuracy reaches the threshold (``reading.py``), and those
that never reach it are counted apart. The outcomes are control retention and the KL to the base on controls. Either
sign is a finding: Hase et al. (2301.04213) found that locating does not tell where to edit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

from workbench.comparing.validation import THRESHOLD, Reader, Reading, new_accuracy, reading_of
from workbench.editing.applied import Dial, applied
from workbench.editing.baselines import Baseline, Tuned, tune
from workbench.editing.rewrite import check_selection, retain_set, rewrite
from workbench.editing.selector import default_selection, paper_selection
from workbench.evaluation.answering import Answering, check_answering
from workbench.evaluation.evaluate import evaluate_views
from workbench.language.prompts import check_first_tokens
from workbench.models.load import LoadedModel
from workbench.models.provenance import provenance
from workbench.types import Component, Edit, Fact, FactSet, Recipe, Selection, Step, all_components
from workbench.types.arms import ARMS, ArmName, ArmRow, ArmTable, join_tables
from workbench.types.cancelling import CancelFlag, Cancelled, check_cancel
from workbench.types.selection import INDEXED

Arm = Literal[ArmName, "random"]
LEAST_DRAWS = 3
READ_EVERY = 2
WHERE: dict[str, Literal["same-layers", "anywhere"]] = {"random-layers": "same-layers", "random-anywhere": "anywhere"}


@dataclass(frozen=True)
class Plan:
    """One arm to run: which gates, with which recipe, or another method on the same rows.

    Args:
        arm, seed: Its name, and the seed of a random draw.
        selection: Whose gates move; None for no edit.
        recipe: The recipe.
        method: ``"gates"``, a baseline's name, or None for no edit.
    """

    arm: ArmName
    seed: int | None
    selection: Selection | None
    recipe: Recipe
    method: Literal["gates"] | Baseline | None = "gates"


def compare(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    selection: Selection | str | None = None,
    *,
    arms: Sequence[Arm] | Arm = ("selected", "random", "all", "one-stage", "none"),
    recipe: Recipe | str | None = None,
    retain: FactSet | Sequence[Fact] | None = None,
    pool: FactSet | None = None,
    controls: FactSet | Sequence[Fact] | None = None,
    max_controls: int | None = None,
    seeds: int | Sequence[int] = LEAST_DRAWS,
    threshold: float = THRESHOLD,
    read_every: int = READ_EVERY,
    answering: Answering | None = None,
    on_arm: Callable[[ArmRow], Any] | None = None,
    on_step: Callable[[Step], Any] | None = None,
    cancel: CancelFlag | None = None,
    progress: bool = True,
    seed: int = 0,
) -> ArmTable:
    """Edit a fact in several ways, read each where it has just taught the fact, and compare what else changed.

    Args:
        model: A base model; it is not changed.
        fact: One fact, or several that are edited and compared one by one, and aggregated by fact.
        selection: The located components. None: the default selector, for each fact.
        arms: Which, each once:
            ``"selected"``: the selection; ``"random-layers"``: as many other components of each kind from the same
            layers; ``"random-anywhere"``: from all layers; ``"random"``: both. A kind with one component a layer, such
            as a whole MLP, cannot be drawn from the same layers: those stay in every draw, or, with nothing else to
            draw, the arm is left out; ``notes`` says so. ``"all"``: every component of these kinds;
            ``"one-stage"``: the selection, learn stage only, with as many steps in total; ``"none"``: no edit;
            ``"full"``: fine-tuning of the weights of all layers (not of embeddings and last norm); ``"lora"``: a LoRA
            of about as many weights as the selection has gates (see ``workbench.editing.baselines``); ``"paper"``: the
            recipe of arXiv 2508.07075 on the modules that it trains (``paper_selection``), 2000 steps.
        recipe: For all arms but ``"paper"``; its ``early_stop``, ``average`` and ``draw_back`` are off: every arm is
            read, and evaluated, as it is after one step. It must end with the learn stage.
        retain: Facts held in place, in all arms; None: ``default_retain``.
        pool, controls, max_controls: As in ``evaluate``.
        seeds: Random draws of each kind: a number, or the seeds; at least three.
        threshold: Share of the validation questions with the new answer at which an arm is read.
        read_every: Look after so many steps of the learn stage, and after its last. ``"paper"`` is looked at as often
            in all as the others, not as densely; ``notes`` says how often.
        answering: Keeps the base's answers between calls.
        on_arm: Called with each finished row; returning False cancels.
        on_step: Called with each step of every fit; returning False cancels.
        cancel: Checked before each step and each arm.
        progress: Show a progress bar.
        seed: Of the draw of controls. Batches are drawn by the recipe's seed; the table's bootstrap has its own.

    Raises:
        ValueError: Unknown or repeated arms, fewer than three seeds, an empty selection, components that the model
            lacks or that cannot be drawn, an edited model, a recipe without the learn stage at its end, or what
            ``rewrite`` and ``evaluate`` refuse.
        Cancelled: ``cancel`` was set, or a callback returned False; finished rows were given to ``on_arm``.
        NonFiniteLoss: The loss of an arm became NaN or infinite.

    Known deviations: the selection is fitted once, random ones once per draw, all with the recipe's seed.
    """
    facts = [fact] if isinstance(fact, Fact) else list(fact)
    recipe = Recipe.named(recipe) if isinstance(recipe, str) else recipe or Recipe()
    chosen = Selection(selection) if isinstance(selection, str) else selection
    draws = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    arms = [arms] if isinstance(arms, str) else list(arms)
    _check(model, facts, chosen, arms, recipe, draws, threshold, read_every)
    recipe = replace(recipe, early_stop=None, average=0, draw_back=None)
    if answering is not None:
        check_answering(answering, model)
    answering = answering or Answering(model)
    tables: list[ArmTable] = []

    from tqdm.auto import tqdm

    with tqdm(desc="Comparing", total=None, disable=not progress, unit="arm") as bar:
        for one in facts:
            check_cancel(cancel, f"before {one.id!r}")
            kept = retain_set(model, [one], retain, recipe, pool, progress)
            picked = chosen or default_selection(model, one, pool=pool, seed=recipe.seed, progress=progress)
            plans, notes = plan_arms(model, picked, arms, recipe, draws)
            plans = _with_papers_modules(model, one, plans, notes, pool, progress)
            reading = reading_of(answering, one)
            rows: list[ArmRow] = []
            for plan in plans:
                check_cancel(cancel, f"before the arm {plan.arm!r} of {one.id!r}")
                bar.set_postfix(fact=one.id, arm=plan.arm)
                every = read_every
                if plan.arm == "paper":
                    every *= math.ceil(plan.recipe.stage_steps[-1] / recipe.stage_steps[-1])
                    notes.append(
                        f"The paper's recipe was looked at every {every} steps, the other arms every {read_every}."
                    )
                run = _Run(model, one, reading, kept, answering, threshold, every, on_step, cancel)
                options = {"controls": controls, "pool": pool, "max_controls": max_controls, "seed": seed}
                rows.append(run.row(plan, options))
                bar.update()
                if on_arm is not None and on_arm(rows[-1]) is False:
                    raise Cancelled(f"Cancelled by on_arm after the arm {plan.arm!r} of {one.id!r}.")
            settings = {"recipe": recipe.to_dict(), "read_every": read_every, "draws": list(draws), "seed": seed}
            tables.append(
                ArmTable(
                    rows=tuple(rows),
                    threshold=threshold,
                    validation={one.id: reading.questions},
                    notes=tuple(notes),
                    provenance=provenance(model, **settings, max_controls=max_controls),
                )
            )
    return join_tables(tables)


def _check(
    model: LoadedModel,
    facts: Sequence[Fact],
    selection: Selection | None,
    arms: Sequence[str],
    recipe: Recipe,
    draws: Sequence[int],
    threshold: float,
    read_every: int,
) -> None:
    """Everything that can be refused before the first fit."""
    if model.edited:
        raise ValueError(f"{model.name!r} carries an edit already. Compare arms on its base (model.base).")
    if not facts:
        raise ValueError("compare needs at least one fact, got none.")
    twice = sorted({f.id for f in facts if [g.id for g in facts].count(f.id) > 1})
    if twice:
        raise ValueError(f"Each fact may be given once; these came more often: {twice}.")
    for one in facts:
        check_first_tokens(model, one)
    allowed = (*ARMS, "random")
    unknown = [a for a in arms if a not in allowed]
    if unknown or not arms or len(set(expanded(arms))) != len(expanded(arms)):
        raise ValueError(
            f"arms must be some of {list(allowed)}, each once ('random' is both kinds of random), got {list(arms)}."
        )
    if len(draws) < LEAST_DRAWS or len(set(draws)) != len(draws):
        raise ValueError(
            f"seeds must be at least {LEAST_DRAWS} different draws (one draw may be a lucky one), got {list(draws)}."
        )
    if recipe.stages[-1] != "learn":
        raise ValueError(
            f"Arms are read in the learn stage, but the recipe {recipe.name!r} has the stages {recipe.stages}."
        )
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold!r}.")
    if read_every < 1:
        raise ValueError(f"read_every must be 1 or more, got {read_every!r}.")
    if selection is not None:
        check_selection(model, selection)
        plan_arms(model, selection, arms, recipe, draws)  # whether the draws are possible


def expanded(arms: Sequence[str]) -> list[str]:
    """The arms with ``"random"`` as both of its kinds."""
    return [one for arm in arms for one in (tuple(WHERE) if arm == "random" else (arm,))]


def plan_arms(
    model: LoadedModel, selection: Selection, arms: Sequence[str], recipe: Recipe, draws: Sequence[int]
) -> tuple[list[Plan], list[str]]:
    """The arms to run, in order, and notes on those that are not possible.

    Raises:
        ValueError: A kind of random selection that was asked for by name cannot be drawn.
    """
    plans: list[Plan] = []
    notes: list[str] = []
    for arm in expanded(arms):
        if arm in WHERE:
            fixed = (
                Selection([c for c in selection if c.kind not in INDEXED]) if arm == "random-layers" else Selection()
            )
            try:
                # Where nothing is left to draw, all of it is tried: the error says why that is not possible.
                free = selection - fixed or selection
                drawn = [free.random_like(model, seed=s, where=WHERE[arm]) | fixed for s in draws]
            except ValueError as error:
                if arm in arms:
                    raise
                notes.append(f"{arm} was not run. {error}")
                continue
            if fixed:
                notes.append(f"{arm}: {fixed} stay in every draw, as their layers have one of that kind.")
            plans += [Plan(arm, s, one, recipe) for s, one in zip(draws, drawn, strict=True)]  # type: ignore[arg-type]
        elif arm == "one-stage" and recipe.stages == ("learn",):
            notes.append(f"one-stage was not run: the recipe {recipe.name!r} has one stage already.")
        else:
            plans.append(_plan(model, arm, selection, recipe))  # type: ignore[arg-type]
    return plans, notes


def _with_papers_modules(
    model: LoadedModel, fact: Fact, plans: Sequence[Plan], notes: list[str], pool: FactSet | None, progress: bool
) -> list[Plan]:
    """The plans with the paper's own modules in its arm; without it, and with a note, where they cannot be located."""
    out: list[Plan] = []
    for plan in plans:
        if plan.arm == "paper":
            try:
                plan = replace(plan, selection=paper_selection(model, fact, pool=pool, progress=progress))
            except ValueError as error:
                notes.append(f"paper was not run: its modules are located by attribution. {error}")
                continue
        out.append(plan)
    return out


def _plan(model: LoadedModel, arm: ArmName, selection: Selection, recipe: Recipe) -> Plan:
    if arm == "none":
        return Plan(arm, None, None, recipe, None)
    if arm in get_args(Baseline):
        return Plan(arm, None, selection, recipe, arm)  # type: ignore[arg-type]
    if arm == "all":
        return Plan(arm, None, everything_like(model, selection), recipe)
    if arm == "one-stage":
        steps = sum(recipe.stage_steps)
        alone = {"stages": ("learn",), "steps": steps, "objective": "cross-entropy"}
        return Plan(arm, None, selection, replace(recipe, name=f"{recipe.name}: one stage", **alone))
    if arm == "paper":
        return Plan(arm, None, selection, Recipe.named("paper", seed=recipe.seed))
    return Plan(arm, None, selection, recipe)


def everything_like(model: LoadedModel, selection: Selection) -> Selection:
    """Every component of the selection's kinds; all neurons of a layer are written as its MLP, which is the same."""
    kinds = dict.fromkeys("MLP" if c.kind == "N" else c.kind for c in selection)
    found: list[Component] = [c for kind in kinds for c in all_components(model, kind)]  # type: ignore[arg-type]
    return Selection(found)


class _Run:
    """One fact's arms: what they share."""

    def __init__(
        self,
        model: LoadedModel,
        fact: Fact,
        reading: Reading,
        kept: FactSet,
        answering: Answering,
        threshold: float,
        every: int,
        on_step: Callable[[Step], Any] | None,
        cancel: CancelFlag | None,
    ) -> None:
        self.model, self.fact, self.reading, self.kept, self.answering = model, fact, reading, kept, answering
        self.threshold, self.every = threshold, every
        self.options: dict[str, Any] = {"on_step": on_step, "cancel": cancel, "progress": False}

    def row(self, plan: Plan, evaluation: dict[str, Any]) -> ArmRow:
        """Fit one arm up to where it is read, and evaluate it there."""
        began = time.perf_counter()
        accuracy = partial(new_accuracy, self.answering, reading=self.reading)
        reader = Reader(lambda view: accuracy(view), self.threshold, self.every, plan.recipe.stage_steps[-1])
        views, trained = self._fit(plan, reader)
        report = evaluate_views(
            self.model,
            [self.reading.fact],
            views,
            trained=self.kept.ids,
            retained=self.kept,
            answering=self.answering,
            progress=False,
            arm=plan.arm,
            retain=list(self.kept.ids),
            **evaluation,
        )
        edited = plan.method is not None
        return ArmRow(
            fact_id=self.fact.id,
            arm=plan.arm,
            seed=plan.seed,
            report=report,
            reached=reader.reached if edited else None,
            step=reader.step,
            updates=sum(plan.recipe.stage_steps[:-1]) + reader.step if edited else 0,
            validation=reader.validation if edited else None,
            trained=trained,
            unit="weights" if plan.method in get_args(Baseline) else "gates",
            selection=plan.selection if plan.method == "gates" else None,
            recipe=plan.recipe.name,
            seconds=round(time.perf_counter() - began, 1),
        )

    def _fit(self, plan: Plan, reader: Reader) -> tuple[dict[str, Any], int]:
        """The view that is evaluated, by stage name, and how many gates or weights were trained."""
        if plan.selection is None or plan.method is None:
            return {}, 0
        if plan.method == "gates":

            def stop_edit(edit: Edit) -> bool:
                return reader.stop(edit.history[-1].step + 1, lambda: Dial(self.model, edit).at(1.0))

            edit = rewrite(
                self.model,
                self.fact,
                plan.selection,
                recipe=plan.recipe,
                retain=self.kept,
                stop=stop_edit,
                **self.options,
            )
            return {"learn": partial(applied, self.model, edit)}, plan.selection.n_parameters(self.model)

        def stop_tuned(tuned: Tuned) -> bool:
            return reader.stop(tuned.history[-1].step + 1, lambda: tuned.model)

        options = {"recipe": plan.recipe, "retain": self.kept, **self.options}
        tuned = tune(self.model, self.fact, plan.selection, plan.method, stop=stop_tuned, **options)
        return {"learn": partial(nullcontext, tuned.model)}, tuned.trained
