"""Whether one arm beat another, with paired intervals, and the verdict in words. Reads tables, runs nothing.

The outcomes are stated in advance: control retention and the KL to the base. Both arms answer the same prompts, so they
are compared prompt by prompt. With one edited fact the asked facts are resampled; with several, whole edited facts.
The draws at hand are taken as they are: an interval says nothing about draws that were not made.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from workbench.evaluation.metrics import bootstrap, paired_difference
from workbench.evaluation.rates import Key, excess, key_of, outcomes_of
from workbench.types import Rate
from workbench.types.arms import ARM_WORDS, OUTCOMES, ArmRow, ArmTable, Difference
from workbench.types.report import EvalReport

DECIDING = ("control", "kl")
RANDOM = ("random-layers", "random-anywhere")


def final_outcomes(report: EvalReport) -> dict[str, dict[Key, float]]:
    """What the rates of a report's last stage average, by rate and prompt; without ``bleed``, which needs the facts."""
    base = {key_of(r): r for r in report.rows if r.stage == "base"}
    found = outcomes_of([r for r in report.rows if r.stage == report.stages[-1]], base, lambda _: False)
    return {name: values for name, values in found.items() if name != "bleed"}


def rate_over(runs: Sequence[ArmRow], name: str) -> Rate:
    """A rate over several runs: one run's own, else a bootstrap of prompts (of one edited fact) or of edited facts."""
    if len(runs) == 1:
        return runs[0].rate(name)
    several = len({r.fact_id for r in runs}) > 1
    values: dict[Hashable, list[float]] = {}
    for run in runs:
        for key, value in final_outcomes(run.report)[name].items():
            values.setdefault(run.fact_id if several else key, []).append(value)
    return excess(values) if name == "gibberish" else bootstrap(values)


def differences(table: ArmTable) -> tuple[Difference, ...]:
    """The selection minus each other trained arm, outcome by outcome; none if the selection is not in the table."""
    if "selected" not in table.arms:
        return ()
    ours = {r.fact_id: r for r in table.runs("selected")}
    return tuple(
        _difference(table, ours, arm, name)
        for arm in table.arms
        if arm not in ("selected", "none")
        for name in OUTCOMES
    )


def _difference(table: ArmTable, ours: dict[str, ArmRow], arm: str, name: str) -> Difference:
    runs = [r for r in table.runs(arm) if r.fact_id in ours]
    facts = tuple(dict.fromkeys(r.fact_id for r in runs))
    left: dict[Hashable, list[float]] = {}
    right: dict[Hashable, list[float]] = {}
    for run in runs:
        mine, theirs = (final_outcomes(r.report)[name] for r in (ours[run.fact_id], run))
        for key in (k for k in mine if k in theirs):
            cluster: Hashable = run.fact_id if len(facts) > 1 else key
            left.setdefault(cluster, []).append(mine[key])
            right.setdefault(cluster, []).append(theirs[key])
    every = [r for r in table.rows if r.arm == arm]
    return Difference(
        arm=arm,
        outcome=name,
        rate=paired_difference(left, right),
        facts=facts,
        reached=sum(bool(r.reached) for r in every),
        runs=len(every),
    )


def verdict(table: ArmTable) -> str:
    """One line on what reached the mark, then one for each kind of random selection and deciding outcome."""
    found = {(d.arm, d.outcome): d for d in differences(table)}
    mark = f"{table.threshold:.0%} new answers on validation questions"
    lines: list[str] = []
    if "selected" in table.arms:
        ours = [r for r in table.rows if r.arm == "selected"]
        lines.append(f"The selection reached {mark} on {sum(bool(r.reached) for r in ours)} of {len(ours)} fact(s).")
    for arm in RANDOM:
        if (arm, "control") not in found:
            lines.append(f"{_start(arm)}: not run, so nothing can be said.")
            continue
        one = found[arm, "control"]
        missed = one.runs - one.reached
        reached = f"{missed} of {one.runs} draws did not reach the new fact"
        if not one.facts:
            lines.append(f"{_start(arm)}: cannot tell: {reached}, and no fact is left on which both did.")
            continue
        lines.append(f"{_start(arm)}: {' '.join(_sentence(found[arm, name]) for name in DECIDING)} {reached}.")
    if len(table.facts) == 1:
        lines.append("One edited fact: the intervals are over its controls, and say nothing of other facts or draws.")
    return "\n".join([*lines, *table.notes])


def _start(arm: str) -> str:
    return f"Against {ARM_WORDS[arm]}"


def _sentence(one: Difference) -> str:
    rate = one.rate
    if rate.n == 0:
        return f"{one.outcome} was not measured."
    pairs = f"{rate.n} pairs" + (f" on {len(one.facts)} edited facts" if len(one.facts) > 1 else "")
    numbers = f"{rate.value:+.3f} [{rate.low:+.3f}, {rate.high:+.3f}]"
    if one.outcome == "control":
        said = {1: "the selection kept more controls", -1: "the selection kept fewer controls"}
        words = said.get(one.sign, "cannot tell which keeps more controls: the interval holds 0")
        return f"{words} ({numbers}, {pairs})."
    said = {1: "It moved other answers more", -1: "It moved other answers less"}
    words = said.get(one.sign, "Cannot tell which moves other answers more")
    return f"{words} (KL {numbers} nats per token)."
