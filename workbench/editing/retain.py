"""The retain set: facts whose answers an edit must leave as they are, kept apart from everything that is evaluated."""

from __future__ import annotations

import random
from collections.abc import Sequence

from workbench.facts.known import known_facts, pool_or_bundled
from workbench.facts.retained import has_retained, retain_pool, retainable
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet
from workbench.types.cancelling import CancelFlag
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def default_retain(
    model: LoadedModel,
    facts: Sequence[Fact],
    *,
    pool: FactSet | None = None,
    size: int = 80,
    own_relation: bool = True,
    seed: int = 0,
    progress: bool = True,
    cancel: CancelFlag | None = None,
) -> FactSet:
    """Choose known facts of the pool with the role ``"retain"``. Neighbours of the edited facts come first, then the
    other relations in turn, so that every relation has its share.

    Args:
        model: A base or edited model. The base's knowledge decides what is chosen; of an edited model, what its edits
            rewrite and what it no longer answers is left out then.
        facts: The edited facts; they and what overlaps them (``Fact.overlaps``) are left out.
        pool: Where to choose from; the bundled facts by default, and where the pool has no fact of that role.
        size: At most so many. At most half are neighbours.
        own_relation: Whether facts of the edited relations may be retained. Without them, neighbours say what an edit
            costs that nothing held in place.
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
    if not own_relation:
        known = [f for f in known if f.relation not in {edited.relation for edited in facts}]
        if not known:
            raise ValueError(
                f"The pool {sources.name!r} has no fact to retain of another relation than the edited ones. Give "
                "another pool=, or own_relation=True."
            )
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
    chosen = FactSet([*near, *far], name=f"retain set from {sources.name}")
    if not model.applied:
        return chosen
    still = known_facts(model, chosen, progress=progress, cancel=cancel)
    return FactSet(still, name=chosen.name)
