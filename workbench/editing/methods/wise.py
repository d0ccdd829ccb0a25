"""WISE: a sparse side memory beside one module, trained on the edit, and a router that sends its tokens there."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from workbench.editing.memories.margins import Margins, distances, ties_merge
from workbench.editing.memories.place import MemoryPlace, median_distance, memory_place, module_inputs
from workbench.editing.task import Movable, Task, retain_set
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.loop import NonFiniteLoss
from workbench.editing.training.rows import Row
from workbench.editing.training.weights import fit_weights
from workbench.language.padding import common_beginning
from workbench.models import LoadedModel
from workbench.models.deltas.routing import nearest_key
from workbench.models.family import sizes
from workbench.models.views import shared_view
from workbench.types import Delta, Edit, MemoryDelta, Selection, SideMemory, StageName, TrainedRecipe
from workbench.types.plain import is_whole
from workbench.types.recipe import Check
from workbench.types.setting import SEED, Setting

Merging = Literal["ties", "retrieve"]


@dataclass(frozen=True, kw_only=True)
class WISE(TrainedRecipe):
    """The settings of a WISE edit: a side memory with sparse weights, and the threshold of its router.

    Beside the output projection W of one MLP (or, with a selection, of one attention layer) stand weights W' = W + D, D
    sparse. D is trained on the tokens that predict the new answer, with margins for the activation distance |D x|: it
    is to be large at those tokens and small at all others, of retained questions with the base's answers and of the
    edit's own texts. A token goes through W' where its distance is at least ``threshold`` times the least one of the
    edit's tokens; everywhere else the model is the base, to the bit.

    Several facts are divided into shards, each with D of its own at entries drawn anew. In the end they are merged by
    TIES, or kept apart: then a token goes through the shard with the largest distance above its own threshold.

    On a model that carries a memory at that module already (a sequential edit) D is a memory of its own, with entries
    and a threshold of its own: it is neither merged with the earlier ones nor one of their shards, and where it is
    reached D x is added to what they put out. Rewrite facts together to have them in shards.

    Args:
        layer: The layer; None: five sixths of the way up, or the selection's.
        density: The share of W's entries that may move.
        calibrate: After so many steps without margins they are set by what the distances are then.
        quantile: That of the edit's distances which the largest margin is set to.
        margin_weight: Weight of the margins' loss beside the cross-entropy.
        margin_tokens: How many other tokens a step looks at.
        threshold: As a share of the least distance of the edit's tokens.
        shard_size: Facts a shard.
        merging: What becomes of several shards.
        merge_density: The share of a shard's entries that TIES keeps.
        learning_rate: AdamW's, in root mean squares of W's entries.
        stages: One: ``"learn"`` (the default) or ``"unlearn"``.
        retain_size: Facts whose questions and answers are to stay outside.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: Wang et al. 2024 (2405.14768), and its public code. Deviations: every token is routed by its own distance,
    where the published code routes a text by the mean over its tokens, so that texts in parts, in batches or with
    cached keys and values give what they give alone; distances are those of the module's output, without an activation
    function; margins are set by a quantile of the distances, in the published proportion; AdamW instead of SGD with a
    clamp, and weights that did not move by more than rounding are not stored.

    Example:
        >>> recipe = wb.recipes.WISE(steps=6, calibrate=2, contexts=False, density=0.5)
        >>> edit = wb.rewrite(model, fact, recipe=recipe, pool=facts, progress=False)
        >>> edit.delta().kind, edit.delta().lowest_layer
        ('memory', 2)
    """

    method: ClassVar[str] = "wise"
    without_selection: ClassVar[str] = "A side memory beside one MLP"
    trains: ClassVar[str] = "weights of a memory"
    one_module: ClassVar[bool] = True
    panel_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="density", tip="The share of the module's weights that may move", low=0, high=1, above=True),
        Setting(name="threshold", tip="How near the edit's own distances a token must come", low=0, high=2, above=True),
        SEED,
    )

    name: str = "wise"
    layer: int | None = None
    density: float = 0.2
    calibrate: int = 6
    quantile: float = 0.9
    margin_weight: float = 1.0
    margin_tokens: int = 1024
    threshold: float = 0.88
    shard_size: int = 50
    merging: Merging = "ties"
    merge_density: float = 0.53
    stages: tuple[StageName, ...] = ("learn",)
    steps: int | tuple[int, ...] | None = 40
    learning_rate: float = 0.05
    retain_weight: float = 0.0
    retain_size: int = 80

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "stages", len(self.stages) == 1, "one stage: a memory shadows what an earlier one at its module does"
        yield "layer", self.layer is None or (is_whole(self.layer) and self.layer >= 0), "None or a layer from 0"
        for name in ("density", "quantile", "merge_density"):
            yield name, 0 < getattr(self, name) <= 1, "in (0, 1]"
        for name in ("calibrate", "margin_tokens", "shard_size"):
            value = getattr(self, name)
            yield name, is_whole(value) and value >= 1, "a whole number from 1"
        yield "margin_weight", 0 <= self.margin_weight < float("inf"), "0 or more"
        yield "threshold", 0 < self.threshold < float("inf"), "a positive number"
        yield "merging", self.merging in get_args(Merging), f"one of {get_args(Merging)}"
        yield "retain_weight", self.retain_weight == 0, "0: retained tokens are kept outside by the margins"
        yield "retain_size", self.retain_size >= 1, "1 or more: the margins need tokens to keep outside"

    @property
    def uses_retain(self) -> bool:
        """Always: the margins need tokens that are to stay outside."""
        return True


DEPTH = 5 / 6
"""Of the default layer, as a share of the model's (27 of 32 in the published configuration)."""
SAME_TOKEN = 0.05
"""As a share of the median distance: states that are no farther from each other are those of one token, computed twice
(in half precision, in batches of other shapes)."""


def plan_wise(task: Task) -> Movable:
    """Where the memory would stand."""
    place, masks = side_masks(task, _lot(task))
    return Movable(
        selection=task.selection if isinstance(task.selection, Selection) else place.selection,
        selector=place.selector(task.selection),
        words=f"{sum(int(mask.sum()) for mask in masks):,} weights beside L{place.layer} {place.module} may move",
        unknown="moves only tokens that its router is trained to let through",
    )


def make_wise(task: Task) -> Edit:
    """Train a side memory for a task."""
    recipe, model = task.recipe, task.model
    assert isinstance(recipe, WISE)
    began = time.perf_counter()
    lot = _lot(task)
    place, masks = side_masks(task, lot)
    retained = retain_set(model, task.facts, task.retain, recipe, task.pool, task.progress, task.cancel)
    rows = FitRows(model, task.facts, recipe, retain=retained, cancel=task.cancel)
    memory = _Side(model, place, _tokens(model, place, rows, recipe, task), recipe, masks, lot)
    inner = replace(task, selection=place.selection if task.selection is None else task.selection)
    edit = fit_weights(
        inner,
        place.layer,
        memory.view,
        memory.parameters,
        memory.read,
        memory.mind_margins,
        rows=rows,
        about=lambda: {"selector": place.selector(task.selection)},
        began=began,
    )
    return replace(
        edit,
        provenance={
            **edit.provenance,
            "settings": {**edit.provenance["settings"], "trained": memory.n_free},
            "router": memory.measured(),
        },
    )


def _lot(task: Task) -> torch.Generator:
    return torch.Generator().manual_seed(task.recipe.seed)


def side_masks(task: Task, lot: torch.Generator) -> tuple[MemoryPlace, list[Tensor]]:
    """The module that the memory goes beside, and of each shard 1.0 at its entries that may move, by lot among those of
    the inputs that are read.

    Raises:
        ValueError: As ``memory_place``; of a shard no entry may move, or its merging keeps none.
    """
    recipe = task.recipe
    assert isinstance(recipe, WISE)
    place = memory_place(task.model, task.selection, recipe.layer, DEPTH)
    shape = sizes(task.model.runner.get_submodule(place.name))
    read = torch.ones(shape[1])
    if place.columns is not None:
        read = torch.zeros(shape[1]).index_fill(0, torch.tensor(place.columns), 1.0)
    n = -(-len(task.facts) // recipe.shard_size)
    masks = [(torch.rand(shape, generator=lot) < recipe.density).float() * read for _ in range(n)]
    merged = n > 1 and recipe.merging == "ties"
    if any(round((recipe.merge_density if merged else 1) * int(mask.sum())) == 0 for mask in masks):
        share = f"density={recipe.density!r}" + (f" with merge_density={recipe.merge_density!r}" if merged else "")
        raise ValueError(
            f"{share} leaves a memory 0 of the {shape[0] * int(read.sum()):,} weights of layer {place.layer} "
            f"{place.module} that it may have, so it could do nothing. Raise {'either' if merged else 'it'}, at most "
            "to 1, or select more components."
        )
    return place, masks


@dataclass(frozen=True)
class _Tokens:
    """States that the module is given.

    Args:
        inside: Of the edit's tokens, those that predict what is taught, [n, d_in].
        shard: The shard that each belongs to, [n].
        outside: Of all other tokens, [m, d_in].
    """

    inside: Tensor
    shard: Tensor
    outside: Tensor


def _tokens(model: LoadedModel, place: MemoryPlace, rows: FitRows, recipe: WISE, task: Task) -> _Tokens:
    """Read the states of the edit's texts and of the retained ones."""
    wanted = rows.wanted(recipe.stages[0])
    taught = [(row, i // recipe.shard_size) for i, of_fact in enumerate(wanted) for row in of_fact]
    retained = [*rows.retained.near, *rows.retained.far]
    texts = [_text(row) for row in (*(row for row, _ in taught), *retained)]
    states = module_inputs(model, place, texts, cancel=task.cancel)
    inside: list[Tensor] = []
    shards: list[int] = []
    outside: list[Tensor] = []
    shared = common_beginning(texts)
    for (row, shard), state in zip(taught, states, strict=False):
        first = len(row.prompt) + row.departs - 1
        inside.append(state[first:])
        shards += [shard] * (len(state) - first)
        outside.append(state[shared:first])
    outside += [state[shared:] for state in states[len(taught) :]]
    outside.append(states[0][:shared])
    return _Tokens(torch.cat(inside), torch.tensor(shards), torch.cat(outside))


def _text(row: Row) -> tuple[int, ...]:
    """Prompt and answer, but for the last token, after which nothing is predicted."""
    return (row.prompt + row.answer)[:-1]


class _Side:
    """A side memory in training, on a view of its own.

    In training the edit's tokens go through it whatever their distances, and no others.

    Args:
        model: The model.
        place: The module that it is beside.
        tokens: The edit's tokens and others.
        recipe: The settings.
        masks: Of each shard 1.0 at entries that may move, else 0.0.
        lot: Draws the other tokens that a step looks at.

    Attributes:
        view: The view.
        parameters: D of each shard in root mean squares of W's entries, by name.
        margins: None until they are calibrated.
    """

    def __init__(
        self,
        model: LoadedModel,
        place: MemoryPlace,
        tokens: _Tokens,
        recipe: WISE,
        masks: Sequence[Tensor],
        lot: torch.Generator,
    ) -> None:
        self._place, self._recipe = place, recipe
        self.view = shared_view(model.runner)
        module: Any = self.view.get_submodule(place.name)
        weight: Tensor = module.weight.detach()
        self._shape, device = sizes(module), weight.device
        self._unit = float(weight.float().square().mean().sqrt())
        self._inside, self._shard, self._outside = (t.to(device) for t in (tokens.inside, tokens.shard, tokens.outside))
        sample = self._inside[:: max(1, len(self._inside) // 100)]
        radius = SAME_TOKEN * median_distance(torch.cat([sample, self._outside[:100]]))
        self._radii = torch.full((len(self._inside),), radius, device=device)
        self._lot = lot
        self._masks = [mask.to(device) for mask in masks]
        self._free = [nn.Parameter(torch.zeros_like(mask), requires_grad=False) for mask in self._masks]
        self.parameters = {f"shard {i}": parameter for i, parameter in enumerate(self._free)}
        self.margins: Margins | None = None
        self._steps = 0
        module.register_forward_hook(self._go_through)

    @property
    def n_free(self) -> int:
        """How many weights may move."""
        return sum(int(mask.sum()) for mask in self._masks)

    def _go_through(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        states = args[0].reshape(-1, args[0].shape[-1])
        token, fires = nearest_key(states, self._inside, self._radii)
        moved = output.reshape(-1, output.shape[-1])
        for i, parameter in enumerate(self._free):
            chosen = fires & (self._shard[token] == i)
            move = self._unit * (states.float() @ parameter.T)
            moved = moved + (move * chosen[:, None]).to(moved.dtype)
        return moved.view(output.shape)

    def mind_margins(self) -> None:
        """Add the margins' gradients, and take out those of entries that may not move."""
        self._steps += 1
        if self._steps > self._recipe.calibrate and self.margins is None:
            inside = torch.cat(
                [distances(self._of_shard(i), self._weights(i)) for i in range(len(self._free))]
            ).detach()
            self.margins = Margins(max(float(inside.quantile(self._recipe.quantile)), 1e-6))
        if self.margins is not None and self._recipe.margin_weight:
            n = len(self._outside)
            some = torch.randperm(n, generator=self._lot)[: self._recipe.margin_tokens].to(self._outside.device)
            for i in range(len(self._free)):
                others = torch.cat([self._outside[some], self._inside[self._shard != i]])
                weights = self._weights(i)
                loss = self.margins.loss(distances(self._of_shard(i), weights), distances(others, weights))
                (self._recipe.margin_weight * loss).backward()
        for parameter, mask in zip(self._free, self._masks, strict=True):
            assert parameter.grad is not None
            parameter.grad.mul_(mask)

    def _weights(self, i: int) -> Tensor:
        return self._unit * self._free[i]

    def _of_shard(self, i: int) -> Tensor:
        return self._inside[self._shard == i]

    def read(self, before: Delta | None) -> Delta:
        """The memory with the weights as they are now, and its thresholds.

        Raises:
            NonFiniteLoss: A threshold is not finite, so that no token would reach it.
        """
        with torch.no_grad():
            shards = torch.stack([self._weights(i) for i in range(len(self._free))])
            if len(shards) > 1 and self._recipe.merging == "ties":
                shards = ties_merge(shards, self._recipe.merge_density)[None]
                least = [float(distances(self._inside, shards[0]).min())]
            else:
                least = [float(distances(self._of_shard(i), weights).min()) for i, weights in enumerate(shards)]
        if not all(map(math.isfinite, least)):
            raise NonFiniteLoss(
                f"The memory's threshold is not finite: the least distances of the edit's tokens are {least}. Lower "
                f"learning_rate (now {self._recipe.learning_rate!r}); the model is as it was."
            )
        index = [weights.flatten().nonzero()[:, 0] for weights in shards]
        memory = SideMemory(
            tuple(index),
            tuple(weights.flatten()[at] for at, weights in zip(index, shards, strict=True)),
            self._shape,
            torch.tensor([self._recipe.threshold * distance for distance in least]),
        )
        return MemoryDelta({(self._place.layer, self._place.module): (memory,)})

    def measured(self) -> dict[str, Any]:
        """What the router has learned: of the edit's tokens and of others, which share reaches a threshold."""
        delta = self.read(None)
        assert isinstance(delta, MemoryDelta)
        ((memory,),) = delta.memories.values()
        assert isinstance(memory, SideMemory)
        shares: dict[str, Any] = {}
        for name, states in (("inside", self._inside), ("outside", self._outside)):
            away = torch.stack([distances(states.cpu(), weights) for weights in memory.dense()])
            reached = (away >= memory.thresholds[:, None]).any(0)
            shares[f"{name}_through"] = round(float(reached.float().mean()), 4)
        shares["thresholds"] = [round(float(x), 4) for x in memory.thresholds]
        return shares
