"""Edits by the published procedures of ROME and MEMIT."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from workbench.editing.solved.choose import Chosen
from workbench.editing.solved.prefixes import memit_contexts, rome_contexts
from workbench.editing.solved.published import Published, published_memit, published_rome
from workbench.editing.solved.recipe import SolvedRecipe
from workbench.editing.solved.solving import Solving
from workbench.editing.solved.write import Solved, Writer
from workbench.editing.task import Task
from workbench.types import Edit, Step
from workbench.types.cancelling import Cancelled, check_cancel

AsPublished = Literal[False, True, "fast"]
"""``True``: the published procedure, plainly; ``"fast"``: the same numbers by passes of only what changes."""


def published_edit(task: Task, chosen: Chosen, how: AsPublished, *, spread: bool, **options: Any) -> Edit:
    """Make an edit as ROME or MEMIT was published: the cloze in contexts that the model itself writes, drawn by seed,
    the published settings of the target vector, and C alone, without a ridge and without keys of retained facts.

    Args:
        task: What is asked; its recipe is a ``SolvedRecipe``.
        chosen: Where it is written.
        how: Plainly, or fast.
        spread: Over several layers, by MEMIT; else ROME.
        options: Of ``published_memit``.

    Raises:
        ValueError: Attention, several stages, or several facts for ROME.
    """
    recipe = task.recipe
    assert isinstance(recipe, SolvedRecipe)
    attention = [place.layer for place in chosen.places if place.module == "attn"]
    if attention:
        raise ValueError(
            f"published={how!r} is of MLPs, and the selection has attention in layer {attention[0]}. Select neurons "
            "or MLPs, or leave published out."
        )
    if recipe.stages not in (("edit",), ("learn",)):
        raise ValueError(
            f"published={how!r} teaches the target in one stage, got stages={recipe.stages}. Give "
            "stages=('edit',), or leave published out."
        )
    if not spread and len(task.facts) > 1:
        raise ValueError(
            f"published={how!r} of ROME edits one fact, got {len(task.facts)}. Give one fact, use MEMIT, or leave "
            "published out."
        )
    solving = Solving(replace(task, recipe=replace(recipe, ridge=0.0, protect=0.0, close=False)), chosen)
    options |= {"cut": how == "fast", "before_step": _Steps(solving).record}
    return solving.run(partial(_write, spread, options))


def _write(spread: bool, options: dict[str, Any], solving: Solving, stage: str, writer: Writer) -> None:
    model, facts, seed = solving.model, solving.task.facts, solving.recipe.seed
    columns = {place.layer: index for place, index in sorted(solving.chosen.columns.items())}
    spared = {place.layer: solving.spared[place] for place in solving.chosen.places}
    if spread:
        contexts = memit_contexts(model, seed)
        found = published_memit(model, facts, list(columns), spared, contexts, columns=columns, **options)
    else:
        ((layer, index),) = columns.items()
        contexts = rome_contexts(model, seed)
        found = published_rome(model, facts[0], layer, spared[layer], contexts, columns=index, **options)
    _record(solving, writer, found, spread)


def _record(solving: Solving, writer: Writer, found: Published, spread: bool) -> None:
    """Write what was found."""
    for place in sorted(solving.chosen.places):
        keys, factors = found.keys[place.layer], found.factors[place.layer]
        second = None if spread else keys[:, 1:]
        denominators = solving.denominators(place, keys if spread else keys[:, :1], second)
        columns, covariance = solving.chosen.columns[place], solving.covariances.get(place)
        lacking = float(found.residuals.norm(dim=0).mean())
        writer.write(
            place, Solved(factors, denominators, columns, covariance), keys=factors[0].shape[1], residual_before=lacking
        )


class _Steps:
    """Records the passes of the target vectors as steps, shows them, and ends them when cancelled."""

    def __init__(self, solving: Solving) -> None:
        self._solving, self._began = solving, time.perf_counter()
        (self._stage,) = solving.recipe.stages

    def record(self, step: int, nll: float, kl: float) -> None:
        """As ``target_vector`` calls it."""
        task, history = self._solving.task, self._solving.history
        check_cancel(task.cancel, f"at step {step} of the target vector")
        one = Step(self._stage, len(history), nll, kl, seconds=time.perf_counter() - self._began)
        history.append(one)
        if task.on_step is not None and task.on_step(one) is False:
            raise Cancelled(f"Cancelled by on_step at step {step} of the target vector; the model is as it was.")
