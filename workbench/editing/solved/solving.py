"""What every closed-form method does: choose, measure, find targets, write, and say what was written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from workbench.editing.covariance import covariances
from workbench.editing.solved.choose import Chosen
from workbench.editing.solved.closing import Closing, apart, closing_contexts, retained_contexts
from workbench.editing.solved.formulas import Metric, check_denominators
from workbench.editing.solved.keys import PreparedContexts, keys_at, mean_by_fact
from workbench.editing.solved.level import context_probabilities, level_of
from workbench.editing.solved.places import Context, about_contexts, training_contexts
from workbench.editing.solved.recipe import SolvedRecipe, taught_stage
from workbench.editing.solved.spots import Place, Spot, module_name, where_of, width_in
from workbench.editing.solved.target import Target, find_target
from workbench.editing.solved.write import Problem, Solve, Writer, covariance_terms, ordered, spread, weights_of
from workbench.editing.task import Task, retain_set
from workbench.facts.known import pool_or_bundled
from workbench.facts.retained import retain_pool, retainable
from workbench.models.provenance import provenance
from workbench.types import Delta, Edit, EditStage, FactSet, Step
from workbench.types.covariance import Covariance
from workbench.types.edit import stages_delta
from workbench.types.write import Write


@dataclass
class Solving:
    """One edit that is being solved.

    Args:
        task: What is asked; its recipe is a ``SolvedRecipe``.
        chosen: Which modules and columns are written.

    Attributes:
        recipe: The settings.
        history: The steps of all target vectors so far.
        writes: What was written so far.
        learned: As ``Edit.learned``, on the view with all that was written.
        seconds: What took how long.
    """

    task: Task
    chosen: Chosen

    def __post_init__(self) -> None:
        assert isinstance(self.task.recipe, SolvedRecipe)
        self.recipe: SolvedRecipe = self.task.recipe
        self.model = self.task.model
        self.history: list[Step] = []
        self.writes: list[Write] = []
        self.learned: float | None = None
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()
        self._about: list[list[Context]] | None = None
        self._taught: dict[str, list[Context]] = {}

    @cached_property
    def retained(self) -> FactSet:
        """The facts whose subjects' keys are spared."""
        task = self.task
        return retain_set(
            self.model, task.facts, task.retain, self.recipe, task.pool, task.progress, cancel=task.cancel
        )

    @cached_property
    def covariances(self) -> dict[Place, Covariance]:
        """C of each module; none where the identity stands for it."""
        if self.recipe.covariance == "identity":
            return {}
        began = time.perf_counter()
        options: dict[str, Any] = {"max_tokens": self.recipe.covariance_tokens, "min_tokens": self.recipe.min_tokens}
        options |= {"pool": self.task.pool, "progress": self.task.progress, "cancel": self.task.cancel}
        found = covariances(self.model, self.chosen.places, **options)
        self.seconds["covariance"] = time.perf_counter() - began
        return found

    @cached_property
    def closing(self) -> Closing:
        """What the update is closed for."""
        recipe, task = self.recipe, self.task
        if not recipe.close:
            return Closing()
        options = {"wordings": recipe.closing_wordings, "leave_out": recipe.leave_out, "seed": recipe.seed}
        return closing_contexts(self.model, task.facts, pool_or_bundled(task.pool), **options, cancel=task.cancel)

    @cached_property
    def closed(self) -> dict[Place, Tensor]:
        """Keys at the same subjects under the relations that the update is closed for, [n, d_in] by module; no module
        where there are none."""
        asked = self.closing.contexts
        return keys_at(self.model, asked, self.chosen.places, cancel=self.task.cancel) if asked else {}

    @cached_property
    def protected(self) -> dict[Place, Tensor]:
        """Keys at the subjects of retained facts, [n, d_in] by module; 0 of them where no question names its own."""
        places = self.chosen.places
        contexts = retained_contexts(self.model, list(self.retained), self.task.cancel)
        if not contexts:
            return {place: torch.empty(0, self.d_in(place), dtype=torch.float64) for place in places}
        return keys_at(self.model, contexts, places, cancel=self.task.cancel)

    def d_in(self, place: Place) -> int:
        """Inputs of a module."""
        return width_in(self.model.hf, module_name(self.model.architecture, place))

    @cached_property
    def spared(self) -> dict[Place, Tensor]:
        """A of each module (``covariance_terms``), [d_in, d_in] float64."""
        recipe, places = self.recipe, self.chosen.places
        if recipe.covariance == "identity":
            return {place: torch.eye(self.d_in(place), dtype=torch.float64) for place in places}
        measured = self.covariances  # first: it refuses what cannot be measured
        protected = self.protected if recipe.protect else {}
        spared = [(protected, recipe.protect), (self.closed, recipe.closing_weight)]
        return covariance_terms(measured, spared, ridge=recipe.ridge)

    @cached_property
    def metrics(self) -> dict[Place, Metric]:
        """A on the columns that are written, ready to be solved with."""
        return {
            place: Metric(self.spared[place], columns, where=where_of(self.model, place))
            for place, columns in self.chosen.columns.items()
        }

    def denominators(
        self, place: Place, keys: Tensor, second: Tensor | None = None, *, facts: Tensor | None = None
    ) -> Tensor:
        """k^T A^-1 k of keys [d_in, n] in the written columns, [facts] as means over the keys of each; with ``second``,
        of both keys. None may vanish.

        Args:
            place: The module.
            keys, second: The keys.
            facts: Of each key, which fact it is of; None: each is one.

        Raises:
            VanishingDenominator: With the number.
        """
        metric = self.metrics[place]
        found = metric.leverage(keys) if second is None else metric.gram(keys, second).diagonal()
        means = found if facts is None else mean_by_fact(found[:, None], facts)[:, 0]
        usual = float(metric.size)
        if self.recipe.covariance == "identity":  # a key's own length is the measure then
            usual = float(keys.square().sum(0).mean())
        where = where_of(self.model, place)
        check_denominators(means, usual, n_columns=metric.size, force=self.recipe.force, where=where)
        return means

    def contexts(self, stage: str) -> list[Context]:
        """What a stage teaches, of all facts."""
        if stage not in self._taught:
            options: dict[str, Any] = {"clozes": self.recipe.clozes, "cancel": self.task.cancel}
            self._taught[stage] = training_contexts(
                self.model, self.task.facts, taught_stage(stage), self.recipe.taught, **options
            )
        return self._taught[stage]

    def target(
        self, fact: int, contexts: Sequence[Context], spots: Sequence[Spot], *, stage: str, view: Any = None
    ) -> Target:
        """Optimise a fact's vectors on a view."""
        recipe, task = self.recipe, self.task
        if self._about is None:
            needed = recipe.about_weight and recipe.others
            asked = about_contexts(self.model, task.facts, cancel=task.cancel) if needed else []
            about = apart(self.model, task.facts, asked)
            self._about = [[c for c in about if c.fact == i] for i in range(len(task.facts))]
        found = find_target(
            self.model,
            [c for c in contexts if c.fact == fact],
            self._about[fact],
            spots,
            recipe.target_settings,
            stage=stage,
            view=view,
            seed=recipe.seed + fact,
            earlier=self.history,
            on_step=task.on_step,
            cancel=task.cancel,
            began=self._began,
        )
        self.history += found.history
        return found

    def spread(self, stage: str, writer: Writer, solve: Solve, shares: Sequence[float] | None = None) -> None:
        """A stage of the methods that change the residual stream after the highest written layer, and spread the change
        over all written modules (``write.spread``).

        Args:
            stage, writer: As ``run`` gives them.
            solve: Gives a module's update.
            shares: See ``write.spread``.
        """
        places = ordered(self.chosen.places)
        contexts = self.contexts(stage)
        spot = Spot("resid", max(place.layer for place in places))
        prepared = PreparedContexts(self.model, contexts, places[0].layer, view=writer.view, cancel=self.task.cancel)
        facts = range(len(self.task.facts))
        targets = [self.target(i, contexts, [spot], stage=stage, view=writer.view) for i in facts]
        added = torch.stack([target.vectors[spot] for target in targets])
        goal = prepared.read([spot], view=writer.view)[spot] + added[prepared.facts]
        spread(writer, prepared, goal, places, solve, shares=shares)

    def run(self, solve_stage: Callable[[Solving, str, Writer], None]) -> Edit:
        """Solve every stage and make the edit.

        Args:
            solve_stage: Writes a stage's updates: with this, the stage's name and the writer.
        """
        stages: list[EditStage] = []
        for stage in self.recipe.stages:
            before: Delta | None = stages_delta(stages) if stages else None
            writer = Writer(self.model, before, stage)
            solve_stage(self, stage, writer)
            self.writes += writer.writes
            stages.append(EditStage(stage, writer.delta))
            if stage == self.recipe.stages[-1]:
                self.learned = self._level(stage, writer)
        return self._edit(tuple(stages))

    def _level(self, stage: str, writer: Writer) -> float | None:
        """How well a stage's contexts are answered with what was written; None where it had none."""
        contexts = self._taught.get(stage)
        if contexts is None:
            return None
        start = min(place.layer for place in self.chosen.places)
        found = context_probabilities(self.model, contexts, start, view=writer.view, cancel=self.task.cancel)
        return level_of(contexts, found)

    def _edit(self, stages: tuple[EditStage, ...]) -> Edit:
        task, recipe, model = self.task, self.recipe, self.model
        used: tuple[str, ...] = ()
        if recipe.covariance == "measured":
            pool = retain_pool(pool_or_bundled(task.pool))
            used = retainable(model, task.facts, pool, progress=False, cancel=task.cancel).ids
        seconds = {f"seconds_for_{name}": round(took, 1) for name, took in self.seconds.items()}
        total = time.perf_counter() - self._began - self.seconds.get("covariance", 0.0)
        return Edit(
            stages=stages,
            selection=self.chosen.selection,
            selector=self.chosen.selector,
            recipe=recipe,
            facts=task.facts,
            retain_ids=tuple(self.retained.ids) if recipe.spares_keys else (),
            fisher_ids=tuple(used),
            history=tuple(self.history),
            base_fingerprint=model.fingerprint,
            base_name=model.name,
            modules=model.architecture.describe(),
            learned=self.learned,
            writes=tuple(self.writes),
            closed_relations=self.closing.relations,
            provenance=provenance(
                model,
                layers=sorted({place.layer for place in self.chosen.places}),
                covariance=recipe.covariance,
                seconds_to_fit=round(total, 1),
                **seconds,
            ),
        )


def by_fact(problem: Problem) -> Problem:
    """The same with one mean key and one mean residual a fact."""
    keys = mean_by_fact(problem.keys.T, problem.facts).T
    residuals = mean_by_fact(problem.residuals.T, problem.facts).T
    facts = torch.arange(keys.shape[1])
    return Problem(problem.place, keys, residuals, weights_of(facts), facts)
