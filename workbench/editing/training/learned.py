"""How well a stage has learned its rows: when it may end, and how far it may be drawn back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from workbench.editing.training.batching import PreparedRow
from workbench.types import TrainedRecipe

ByFact = Sequence[Sequence[PreparedRow]]
"""Rows of each fact."""


def lower_quartile(values: Iterable[float]) -> float:
    """The value that a quarter of the values fall short of."""
    ordered = sorted(values)
    return ordered[len(ordered) // 4]


def least_learned(by_fact: ByFact, confidence: Mapping[PreparedRow, float]) -> float:
    """The confidence that three quarters of a fact's rows reach, of several facts the least."""
    return min(lower_quartile(confidence[row] for row in rows) for rows in by_fact)


class LearnedLevel:
    """Measures how well a stage's rows are learned with the parameters as they are now.

    Args:
        rows: All rows of the stage.
        by_fact: Those that count, of each fact.
        confidence: Measures how surely rows are as wanted, by row, 0 to 1.
    """

    def __init__(
        self,
        rows: Sequence[PreparedRow],
        by_fact: ByFact,
        confidence: Callable[[Sequence[PreparedRow]], dict[PreparedRow, float]],
    ) -> None:
        self._rows, self._by_fact, self._confidence = rows, by_fact, confidence
        self.latest: Mapping[PreparedRow, float] = {}
        self._first: float | None = None

    @property
    def first(self) -> float:
        """What ``measured`` gave when it was asked first, which is now if it was not yet."""
        return self.measured() if self._first is None else self._first

    def measured(self) -> float:
        """The probability that three quarters of each fact's wanted answers reach."""
        self.latest = self._confidence(self._rows)
        level = least_learned(self._by_fact, self.latest)
        self._first = level if self._first is None else self._first
        return level

    def reaches(self, wanted: float) -> bool:
        """Whether that is at least so much, after ``measured`` was called once.

        Asks the rows that were hardest then first: one more than a quarter of a fact's rows that fall short settle it.
        """
        facts = [sorted(rows, key=self.latest.__getitem__) for rows in self._by_fact]
        hardest = [rows[: len(rows) // 4 + 1] for rows in facts]
        now = self._confidence([row for rows in hardest for row in rows])
        if any(all(now[row] < wanted for row in rows) for rows in hardest):
            return False
        now = now | self._confidence([row for rows in facts for row in rows if row not in now])
        return least_learned(self._by_fact, now) >= wanted


class StageEnd:
    """Says when a stage ends: after its steps, or ``tail`` steps after its rows are learned well enough.

    Args:
        recipe: Its ``hinge``, ``early_stop`` and ``average``.
        steps: The stage's most steps.
        n_rows: How many rows the stage has; they are learned once all of them were seen.
        by_fact: Those that count, of each fact.

    Attributes:
        tail: Over how many of its last steps the stage's parameters are averaged.
        step: The step before which the stage ends.
    """

    def __init__(self, recipe: TrainedRecipe, steps: int, n_rows: int, by_fact: ByFact) -> None:
        self.tail, self.step = min(recipe.average, steps // 2), steps
        self._hinge, self._early_stop = recipe.hinge, recipe.early_stop
        self._n_rows, self._by_fact = n_rows, by_fact
        self._confidence: dict[PreparedRow, float] = {}

    @property
    def learned(self) -> set[PreparedRow]:
        """Rows that had reached the hinge when they were last seen."""
        hinge = self._hinge
        return set() if hinge is None else {row for row, p in self._confidence.items() if p >= hinge}

    def saw(self, step: int, rows: Sequence[PreparedRow], confidence: Sequence[float]) -> None:
        """Take in what a step has measured of its rows."""
        self._confidence.update(zip(rows, confidence, strict=True))
        if self._early_stop is None or len(self._confidence) < self._n_rows:
            return
        if least_learned(self._by_fact, self._confidence) >= self._early_stop:
            self.step = min(self.step, step + self.tail)
