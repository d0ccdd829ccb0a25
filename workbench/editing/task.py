"""What a method is asked to do, checked, and what every method needs of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.editing.retain import default_retain
from workbench.editing.selector import check_number
from workbench.models import LoadedModel
from workbench.types import BaseRecipe, Edit, Fact, FactSet, Selection, Step, TrainedRecipe
from workbench.types.cancelling import CancelFlag


@dataclass(frozen=True, kw_only=True)
class Task:
    """An edit to make. Arguments as in ``rewrite``.

    Args:
        model: The base model.
        facts: The facts to rewrite, at least one.
        selection: What may move; a number of neurons, or None where the method chooses.
        recipe: The settings.
        retain: Facts to hold in place; None where the method chooses.
        pool: Where retained facts and the selector's controls come from.
        on_step, cancel, stop, progress: See ``rewrite``.
    """

    model: LoadedModel
    facts: tuple[Fact, ...]
    selection: Selection | int | None
    recipe: BaseRecipe
    retain: FactSet | Sequence[Fact] | None = None
    pool: FactSet | None = None
    on_step: Callable[[Step], Any] | None = None
    cancel: CancelFlag | None = None
    stop: Callable[[Edit], bool] | None = None
    progress: bool = True


def check_selection(model: LoadedModel, selection: Selection | int | None) -> None:
    """Raise a ValueError for an empty selection, a component that the model lacks, or a number that is out of range."""
    if isinstance(selection, Selection):
        if not len(selection):
            raise ValueError("The selection is empty, so nothing could move. Pick components, or pass selection=None.")
        experts = [c for c in selection if model.shape.no_neurons and c.kind in ("MLP", "GATEUP")]
        if experts:
            raise ValueError(f"{experts[0]} has nothing that an edit could move: {model.shape.no_neurons}")
        for layer, site in selection.entries(model):
            model.architecture.gate_module(layer, site)
    elif isinstance(selection, int):
        check_number(model, selection)
    elif selection is not None:
        raise ValueError(
            f"selection must be a Selection, its text, a number of neurons, or None, got {type(selection).__name__}."
        )


def retain_set(
    model: LoadedModel,
    facts: Sequence[Fact],
    retain: FactSet | Sequence[Fact] | None,
    recipe: TrainedRecipe,
    pool: FactSet | None,
    progress: bool,
    cancel: CancelFlag | None = None,
) -> FactSet:
    """The facts to hold in place: those given, checked against the edited ones, or the default retain set."""
    if retain is None:
        size = recipe.retain_size if recipe.uses_retain else 0
        options: dict[str, Any] = {"size": size, "seed": recipe.seed, "progress": progress, "cancel": cancel}
        return default_retain(model, facts, pool=pool, **options)
    retained = retain if isinstance(retain, FactSet) else FactSet(retain, name="retain set")
    clash = [f.id for f in retained if any(f.overlaps(edited) for edited in facts)]
    if clash:
        raise ValueError(
            f"The retain set overlaps what is trained and evaluated: {clash}. Leave these facts out of retain=."
        )
    return retained
