"""MEMIT: the change of a subject's state, spread over several layers by ridge-weighted updates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, get_args

from workbench.editing.solved import formulas
from workbench.editing.solved.choose import chosen_places
from workbench.editing.solved.published_edit import AsPublished, published_edit
from workbench.editing.solved.recipe import SolvedRecipe
from workbench.editing.solved.solving import Solving, by_fact
from workbench.editing.solved.write import Problem, Solved, Writer
from workbench.editing.task import Task
from workbench.types import Edit
from workbench.types.recipe import Check
from workbench.types.setting import Setting


@dataclass(frozen=True, kw_only=True)
class MEMIT(SolvedRecipe):
    """The settings of MEMIT: dW = R K^T (lambda C + K K^T)^-1 in each of several modules, from the lowest up.

    Without a selection it writes the MLPs of the layers that the causal trace chooses; with one the selected columns of
    every module that has some, attention and MLP. Many facts are written together.

    Args:
        leverage: In place of lambda: C is scaled so that the keys' k^T (lambda C)^-1 k are this on average. A larger
            one comes nearer to the targets at the keys, a smaller one changes less elsewhere.
        covariance_weight: lambda itself; it is in units of ordinary keys and belongs to one model. None: by
            ``leverage``.
        rank: Directions of each module's update that are kept, for each fact; None for all.
        published: ``True``: the published procedure, done plainly: the cloze in contexts that the model writes by
            seed, a target in the residual stream by 20 passes of Adam at a rate of 0.5, mean keys, whole passes, C
            without a ridge. ``"fast"``: the same numbers by passes that compute only what changes. Of the other
            settings these count then: where it is written, ``covariance`` and its tokens, ``leverage``,
            ``covariance_weight`` and ``force``.
        seed: Of the contexts' order.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: Meng et al. 2022 (2210.07229). Deviations: contexts are those in which the model answers, every occurrence
        of the subject is a key, and the keys of one fact together weigh as much as one; lambda by leverage; C of less
        text, with a ridge and keys of retained facts.

    Example:
        >>> recipe = wb.recipes.MEMIT(layers=(0, 1), steps=3, covariance="identity")
        >>> edit = wb.rewrite(model, fact, recipe=recipe, pool=facts)
        >>> edit.delta().words(), [write.layer for write in edit.writes]
        ('rank 1 added to 2 modules', [0, 1])
    """

    method: ClassVar[str] = "memit"
    panel_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            name="leverage", tip="Nearness to the target at the subject; less changes less elsewhere", low=0, above=True
        ),
        *SolvedRecipe.panel_settings,
    )

    name: str = "memit"
    leverage: float = 30.0
    covariance_weight: float | None = None
    rank: int | None = 1
    published: AsPublished = False

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "published", self.published in get_args(AsPublished), f"one of {get_args(AsPublished)}"
        yield "leverage", self.leverage > 0, "above 0"
        yield "covariance_weight", self.covariance_weight is None or self.covariance_weight > 0, "None or above 0"
        yield "rank", self.rank is None or self.rank >= 1, "None or 1 or more"


def make_memit(task: Task) -> Edit:
    """Solve MEMIT for a task."""
    recipe = task.recipe
    assert isinstance(recipe, MEMIT)
    chosen = chosen_places(task, layers=recipe.layers, window=recipe.window)
    if recipe.published:
        options = {"covariance_weight": recipe.covariance_weight, "leverage": recipe.leverage}
        return published_edit(task, chosen, recipe.published, spread=True, **options)
    return Solving(task, chosen).run(_stage)


def _stage(solving: Solving, stage: str, writer: Writer) -> None:
    solving.spread(stage, writer, partial(solve_memit, solving))


def solve_memit(solving: Solving, problem: Problem) -> Solved:
    """The update of one module by MEMIT's formula."""
    recipe, place = solving.recipe, problem.place
    assert isinstance(recipe, MEMIT)
    if recipe.keys == "mean":
        problem = by_fact(problem)
    metric = solving.metrics[place]
    denominators = solving.denominators(place, problem.keys, facts=problem.facts)
    weight = recipe.covariance_weight or float(denominators.mean()) / recipe.leverage
    factors = formulas.memit(metric.scaled(weight), problem.keys, problem.residuals, problem.weights)
    rank = None if recipe.rank is None else recipe.rank * len(solving.task.facts)
    return Solved(
        formulas.compressed(factors, rank),
        denominators,
        solving.chosen.columns[place],
        solving.covariances.get(place),
    )
