"""What a method is asked to do, checked, and what every method needs of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from workbench.editing.retain import default_retain
from workbench.editing.selector import check_number
from workbench.editing.solved.spots import SITES
from workbench.facts.known import pool_or_bundled
from workbench.facts.retained import retain_pool, retainable
from workbench.models import LoadedModel
from workbench.types import BaseRecipe, Edit, Fact, FactSet, Selection, Site, Step
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


@dataclass(frozen=True, kw_only=True)
class Movable:
    """What a fit may move, as far as it is known before it is trained.

    Args:
        selection, selector: As in ``Edit``.
        words: The same in words.
        entries: By layer and site, the gates or weight columns; none where they do not tell how far the edit reaches.
        gates: Whether they are gates, which move what their columns carry.
        unknown: Why there are no ``entries``: what the method does, in words.
    """

    selection: Selection
    selector: str
    words: str
    entries: Mapping[tuple[int, Site], Sequence[int]] = field(default_factory=dict[tuple[int, Site], Sequence[int]])
    gates: bool = False
    unknown: str = ""


def movable(task: Task, selection: Selection | None = None, selector: str = "given", *, gates: bool = False) -> Movable:
    """Gates of components that may move, or their columns of output projections.

    Args:
        task: What is asked.
        selection, selector: As in ``Edit``; those of the task where left out.
        gates: Whether the components' gates move.
    """
    given = task.selection if isinstance(task.selection, Selection) else Selection()
    chosen = given if selection is None else selection
    if gates:
        words = f"{chosen.n_parameters(task.model):,} gates may move"
    else:
        some = f"{len(chosen):,} component{'' if len(chosen) == 1 else 's'}"
        which = some if selector == "given" else ", ".join(map(str, chosen))
        words = f"{task.recipe.trains} of {which} may move"
    columns = {*SITES.values()}
    entries = {key: index for key, index in chosen.entries(task.model).items() if gates or key[1] in columns}
    return Movable(selection=chosen, selector=selector, words=words, entries=entries, gates=gates)


def check_batch(facts: Sequence[Fact]) -> None:
    """Raise a ValueError for two facts of one subject that ask the same (by their relation, a question or a cloze) with
    different targets, since no edit gives both, and for one that is given twice, which would weigh double."""
    seen: dict[tuple[str, str, str], Fact] = {}
    twice: tuple[Fact, Fact, str] | None = None
    for fact in facts:
        for kind, asked in _asked(fact):
            other = seen.setdefault((fact.subject.casefold(), kind, asked.casefold()), fact)
            if other.target != fact.target:
                raise ValueError(
                    f"The batch has two targets for {fact.subject!r} ({asked}): {other.target!r} ({other.id}) and "
                    f"{fact.target!r} ({fact.id}). Leave one of them out."
                )
            if kind == "text" and other is not fact:
                twice = twice or (other, fact, asked)
    check_once(facts)
    if twice is not None:
        other, fact, asked = twice
        raise ValueError(
            f"Each fact may be given once; {other.id!r} and {fact.id!r} both teach {fact.target!r} for "
            f"{fact.subject!r} ({asked}), which would weigh double. Leave one of them out."
        )


def _asked(fact: Fact) -> Iterator[tuple[str, str]]:
    """What a fact is taught by: its relation, if it has one, and its texts."""
    if fact.relation:
        yield "relation", fact.relation
    for text in (*fact.training_questions, fact.prompt, *fact.cloze_paraphrases):
        yield "text", text


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
