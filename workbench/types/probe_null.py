"""What probes find where there is nothing to find: the null against which their findings are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from workbench.types.intervals import wilson
from workbench.types.report import Rate

NullGroup = Literal["controls", "permuted", "never known"]
GROUP_WORDS: dict[NullGroup, tuple[str, str]] = {
    "controls": ("untouched fact", "untouched facts"),
    "permuted": ("permuted delta of equal KL", "permuted deltas of equal KL"),
    "never known": ("subject that it never knew", "subjects that it never knew"),
}
"""In words, one and several."""


NULL_COLUMNS = (
    *("probe", "measure", "edited fact", "beside", "n", "percentile"),
    *("lowest", "median", "highest", "found", "false there"),
)
"""Of ``ProbeNull.to_rows``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NullSize:
    """How large a null is.

    Args:
        controls: Other facts that the model knows, from the pool's test split, asked of the same edited model.
        permuted: Deltas with the edit's gates or input columns exchanged, scaled to the edit's KL; the edited fact is
            asked of each.
        never_known: Invented subjects, asked of the same edited model as if the old answer were theirs.
        prompts: At most so many prompts of a probe, its kinds in turn, also for the value that is compared; None for
            all.
        slow: Whether probes that train, round weights or ask many other facts have a null too.

    Raises:
        ValueError: A number below 0, nothing to compare with, or less than one prompt.

    Example:
        >>> wb.NullSize(controls=20).controls, wb.NullSize.quick().prompts
        (20, 4)
    """

    controls: int = 10
    permuted: int = 10
    never_known: int = 4
    prompts: int | None = None
    slow: bool = True

    def __post_init__(self) -> None:
        for name in ("controls", "permuted", "never_known"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)!r}.")
        if not self.controls + self.permuted + self.never_known:
            raise ValueError("A null of nothing: at least one of controls, permuted and never_known must be above 0.")
        if self.prompts is not None and self.prompts < 1:
            raise ValueError(f"prompts must be at least 1, or None for all, got {self.prompts!r}.")

    @staticmethod
    def quick() -> NullSize:
        """A first look: ten controls, six permuted deltas, four prompts of each probe, and none of the slow probes."""
        return NullSize(permuted=6, prompts=4, slow=False)

    @property
    def asked(self) -> Literal["quick", True] | None:
        """What ``probe(null=)`` was given to get this size, if it is one of the two that have a word."""
        return "quick" if self == NullSize.quick() else True if self == NullSize() else None

    @staticmethod
    def of(asked: Any) -> NullSize | None:
        """The size that was asked for: None and False for none, True for the whole, ``"quick"`` for the quick one.

        Raises:
            ValueError: Something else.
        """
        if asked is None or asked is False:
            return None
        if asked is True:
            return NullSize()
        if isinstance(asked, NullSize):
            return asked
        if asked == "quick":
            return NullSize.quick()
        raise ValueError(f"null must be None, True, 'quick' or a wb.NullSize(controls=..., ...), got {asked!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NullDraw:
    """One value of a null.

    Args:
        group: ``"controls"``, ``"permuted"`` or ``"never known"``.
        name: Of the fact, or of the permutation.
        value: The same measure as the edited fact's.
        found: Whether it would be a finding of the probe.
        n: Prompts that it is taken over, or 1.
    """

    group: NullGroup
    name: str
    value: float
    found: bool
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NullOfProbe:
    """What one probe finds of the edited fact and of its null, by the same measure.

    Args:
        measure: What is measured: ``"share of prompts that give the old answer"``.
        finding: What the probe says when it finds something: ``"the old answer is recovered"``.
        false_in: The groups of the null in which that would be false.
        value, found, n: Of the edited fact, as for a ``NullDraw``.
        draws: The null.
    """

    measure: str
    finding: str
    false_in: tuple[NullGroup, ...]
    value: float
    found: bool
    n: int
    draws: tuple[NullDraw, ...]

    def of(self, group: NullGroup) -> tuple[NullDraw, ...]:
        """The draws of a group."""
        return tuple(draw for draw in self.draws if draw.group == group)

    def percentile(self, group: NullGroup) -> float | None:
        """Where the edited fact's value lies within a group, 0 to 100: the share of values below it, those equal to it
        by half; None where the group is empty."""
        values = [draw.value for draw in self.of(group)]
        if not values:
            return None
        return 100 * (sum(v < self.value for v in values) + sum(v == self.value for v in values) / 2) / len(values)

    @property
    def false_positives(self) -> Rate:
        """How often the probe finds what is not there, of the groups in which its finding would be false."""
        draws = [draw for draw in self.draws if draw.group in self.false_in]
        return wilson(sum(draw.found for draw in draws), len(draws))

    @property
    def words(self) -> str:
        """The percentiles, and how often the same is found where there is nothing."""
        places: list[str] = []
        for group in get_args(NullGroup):
            at, n = self.percentile(group), len(self.of(group))
            if at is not None:
                unit = "" if places else " percentile"
                one, several = GROUP_WORDS[group]
                places.append(f"the {ordinal(round(at))}{unit} of {n} {one if n == 1 else several}")
        at = ", ".join(places) if places else "with nothing to compare it with"
        false = self.false_positives
        also = f"; false positives {false}" if false.n else ""
        of = f" of {self.n} prompts" if self.n > 1 else ""
        return f"null: {self.measure} {self.value:.2f}{of}, {at}{also}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeNull:
    """The null of a probe report.

    Args:
        stage: The stage of the edit that is compared.
        size: How large it was to be.
        probes: By probe, what was found.
        kl: Of the edit to the base over the base's own answers to ``kl_prompts``, nats per token.
        kl_prompts: The prompts on which the KL of edit and permuted deltas is equal.
        strengths: Of each permuted delta, at which strength it has that KL.
        skipped: By probe or group, why it has no null.

    Example:
        >>> from workbench.types import NullDraw, NullOfProbe, ProbeNull
        >>> draws = [NullDraw(group="controls", name=str(i), value=i / 10, found=i > 8, n=5) for i in range(10)]
        >>> one = NullOfProbe(
        ...     measure="share of prompts that give the old answer",
        ...     finding="the old answer is recovered",
        ...     false_in=("controls",),
        ...     value=0.75,
        ...     found=True,
        ...     n=4,
        ...     draws=tuple(draws),
        ... )
        >>> one.percentile("controls"), one.false_positives.value
        (80.0, 0.1)
        >>> null = ProbeNull(stage="learn", size=wb.NullSize(), probes={"adversarial": one})
        >>> null.words("lens")
        'no null measured'
    """

    stage: str
    size: NullSize
    probes: Mapping[str, NullOfProbe] = field(default_factory=dict[str, NullOfProbe])
    kl: float | None = None
    kl_prompts: tuple[str, ...] = ()
    strengths: Mapping[str, float] = field(default_factory=dict[str, float])
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])

    def words(self, probe: str) -> str:
        """A probe's null in words; where it has none, that, and why."""
        if probe in self.probes:
            return self.probes[probe].words
        why = self.skipped.get(probe)
        return f"no null measured: {why}" if why else "no null measured"

    def to_rows(self) -> list[dict[str, Any]]:
        """One line for each probe and group: the edited fact's value, its percentile, and the group's values."""
        lines: list[dict[str, Any]] = []
        for probe, one in self.probes.items():
            for group in get_args(NullGroup):
                draws = one.of(group)
                if draws:
                    values = sorted(draw.value for draw in draws)
                    lines.append(
                        {
                            "probe": probe,
                            "measure": one.measure,
                            "edited fact": one.value,
                            "beside": GROUP_WORDS[group][1],
                            "n": len(draws),
                            "percentile": one.percentile(group),
                            "lowest": values[0],
                            "median": values[len(values) // 2],
                            "highest": values[-1],
                            "found": f"{sum(draw.found for draw in draws)} of {len(draws)}",
                            "false there": group in one.false_in,
                        }
                    )
        return lines


def ordinal(n: int) -> str:
    """A number as one says it of a place: ``"1st"``, ``"12th"``."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def null_words(null: ProbeNull | None, probe: str) -> str:
    """What stands after a verdict: the null, or that there is none."""
    return "no null measured" if null is None else null.words(probe)
