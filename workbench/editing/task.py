"""What a method is asked to do, checked, and what every method needs of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from workbench.editing.retain import default_retain
from workbench.editing.selector import check_number
from workbench.facts.known import pool_or_bundled
from workbench.facts.retained import retain_pool, retainable
from workbench.models import LoadedModel
from workbench.types import BaseRecipe, Edit, Fact, FactSet, Selection, Step
from workbench.types.cancelling import CancelFlag
from workbench.types.fact import check_once


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


def check_batch(facts: Sequence[Fact]) -> None:
    """Raise a ValueError for two facts of one subject and relation with different targets, since no edit gives both,
    and for one that is given twice, which would weigh double."""
    seen: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        other = seen.setdefault((fact.subject.casefold(), fact.relation or fact.question), fact)
        if other.target != fact.target:
            raise ValueError(
                f"The batch has two targets for {fact.subject!r} ({fact.relation or fact.question}): {other.target!r} "
                f"({other.id}) and {fact.target!r} ({fact.id}). Leave one of them out."
            )
    check_once(facts)


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


class Retaining(Protocol):
    """What a recipe says of the facts that it holds in place, or quotes."""

    @property
    def seed(self) -> int: ...

    @property
    def retain_size(self) -> int: ...

    @property
    def uses_retain(self) -> bool: ...

    @property
    def fits_retained(self) -> bool: ...


def retain_set(
    model: LoadedModel,
    facts: Sequence[Fact],
    retain: FactSet | Sequence[Fact] | None,
    recipe: Retaining,
    pool: FactSet | None,
    progress: bool,
    cancel: CancelFlag | None = None,
) -> FactSet:
    """The facts to hold in place: those given, checked against the edited ones, or the default retain set, which may be
    empty where the fit reads no answers of it."""
    if retain is None:
        size = recipe.retain_size if recipe.uses_retain else 0
        options: dict[str, Any] = {"progress": progress, "cancel": cancel}
        optional = size and not recipe.fits_retained
        if optional and not len(retainable(model, facts, retain_pool(pool_or_bundled(pool)), **options)):
            size = 0
        return default_retain(model, facts, pool=pool, size=size, seed=recipe.seed, **options)
    retained = retain if isinstance(retain, FactSet) else FactSet(retain, name="retain set")
    clash = [f.id for f in retained if any(f.overlaps(edited) for edited in facts)]
    if clash:
        raise ValueError(
            f"The retain set overlaps what is trained and evaluated: {clash}. Leave these facts out of retain=."
        )
    return retained
