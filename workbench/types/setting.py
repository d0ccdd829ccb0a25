"""Settings of a recipe that a panel shows: which they are, what they mean, and what they may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

LARGEST = 2**53
"""Whole numbers beyond it are not exact in a browser."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting that a person may change in a panel. The other settings stay as the recipe has them.

    Args:
        name: The recipe's field.
        tip: What it means, in a sentence.
        low, high: The least and the largest number in a panel.
        above: Whether the least number itself is too small.
        whole: Whether it is a whole number.
        choices: What it may be instead of a number; empty for a number.

    Example:
        >>> from workbench.types.setting import Setting
        >>> rank = Setting(name="rank", tip="Of each update", low=1, high=64, whole=True)
        >>> rank.label, rank.wrong(8), rank.wrong(0)
        ('rank', '', 'must be a whole number from 1 to 64')
    """

    name: str
    tip: str
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Its name for a person."""
        return self.name.replace("_", " ")

    def wrong(self, value: float) -> str:
        """What is wrong with a number, for a person; empty if nothing is."""
        enough = value > self.low if self.above else value >= self.low
        exact = not self.whole or abs(value) <= LARGEST
        if math.isfinite(value) and enough and value <= self.high and exact:
            return ""
        kind = "a whole number" if self.whole else "a number"
        if self.low == -self.high:
            return f"must be {kind} of at most {LARGEST:,}" if self.whole else f"must be {kind}"
        if self.high == math.inf:
            return f"must be {kind} {'above' if self.above else 'from'} {self.low:,.0f}"
        return f"must be {kind} from {self.low:,.0f} to {self.high:,.0f}"


SEED = Setting(name="seed", tip="Of all that is drawn. The same seed gives the same edit", whole=True)
