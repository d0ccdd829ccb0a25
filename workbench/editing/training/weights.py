"""A fit that moves weights through all its stages, with AdamW: what the trained methods but IA3 share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from workbench.editing.task import Task, retain_set
from workbench.editing.training.factors import TrainedFactors
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.learned import LearnedLevel
from workbench.editing.training.loop import Training
from workbench.editing.training.optimisers import Adam, Optimiser
from workbench.editing.training.step_loss import StageLoss
from workbench.editing.training.trainable import Trainable
from workbench.models.provenance import provenance
from workbench.types import Delta, Edit, EditStage, Selection, StageName, TrainedRecipe


def fit_rows(task: Task) -> FitRows:
    """The rows of a task whose recipe is a ``TrainedRecipe``."""
    recipe = task.recipe
    assert isinstance(recipe, TrainedRecipe)
    retained = retain_set(task.model, task.facts, task.retain, recipe, task.pool, task.progress, task.cancel)
    return FitRows(task.model, task.facts, recipe, retain=retained, cancel=task.cancel)


def fit_factors(
    task: Task,
    trained: TrainedFactors,
    rows: FitRows,
    about: Callable[[], Mapping[str, Any]],
    *,
    draw_back: float | None,
    reserve: float = 1.0,
    began: float,
    notes: Mapping[str, Any] | None = None,
) -> Edit:
    """Train the factors of low-rank updates, and draw them back.

    Args:
        task, rows, began, notes: As in ``fit_weights``.
        trained: The factors.
        about: More fields of the edit, besides what the factors tell.
        draw_back, reserve: See ``TrainedFactors.finish``.
    """

    def finish(level: LearnedLevel) -> None:
        trained.finish(level, draw_back, reserve=reserve, cancel=task.cancel)

    return fit_weights(
        task,
        trained.lowest_layer,
        trained.view,
        trained.parameters,
        trained.read,
        lambda: None,
        rows=rows,
        optimiser=trained.optimiser,
        at_end=finish,
        about=lambda: {"learned": trained.learned, "strength": trained.strength, **about()},
        began=began,
        notes=notes,
    )


def fit_weights(
    task: Task,
    lowest: int,
    view: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    read: Callable[[Delta | None], Delta],
    after_backward: Callable[[], None],
    *,
    rows: FitRows | None = None,
    optimiser: Optimiser | None = None,
    own_loss: Callable[[StageName, Training], StageLoss | None] | None = None,
    at_end: Callable[[LearnedLevel], None] | None = None,
    about: Callable[[], Mapping[str, Any]] = dict,
    began: float | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Edit:
    """Train parameters of a view, stage after stage, and read each stage's delta off them.

    Args:
        task: What is asked; its recipe is a ``TrainedRecipe``.
        lowest: The lowest layer that moves.
        view: A structure copy of the model that carries the parameters.
        parameters: What moves, by name.
        read: The parameters as they are now, as a delta: what they add to the delta of the stages before (None in the
            first stage).
        after_backward: Called before each update, to take out gradients that are not wanted.
        rows: What is taught and held in place; None for that of the task's facts and retain set.
        optimiser: Moves the parameters, through all stages; None for an ``Adam`` of each stage's own.
        own_loss: Gives a stage's loss where it is not that of answers.
        at_end: Called when the last stage has run to its end, before its delta is read.
        about: More fields of the edit, as they are now.
        began: When the fit began; None for now.
        notes: For the edit's provenance.
    """
    from tqdm.auto import tqdm

    model, recipe = task.model, task.recipe
    assert isinstance(recipe, TrainedRecipe)
    began = time.perf_counter() if began is None else began
    of_rows = fit_rows(task) if rows is None else rows
    training = Training(of_rows, recipe, lowest, on_step=task.on_step, cancel=task.cancel)
    stages: list[EditStage] = []

    def edit_of(stages: tuple[EditStage, ...]) -> Edit:
        chosen = task.selection if isinstance(task.selection, Selection) else Selection()
        fields: dict[str, Any] = {
            "stages": stages,
            "selection": chosen,
            "selector": "given" if chosen else "all",
            "recipe": recipe,
            "facts": task.facts,
            "retain_ids": of_rows.retain_ids,
            "history": tuple(training.history),
            "reached": dict(training.reached),
            "base_fingerprint": model.fingerprint,
            "base_name": model.name,
            "modules": model.architecture.describe(),
            "provenance": provenance(
                model,
                retain_rows=training.n_retain,
                lowest_layer=training.start,
                trained=sum(p.numel() for p in parameters.values()),
                seconds_to_fit=round(time.perf_counter() - began, 1),
                **(notes or {}),
            ),
        }
        return Edit(**{**fields, **about()})

    title = recipe.name or type(recipe).__name__
    with torch.enable_grad(), tqdm(total=sum(recipe.stage_steps), desc=title, disable=not task.progress) as bar:
        for stage, steps in zip(recipe.stages, recipe.stage_steps, strict=True):
            before = stages[-1].delta if stages else None
            trainable = Trainable(
                view=view,
                parameters=parameters,
                optimiser=Adam(parameters) if optimiser is None else optimiser,
                rate=recipe.learning_rate,
                after_backward=after_backward,
                at_end=at_end if stage == recipe.stages[-1] else None,
            )

            def stop_here(done: int, name: str = stage, before: Delta | None = before) -> bool:
                return task.stop is not None and task.stop(edit_of((*stages, EditStage(name, read(before)))))

            ask = stop_here if task.stop is not None and stage == recipe.stages[-1] else None
            loss = None if own_loss is None else own_loss(stage, training)
            done = training.stage(stage, steps, trainable, bar, ask, loss)
            bar.update(steps - done)  # an early stop
            stages.append(EditStage(stage, read(before)))
    return edit_of(tuple(stages))
