"""Control arms: does it matter which components an edit trains?

The test is stated before it is run. The same fact is edited on the selection, on random selections with as many
components of each kind, on everything, and so on; all arms share rows, loss, retain set, controls and held-out
questions. Each is read at the first step at which validation accuracy reaches the threshold (``validation.py``), and
those that never reach it are counted apart. The outcomes are control retention and the KL to the base on controls.
Either sign is a finding: Hase et al. (2301.04213) found that locating does not tell where to edit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from workbench.comparing.arms import (
    ARMS,
    BOTH_RANDOM,
    ArmName,
    Fitting,
    Plan,
    expanded,
    located,
    plan_arms,
)
from workbench.comparing.validation import THRESHOLD, Reader, Reading, new_accuracy, reading_of
from workbench.editing.methods.table import Recipe
from workbench.editing.selector import default_selection, selection_facts
from workbench.editing.task import check_selection, retain_set
from workbench.evaluation.answering import Answering, check_answering
from workbench.evaluation.evaluate import evaluate_views
from workbench.language.prompts import check_first_tokens
from workbench.models.load import LoadedModel
from workbench.models.provenance import provenance
from workbench.types import Fact, FactSet, Selection, Step
from workbench.types.arms import ArmRow, ArmTable, join_tables
from workbench.types.cancelling import CancelFlag, Cancelled, check_cancel
from workbench.types.fact import as_facts
from workbench.types.torch_settings import own_torch_settings

Asked = Literal[ArmName, "random"]
LEAST_DRAWS = 3
READ_EVERY = 2


@own_torch_settings()
def compare(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    selection: Selection | str | None = None,
    *,
    arms: Sequence[ArmName | Literal["random"]] | ArmName | Literal["random"] = (
        "selected",
        "random",
        "all",
        "one-stage",
        "none",
    ),
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
            of about as many weights as the selection has gates (``wb.recipes``); ``"paper"``: the
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

    Returns:
        A row for each fact and arm (a random arm has one for each draw), with every evaluated text.

    Raises:
        ValueError: Unknown or repeated arms, fewer than three seeds, an empty selection, components that the model
            lacks or that cannot be drawn, an edited model, a recipe without the learn stage at its end, or what
            ``rewrite`` and ``evaluate`` refuse.
        Cancelled: ``cancel`` was set, or a callback returned False; finished rows were given to ``on_arm``.
        NonFiniteLoss: The loss of an arm became NaN or infinite.

    Known deviations: the selection is fitted once, random ones once per draw, all with the recipe's seed.

    Example:
        >>> arms, recipe = ("selected", "one-stage", "none"), wb.Recipe(steps=(8, 24), contexts=False)
        >>> table = wb.compare(model, fact, "L1ATTN L1MLP L2ATTN L2MLP", arms=arms, recipe=recipe, pool=facts)
        >>> for arm in table.arms:
        ...     print(arm, table.rate(arm, "new"))
        selected 1.00 [0.21, 1.00] (n=1)
        one-stage 1.00 [0.21, 1.00] (n=1)
        none 0.00 [0.00, 0.79] (n=1)
    """
    facts = as_facts(fact)
    asked = Recipe.named(recipe) if isinstance(recipe, str) else recipe or Recipe()
    if not isinstance(asked, Recipe):
        raise ValueError(
            f"Arms take rows, loss and steps from an IA3 recipe, got a {type(asked).__name__}. Give an IA3 recipe; "
            "arms=('lora', 'full') compares with the other methods."
        )
    chosen = Selection(selection) if isinstance(selection, str) else selection
    draws = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    names = [arms] if isinstance(arms, str) else list(arms)
    _check(model, facts, chosen, names, asked, draws, threshold, read_every)
    recipe = replace(asked, early_stop=None, average=0, draw_back=None)
    if answering is not None:
        check_answering(answering, model)
    comparison = _Comparison(
        model=model,
        arms=names,
        recipe=recipe,
        draws=draws,
        pool=pool,
        threshold=threshold,
        read_every=read_every,
        answering=answering or Answering(model),
        evaluation={"controls": controls, "pool": pool, "max_controls": max_controls, "seed": seed},
        options={"on_step": on_step, "cancel": cancel, "progress": False},
        progress=progress,
    )
    tables: list[ArmTable] = []

    from tqdm.auto import tqdm

    with tqdm(desc="Comparing", total=None, disable=not progress, unit="arm") as bar:
        for edited in facts:
            check_cancel(cancel, f"before {edited.id!r}")
            kept = retain_set(model, [edited], retain, recipe, pool, progress)
            tables.append(comparison.of(edited, kept, chosen, on_arm, bar))
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
    for fact in facts:
        check_first_tokens(model, fact)
    allowed = (*ARMS, BOTH_RANDOM)
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


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """What the facts of a comparison share.

    Args:
        model, arms, recipe, draws, pool, threshold, read_every, answering, progress: As in ``compare``.
        evaluation: Further options of ``evaluate``.
        options: Further options of a fit.
    """

    model: LoadedModel
    arms: Sequence[str]
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
        spared = FactSet(name="none") if selection else selection_facts(self.model, [fact], **asked)
        picked = selection or default_selection(self.model, fact, **asked)
        plans, notes = plan_arms(self.model, picked, self.arms, recipe, self.draws)
        plans = located(self.model, fact, plans, notes, pool, progress)
        reading = reading_of(self.answering, fact)
        fitting = Fitting(model=self.model, fact=fact, retain=retain, spared=spared, options=self.options)
        rows: list[ArmRow] = []
        for plan in plans:
            check_cancel(self.options["cancel"], f"before the arm {plan.arm!r} of {fact.id!r}")
            bar.set_postfix(fact=fact.id, arm=plan.arm)
            rows.append(self.row(fitting, reading, plan, self._every(plan, notes)))
            bar.update()
            if on_arm is not None and on_arm(rows[-1]) is False:
                raise Cancelled(f"Cancelled by on_arm after the arm {plan.arm!r} of {fact.id!r}.")
        if selection is None:
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
            words={name: arm.words for name, arm in ARMS.items()},
            notes=tuple(notes),
            settings=settings,
            base_fingerprint=self.model.fingerprint,
            provenance=provenance(self.model),
        )

    def _every(self, plan: Plan, notes: list[str]) -> int:
        """After how many steps a run is looked at."""
        arm = ARMS[plan.arm]
        if not arm.spread:
            return self.read_every
        every = self.read_every * math.ceil(plan.recipe.stage_steps[-1] / self.recipe.stage_steps[-1])
        whose = arm.words[:1].upper() + arm.words[1:]
        notes.append(f"{whose} was looked at every {every} steps, the other arms every {self.read_every}.")
        return every

    def row(self, fitting: Fitting, reading: Reading, plan: Plan, every: int) -> ArmRow:
        """Fit one run up to where it is read, and evaluate it there."""
        began = time.perf_counter()
        arm = ARMS[plan.arm]
        accuracy = partial(new_accuracy, self.answering, reading=reading)
        reader = Reader(lambda view: accuracy(view), self.threshold, every, plan.recipe.stage_steps[-1])
        views: dict[str, Any] = {}
        trained = updates = 0
        if arm.fit is not None:
            view, trained = arm.fit(fitting, plan, reader.stop if arm.path else None)
            views = {"learn": view}
            if arm.path:
                updates = sum(plan.recipe.stage_steps[:-1]) + reader.step
            else:
                with view() as edited:
                    reader.look(edited)
        report = evaluate_views(
            self.model,
            [reading.fact],
            views,
            used=(),
            used_facts=[*fitting.retain, *fitting.spared],
            answering=self.answering,
            progress=False,
            arm=plan.arm,
            retain=list(fitting.retain.ids),
            **self.evaluation,
        )
        return ArmRow(
            fact_id=fitting.fact.id,
            arm=plan.arm,
            seed=plan.seed,
            report=report,
            reached=reader.reached if arm.fit else None,
            step=reader.step,
            updates=updates,
            validation=reader.validation if arm.fit else None,
            trained=trained,
            unit=arm.unit,
            selection=plan.selection if arm.unit == "gates" else None,
            recipe=plan.recipe.name,
            seconds=round(time.perf_counter() - began, 1),
        )
