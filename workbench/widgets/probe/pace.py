"""Pace: how long probes take here, first from their cost and a guess, then from what the last run took."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence

from workbench.models.load import LoadedModel
from workbench.probing.table import PROBES
from workbench.types import Edit, ProbeRow
from workbench.widgets.shared.timing import Span, duration

GUESS = 0.25
"""Seconds that a generated answer takes of a model of ``GUESSED`` parameters on one processor core, several at once."""
GUESSED = 134_515_008


class Pace:
    """How long probes take, and how far a run is. It knows nothing of the probes but their ``cost``.

    Args:
        model: The model that is asked.
    """

    def __init__(self, model: LoadedModel) -> None:
        size = sum(parameter.numel() for parameter in model.hf.parameters())
        self.seconds = GUESS * size / GUESSED
        """Of one generated answer."""
        self.now: str | None = None
        """The probe that is running."""
        self._took: dict[tuple[str, str], float] = {}  # by edit and probe
        self._asked: tuple[str, ...] = ()
        self._apart: frozenset[str] = frozenset()
        self._edit: Edit | None = None
        self._began = self._begun = 0.0

    def about(self, probes: Iterable[str], edit: Edit) -> str:
        """How long these take together, in words."""
        seconds = sum(PROBES[name].cost for name in probes) * _stages(edit) * self.seconds
        return Span(seconds, seconds).words

    def time(self, name: str, edit: Edit) -> str:
        """How long a probe took of this edit, or takes."""
        took = self._took.get((edit.id, name))
        return self.about((name,), edit) if took is None else f"took {duration(took)}"

    def start(self, asked: tuple[str, ...], edit: Edit, apart: Collection[str] = ()) -> None:
        """A run of these begins.

        Args:
            asked: The probes.
            edit: Of which edit.
            apart: Those that make something of the model first, which says nothing of how fast answers are.
        """
        self._asked, self._edit, self.now, self._apart = asked, edit, None, frozenset(apart)
        self._began = time.perf_counter()

    def begin(self, name: str) -> None:
        """The next probe of the run begins, so the one before has ended."""
        self._end_one()
        self.now, self._begun = name, time.perf_counter()

    def end(self, finished: Collection[str]) -> None:
        """The run has ended; how fast it was is the pace from now on.

        Args:
            finished: The probes that it has finished.
        """
        if self.now is not None and self.now in finished:
            self._end_one()
        edit, self.now = self._edit, None
        took = {n: self._took[edit.id, n] for n in self._asked if edit is not None and (edit.id, n) in self._took}
        paced = [name for name in took if name not in self._apart]
        cost = sum(PROBES[name].cost for name in paced)
        if edit is not None and cost:
            self.seconds = sum(took[name] for name in paced) / (cost * _stages(edit))

    def progress(self, answers: int) -> tuple[float, float]:
        """How much of the run is done, of how much, in generated answers.

        Args:
            answers: Those of the probe that is running.
        """
        assert self._edit is not None and self.now is not None
        n, at = _stages(self._edit), self._asked.index(self.now)
        costs = [PROBES[name].cost * n for name in self._asked]
        return sum(costs[:at]) + min(answers, 0.95 * costs[at]), sum(costs)

    def words(self, answers: int) -> str:
        """How far the run is, in words."""
        assert self.now is not None
        done, total = self.progress(answers)
        elapsed, at = time.perf_counter() - self._began, self._asked.index(self.now)
        pace = elapsed / done if done else self.seconds
        left = Span(pace * (total - done), pace * (total - done)).words
        return f"probe {at + 1} of {len(self._asked)}, {answers} answers, {duration(elapsed)} so far, {left} left"

    def state(self, name: str, rows: Sequence[ProbeRow]) -> str:
        """What a probe of the run that is going on does; empty where none goes on, or it is not one of it."""
        if self.now is None or name not in self._asked:
            return ""
        at, here = self._asked.index(self.now), self._asked.index(name)
        if here == at:
            seconds = duration(time.perf_counter() - self._begun)
            return f"running: {sum(row.probe == name for row in rows)} answers, {seconds}"
        return "asked" if here < at else "waits"

    def _end_one(self) -> None:
        if self.now is not None and self._edit is not None:
            self._took[self._edit.id, self.now] = time.perf_counter() - self._begun


def _stages(edit: Edit) -> int:
    """The base is asked too."""
    return 1 + len(edit.stage_names)
