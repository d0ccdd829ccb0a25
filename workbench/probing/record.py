"""What a probe is: one record in the probe's own file, and one row in ``table.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from workbench.probing.battery import Battery
from workbench.types import CurveWords, ProbeRow, Rate

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


def every_row(row: ProbeRow) -> bool:
    """All rows count."""
    return True


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
