"""Facts that may be retained: those whose role says so, that the base knows, kept apart from what is edited and what
is evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.facts.known import known_facts, load_facts
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet
from workbench.types.cancelling import CancelFlag

RETAIN_TOKENS = 12
"""Tokens of the base's own replies to questions of retained facts, at most."""


def has_retained(pool: FactSet) -> bool:
    """Whether a pool says which of its facts may be retained."""
    return any(f.role == "retain" for f in pool)


def retain_pool(pool: FactSet) -> FactSet:
    """Where retained facts come from: the pool, or the bundled facts where none of its own has that role; none of a
    pool that is to be evaluated."""
    return pool if has_retained(pool) else load_facts().without(pool)


def retainable(
    model: LoadedModel,
    facts: Sequence[Fact],
    pool: FactSet,
    *,
    progress: bool = True,
    cancel: CancelFlag | None = None,
) -> FactSet:
    """The pool's facts with the role ``"retain"`` that the base knows, and that overlap neither these nor what the
    model's edits rewrite. ``progress`` and ``cancel`` as in ``known_facts``."""
    rewritten = [fact for one in model.applied for fact in one.edit.facts]
    candidates = pool.without([*facts, *rewritten]).filter(role="retain")
    return known_facts(model.base, candidates, progress=progress, cancel=cancel) if len(candidates) else candidates
