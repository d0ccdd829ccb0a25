"""Comparisons: the maps before and after edits that were computed in a session, by what decides them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from workbench.models.load import LoadedModel
from workbench.types import Edit, EffectMap, FactSet
from workbench.widgets.compare.wanted import Compared, Wanted, compute


class Comparisons:
    """All that was computed, of every edit that was shown; whoever asks holds the panel's lock.

    Args:
        model, pool: As in ``compare_maps``.
    """

    def __init__(self, model: LoadedModel, pool: FactSet | None) -> None:
        self._model, self._pool = model, pool
        self._before: dict[Wanted, EffectMap] = {}
        self._all: dict[tuple[str, Wanted], Compared] = {}
        self._begun: set[tuple[str, Wanted]] = set()
        self._last: tuple[str, Wanted] | None = None

    def order(
        self, edit: Edit, wanted: Wanted, lock: threading.RLock, on_step: Callable[[int, int], Any]
    ) -> Callable[[threading.Event], Compared]:
        """What a job does to compute these maps, which count as begun; what is there already is not computed again."""
        self._last = edit.id, wanted
        self._begun.add(self._last)
        before, there = self._before.get(wanted.before), self._all.get((edit.id, wanted))

        def work(cancel: threading.Event) -> Compared:
            done = there or compute(
                self._model, edit, wanted, self._pool, before=before, on_step=on_step, cancel=cancel
            )
            with lock:
                self._before[wanted.before] = done.result.before
                self._all[edit.id, wanted] = done
            return done

        return work

    def nearest(self, edit: Edit, wanted: Wanted) -> Compared | None:
        """These maps, else the last ones that differ only in the strength."""
        others = [c for (one, at), c in self._all.items() if one == edit.id and at.but_for_strength(wanted)]
        return self._all.get((edit.id, wanted)) or (others[-1] if others else None)

    def untried(self, edit: Edit, wanted: Wanted) -> bool:
        """Whether these maps are neither there nor were ever begun: what failed or was cancelled is not tried again
        unasked."""
        return (edit.id, wanted) not in self._all and (edit.id, wanted) not in self._begun

    def give_up(self) -> None:
        """Count those that were begun last as not begun."""
        if self._last is not None:
            self._begun.discard(self._last)
