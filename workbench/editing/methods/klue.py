"""KLUE: the neurons forget that a fact rests on, not those of its answer's words; forgotten prompts train no more."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch

from workbench.editing.selector import check_number
from workbench.editing.task import Movable, Task, movable
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.rows import Row, around_old, named_row
from workbench.editing.training.weights import fit_rows, fit_weights
from workbench.editing.unlearning.attribution import largest, neuron_scores, regularised
from workbench.editing.unlearning.columns import MovingColumns, check_precision, selected_columns
from workbench.editing.unlearning.gates import MovingGates
from workbench.language.generation import greedy_answers
from workbench.language.prompts import prompt_ids
from workbench.language.replies import counted_text
from workbench.models.views import shared_view
from workbench.types import Edit, Fact, Selection, StageName, TrainedRecipe
from workbench.types.cancelling import CancelBar, check_cancel
from workbench.types.plain import is_whole
from workbench.types.recipe import Check, Objective
from workbench.types.setting import SEED, Setting

Moves = Literal["columns", "gates"]
SELECTOR = "regularised attribution"


@dataclass(frozen=True, kw_only=True)
class KLUE(TrainedRecipe):
    """The settings of KLUE, which is a reconstruction: the paper has no public code.

    A neuron's score for a prompt is its activation times the gradient of the answer's probability, at the last token
    before the answer, less ``regularisation`` times the mean over ``mismatched`` other questions that are given the
    same answer: what makes the words likely whatever is asked is not the fact. The neurons with the largest mean score
    over the training prompts forget by ``objective``, on those prompts alone that are not forgotten when a pass through
    them begins.

    Args:
        neurons: Share of all neurons that move, where nothing is selected. With a selection its neurons move as they
            are; a number as the selection is how many move.
        regularisation: Weight of the mismatched questions' scores.
        mismatched: How many there are, drawn from the retained facts.
        moves: ``"columns"``: the neurons' weights in the MLP's output projection; ``"gates"``: one number each.
        objective: ``"npo"``, ``"simnpo"`` or ``"gradient-difference"``.
        hinge: One minus the probability of the old answer from which on a prompt counts as forgotten.
        learning_rate: AdamW's; gates take larger ones (0.05).
        seed: Of the mismatched questions and the batches.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: KLUE (2502.19207), as far as its abstract and public descriptions tell. Ours: the token that is scored, the
    share, the weight and the number of mismatched questions; rows of the gate and up projections stay.

    Example:
        >>> recipe = wb.recipes.KLUE(steps=3, mismatched=1)
        >>> edit = wb.rewrite(model, fact, 6, recipe=recipe, pool=facts)
        >>> edit.stage_names, edit.scope, edit.selector
        (('unlearn',), '6 components', 'regularised attribution')
    """

    method: ClassVar[str] = "klue"
    without_selection: ClassVar[str] = "Neurons by regularised attribution"
    takes_number: ClassVar[bool] = True
    trains: ClassVar[str] = "weight columns"

    panel_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="neurons", tip="Share of all neurons that move", low=0, high=1, above=True),
        Setting(name="regularisation", tip="Weight of other questions with the same answer", low=0),
        SEED,
    )

    name: str = "klue"
    stages: tuple[StageName, ...] = ("unlearn",)
    neurons: float = 0.005
    regularisation: float = 1.0
    mismatched: int = 5
    moves: Moves = "columns"
    objective: Objective = "npo"
    learning_rate: float = 1e-3
    early_stop: float | None = 0.8

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "neurons", 0 < self.neurons <= 1, "a share above 0, at most 1"
        ok = math.isfinite(self.regularisation) and self.regularisation >= 0
        yield "regularisation", ok, "0 or more"
        yield "mismatched", is_whole(self.mismatched) and self.mismatched >= 0, "a whole number from 0"
        yield "moves", self.moves in get_args(Moves), f"one of {get_args(Moves)}"

    def forgets(self, stage: StageName) -> bool:
        """See ``TrainedRecipe``."""
        return stage == "unlearn"

    @property
    def uses_retain(self) -> bool:
        """See ``TrainedRecipe``; the mismatched questions are theirs."""
        return super().uses_retain or (self.mismatched > 0 and self.regularisation > 0)

    @property
    def fits_retained(self) -> bool:
        """See ``TrainedRecipe``."""
        return super().uses_retain

    @property
    def only_unforgotten(self) -> bool:
        """See ``TrainedRecipe``."""
        return True


def check_klue(task: Task) -> None:
    """Raise a ValueError for weights that are too coarse to be trained, a selection without columns of an output
    projection, or none in a model without neurons to choose from."""
    recipe, model = task.recipe, task.model
    assert isinstance(recipe, KLUE)
    if recipe.moves == "columns":
        check_precision(model, "KLUE", recipe.learning_rate)
    if isinstance(task.selection, Selection):
        selected_columns(model, task.selection, "KLUE")
    else:
        check_number(model, 1)


def plan_klue(task: Task) -> Movable:
    """What would move."""
    recipe = task.recipe
    assert isinstance(recipe, KLUE)
    check_klue(task)
    if isinstance(task.selection, Selection):
        return movable(task, gates=recipe.moves == "gates")
    unknown = "chooses what it moves while it is made"
    return Movable(selection=Selection(), selector=SELECTOR, words=recipe.without_selection, unknown=unknown)


def make_klue(task: Task) -> Edit:
    """Choose neurons and let them forget."""
    recipe, model, began = task.recipe, task.model, time.perf_counter()
    assert isinstance(recipe, KLUE)
    check_klue(task)
    rows = fit_rows(task)
    given = isinstance(task.selection, Selection)
    chosen = task.selection if isinstance(task.selection, Selection) else _chosen(task, recipe, rows)
    check_cancel(task.cancel)
    columns = selected_columns(model, chosen, "KLUE")
    lowest = min(layer for layer, _ in columns)
    view = shared_view(model.hf)
    moving: Any = (
        MovingColumns(view, model.architecture, columns)
        if recipe.moves == "columns"
        else MovingGates(view, model, chosen)
    )
    return fit_weights(
        task,
        lowest,
        view,
        moving.parameters,
        moving.read,
        moving.mask_gradients,
        rows=rows,
        about=lambda: {"selection": chosen, "selector": "given" if given else SELECTOR},
        began=began,
    )


def _chosen(task: Task, recipe: KLUE, rows: FitRows) -> Selection:
    """The neurons with the largest regularised scores, of all facts together."""
    model = task.model
    shape = model.shape
    total = torch.zeros(shape.n_layers, shape.d_mlp)
    for fact, wanted in zip(task.facts, rows.wanted("unlearn"), strict=True):
        others = _mismatched(task, recipe, rows, fact)
        own = neuron_scores(model, wanted, cancel=task.cancel)
        theirs = neuron_scores(model, others, cancel=task.cancel) if others else own[:0]
        total += regularised(own, theirs, recipe.regularisation)
    every = shape.n_layers * shape.d_mlp
    n = task.selection if isinstance(task.selection, int) else max(1, round(recipe.neurons * every))
    return Selection([f"L{layer}N{neuron}" for layer, neuron in largest(total, n)])


def _mismatched(task: Task, recipe: KLUE, rows: FitRows, fact: Fact) -> list[Row]:
    """Questions about other facts, each with this fact's answer in the place of its own."""
    if not (recipe.mismatched and recipe.regularisation):
        return []
    facts = [one for one in rows.retain_facts if not fact.overlaps(one) and one.answer != fact.answer]
    if not facts:
        raise ValueError(
            f"mismatched={recipe.mismatched} asks questions of retained facts with other answers than {fact.answer!r}, "
            "and there are none. Give retain=[...] (or a pool with role='retain'), or mismatched=0."
        )
    drawn: Sequence[Fact] = random.Random(recipe.seed).sample(facts, min(recipe.mismatched, len(facts)))
    prompts = [prompt_ids(task.model, one.question, "chat") for one in drawn]
    replies = greedy_answers(task.model, prompts, progress=CancelBar(task.cancel)) if drawn else []
    found: list[Row] = []
    for one, prompt, reply in zip(drawn, prompts, replies, strict=True):
        before, _, _ = around_old(counted_text(task.model, reply.text, "chat") or "", one)
        found.append(named_row(task.model, prompt, before, fact.answer))
    return found
