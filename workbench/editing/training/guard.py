"""Guards: facts that no fit holds in place. They say how far an edit may be turned up.

An edit that is stronger than its training questions need reaches wordings that were not trained, and costs neighbours.
Which of the two comes first differs from fact to fact.

Source: ours.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from workbench.editing.training.batching import Prepared, shared_prefix
from workbench.editing.training.fit_rows import retain_rows
from workbench.editing.training.passes import Passes
from workbench.models.engine import Resumable
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet
from workbench.types.cancelling import CancelFlag, check_cancel

STRENGTHS = 5
"""Between the least strength and the most, both among them."""
MOST_OF_NEIGHBOURS = 3
"""Of the retained neighbours at most one in so many becomes a guard."""


def guards_of(
    facts: Sequence[Fact], retained: FactSet, spare: Sequence[Fact], n: int, *, seed: int, may_take: bool
) -> tuple[list[Fact], FactSet]:
    """Choose guards: half of them neighbours of the edited facts as long as there are enough.

    Args:
        facts: The edited facts.
        retained: What a fit would hold in place.
        spare: Known facts that may be retained, those of ``retained`` among them.
        n: How many guards.
        seed: Of the choice.
        may_take: Whether neighbours may be taken out of ``retained`` where the spare ones are too few.

    Returns:
        The guards, and what is left of the retained facts.
    """
    relations, held = {fact.relation for fact in facts}, set(retained.ids)
    free = [fact for fact in spare if fact.id not in held]
    random.Random(seed).shuffle(free)
    near = [fact for fact in free if fact.relation in relations][: n // 2]
    far = [fact for fact in free if fact.relation not in relations]
    taken: list[Fact] = []
    if may_take and len(near) < n // 2:
        neighbours = [fact for fact in retained if fact.relation in relations]
        most = len(neighbours) // MOST_OF_NEIGHBOURS
        taken = neighbours[len(neighbours) - min(most, n // 2 - len(near)) :] if most else []
    chosen = [*near, *taken]
    out = {fact.id for fact in taken}
    left = FactSet([fact for fact in retained if fact.id not in out], name=retained.name) if out else retained
    return [*chosen, *far[: n - len(chosen)]], left


class Guard:
    """Counts the guards whose reply an edit changes: the beginning of the base's own reply, token by token.

    Args:
        model: The base model.
        facts: The edited facts.
        guards: Facts that are asked, each in one of its training questions.
        start: The lowest layer that is edited.
        cancel: As in ``rewrite``.
    """

    def __init__(
        self, model: LoadedModel, facts: Sequence[Fact], guards: Sequence[Fact], start: int, cancel: CancelFlag | None
    ) -> None:
        self._model, self._cancel = model, cancel
        near, far = retain_rows(model, guards, facts, 1, cancel=cancel)
        rows = [*near, *far]
        self._prepared = Prepared(Resumable(model), rows, start, shared_prefix(rows), cancel=cancel) if rows else None

    def lost(self, view: Any) -> int:
        """How many replies are no longer what the model would say.

        Args:
            view: The edited model, a structure copy of the base.
        """
        if self._prepared is None:
            return 0
        passes, lost = Passes(Resumable(self._model, view), self._prepared), 0
        with torch.no_grad():
            prefix = passes.prefix()
            for part in self._prepared.parts(self._prepared.rows):
                rows = [self._prepared.rows[i] for i in part]
                for logits, row in zip(passes.logits(rows, prefix), rows, strict=True):
                    lost += logits.argmax(-1).tolist() != list(row.row.counted)
        return lost

    def highest(self, view: Any, turn: Callable[[float], None], least: float, most: float) -> float:
        """Find the highest strength at which no more guards are lost than at the least, in ``STRENGTHS`` tries upwards.

        Args:
            view: As in ``lost``.
            turn: Gives the view a strength.
            least, most: The strengths between which it lies.
        """
        strength, allowed = least, None
        for i in range(STRENGTHS):
            check_cancel(self._cancel, "while the edit was turned up")
            tried = least + (most - least) * i / (STRENGTHS - 1)
            turn(tried)
            lost = self.lost(view)
            allowed = lost if allowed is None else allowed
            if lost > allowed:
                break
            strength = tried
        return strength
