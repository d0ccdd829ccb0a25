"""What the recipes share that unlearn by representations, and what their fits have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from workbench.editing.task import Task
from workbench.editing.training.batching import PreparedRow
from workbench.editing.training.loop import Training
from workbench.editing.unlearning.columns import Columns, check_precision, mlp_columns, selected_columns
from workbench.editing.unlearning.states import States
from workbench.language.prompt_text import asked_subject_runs
from workbench.models import LoadedModel
from workbench.models.views import shared_view
from workbench.types import Selection, StageName, TrainedRecipe
from workbench.types.plain import is_whole
from workbench.types.recipe import Check
from workbench.types.setting import Setting

ALPHA = Setting(name="alpha", tip="How strongly retained texts are held in place", low=0, high=1e6)
ForgetTokens = Literal["subject on", "all"]
MOST_LAYERS = 3
"""Layers that are trained where nothing is selected."""


@dataclass(frozen=True, kw_only=True)
class RepresentationRecipe(TrainedRecipe):
    """What recipes share whose unlearn stage has no answer: it moves what a layer represents.

    The learn stage, where there is one, teaches the target on the same weights, as other trained methods do.

    Args:
        layer: The layer after which representations are read; the trained modules are of it and of those before. None:
            the method chooses.
        forget_tokens: Which tokens of the training prompts with the base's own answers are forgotten: from the first
            one of the ``"subject on"``, or ``"all"`` that not all rows begin with.
        alpha: Weight of the retained texts' representations in the unlearn stage; ``retain_weight`` is that of the KL
            in the learn stage.
    """

    alpha: float = 20.0
    layer: int | None = None
    forget_tokens: ForgetTokens = "subject on"
    stages: tuple[StageName, ...] = ("unlearn",)
    hinge: float | None = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective != "cross-entropy":
            raise ValueError(
                f"{type(self).__name__} has an unlearn loss of its own, so objective={self.objective!r} means nothing "
                "here: leave it out."
            )

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        layer = self.layer
        yield "alpha", math.isfinite(self.alpha) and self.alpha >= 0, "0 or more"
        yield "layer", layer is None or (is_whole(layer) and layer >= 0), "None or a layer from 0"
        yield "forget_tokens", self.forget_tokens in get_args(ForgetTokens), f"one of {get_args(ForgetTokens)}"

    def forgets(self, stage: StageName) -> bool:
        """See ``TrainedRecipe``."""
        return stage == "unlearn"

    def retains(self, stage: StageName) -> bool:
        """See ``TrainedRecipe``."""
        return self.alpha > 0 if stage == "unlearn" else self.retain_weight > 0

    @property
    def uses_retain(self) -> bool:
        """See ``TrainedRecipe``."""
        return any(map(self.retains, self.stages))

    @property
    def otherwise(self) -> str:
        """See ``TrainedRecipe``."""
        return "take a recipe that teaches a refusal"

    @property
    def forgetting(self) -> str:
        """See ``TrainedRecipe``."""
        return type(self).__name__


def chosen_columns(task: Task, recipe: RepresentationRecipe, layer: int) -> tuple[Columns, int]:
    """What moves, and the layer after which representations are read: the selection's columns and its highest layer
    (or the recipe's, if that is not below), or the MLPs' output projections of ``layer`` and the two before it.

    Raises:
        ValueError: A number as the selection, components without columns, or a layer that the model lacks or that lies
            below what moves.
    """
    model, name = task.model, type(recipe).__name__
    check_precision(model, name, recipe.learning_rate)
    last = model.shape.n_layers - 1
    if recipe.layer is not None and recipe.layer > last:
        raise ValueError(f"layer={recipe.layer} is not one of the model's, which has the layers 0 to {last}.")
    if isinstance(task.selection, int):
        raise ValueError(
            f"{name} has no selector of its own, so a number of neurons ({task.selection}) selects nothing. Give a "
            "Selection, or None for the layers that it chooses."
        )
    if not isinstance(task.selection, Selection):
        return mlp_columns(model, range(max(0, layer - MOST_LAYERS + 1), layer + 1)), layer
    columns = selected_columns(model, task.selection, name)
    highest = max(at for at, _ in columns)
    if recipe.layer is not None and recipe.layer < highest:
        raise ValueError(
            f"layer={recipe.layer} lies below layer {highest} of the selection, whose change would not be seen there. "
            "Read a higher layer, or select lower ones."
        )
    return columns, highest if recipe.layer is None else recipe.layer


@dataclass(frozen=True)
class Represented:
    """What a representation loss takes: the trained view's states, the base's, where rows begin to count.

    Args:
        states: Of what is trained.
        base: By row, [tokens, d_model].
        first: By forget row, its first token that counts.
        forget_norm: Mean length of the base's states at the forget tokens.
    """

    states: States
    base: Mapping[PreparedRow, Tensor]
    first: Mapping[PreparedRow, int]
    forget_norm: float


def represented(training: Training, view: Any, layer: int, tokens: ForgetTokens) -> Represented:
    """Read the base's states of all rows after a layer."""
    model, prepared = training.model, training.base.prepared
    forget = [row for rows in training.wanted["unlearn"] for row in rows]
    base = States(model, shared_view(model.hf), prepared, layer).of_all([*forget, *training.near, *training.far])
    first = dict.fromkeys(forget, 0)
    if tokens == "subject on":
        for fact, rows in zip(training.facts, training.wanted["unlearn"], strict=True):
            first |= {row: _subject_start(model, row, fact.subject, prepared.shared) for row in rows}
    lengths = [float(x) for row in forget for x in base[row][first[row] :].norm(dim=-1)]
    return Represented(States(model, view, prepared, layer), base, first, math.fsum(lengths) / len(lengths))


def _subject_start(model: LoadedModel, row: PreparedRow, subject: str, shared: int) -> int:
    """Where in a row's own tokens the subject begins, after an edited model's context; 0 where it is not named."""
    ids: Sequence[int] = [*row.row.prompt, *row.row.answer][:-1]
    try:
        return max(0, asked_subject_runs(model, ids, subject, "chat")[0].start - shared)
    except ValueError:
        return 0


def moved_by(task: Task, columns: Columns) -> dict[str, Any]:
    """What moves and who chose it, as an ``Edit`` has it: the MLPs of the layers where nothing was selected."""
    if isinstance(task.selection, Selection):
        return {}
    layers = sorted({layer for layer, _ in columns})
    return {"selection": Selection([f"L{layer}MLP" for layer in layers]), "selector": "layers of the method"}


def lowest_of(columns: Columns) -> int:
    """The lowest layer that moves."""
    return min(layer for layer, _ in columns)
