"""Drawing an edit back to the strength that it takes: what is taught with more costs other answers."""

from __future__ import annotations

from collections.abc import Callable

from workbench.editing.training.learned import LearnedLevel
from workbench.types.cancelling import CancelFlag, check_cancel

HALVINGS = 5
"""Of the strengths between the base and the edit, to find the one that it is drawn back to."""


def drawn_back(
    level: LearnedLevel,
    wanted: float,
    turn: Callable[[float], None],
    *,
    halvings: int = HALVINGS,
    cancel: CancelFlag | None = None,
) -> tuple[float, float]:
    """Turn an edit to the least strength at which its rows are as surely learned as is wanted.

    Args:
        level: Measures how well they are.
        wanted: The probability that three quarters of each fact's rows must keep.
        turn: Gives the edit a strength, from 0 to 1.
        halvings: Of the interval in which the strength lies.
        cancel: As in ``rewrite``.

    Returns:
        The probability before, and the strength that the edit now has: 1, where it had not reached what is wanted.

    Raises:
        Cancelled: ``cancel`` was set.
    """
    learned = level.measured()
    if learned < wanted:
        return learned, 1.0
    low, high = 0.0, 1.0
    for _ in range(halvings):
        check_cancel(cancel, "while the edit was drawn back")
        middle = (low + high) / 2
        turn(middle)
        low, high = (low, middle) if level.reaches(wanted) else (middle, high)
    turn(high)
    return learned, high
