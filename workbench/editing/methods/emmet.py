"""EMMET: ROME for many facts at once, each exact at its key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from workbench.editing.solved import formulas
from workbench.editing.solved.choose import chosen_places
from workbench.editing.solved.keys import PreparedContexts, mean_by_fact
from workbench.editing.solved.recipe import KeysOf, SolvedRecipe
from workbench.editing.solved.solving import Solving
from workbench.editing.solved.spots import Spot, key_spot
from workbench.editing.solved.write import Solved, Writer
from workbench.editing.task import Task
from workbench.types import Edit
from workbench.types.recipe import Check


@dataclass(frozen=True, kw_only=True)
class EMMET(SolvedRecipe):
    """The settings of EMMET: dW = R (K^T C^-1 K + damping I)^-1 K^T C^-1, in one module.

    It writes where ``ROME`` does, all facts together; with one fact and no damping it is ROME. After the write, the
    module gives v* exactly at each fact's mean key.

    Args:
        damping: Above 0 the values are approached only; needed where two facts have nearly one key.
        seed: Of the contexts' order.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: Gupta et al. 2024 (2403.14236). Deviations as for ``ROME``.

    Example:
        >>> recipe = wb.recipes.EMMET(layers=(1,), steps=3, covariance="identity")
        >>> two = [fact, facts["spain-capital"]]
        >>> wb.rewrite(model, two, recipe=recipe, pool=facts).delta().words()
        'rank 2 added to 1 module'
    """

    method: ClassVar[str] = "emmet"
    without_selection: ClassVar[str] = "The MLP that a trace chooses"
    one_module: ClassVar[bool] = True

    name: str = "emmet"
    keys: KeysOf = "mean"
    damping: float = 0.0

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "keys", self.keys == "mean", "'mean': one key a fact"
        yield "layers", self.layers is None or len(self.layers) == 1, "None or one layer"
        yield "damping", self.damping >= 0, "0 or more"


def make_emmet(task: Task) -> Edit:
    """Solve EMMET for a task."""
    recipe = task.recipe
    assert isinstance(recipe, EMMET)
    chosen = chosen_places(task, layers=recipe.layers, window=recipe.window, most=1)
    return Solving(task, chosen).run(_stage)


def _stage(solving: Solving, stage: str, writer: Writer) -> None:
    recipe, model = solving.recipe, solving.model
    assert isinstance(recipe, EMMET)
    (place,) = solving.chosen.places
    spot = Spot(place.module, place.layer)
    contexts = solving.contexts(stage)
    prepared = PreparedContexts(model, contexts, place.layer, view=writer.view, cancel=solving.task.cancel)
    states = prepared.read([key_spot(place), spot], view=writer.view)
    keys = mean_by_fact(states[key_spot(place)], prepared.facts).T
    denominators = solving.denominators(place, keys)
    facts = range(len(solving.task.facts))
    targets = [solving.target(i, contexts, [spot], stage=stage, view=writer.view) for i in facts]
    residuals = torch.stack([target.vectors[spot] for target in targets], 1)
    factors = formulas.emmet(solving.metrics[place], keys, residuals, recipe.damping)
    solved = Solved(factors, denominators, solving.chosen.columns[place], solving.covariances.get(place))
    writer.write(place, solved, keys=len(facts), residual_before=float(residuals.norm(dim=0).mean()))
    moved = mean_by_fact(prepared.read([spot], view=writer.view)[spot] - states[spot], prepared.facts).T
    writer.leaves(float((residuals - moved).norm(dim=0).mean()))
