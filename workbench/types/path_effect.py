"""Path effects: what one component's write changes where a single other one reads it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev

from workbench.types.effect import Corruption
from workbench.types.metric_words import KNOWN_WORDS


@dataclass(frozen=True, kw_only=True)
class PathEffect:
    """What the path from one component to another carries: changes of the clean run's metric, patched minus clean.

    Args:
        sender, receiver: The path's ends, as text: ``"L23H4"``, ``"embedding"``, ``"logits"``.
        metric: What is measured.
        clean, corrupted: The metric of the two runs, of each item.
        effects: Of each item: the receiver alone reads the sender's corrupted write, and all after it follows.
        directs: The logits alone read it.
        totals: Everything after the sender reads it.
        corruption: ``"swap"`` or ``"noise"``.
        base_fingerprint: Of the model.

    Example:
        >>> path = wb.path_patch(model, fact, "L0H4", "L1MLP", pool=facts)
        >>> path.n, path.effect == path.effects[0], path.stderr
        (1, True, None)
    """

    sender: str
    receiver: str
    metric: str
    clean: tuple[float, ...]
    corrupted: tuple[float, ...]
    effects: tuple[float, ...]
    directs: tuple[float, ...]
    totals: tuple[float, ...]
    corruption: Corruption | None = None
    base_fingerprint: str | None = None

    def __repr__(self) -> str:
        return f"PathEffect({self.words})"

    @property
    def n(self) -> int:
        """How many items (facts or contrasts) the effects are means over."""
        return len(self.effects)

    @property
    def effect(self) -> float:
        """The metric's change where the receiver alone reads the sender's corrupted write, directly and at all
        positions, and everything after the receiver follows."""
        return fmean(self.effects)

    @property
    def direct(self) -> float:
        """The metric's change where the logits alone read the sender's corrupted write."""
        return fmean(self.directs)

    @property
    def total(self) -> float:
        """The metric's change where everything after the sender reads its corrupted write."""
        return fmean(self.totals)

    @property
    def stderr(self) -> float | None:
        """The standard error of ``effect`` over items; None for one."""
        return stdev(self.effects) / self.n**0.5 if self.n > 1 else None

    @property
    def words(self) -> str:
        """The finding in a sentence."""
        title = KNOWN_WORDS[self.metric].title if self.metric in KNOWN_WORDS else self.metric
        error = "" if self.stderr is None else f" ± {self.stderr:.2g} (n = {self.n})"
        return (
            f"{self.sender} -> {self.receiver}: {title} {self.effect:+.3g}{error}; to the logits directly "
            f"{self.direct:+.3g}, over all paths {self.total:+.3g}"
        )
