"""How long something takes, in words: durations, and ranges of what is only known about."""

from __future__ import annotations

import math
from dataclasses import dataclass


def duration(seconds: float) -> str:
    """Seconds in words."""
    whole = math.ceil(seconds)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60} s"


@dataclass(frozen=True)
class Span:
    """From how long to how long something takes.

    Args:
        low, high: Seconds.

    Example:
        >>> from workbench.widgets.shared.timing import Span
        >>> Span(14, 38).words, (Span(14, 38) + Span(60, 190)).words, Span(0, 3).words
        ('about 15 to 40 s', 'about 1 to 4 min', 'under 5 s')
    """

    low: float = 0.0
    high: float = 0.0

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.high + other.high)

    def times(self, low: float, high: float | None = None) -> Span:
        """The range with its ends multiplied."""
        return Span(self.low * low, self.high * (low if high is None else high))

    def after(self, seconds: float) -> Span:
        """What is left of it once so many seconds are over."""
        return Span(max(0.0, self.low - seconds), max(0.0, self.high - seconds))

    @property
    def words(self) -> str:
        """Rounded: to five seconds, from 100 s on to half a minute, from five minutes on to a minute."""
        if self.high <= 5:
            return "under 5 s"
        minutes = self.high >= 100
        unit, step = (60.0, 60.0 if self.high >= 300 else 30.0) if minutes else (1.0, 5.0)
        low, high = (max(1, round(x / step)) * step / unit for x in (self.low, self.high))
        name = "min" if minutes else "s"
        return f"about {high:g} {name}" if low >= high else f"about {low:g} to {high:g} {name}"
