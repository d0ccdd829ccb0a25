"""Whether one arm beat another, with paired intervals, and the verdict in words. Reads tables, runs nothing.

The outcomes are stated in advance: control retention, and the KL to the base on those controls. Both arms answer the
same prompts, so they are compared prompt by prompt, several draws of an arm by their mean at each prompt: how often
draws reach a fact does not change its weight. With one edited fact the asked facts are resampled; with several, whole
edited facts. The draws at hand are taken as they are: an interval says nothing about draws that were not made.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from workbench.types import Rate
from workbench.types.arms import ARM_WORDS, OUTCOMES, ArmRow, ArmTable, Difference
from workbench.types.intervals import bootstrap, paired_difference
from workbench.types.rates import Key, by_fact, excess, key_of, outcomes_of
from workbench.types.report import EvalReport

DECIDING = ("control", "kl")
RANDOM = ("random-layers", "random-anywhere")
FEW = 4
"""Questions: where fewer decide, or are reported and understood by the base, the verdict says so."""


def final_outcomes(report: EvalReport) -> dict[str, dict[Key, float]]:
    """What the rates of a report's last stage average, by rate and prompt; ``kl`` over controls only, and without
    ``bleed``, which needs the facts."""
    base = {key_of(r): r for r in report.rows if r.stage == "base"}
    found = outcomes_of([r for r in report.rows if r.stage == report.stages[-1]], base, lambda _: False)
    controls = {(r.fact_id, r.prompt) for r in base.values() if r.group == "control"}
    found["kl"] = {key: value for key, value in found["kl"].items() if (key[0], key[2]) in controls}
    return {name: values for name, values in found.items() if name != "bleed"}


def rate_of(report: EvalReport, name: str) -> Rate:
    """One rate of a report's last stage; ``kl`` is over its controls, without other neighbours."""
    return bootstrap(by_fact(final_outcomes(report)["kl"])) if name == "kl" else report.rate(name)


def _by_prompt(runs: Sequence[ArmRow], name: str) -> dict[Key, float]:
    """An outcome by prompt, the mean of one fact's runs."""
    found: dict[Key, list[float]] = {}
    for run in runs:
        for key, value in final_outcomes(run.report)[name].items():
            found.setdefault(key, []).append(value)
    return {key: sum(values) / len(values) for key, values in found.items()}


def rate_over(runs: Sequence[ArmRow], name: str) -> Rate:
    """A rate over several runs: one run's own, else a bootstrap of prompts (of one edited fact) or of edited facts."""
    if len(runs) == 1:
        return runs[0].rate(name)
    facts = dict.fromkeys(r.fact_id for r in runs)
    values: dict[Hashable, list[float]] = {}
    for fact in facts:
        for key, value in _by_prompt([r for r in runs if r.fact_id == fact], name).items():
            values.setdefault(fact if len(facts) > 1 else key, []).append(value)
    return excess(values) if name == "gibberish" else bootstrap(values, within=_range(name))


def _range(name: str) -> tuple[float, float]:
    """The least and the largest value of an outcome: a share's, or without bound a divergence's."""
    return (0.0, math.inf if name == "kl" else 1.0)


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
    for fact in facts:
        mine, theirs = _by_prompt([ours[fact]], name), _by_prompt([r for r in runs if r.fact_id == fact], name)
        for key in (k for k in mine if k in theirs):
            cluster: Hashable = fact if len(facts) > 1 else key
            left.setdefault(cluster, []).append(mine[key])
            right.setdefault(cluster, []).append(theirs[key])
    every = [r for r in table.rows if r.arm == arm]
    return Difference(
        arm=arm,
        outcome=name,
        rate=paired_difference(left, right, within=(-_range(name)[1], _range(name)[1])),
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
        said = [_sentence(found[arm, name], len(table.facts)) for name in DECIDING]
        lines.append(f"{_start(arm)}: {' '.join(said)} {reached}.")
    if len(table.facts) == 1:
        lines.append("One edited fact: the intervals are over its controls, and say nothing of other facts or draws.")
    elif any(len(found[arm, "control"].facts) == 1 for arm in RANDOM if (arm, "control") in found):
        lines.append(
            "Where both were read on one fact only, the intervals are over its controls, and say nothing of others."
        )
    return "\n".join([*lines, *_thin(table), *table.notes])


def _thin(table: ArmTable) -> list[str]:
    """Facts that few questions decide about, or tell about."""
    lines: list[str] = []
    for fact in table.facts:
        report = next(r.report for r in table.rows if r.fact_id == fact)
        asked = [r for r in report.rows if (r.stage, r.group) == ("base", "heldout")]
        told = {"decide where its arms are read": len(table.validation.get(fact, ()))}
        told["of the reported ones are understood by the base"] = sum(r.label == "old" for r in asked)
        few = [f"{n} {what}" for what, n in told.items() if n < FEW]
        if few:
            lines.append(f"{fact}: of its held-out questions only {' and only '.join(few)}, so one answer weighs much.")
    return lines


def _start(arm: str) -> str:
    return f"Against {ARM_WORDS[arm]}"


def _sentence(one: Difference, edited: int) -> str:
    rate = one.rate
    if rate.n == 0:
        return f"{one.outcome} was not measured."
    pairs = f"{rate.n} pairs" + (f" on {len(one.facts)} of {edited} edited facts" if edited > 1 else "")
    numbers = f"{rate.value:+.3f} [{rate.low:+.3f}, {rate.high:+.3f}]"
    if one.outcome == "control":
        said = {1: "the selection kept more controls", -1: "the selection kept fewer controls"}
        words = said.get(one.sign, "cannot tell which keeps more controls: the interval holds 0")
        return f"{words} ({numbers}, {pairs})."
    said = {1: "It moved other answers more", -1: "It moved other answers less"}
    words = said.get(one.sign, "Cannot tell which moves other answers more")
    return f"{words} (KL on controls {numbers} nats per token)."
