"""Full fine-tuning: the weights of layers themselves move. What an edit of a few gates is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.editing.task import Movable, Task
from workbench.editing.training.weights import fit_weights
from workbench.models.views import own_layer_weights, shared_view
from workbench.types import Delta, DenseDelta, Edit, Selection, StageName, TrainedRecipe


@dataclass(frozen=True, kw_only=True)
class FullFineTuning(TrainedRecipe):
    """The settings of full fine-tuning, on the same rows and with the same loss as the other trained methods.

    Without a selection the weights of all layers move (not the embeddings and the last norm); with one, those of the
    layers that it names, whole. The stages move the same weights. The edit owns copies of all that moved
    (``DenseDelta``): as much memory as those layers take.

    Args:
        stages: By default ``"learn"`` alone.
        learning_rate: AdamW's; the default was chosen on dev facts (``benchmarks/baseline_rates.py``).

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Example:
        >>> recipe = wb.recipes.FullFineTuning(steps=2, retain_weight=0)
        >>> edit = wb.rewrite(model, fact, recipe=recipe)
        >>> edit.stage_names, edit.delta().words()
        (('learn',), '39 whole tensors changed (37,914 weights)')
    """

    method: ClassVar[str] = "full"
    without_selection: ClassVar[str] = "All layers"
    whole_layers: ClassVar[bool] = True

    name: str = "full"
    stages: tuple[StageName, ...] = ("learn",)
    learning_rate: float = 2e-5


def moving_layers(task: Task) -> list[int]:
    """The layers whose weights move.

    Raises:
        ValueError: A number as the selection, or weights that are too coarse to be trained themselves.
    """
    recipe, model = task.recipe, task.model
    assert isinstance(recipe, FullFineTuning)
    if model.dtype in (torch.bfloat16, torch.float16):
        raise ValueError(
            f"Full fine-tuning moves weights by about {recipe.learning_rate:g} a step, which {model.dtype} rounds "
            "away. Load the model with dtype=torch.float32, or use wb.recipes.LoRA, whose factors are float32."
        )
    if isinstance(task.selection, int):
        raise ValueError(
            f"Full fine-tuning moves whole layers, so a number of neurons ({task.selection}) selects nothing. Give a "
            "Selection, whose layers it takes, or None for all layers."
        )
    if task.selection is None:
        return list(range(model.shape.n_layers))
    return sorted({layer for layer, _ in task.selection.entries(model)})


def plan_full(task: Task) -> Movable:
    """What would move."""
    layers = moving_layers(task)
    several = f"layers {', '.join(map(str, layers))}" if len(layers) > 1 else f"layer {layers[0]}"
    given = task.selection if isinstance(task.selection, Selection) else None
    return Movable(
        selection=given or Selection(),
        selector="given" if given else "all",
        words=f"all weights of {several if given else 'all layers'} may move",
        unknown="moves whole layers",
    )


def make_full(task: Task) -> Edit:
    """Fine-tune a copy of the layers' weights for a task."""
    layers, model = moving_layers(task), task.model
    view = shared_view(model.hf)
    start = {name: p.detach() for name, p in view.named_parameters()}  # shared, before the copies are made
    base = {name: p.detach() for name, p in model.base.hf.named_parameters()}
    parameters = own_layer_weights(view, model.architecture, layers)

    def begun(name: str, before: Delta | None) -> Tensor:
        """A tensor's values when the stage began."""
        if before is None:
            return start[name]
        assert isinstance(before, DenseDelta)
        reached = before.weights[name].to(start[name])
        return start[name] + (reached - base[name]) if model.edited else reached

    def read(before: Delta | None) -> Delta:
        if before is None and not model.edited:
            return DenseDelta({name: p for name, p in parameters.items()})
        # What comes after others adds its own difference to the base's tensors: a later stage, and an edit that is made
        # on an edited model.
        return DenseDelta({name: base[name] + (p.detach() - begun(name, before)) for name, p in parameters.items()})

    return fit_weights(task, layers[0], view, parameters, read, lambda: None)
