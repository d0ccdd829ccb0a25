"""LoRA: low-rank updates of linear modules, trained. What an edit of a few gates is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.editing.task import Movable, Task
from workbench.editing.training.weights import fit_weights
from workbench.models import LoadedModel
from workbench.models.deltas.low_rank import Factors, inject_lora, read_delta, targets
from workbench.models.views import shared_view
from workbench.types import Delta, Edit, LowRankDelta, Selection, Site, StageName, TrainedRecipe
from workbench.types.recipe import Check


@dataclass(frozen=True, kw_only=True)
class LoRA(TrainedRecipe):
    """The settings of a LoRA, on the same rows and with the same loss as the other trained methods.

    Without a selection all linear modules of all layers get factors, and no selector runs. With one, the modules that
    carry its components do, and only what was selected moves: of a module whose inputs are selected (a head, a neuron)
    the update reads those inputs alone, of one whose outputs are selected (a key-value group) it writes those alone.
    The stages move the same factors.

    Args:
        rank: Of each module's update.
        restrict: With a selection, change the selected slices only; False: whole modules.
        budget: With a selection, give factors only to the modules with the most selected entries, as many as come
            nearest to so many weights (at least one); None: to all of them.
        stages: By default ``"learn"`` alone.
        learning_rate: AdamW's. The default was chosen on dev facts (``benchmarks/baseline_rates.py``): a LoRA this
            small learns nothing in as few steps at a usual 1e-3.
        seed: Order of the batches, and the first values of V.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: Hu et al. 2021 (2106.09685); alpha equals the rank, no dropout.

    Example:
        >>> recipe = wb.recipes.LoRA(rank=1, steps=2, retain_weight=0)
        >>> edit = wb.rewrite(model, fact, "L1H2", recipe=recipe)
        >>> edit.delta().words()
        'rank 1 added to 1 module'
    """

    method: ClassVar[str] = "lora"
    without_selection: ClassVar[str] = "All linear modules of all layers"
    trains: ClassVar[str] = "low-rank updates"

    name: str = "lora"
    rank: int = 1
    restrict: bool = True
    budget: int | None = None
    stages: tuple[StageName, ...] = ("learn",)
    learning_rate: float = 0.03

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "rank", isinstance(self.rank, int) and self.rank >= 1, "a whole number from 1"
        yield "budget", self.budget is None or self.budget >= 1, "None or 1 or more"


def updated_modules(task: Task) -> tuple[list[str], int]:
    """Full names of the modules that get factors, and the lowest layer that moves.

    Raises:
        ValueError: A number as the selection.
    """
    recipe, model = task.recipe, task.model
    assert isinstance(recipe, LoRA)
    if isinstance(task.selection, int):
        raise ValueError(
            f"A LoRA has no selector of its own, so a number of neurons ({task.selection}) selects nothing. Give a "
            "Selection, or None for all linear modules of all layers."
        )
    if task.selection is None:
        return targets(model.architecture, range(model.shape.n_layers)), 0
    return _modules(model, task.selection, recipe), min(layer for layer, _ in task.selection.entries(model))


def plan_lora(task: Task) -> Movable:
    """What would move."""
    recipe, model = task.recipe, task.model
    assert isinstance(recipe, LoRA)
    names, _ = updated_modules(task)
    words = f"{recipe.trains} of {len(names):,} module{'' if len(names) == 1 else 's'} may move"
    if not isinstance(task.selection, Selection):
        unknown = "moves all linear modules of all layers"
        return Movable(selection=Selection(), selector="all", words=words, unknown=unknown)
    entries: dict[tuple[int, Site], Sequence[int]] = {
        (layer, site): index if recipe.restrict else range(model.shape.site_size(site))
        for (layer, site), index in task.selection.entries(model).items()
        if model.architecture.gate_module(layer, site).module in names
    }
    return Movable(selection=task.selection, selector="given", words=words, entries=entries)


def make_lora(task: Task) -> Edit:
    """Train a LoRA for a task."""
    recipe, model = task.recipe, task.model
    assert isinstance(recipe, LoRA)
    names, lowest = updated_modules(task)
    given = task.selection if isinstance(task.selection, Selection) else None
    view = shared_view(model.hf)
    factors = inject_lora(view, model.architecture, dict.fromkeys(names, recipe.rank), "default", recipe.seed)
    masks = _masks(model, given, factors) if given is not None and recipe.restrict else {}
    parameters: dict[str, nn.Parameter] = {}
    for name, (down, up) in factors.items():
        parameters |= {f"{name}.V": down, f"{name}.U": up}
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].mul_(mask)

    def mask_gradients() -> None:
        """An exact zero gradient keeps every update at exactly zero."""
        for name, mask in masks.items():
            gradient = parameters[name].grad
            assert gradient is not None
            gradient.mul_(mask)

    def read(before: Delta | None) -> Delta:
        now = read_delta(model.architecture, factors)
        if before is None:
            return now
        assert isinstance(before, LowRankDelta)
        # The same factors went on: U V - U' V' is what the later stage adds.
        pairs = {key: (*now.factors[key], *before.factors[key]) for key in now.factors}
        added = {key: (torch.cat([u, -u0], 1), torch.cat([v, v0])) for key, (u, v, u0, v0) in pairs.items()}
        return LowRankDelta(added)

    return fit_weights(task, lowest, view, parameters, read, mask_gradients)


def _modules(model: LoadedModel, selection: Selection, recipe: LoRA) -> list[str]:
    """Full names of the modules that get factors, those with the most selected entries first."""
    entries: dict[str, int] = {}
    for (layer, site), index in selection.entries(model).items():
        name = model.architecture.gate_module(layer, site).module
        entries[name] = entries.get(name, 0) + len(index)
    names = sorted(entries, key=lambda name: -entries[name])
    if recipe.budget is None:
        return names
    modules: list[Any] = [model.hf.get_submodule(name) for name in names]
    sizes = [*accumulate(recipe.rank * sum(module.weight.shape) for module in modules)]
    budget = recipe.budget
    nearest = min(range(len(sizes)), key=lambda i: abs(sizes[i] - budget))
    return names[: nearest + 1]


def _masks(model: LoadedModel, selection: Selection, factors: Factors) -> Mapping[str, Tensor]:
    """1.0 at the selected inputs of V [r, d_in] or outputs of U [d_out, r], else 0.0, by parameter name."""
    out: dict[str, Tensor] = {}
    for (layer, site), indices in selection.entries(model).items():
        place = model.architecture.gate_module(layer, site)
        if place.module not in factors:
            continue
        down, up = factors[place.module]
        index = place.places(indices)
        if place.on_input:
            mask = out.setdefault(f"{place.module}.V", torch.zeros_like(down, requires_grad=False))
            mask[:, index] = 1.0
        else:
            mask = out.setdefault(f"{place.module}.U", torch.zeros_like(up, requires_grad=False))
            mask[index] = 1.0
    return out
