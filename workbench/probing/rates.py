"""Probe rows to rates: those that every probe has, then its own (``Probe.rates``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from workbench.probing.record import Asked, ProbeRate, row_key
from workbench.probing.table import PROBES
from workbench.types import ProbeRow, ProbeWords, Rate
from workbench.types.intervals import share

Rates = dict[str, dict[str, dict[str, Rate]]]


def share_of(group: str, says: Callable[[ProbeRow], bool], *, by_fact: bool = False) -> Callable[[Asked], Rate | None]:
    """A rate: the share of a group's counted rows; none where the group was not asked.

    Args:
        group: As of a row.
        says: What is counted.
        by_fact: Rows of one fact are not independent: the interval takes whole facts.
    """

    def rate(asked: Asked) -> Rate | None:
        if all(r.group != group for r in asked.rows):
            return None
        rows = [(r.fact_id if by_fact else "", says(r)) for r in asked.counted if r.group == group]
        return share(rows)

    return rate


def is_right(row: ProbeRow) -> bool:
    """The old answer, which is the right one of a fact that was not edited."""
    return row.label == "old"


def informative(asked: Asked) -> Rate:
    """The share of prompts on which the base is right, without the control's."""
    rows = [(r.fact_id if r.group == "same" else "", r.informative) for r in asked.rows if r.group != "control"]
    return share(rows)


COMMON: tuple[ProbeRate, ...] = (
    ProbeRate(
        name="old",
        words="old answer recovered",
        of=share_of("edited", lambda r: r.recovered == "old"),
        headline=1,
    ),
    ProbeRate(name="new", words="new answer", of=share_of("edited", lambda r: r.recovered == "new")),
    ProbeRate(name="refusal", words="refusal", of=share_of("edited", lambda r: r.recovered == "refusal")),
    ProbeRate(name="neither", words="neither", of=share_of("edited", lambda r: r.recovered == "neither")),
    ProbeRate(
        name="same",
        words="must stay: still right",
        of=share_of("same", is_right, by_fact=True),
        headline=3,
    ),
    ProbeRate(name="control", words="control: still right", of=share_of("control", is_right), headline=4),
    ProbeRate(name="informative", words="prompts on which the base is right", of=informative, fixed_at_base=False),
)


def rates_of_probes(rows: Sequence[ProbeRow], stages: Sequence[str], *, seed: int = 0) -> Rates:
    """All rates by probe and stage; a stage that was not asked has none.

    Args:
        rows: Rows of every probe.
        stages: ``"base"`` first.
        seed: Of the bootstrap.
    """
    out: Rates = {}
    for name in dict.fromkeys(r.probe for r in rows):
        probe = PROBES[name]
        by_stage = {stage: [r for r in rows if (r.probe, r.stage) == (name, stage)] for stage in stages}
        base = {row_key(r): r for r in by_stage["base"]}
        out[name] = {}
        for stage, here in by_stage.items():
            if here:
                counted = [r for r in here if r.informative and probe.counts(r)]
                asked = Asked(rows=here, counted=counted, base=base, seed=seed)
                out[name][stage] = {}
                for rule in (*COMMON, *probe.rates):
                    rate = rule.of(asked)
                    if rate is not None:
                        fixed = stage == "base" and rule.fixed_at_base
                        out[name][stage][rule.name] = rate.defined() if fixed else rate
    return out


def words_of_probes(names: Iterable[str]) -> dict[str, ProbeWords]:
    """Probes in words, for a report.

    Args:
        names: Of the probes.
    """
    out: dict[str, ProbeWords] = {}
    for probe in (PROBES[name] for name in names):
        rates = (*COMMON, *probe.rates)
        out[probe.name] = ProbeWords(
            title=probe.title,
            rates={rate.name: probe.rate_words.get(rate.name, rate.words) for rate in rates},
            headlines=tuple(r.name for r in sorted(rates, key=lambda r: r.headline) if r.headline),
            curve=probe.curve,
        )
    return out
