"""Edit, then consolidate: a closed form writes the fact, then a few steps repair what it broke.

The steps train U on the same factors, with V as the closed form left it, on the rows and the loss of the other trained
methods: the new answer in the base's own sentences, and the KL on what is held in place. The closed form alone matches
a target at one place; the steps see the whole model.

Source: ours; the closed form is the one that is named (2202.05262, 2210.07229 and others).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from workbench.editing.solved.closing import apart, closing_contexts, rows_held
from workbench.editing.solved.places import about_contexts, training_contexts
from workbench.editing.solved.recipe import SolvedRecipe
from workbench.editing.task import Task, retain_set
from workbench.editing.training.factors import TrainedFactors
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.weights import fit_factors
from workbench.facts.known import pool_or_bundled
from workbench.types import BaseRecipe, Edit, EditStage, LowRankDelta, StageName, TrainedRecipe
from workbench.types.recipe import Check, is_probability

CLOSED_FORMS = ("rome", "memit", "alphaedit", "emmet")


@dataclass(frozen=True, kw_only=True)
class EditThenConsolidate(TrainedRecipe):
    """The settings of a closed-form edit and of the steps after it. The edit has two stages, ``"edit"`` and
    ``"consolidate"``: the first is the closed form's, the second what the steps add to it.

    The modules and columns are those of the closed form, with and without a selection. Beside retained facts the KL
    holds the base's own beginnings of the taught replies, and what it says to other questions about the subject.

    Args:
        first: The closed form: ``"rome"``, ``"memit"``, ``"alphaedit"`` or ``"emmet"``, with its built-in settings.
        layers: Those that it writes, where nothing is selected; None for its own choice.
        covariance_tokens, min_tokens: Of its covariance.
        target_steps: How many steps the closed form's target vectors take; None for as many as in its own recipe.
        force: As in its recipe.
        close: Hold closing questions about the subject in place, too (``wb.recipes.Keyed``).
        first_closed: Close the closed form for the same questions: its directions, which the steps keep, then hardly
            see them.
        closing_weight: How much the closing questions' keys count where the closed form is closed; a larger one opens
            it less at them.
        leave_out, closing_wordings: As in ``wb.recipes.Keyed``.
        draw_back: As in ``wb.recipes.IA3``, by the strength of both stages.
        reserve: So many times the strength that ``draw_back`` finds is kept, at most all (``wb.recipes.Keyed``).
        steps: Of the second stage.
        learning_rate: AdamW's, in units of the root mean square of each module's U.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Example:
        >>> recipe = wb.recipes.EditThenConsolidate(first="rome", layers=(1,), steps=2, min_tokens=1, force=True)
        >>> edit = wb.rewrite(model, fact, recipe=recipe, pool=facts)
        >>> edit.stage_names, edit.delta().words()
        (('edit', 'consolidate'), 'rank 2 added to 1 module')
    """

    method: ClassVar[str] = "consolidate"
    without_selection: ClassVar[str] = "What the closed form writes"
    trains: ClassVar[str] = "low-rank updates, solved for and then trained"
    most_rate: ClassVar[float] = 1e30  # in units of each module's U

    name: str = "consolidate"
    first: str = "alphaedit"
    layers: tuple[int, ...] | None = None
    target_steps: int | None = None
    stages: tuple[StageName, ...] = ("learn",)
    steps: int | tuple[int, ...] | None = 16
    learning_rate: float = 0.1
    average: int = 3
    hinge: float | None = 0.98
    retain_weight: float = 2.0
    retain_batch_size: int = 8
    close: bool = True
    first_closed: bool = False
    closing_weight: float = 30.0
    leave_out: int = 1
    closing_wordings: int = 3
    covariance_tokens: int = 30_000
    min_tokens: int | None = None
    draw_back: float | None = 0.97
    reserve: float = 1.0
    force: bool = False

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "first", self.first in CLOSED_FORMS, f"one of {CLOSED_FORMS}"
        yield "first_closed", self.close or not self.first_closed, "False where close is"
        yield "stages", self.stages == ("learn",), "('learn',): the closed form writes the target, the steps keep it"
        yield "draw_back", is_probability(self.draw_back), "None or in (0, 1]"
        yield "reserve", math.isfinite(self.reserve) and self.reserve >= 1, "1 or more"
        layers = self.layers
        yield "layers", layers is None or (len(layers) > 0 and min(layers) >= 0), "None, or layers from 0"
        weight = self.closing_weight
        yield "closing_weight", math.isfinite(weight) and weight >= 0, "a finite number from 0"
        usual = type(self).closing_weight
        yield "closing_weight", self.first_closed or weight == usual, f"{usual:g} where first_closed is False"
        yield "target_steps", self.target_steps is None or self.target_steps >= 1, "None or 1 or more"
        for name in ("leave_out", "closing_wordings"):
            yield name, getattr(self, name) >= 0, "0 or more"
        yield "covariance_tokens", self.covariance_tokens >= 1, "1 or more"
        yield "min_tokens", self.min_tokens is None or self.min_tokens >= 1, "None or 1 or more"

    @property
    def stage_names(self) -> tuple[str, ...]:
        """See ``BaseRecipe``."""
        return ("edit", "consolidate")

    def steps_of(self, stage: str) -> int:
        """See ``BaseRecipe``: the closed form's are of its target vectors, and not known before."""
        return self.stage_steps[0] if stage == "consolidate" else 0

    @property
    def closed_form(self) -> BaseRecipe:
        """See ``BaseRecipe``: the first stage."""
        from workbench.editing.methods.table import RECIPES

        recipe = RECIPES[self.first]
        assert isinstance(recipe, SolvedRecipe)
        changes: dict[str, Any] = {"layers": self.layers, "covariance_tokens": self.covariance_tokens}
        changes |= {"min_tokens": self.min_tokens, "seed": self.seed, "force": self.force, "answers": self.answers}
        if self.target_steps is not None:
            changes["steps"] = self.target_steps
        if self.first_closed:
            changes |= {"close": True, "leave_out": self.leave_out, "closing_wordings": self.closing_wordings}
            changes["closing_weight"] = self.closing_weight
        return replace(recipe, contexts=self.contexts, **changes)


def make_consolidate(task: Task) -> Edit:
    """Solve the closed form for a task, and train its factors on."""
    from workbench.editing.methods.table import METHODS

    recipe, model = task.recipe, task.model
    assert isinstance(recipe, EditThenConsolidate)
    began = time.perf_counter()
    solved = METHODS[recipe.first].make(replace(task, recipe=recipe.closed_form, stop=None))
    start = solved.delta()
    assert isinstance(start, LowRankDelta)
    retained = retain_set(model, task.facts, task.retain, recipe, task.pool, task.progress, task.cancel)
    about = apart(model, task.facts, about_contexts(model, task.facts, cancel=task.cancel))
    closing = closing_contexts(
        model,
        task.facts,
        pool_or_bundled(task.pool),
        wordings=recipe.closing_wordings if recipe.close else 0,
        leave_out=recipe.leave_out,
        seed=recipe.seed,
        cancel=task.cancel,
    )
    taught = training_contexts(model, task.facts, "learn", recipe, clozes=False, cancel=task.cancel)
    beside = rows_held(taught, [*about, *closing.contexts]) if recipe.uses_retain else []
    rows = FitRows(model, task.facts, recipe, retain=retained, beside=beside, cancel=task.cancel)
    trained = TrainedFactors(model, start, _units(start))

    def about_edit() -> dict[str, Any]:
        return {
            "selection": solved.selection,
            "selector": solved.selector,
            "fisher_ids": solved.fisher_ids,
            "closed_relations": closing.relations if recipe.close else (),
            "writes": solved.writes,
        }

    follow = task.on_step
    named = None if follow is None else lambda step: follow(replace(step, stage="consolidate"))
    inner = replace(task, on_step=named)
    ending: dict[str, Any] = {"draw_back": recipe.draw_back, "reserve": recipe.reserve}
    edit = fit_factors(inner, trained, rows, about_edit, **ending, began=began)
    return _two_stages(solved, edit)


def _units(start: LowRankDelta) -> dict[tuple[int, str], float]:
    """The root mean square of each module's U."""
    return {key: float(u.square().mean().sqrt()) for key, (u, _) in start.factors.items()}


def _two_stages(solved: Edit, edit: Edit) -> Edit:
    """The edit with what the steps added as a stage of its own, after the closed form's, whose steps come first."""
    before, after = solved.delta(), edit.delta()
    assert isinstance(before, LowRankDelta) and isinstance(after, LowRankDelta)
    added = LowRankDelta({key: (u - before.factors[key][0], v) for key, (u, v) in after.factors.items()})
    first = tuple(replace(step, stage="edit") for step in solved.history)
    steps = tuple(replace(step, stage="consolidate") for step in edit.history)
    return replace(
        edit,
        stages=(EditStage("edit", before), EditStage("consolidate", added)),
        history=(*first, *steps),
    )
