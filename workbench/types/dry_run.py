"""What an edit would do to what other facts' subjects read, told before it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from workbench.types.selection import Selection
from workbench.types.write import Write

if TYPE_CHECKING:
    import pandas as pd

ReachGroup = Literal["edited", "same subject", "neighbour", "control"]
WIDE_OPEN = 0.5
"""From this share of what the edited subject sees on, another fact is listed in the warnings."""
HARDLY_SEEN = 0.1
"""Of an ordinary token's k^T C^-1 k: where the subject's is lower, the written columns hardly see it."""
LARGE_NORM = 0.1
"""Of |W|: a larger update is warned of."""
TOKENS_PER_COLUMN = 10
"""Tokens of a covariance for each of its columns; with fewer its small directions are noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far an edit reaches one fact.

    Args:
        fact_id: The fact.
        group: ``"edited"``, ``"same subject"``, ``"neighbour"`` or ``"control"``.
        change: |dW k| / |W k| at its subject's last token, the largest of the written modules; NaN where the update is
            not known before it is trained.
        opening: What all written modules add together beside what they add at the edited facts' subjects,
            sum |dW k| / sum |dW k*|: 1 is as much as the edited subject sees, 0 nothing. A module counts by what it
            writes.
    """

    fact_id: str
    group: ReachGroup
    change: float
    opening: float


@dataclass(frozen=True, kw_only=True, eq=False)
class DryRun:
    """An edit as it would be made, and what it would change elsewhere. No model was changed.

    Args:
        facts: Ids of the facts to edit.
        method: The method's name.
        selection: What would move.
        selector: How it came about.
        moves: What would be added, in words.
        writes: What a closed form would write into each module, and a keyed update, without its size; empty for other
            methods.
        reach: How far it reaches each of the facts that were looked at.
        known: Whether the update is known before it is made. If not, ``opening`` assumes one of random directions on
            what may move (of a keyed update: behind its rows, alike in all modules), and ``change`` is NaN.
        closed_relations: Those for which the update is closed at the same subject (``Edit.closed_relations``).
        notes: What could not be told.

    Example:
        >>> recipe = wb.recipes.ROME(layers=(1,), steps=3, covariance="identity")
        >>> plan = wb.dry_run(model, fact, recipe=recipe, pool=facts)
        >>> plan.moves, plan.known
        ('rank 1 added to 1 module', True)
        >>> [reach.fact_id for reach in plan.of("edited")]
        ['france-capital']
    """

    facts: tuple[str, ...]
    method: str
    selection: Selection
    selector: str
    moves: str
    reach: tuple[Reach, ...]
    writes: tuple[Write, ...] = ()
    known: bool = True
    closed_relations: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def of(self, group: ReachGroup) -> tuple[Reach, ...]:
        """The facts of a group, those that are reached most first."""
        return tuple(sorted((r for r in self.reach if r.group == group), key=lambda r: -r.opening))

    @property
    def groups(self) -> dict[ReachGroup, tuple[Reach, ...]]:
        """The groups that were looked at."""
        order: tuple[ReachGroup, ...] = get_args(ReachGroup)
        return {group: reached for group in order if (reached := self.of(group))}

    def mean_opening(self, group: ReachGroup) -> float:
        """Mean opening of a group; NaN where it is empty."""
        return _mean(r.opening for r in self.of(group))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against making the edit like this, in words; empty if nothing does."""
        return (*_about_writes(self.writes, closed=bool(self.closed_relations)), *self._about_reach())

    def _about_reach(self) -> list[str]:
        lines: list[str] = []
        whose: dict[ReachGroup, str] = {
            "same subject": "other facts about the subject",
            "neighbour": "neighbours (facts of the same relation)",
            "control": "controls",
        }
        for group, words in whose.items():
            reached = self.of(group)
            wide = [r for r in reached if r.opening >= WIDE_OPEN]
            if wide:
                lines.append(
                    f"{len(wide)} of {len(reached)} {words} are reached at least {WIDE_OPEN:g} times as much as the "
                    f"edited subject, most of all {wide[0].fact_id} ({wide[0].opening:.2f})."
                )
        return lines

    @property
    def words(self) -> str:
        """The dry run in a few sentences."""
        openings = [
            f"{group} {self.mean_opening(group):.2f} (n={len(reached)})"
            for group, reached in self.groups.items()
            if group != "edited"
        ]
        means = f"Mean opening, the edited subject being 1: {', '.join(openings)}." if openings else ""
        assumed = (
            "The update is not known before it is trained: random directions are assumed."
            if openings and not self.known
            else ""
        )
        n = len(self.closed_relations)
        closed = f"Closed for {n} other relation{'s' if n > 1 else ''} of the subject." if n else ""
        parts = [f"{self.method}: {self.moves}.", closed, *(w.words + "." for w in self.writes), means, assumed]
        return " ".join(filter(None, [*parts, *self.warnings, *self.notes]))

    def __str__(self) -> str:
        return self.words

    def to_frame(self) -> pd.DataFrame:
        """One row for each fact that was looked at: ``fact_id``, ``group``, ``change``, ``opening``."""
        import pandas as pd

        names = Reach.__slots__
        rows: list[dict[str, Any]] = [{name: getattr(r, name) for name in names} for r in self.reach]
        return pd.DataFrame(rows, columns=list(names))


def _about_writes(writes: Iterable[Write], *, closed: bool) -> list[str]:
    """Warnings about denominators, norms and covariances. The metric of a closed update holds keys of the very subject,
    which makes its denominators smaller: they are not compared with an ordinary token's.
    """
    lines: list[str] = []
    for write in writes:
        where = f"L{write.layer} {write.name}"
        rank = write.covariance_rank
        if rank is not None and write.columns is not None:
            rank = min(rank, len(write.columns))
        if not closed and rank is not None and write.denominator < HARDLY_SEEN * rank:
            lines.append(
                f"{where}: the written columns hardly see the subject (denominator {write.denominator:.3g}, an "
                f"ordinary token has about {rank})."
            )
        if write.relative_norm > LARGE_NORM:
            lines.append(f"{where}: the update is {write.relative_norm:.2g} times as large as the weight itself.")
        if write.tokens is not None and rank and write.tokens < TOKENS_PER_COLUMN * rank:
            lines.append(
                f"{where}: the covariance was measured on {write.tokens:,} tokens; for {rank:,} directions at least "
                f"{TOKENS_PER_COLUMN * rank:,} are wanted."
            )
    return lines


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else math.nan
