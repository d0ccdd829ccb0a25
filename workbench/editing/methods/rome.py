"""ROME: the smallest update of one output projection that gives the subject's key a new value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, get_args

from workbench.editing.solved import formulas
from workbench.editing.solved.choose import chosen_places
from workbench.editing.solved.keys import PreparedContexts, mean_by_fact
from workbench.editing.solved.published_edit import AsPublished, published_edit
from workbench.editing.solved.recipe import KeysOf, SolvedRecipe
from workbench.editing.solved.solving import Solving
from workbench.editing.solved.spots import Spot, key_spot
from workbench.editing.solved.write import Solved, Writer
from workbench.editing.task import Task
from workbench.types import Edit
from workbench.types.recipe import Check


@dataclass(frozen=True, kw_only=True)
class ROME(SolvedRecipe):
    """The settings of ROME: dW = (v* - W k) u^T / (k.u), u = C^-1 k*, in one module.

    Without a selection it writes the MLP of the last layer of the window that the causal trace chooses; with one the
    selected columns of one module (of several modules the one with the most columns). Several facts are written one
    after the other. After the write, the module gives v* exactly at the key: the mean over contexts and occurrences of
    the subject, or, with ``two_keys``, the key of the bare question.

    Args:
        two_keys: The published form: u from the mean key, v* at the key of the bare question. Where both differ the
            denominator may vanish (R-ROME).
        published: ``True``: the published procedure, done plainly: the cloze in contexts that the model writes by
            seed, v* by 20 passes of Adam at a rate of 0.5, two keys, whole passes, C without a ridge. ``"fast"``: the
            same numbers by passes that compute only what changes. Of the other settings these count then: where it is
            written, ``covariance`` and its tokens, and ``force``.
        seed: Of the contexts' order.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: Meng et al. 2022 (2202.05262); one key everywhere: Gupta et al. 2024 (2403.07175). Deviations: contexts are
        those in which the model answers, and every occurrence of the subject is a place (see
        ``workbench.editing.solved.target``); C of less text, with a ridge and keys of retained facts.

    Example:
        >>> recipe = wb.recipes.ROME(layers=(1,), steps=3, covariance="identity")
        >>> edit = wb.rewrite(model, fact, recipe=recipe, pool=facts)
        >>> edit.delta().words(), edit.writes[0].name
        ('rank 1 added to 1 module', 'mlp.down_proj')
    """

    method: ClassVar[str] = "rome"
    without_selection: ClassVar[str] = "The MLP that a trace chooses"
    one_module: ClassVar[bool] = True

    name: str = "rome"
    keys: KeysOf = "mean"
    two_keys: bool = False
    published: AsPublished = False

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "published", self.published in get_args(AsPublished), f"one of {get_args(AsPublished)}"
        yield "keys", self.keys == "mean", "'mean': one key a fact"
        yield "layers", self.layers is None or len(self.layers) == 1, "None or one layer"


def make_rome(task: Task) -> Edit:
    """Solve ROME for a task."""
    recipe = task.recipe
    assert isinstance(recipe, ROME)
    chosen = chosen_places(task, layers=recipe.layers, window=recipe.window, most=1)
    if recipe.published:
        return published_edit(task, chosen, recipe.published, spread=False)
    return Solving(task, chosen).run(_stage)


def _stage(solving: Solving, stage: str, writer: Writer) -> None:
    recipe, model = solving.recipe, solving.model
    assert isinstance(recipe, ROME)
    (place,) = solving.chosen.places
    metric = solving.metrics[place]
    spot = Spot(place.module, place.layer)
    every = solving.contexts(stage)
    for i in range(len(solving.task.facts)):
        own = [c for c in every if c.fact == i]
        prepared = PreparedContexts(model, own, place.layer, view=writer.view, cancel=solving.task.cancel)
        states = prepared.read([key_spot(place), spot], view=writer.view)
        columns, before = states[key_spot(place)], states[spot]
        key = columns.mean(0)
        bare = mean_by_fact(columns, prepared.context_of_column)[0] if recipe.two_keys else None
        denominators = solving.denominators(place, key[:, None], None if bare is None else bare[:, None])
        target = solving.target(i, own, [spot], stage=stage, view=writer.view)
        residual = target.vectors[spot]
        factors = formulas.rome(metric, key, residual, bare)
        solved = Solved(factors, denominators, solving.chosen.columns[place], solving.covariances.get(place))
        writer.write(place, solved, keys=1, residual_before=float(residual.norm()))
        after = prepared.read([spot], view=writer.view)[spot] - before
        moved = mean_by_fact(after, prepared.context_of_column)[0] if recipe.two_keys else after.mean(0)
        writer.leaves(float((residual - moved).norm()))
