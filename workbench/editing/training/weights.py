"""A fit that moves weights through all its stages, with AdamW: what full fine-tuning and LoRA share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from workbench.editing.task import Task, retain_set
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.loop import Training
from workbench.editing.training.optimisers import Adam
from workbench.editing.training.trainable import Trainable
from workbench.models.provenance import provenance
from workbench.types import Delta, Edit, EditStage, Selection, TrainedRecipe


def fit_weights(
    task: Task,
    lowest: int,
    view: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    read: Callable[[Delta | None], Delta],
    after_backward: Callable[[], None],
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
    """
    from tqdm.auto import tqdm

    model, recipe = task.model, task.recipe
    assert isinstance(recipe, TrainedRecipe)
    began = time.perf_counter()
    retained = retain_set(model, task.facts, task.retain, recipe, task.pool, task.progress, task.cancel)
    rows = FitRows(model, task.facts, recipe, retain=retained, cancel=task.cancel)
    training = Training(rows, recipe, lowest, on_step=task.on_step, cancel=task.cancel)
    stages: list[EditStage] = []

    def edit_of(stages: tuple[EditStage, ...]) -> Edit:
        chosen = task.selection if isinstance(task.selection, Selection) else Selection()
        return Edit(
            stages=stages,
            selection=chosen,
            selector="given" if chosen else "all",
            recipe=recipe,
            facts=task.facts,
            retain_ids=rows.retain_ids,
            history=tuple(training.history),
            base_fingerprint=model.fingerprint,
            base_name=model.name,
            modules=model.architecture.describe(),
            provenance=provenance(
                model,
                retain_rows=training.n_retain,
                lowest_layer=training.start,
                trained=sum(p.numel() for p in parameters.values()),
                seconds_to_fit=round(time.perf_counter() - began, 1),
            ),
        )

    title = recipe.name or type(recipe).__name__
    with torch.enable_grad(), tqdm(total=sum(recipe.stage_steps), desc=title, disable=not task.progress) as bar:
        for stage, steps in zip(recipe.stages, recipe.stage_steps, strict=True):
            before = stages[-1].delta if stages else None
            trainable = Trainable(
                view=view,
                parameters=parameters,
                optimiser=Adam(parameters),
                rate=recipe.learning_rate,
                after_backward=after_backward,
            )

            def stop_here(done: int, name: str = stage, before: Delta | None = before) -> bool:
                return task.stop is not None and task.stop(edit_of((*stages, EditStage(name, read(before)))))

            ask = stop_here if task.stop is not None and stage == recipe.stages[-1] else None
            done = training.stage(stage, steps, trainable, bar, ask)
            bar.update(steps - done)  # an early stop
            stages.append(EditStage(stage, read(before)))
    return edit_of(tuple(stages))
