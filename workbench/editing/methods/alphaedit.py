"""AlphaEdit: MEMIT's change within the directions that ordinary text hardly uses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from workbench.editing.solved import formulas
from workbench.editing.solved.choose import chosen_places
from workbench.editing.solved.formulas import VanishingDenominator
from workbench.editing.solved.keys import keys_at, mean_by_fact
from workbench.editing.solved.places import question_contexts
from workbench.editing.solved.recipe import SolvedRecipe
from workbench.editing.solved.solving import Solving, by_fact
from workbench.editing.solved.spots import Place
from workbench.editing.solved.write import Problem, Solved, Writer
from workbench.editing.task import Task
from workbench.types import Edit
from workbench.types.mentions import find_subject
from workbench.types.recipe import Check
from workbench.types.setting import Setting


@dataclass(frozen=True, kw_only=True)
class AlphaEdit(SolvedRecipe):
    """The settings of AlphaEdit: [P (K K^T + K_p K_p^T) + L2 I] X = P K R^T, dW = X^T, in each of several modules.

    P projects onto the directions that are left when the leading ones of C, with a share of its trace, are kept. Places
    as for ``MEMIT``. K_p has the keys of what was written before: of the edit's earlier stages, and of the edits that
    the model carries, whatever method made them.

    Args:
        kept: The share of C's trace in the directions that are kept as they are.
        leverage: In place of L2: k^T P k / L2 of the keys on average.
        l2: L2 itself; None: by ``leverage``.
        hold_retained: Keys of retained facts' subjects are K_p: what the module gives out there stays. In place of
            ``protect``, which would only turn P.
        rank: As in ``MEMIT``.
        seed: Of the contexts' order.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: Fang et al. 2024 (2410.02355). Deviations: directions by their share of the trace, not by an absolute
        threshold, which belongs to one model; L2 by leverage; contexts and keys as for ``MEMIT``; of an
        edit that the model carries, K_p has one mean key a fact, read on the edited model at the fact's own question.

    Example:
        >>> recipe = wb.recipes.AlphaEdit(layers=(0, 1), steps=3, kept=0.9, covariance_tokens=2000)
        >>> edit = wb.rewrite(model, fact, recipe=recipe, pool=facts)
        >>> edit.delta().words(), edit.writes[0].covariance_rank
        ('rank 1 added to 2 modules', 56)
    """

    method: ClassVar[str] = "alphaedit"
    panel_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            name="leverage", tip="Nearness to the target at the subject; less changes less elsewhere", low=0, above=True
        ),
        Setting(name="kept", tip="Share of ordinary text in the directions that stay", low=0, high=1, above=True),
        *SolvedRecipe.panel_settings,
    )

    name: str = "alphaedit"
    protect: float = 0.0
    kept: float = 0.9
    leverage: float = 30.0
    l2: float | None = None
    hold_retained: bool = False
    rank: int | None = 1

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "kept", 0 < self.kept < 1, "between 0 and 1"
        yield "covariance", self.covariance == "measured", "'measured': it says which directions are free"
        yield "leverage", self.leverage > 0, "above 0"
        yield "l2", self.l2 is None or self.l2 > 0, "None or above 0"
        yield "rank", self.rank is None or self.rank >= 1, "None or 1 or more"

    @property
    def spares_keys(self) -> bool:
        """See ``SolvedRecipe``."""
        return super().spares_keys or self.hold_retained


def make_alphaedit(task: Task) -> Edit:
    """Solve AlphaEdit for a task."""
    recipe = task.recipe
    assert isinstance(recipe, AlphaEdit)
    chosen = chosen_places(task, layers=recipe.layers, window=recipe.window)
    return Solving(task, chosen).run(partial(_stage, _carried(task, chosen.places)))


def _stage(earlier: dict[Place, list[Tensor]], solving: Solving, stage: str, writer: Writer) -> None:
    solved: dict[Place, list[Tensor]] = {}
    solving.spread(stage, writer, partial(_solve, earlier, solved, solving))
    for place, keys in solved.items():  # K_p K_p^T += K K^T, after the batch
        earlier.setdefault(place, []).extend(keys)


def _carried(task: Task, places: Sequence[Place]) -> dict[Place, list[Tensor]]:
    """Mean keys of the facts that the model's edits rewrite, as the edited model has them, [facts, d_in] by module."""
    facts = list(dict.fromkeys(fact for one in task.model.applied for fact in one.edit.facts))
    facts = [fact for fact in facts if find_subject(fact.question, fact.subject)]
    contexts = question_contexts(task.model, facts, cancel=task.cancel) if facts else []
    if not contexts:
        return {}
    kept = sorted({context.fact for context in contexts})
    of_key = torch.tensor([kept.index(c.fact) for c in contexts for _ in c.subject])
    found = keys_at(task.model, contexts, places, cancel=task.cancel)
    return {place: [mean_by_fact(keys, of_key)] for place, keys in found.items()}


def _solve(
    earlier: dict[Place, list[Tensor]], solved: dict[Place, list[Tensor]], solving: Solving, problem: Problem
) -> Solved:
    recipe, place = solving.recipe, problem.place
    assert isinstance(recipe, AlphaEdit)
    if recipe.keys == "mean":
        problem = by_fact(problem)
    columns = solving.chosen.columns[place]
    denominators = solving.denominators(place, problem.keys, facts=problem.facts)
    projection, _ = formulas.free_directions(solving.covariances[place].values, recipe.kept, columns)
    part = solving.metrics[place].part(problem.keys)
    free = float((part * (projection @ part)).sum(0).mean())
    if not free > 1e-9 * float(part.square().sum(0).mean()):
        raise VanishingDenominator(
            f"Of the subject's key at layer {place.layer} a share of {free:.3g} lies in the free directions, so that "
            f"nothing could be written there. Lower kept (now {recipe.kept:g}), or select other components."
        )
    factors = formulas.alphaedit(
        projection,
        problem.keys,
        problem.residuals,
        earlier=_held(earlier.get(place, []), solving, place),
        l2=recipe.l2 or free / recipe.leverage,
        weights=problem.weights,
        columns=columns,
    )
    solved[place] = [(problem.keys * problem.weights.sqrt()).T]
    rank = None if recipe.rank is None else recipe.rank * len(solving.task.facts)
    return Solved(formulas.compressed(factors, rank), denominators, columns, solving.covariances[place])


def _held(earlier: Sequence[Tensor], solving: Solving, place: Place) -> Tensor | None:
    """K_p, [d_in, n]: keys of what was written before, of retained facts, and those that the update is closed for; None
    where nothing is held."""
    recipe = solving.recipe
    assert isinstance(recipe, AlphaEdit)
    held = [*earlier, *([solving.protected[place]] if recipe.hold_retained else [])]
    closed = solving.closed.get(place)
    if closed is not None:
        held.append(closed * math.sqrt(recipe.closing_weight / len(closed)))
    return torch.cat(held).T if held else None
