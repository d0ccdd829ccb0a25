"""KUDA: representations leave the direction that they had, by steps that spare what retained texts use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from workbench.editing.covariance import covariances
from workbench.editing.solved.spots import Place
from workbench.editing.task import Movable, Task, movable
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.loop import Training
from workbench.editing.training.weights import fit_rows, fit_weights
from workbench.editing.unlearning.columns import Columns, MovingColumns, module_at
from workbench.editing.unlearning.losses import RepresentationLoss, aligned, moved_share
from workbench.editing.unlearning.projection import ProjectedAdam, null_projection
from workbench.editing.unlearning.recipe import (
    ALPHA,
    RepresentationRecipe,
    chosen_columns,
    lowest_of,
    moved_by,
    represented,
)
from workbench.facts.ordinary_texts import FIRST, TextGroup
from workbench.language.padding import common_beginning
from workbench.models.views import shared_view
from workbench.tracing.causal import causal_trace
from workbench.types import Edit, StageName
from workbench.types.cancelling import check_cancel
from workbench.types.recipe import Check
from workbench.types.setting import SEED, Setting

WINDOW = 3
"""Layers that the trace restores together, and that are trained."""
SAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class KUDA(RepresentationRecipe):
    """The settings of KUDA, which is a reconstruction: the paper has no public code, and its abstract does not give
    every setting.

    The loss is the mean of max(0, cos(h, h_base)) over the tokens of forget texts + ``alpha`` times the mean of
    |h - h_base|^2 / |h_base|^2 over those of retained ones, h the residual stream after ``layer``. Each step S of a
    weight is replaced by ``relax`` S + (1 - ``relax``) S P, P the projection onto what retained inputs hardly have.
    Without a selection the MLPs' output projections of the three layers move whose outputs, restored together, bring
    most of the answer back at the subject's last token; with one, its heads' and neurons' columns, with P of those.

    Args:
        layer: None: the highest layer that moves.
        energy: Share of the retained inputs' squared length in the directions that are spared; the fewest directions
            that have it.
        relax: 0 keeps every step in the null space, 1 lifts the projection.
        learning_rate: AdamW's.
        early_stop: Of the learn stage alone.
        seed: Of the trace's noise, and the order of the batches.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: KUDA (2602.19275), as far as its abstract and summaries tell. Ours: the formulas above, P from the
    covariance of the retained questions with the base's own answers, the same projection in a learn stage.

    Example:
        >>> recipe = wb.recipes.KUDA(steps=3)
        >>> edit = wb.rewrite(model, fact, "L0MLP L1MLP", recipe=recipe, pool=facts)
        >>> edit.stage_names, edit.delta().words()
        (('unlearn',), '2 whole tensors changed (4,704 weights)')
    """

    method: ClassVar[str] = "kuda"
    without_selection: ClassVar[str] = "Three MLPs that a trace chooses"
    trains: ClassVar[str] = "weight columns"

    panel_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="energy", tip="Share of the retained inputs that steps spare", low=0, high=1, above=True),
        Setting(name="relax", tip="Share of a step that is not projected", low=0, high=1),
        ALPHA,
        SEED,
    )

    name: str = "kuda"
    learning_rate: float = 1e-3
    batch_size: int = 4
    alpha: float = 4.0
    energy: float = 0.9
    relax: float = 0.1

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "energy", 0 < self.energy < 1, "between 0 and 1"
        yield "relax", 0 <= self.relax <= 1, "from 0 to 1"

    @property
    def uses_retain(self) -> bool:
        """Always: the projection is of retained texts."""
        return True


def turned_columns(task: Task) -> tuple[Columns, int]:
    """What moves, and the layer after which representations are read: see ``chosen_columns``, which refuses."""
    recipe = task.recipe
    assert isinstance(recipe, KUDA)
    traced = recipe.layer is None and task.selection is None
    return chosen_columns(task, recipe, _traced_layer(task, recipe) if traced else recipe.layer or 0)


def plan_kuda(task: Task) -> Movable:
    """What would move."""
    columns, _ = turned_columns(task)
    return movable(task, **moved_by(task, columns))


def make_kuda(task: Task) -> Edit:
    """Turn representations away for a task."""
    recipe, model, began = task.recipe, task.model, time.perf_counter()
    assert isinstance(recipe, KUDA)
    columns, layer = turned_columns(task)
    check_cancel(task.cancel)
    view = shared_view(model.hf)
    moving = MovingColumns(view, model.architecture, columns)
    rows = fit_rows(task)
    projections, held = _projections(task, recipe, rows, moving)

    def own_loss(stage: StageName, training: Training) -> RepresentationLoss | None:
        if stage != "unlearn":
            return None
        read = represented(training, view, layer, recipe.forget_tokens)
        return RepresentationLoss(aligned, moved_share, read.states, read.base, read.first, recipe.alpha)

    return fit_weights(
        task,
        lowest_of(columns),
        view,
        moving.parameters,
        moving.read,
        moving.mask_gradients,
        rows=rows,
        optimiser=ProjectedAdam(moving.parameters, projections, recipe.relax),
        own_loss=own_loss,
        about=lambda: {"fisher_ids": rows.retain_ids, **moved_by(task, columns)},
        began=began,
        notes={"layer": layer, "spared_directions": held},
    )


def _traced_layer(task: Task, recipe: KUDA) -> int:
    """The highest of the layers whose MLP outputs, restored together, bring most of the answers back at the subject's
    last token."""
    model = task.model
    effects = torch.zeros(model.shape.n_layers)
    for fact in task.facts:
        check_cancel(task.cancel)
        options: dict[str, Any] = {"window": WINDOW, "samples": SAMPLES, "seed": recipe.seed, "normalise": False}
        trace = causal_trace(model, fact, "mlp", progress=task.progress, **options)
        prompt = trace.prompts[0]
        asked = [at for at in prompt.subject if prompt.reply_start is None or at < prompt.reply_start]
        effects += trace.values[:, asked[-1]]
    return min(int(effects.argmax()) + WINDOW // 2, model.shape.n_layers - 1)


def _projections(
    task: Task, recipe: KUDA, rows: FitRows, moving: MovingColumns
) -> tuple[dict[str, tuple[Tensor, Any, Any]], dict[str, int]]:
    """The projection of each trained weight, as ``ProjectedAdam`` takes them, and how many directions each spares."""
    model = task.model
    near, far = rows.retained
    texts = [(*row.prompt, *row.answer) for row in (*near, *far)]
    group = TextGroup(tuple(texts), max(common_beginning(texts), FIRST) if len(texts) > 1 else FIRST)
    places = {
        key: Place(key[0], "mlp" if key[1] == module_at(model.architecture, key[0], "post") else "attn")
        for key in moving.columns
    }
    options: dict[str, Any] = {"texts": [group], "min_tokens": 1, "max_tokens": group.counted}
    measured = covariances(model, list(places.values()), progress=task.progress, cancel=task.cancel, **options)
    projections: dict[str, tuple[Tensor, Any, Any]] = {}
    held: dict[str, int] = {}
    for key, place in places.items():
        index = moving.inputs(key)
        name, values = moving.names[key], measured[place].values
        part = slice(None) if len(index) == len(values) else index
        projection, held[name] = null_projection(values[part][:, part], recipe.energy)
        projections[name] = projection, partial(moving.oriented, key), part
    if recipe.relax == 0 and all(not projection.any() for projection, _, _ in projections.values()):
        raise ValueError(
            f"energy={recipe.energy!r} spares every direction of the retained inputs at {list(held)}, so with relax=0 "
            "nothing may move. Lower energy, raise relax, or select more components."
        )
    return projections, held
