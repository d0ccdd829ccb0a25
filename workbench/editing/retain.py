"""The retain set: facts whose answers an edit must leave as they are, kept apart from everything that is evaluated."""

from __future__ import annotations

import random
from collections.abc import Sequence

from workbench.facts.known import known_facts, load_facts, pool_or_bundled
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet
from workbench.types.cancelling import CancelFlag
from workbench.types.torch_settings import own_torch_settings


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
    """The pool's facts with the role ``"retain"`` that the model knows and that overlap none of these. ``progress`` and
    ``cancel`` as in ``known_facts``."""
    candidates = pool.without(facts).filter(role="retain")
    return known_facts(model, candidates, progress=progress, cancel=cancel) if len(candidates) else candidates


@own_torch_settings()
def default_retain(
    model: LoadedModel,
    facts: Sequence[Fact],
    *,
    pool: FactSet | None = None,
    size: int = 80,
    seed: int = 0,
    progress: bool = True,
    cancel: CancelFlag | None = None,
) -> FactSet:
    """Choose known facts of the pool with the role ``"retain"``. Neighbours of the edited facts come first, then the
    other relations in turn, so that every relation has its share.

    Args:
        model: The base model.
        facts: The edited facts; they and what overlaps them (``Fact.overlaps``) are left out.
        pool: Where to choose from; the bundled facts by default, and where the pool has no fact of that role.
        size: At most so many. At most half are neighbours.
        seed: Of the choice.
        progress: Show a progress bar if knowledge has to be measured.
        cancel: As in ``known_facts``.

    Returns:
        The facts, neighbours first. The set's name says which pool they are from.

    Raises:
        ValueError: Neither the pool nor the bundled set has a known fact with the role "retain" though ``size`` is not
            0.
        Cancelled: ``cancel`` was set.

    Example:
        >>> wb.default_retain(model, [fact], pool=facts, size=2).ids
        ('germany-capital', 'japan-capital')
    """
    if size == 0:
        return FactSet(name="no retain set")
    pool = pool_or_bundled(pool)
    sources, roles = retain_pool(pool), has_retained(pool)
    known = list(retainable(model, facts, sources, progress=progress, cancel=cancel))
    if not known:
        where = f"The pool {pool.name!r} has" if roles else f"Neither the pool {pool.name!r} nor the bundled set has"
        raise ValueError(
            f"{where} no fact with role='retain' that the model knows, so nothing would hold other "
            f"knowledge in place. Give retain=[...] or another pool=, or use a recipe with retain_weight=0 "
            "and optimiser='adam'."
        )
    rng = random.Random(seed)
    rng.shuffle(known)
    relations = {f.relation for f in facts}
    near = [f for f in known if f.relation in relations][: size // 2]
    queues: dict[str, list[Fact]] = {}
    for fact in known:
        if fact not in near:
            queues.setdefault(fact.relation, []).append(fact)
    far: list[Fact] = []
    while len(near) + len(far) < size and any(queues.values()):
        for queue in queues.values():
            if queue and len(near) + len(far) < size:
                far.append(queue.pop(0))
    return FactSet([*near, *far], name=f"retain set from {sources.name}")
