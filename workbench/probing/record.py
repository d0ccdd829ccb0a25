"""What a probe is: one record in the probe's own file, and one row in ``table.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from workbench.models.load import LoadedModel
from workbench.probing.battery import Battery
from workbench.types import CurveWords, LensAsked, NullGroup, ProbeRow, Rate

RowKey = tuple[str, ...]


def row_key(row: ProbeRow) -> RowKey:
    """What pairs a row with those of other stages."""
    return row.kind, row.group, row.fact_id, row.prompt, row.start


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a probe asked of one stage.

    Args:
        rows: All rows.
        counted: Those on which shares are taken: the base is right there, and the probe counts them.
        base: The base's rows by ``row_key``.
        seed: Of the bootstrap.
    """

    rows: Sequence[ProbeRow]
    counted: Sequence[ProbeRow]
    base: Mapping[RowKey, ProbeRow]
    seed: int


@dataclass(frozen=True, kw_only=True)
class ProbeRate:
    """One rate of a probe.

    Args:
        name: Its name in a report.
        words: What it is.
        of: Its value; None where it does not apply.
        headline: Its place among a probe's findings, from 1; 0: it is none.
        fixed_at_base: Whether the base's own value follows from what is counted, the prompts on which it is right; it
            has no interval then (``Rate.by_definition``).
    """

    name: str
    words: str
    of: Callable[[Asked], Rate | None]
    headline: int = 0
    fixed_at_base: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a probe found of one fact at one stage.

    Args:
        value: How much.
        found: Whether that is a finding.
        n: Prompts that it is taken over, or 1.
    """

    value: float
    found: bool
    n: int = 1


@dataclass(frozen=True, kw_only=True)
class Measure:
    """The one number of a probe that is compared with a null (see ``null.py``).

    Args:
        words: What it is.
        finding: What the probe says when it finds something.
        of: Its value for a battery's fact at a stage; None where it does not apply.
        false_in: The groups of the null in which a finding is false.
        slow: Whether it trains, rounds weights or asks many other facts, so that a quick null leaves it out.
    """

    words: str
    finding: str
    of: Callable[[Battery, Probe, str], Found | None]
    false_in: tuple[NullGroup, ...]
    slow: bool = False


def recovered(battery: Battery, probe: Probe, stage: str) -> Found | None:
    """The share of prompts that give the old answer, of those on which the base is right; of a subject that it never
    knew, of all."""
    rows = [
        row
        for row in battery.rows
        if (row.probe, row.stage, row.group) == (probe.name, stage, "edited")
        and probe.counts(row)
        and (row.informative or battery.like is not None)
    ]
    hits = sum(row.recovered == "old" for row in rows)
    return Found(value=hits / len(rows), found=hits > 0, n=len(rows)) if rows else None


def last_of_curve(name: str = "p_old", level: float = 0.5) -> Callable[[Battery, Probe, str], Found | None]:
    """The last value of the fact's curve; a finding from a level on.

    Args:
        name: Of the value.
        level: From which on it is found.
    """

    def measured(battery: Battery, probe: Probe, stage: str) -> Found | None:
        for curve in battery.curves:
            if (curve.probe, curve.stage, curve.group) == (probe.name, stage, "edited") and name in curve.y:
                return Found(value=curve.y[name][-1], found=curve.y[name][-1] >= level)
        return None

    return measured


RECOVERED = Measure(
    words="share of prompts that give the old answer",
    finding="the old answer is recovered",
    of=recovered,
    false_in=("never known",),
)
"""The measure of probes that ask for the old answer."""


def every_row(row: ProbeRow) -> bool:
    """All rows count."""
    return True


def nothing_first(_: LoadedModel, __: LensAsked) -> str:
    """Most probes make nothing before they ask."""
    return ""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One probe.

    Args:
        name: By which it is asked for.
        title: In tables, figures and panels.
        question: What it asks, in a line, for those who choose among probes.
        cost: About how long it takes at one stage for the fact and its control, in generated answers: other work as
            so many answers as take as long.
        run: Adds its rows, curves or lenses to a battery.
        curve: How its curves are drawn and put into words, if it has any.
        rates: Its rates beside those of every probe (see ``rates.py``).
        rate_words: In place of the common words of a rate.
        counts: Which rows shares are taken of.
        measure: What is compared with a null; None where the probe has nothing of the kind.
        first: What it makes of a model once, before its own work, in words; empty where it is there. By the model and
            the lens that is asked for. Not part of ``cost``.
    """

    name: str
    title: str
    question: str
    cost: int
    run: Callable[[Battery], None]
    curve: CurveWords | None = None
    rates: tuple[ProbeRate, ...] = ()
    rate_words: Mapping[str, str] = field(default_factory=dict)
    counts: Callable[[ProbeRow], bool] = every_row
    measure: Measure | None = RECOVERED
    first: Callable[[LoadedModel, LensAsked], str] = nothing_first
