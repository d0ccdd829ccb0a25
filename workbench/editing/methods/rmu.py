"""RMU: what a layer represents at forget texts is steered to a random direction, and stays at retained ones."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.editing.task import Movable, Task, movable
from workbench.editing.training.loop import Training
from workbench.editing.training.weights import fit_rows, fit_weights
from workbench.editing.unlearning.columns import Columns, MovingColumns
from workbench.editing.unlearning.losses import RepresentationLoss, moved, steered
from workbench.editing.unlearning.recipe import (
    ALPHA,
    RepresentationRecipe,
    chosen_columns,
    lowest_of,
    moved_by,
    represented,
)
from workbench.models.views import shared_view
from workbench.types import Edit, StageName
from workbench.types.recipe import Check
from workbench.types.setting import SEED, Setting

DEPTH = 7 / 32
"""Where the layer lies in the paper's models: layer 7 of 32."""


@dataclass(frozen=True, kw_only=True)
class RMU(RepresentationRecipe):
    """The settings of representation misdirection (RMU).

    The loss is mean |h - c u|^2 / d over the tokens of forget texts + ``alpha`` times mean |h - h_base|^2 / d
    over those of retained ones, h [d] the residual stream after ``layer``, u a random direction with entries of one
    sign. Without a selection the MLPs' output projections of that layer and the two before it move; with one, the
    columns of its heads and neurons, and no others.

    The model then says nothing sensible about what it has forgotten: evaluations call that gibberish, and not
    forgotten.

    Args:
        scale: Length of the point c u that forget tokens are driven to, in mean lengths of the base's own states there:
            an absolute length belongs to one model.
        layer: None: 7/32 of the depth, as in the paper.
        learning_rate: AdamW's.
        early_stop: Of the learn stage alone.
        seed: Of the direction, and the order of the batches.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: Li et al. 2024 (WMDP, 2403.03218). Known deviations: forget texts are the fact's training prompts with the
    base's own answers, from the subject on, and retained ones questions with theirs; the tokens that all of them begin
    with (the template's) do not count; a mean over tokens never counts padding; the length is relative.

    Example:
        >>> recipe = wb.recipes.RMU(steps=3, layer=1)
        >>> edit = wb.rewrite(model, fact, "L0MLP L1N5", recipe=recipe, pool=facts)
        >>> edit.stage_names, edit.delta().words()
        (('unlearn',), 'rank 56 added to 2 modules')
    """

    method: ClassVar[str] = "rmu"
    without_selection: ClassVar[str] = "Three MLPs at 7/32 of the depth"
    trains: ClassVar[str] = "weight columns"

    panel_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="scale", tip="How far forgotten texts are driven, in their own lengths", low=0, above=True),
        ALPHA,
        SEED,
    )

    name: str = "rmu"
    scale: float = 4.0
    steps: int | tuple[int, ...] | None = None
    learning_rate: float = 1e-3
    batch_size: int = 4

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "scale", math.isfinite(self.scale) and self.scale > 0, "a positive number"


def steered_columns(task: Task) -> tuple[Columns, int]:
    """What moves, and the layer after which representations are read: see ``chosen_columns``, which refuses."""
    recipe = task.recipe
    assert isinstance(recipe, RMU)
    depth = max(1, round(task.model.shape.n_layers * DEPTH)) if recipe.layer is None else recipe.layer
    return chosen_columns(task, recipe, depth)


def plan_rmu(task: Task) -> Movable:
    """What would move."""
    columns, _ = steered_columns(task)
    return movable(task, **moved_by(task, columns))


def make_rmu(task: Task) -> Edit:
    """Steer representations for a task."""
    recipe, model, began = task.recipe, task.model, time.perf_counter()
    assert isinstance(recipe, RMU)
    columns, layer = steered_columns(task)
    view = shared_view(model.hf)
    moving = MovingColumns(view, model.architecture, columns)

    def own_loss(stage: StageName, training: Training) -> RepresentationLoss | None:
        if stage != "unlearn":
            return None
        read = represented(training, view, layer, recipe.forget_tokens)
        target = recipe.scale * read.forget_norm * random_direction(model.shape.d_model, recipe.seed).to(model.device)
        return RepresentationLoss(steered(target), moved, read.states, read.base, read.first, recipe.alpha)

    return fit_weights(
        task,
        lowest_of(columns),
        view,
        moving.parameters,
        moving.read,
        moving.mask_gradients,
        rows=fit_rows(task),
        own_loss=own_loss,
        about=lambda: moved_by(task, columns),
        began=began,
        notes={"layer": layer},
    )


def random_direction(width: int, seed: int) -> Tensor:
    """A unit vector [width] with entries drawn from [0, 1), all of one sign, as the paper draws it."""
    drawn = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()
