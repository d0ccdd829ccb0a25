"""Whether one arm beat another, with paired intervals, and the verdict in words. Reads tables, runs nothing.

The outcomes are stated in advance: control retention, and the KL to the base on those controls. Both arms answer the
same prompts, so they are compared prompt by prompt, several draws of an arm by their mean at each prompt: how often
draws reach a fact does not change its weight. With one edited fact the asked facts are resampled; with several, whole
edited facts. The draws at hand are taken as they are: an interval says nothing about draws that were not made.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from workbench.types import Rate
from workbench.types.arms import CLOSING_OUTCOMES, ArmRow, ArmTable, Difference
from workbench.types.intervals import mean_over, paired_difference
from workbench.types.rate_values import Answered, Key, Values, by_fact, excess, key_of
from workbench.types.rates import RATES
from workbench.types.report import EvalReport

DECIDING = ("control", "kl")
RANDOM = ("random-layers", "random-anywhere")
FEW = 4
"""Questions: where fewer decide, or are reported and understood by the base, the verdict says so."""


def final_outcomes(report: EvalReport) -> dict[str, Values]:
    """What the rates of a report's last stage average, by rate and prompt; ``kl`` over controls only, and without
    ``bleed``, which needs the facts."""
    base = {key_of(r): r for r in report.rows if r.stage == "base"}
    rows = [r for r in report.rows if r.stage == report.stages[-1]]
    answered = Answered(rows=rows, base=base, names_target=lambda _: False, closed=report.closed_relations)
    outcomes = {
        rule.name: rule.values(answered)
        for rule in RATES.values()
        if rule.values is not None and not rule.collateral and rule.name != "bleed"
        if rule.if_there is None or rule.if_there(answered)
    }
    controls = {(r.fact_id, r.prompt) for r in base.values() if r.group == "control"}
    outcomes["kl"] = {key: value for key, value in outcomes["kl"].items() if (key[0], key[2]) in controls}
    return outcomes


def rate_of(report: EvalReport, name: str) -> Rate:
    """One rate of a report's last stage; ``kl`` is over its controls, without other neighbours."""
    return mean_over(by_fact(final_outcomes(report)["kl"])) if name == "kl" else report.rate(name)


def _by_prompt(runs: Sequence[ArmRow], name: str) -> dict[Key, float]:
    """An outcome by prompt, the mean of one fact's runs."""
    by_prompt: dict[Key, list[float]] = {}
    for run in runs:
        for key, value in final_outcomes(run.report).get(name, {}).items():
            by_prompt.setdefault(key, []).append(value)
    return {key: sum(values) / len(values) for key, values in by_prompt.items()}


def rate_over(runs: Sequence[ArmRow], name: str) -> Rate:
    """A rate over several runs: one run's own, else a bootstrap of prompts (of one edited fact) or of edited facts."""
    if len(runs) == 1:
        return runs[0].rate(name)
    if all(run.rate(name).by_definition for run in runs):
        return _rate_over(runs, name).defined()
    return _rate_over(runs, name)


def _rate_over(runs: Sequence[ArmRow], name: str) -> Rate:
    facts = dict.fromkeys(r.fact_id for r in runs)
    values: dict[Hashable, list[float]] = {}
    for fact in facts:
        for key, value in _by_prompt([r for r in runs if r.fact_id == fact], name).items():
            values.setdefault(fact if len(facts) > 1 else key, []).append(value)
    rule = RATES[name]
    return excess(values) if rule.kind == "excess" else mean_over(values, within=rule.within)


def differences(table: ArmTable) -> tuple[Difference, ...]:
    """The selection minus each other trained arm, and each method minus the random arms beside it, outcome by outcome;
    none of what is not in the table."""
    pairs = [("selected", arm) for arm in table.arms if "selected" in table.arms and arm not in ("selected", "none")]
    pairs += [(beside, arm) for arm, beside in _beside(table).items() if beside in table.arms]
    return tuple(
        _difference(table, minuend, arm, name)
        for minuend, arm in pairs
        for name in table.outcomes
        if name not in CLOSING_OUTCOMES or (table.has(minuend, name) and table.has(arm, name))
    )


def _beside(table: ArmTable) -> dict[str, str]:
    """By random arm, the method that it stands beside."""
    return {row.arm: row.beside for row in table.rows if row.beside is not None}


def _difference(table: ArmTable, minuend: str, arm: str, name: str) -> Difference:
    ours = {r.fact_id: r for r in table.runs(minuend)}
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
        rate=paired_difference(left, right, within=(-RATES[name].bound, RATES[name].bound)),
        facts=facts,
        reached=sum(r.reached is not False for r in every),
        runs=len(every),
        minuend=minuend,
    )


def verdict(table: ArmTable) -> str:
    """One line on what reached the mark, then one for each kind of random selection, of the selection's and of each
    method's."""
    found = {(d.minuend, d.arm, d.outcome): d for d in differences(table)}
    mark = f"{table.threshold:.0%} new answers on validation questions"
    lines: list[str] = []
    if "selected" in table.arms:
        lines.append(f"The selection reached {mark} on {_reached(table, 'selected')}.")
    beside = _beside(table)
    alone = not beside or {"selected", *RANDOM} & {*table.arms}
    pairs = [("selected", arm) for arm in RANDOM if alone] + [(minuend, arm) for arm, minuend in beside.items()]
    for minuend, arm in pairs:
        start, who = _start(table, minuend, arm), "the selection" if minuend == "selected" else "it"
        controls = found.get((minuend, arm, "control"))
        if controls is None:
            lines.append(f"{start}: not run, so nothing can be said.")
            continue
        missed = controls.runs - controls.reached
        reached = f"{missed} of {controls.runs} draws did not reach the new fact"
        if not controls.facts:
            lines.append(f"{start}: cannot tell: {reached}, and no fact is left on which both did.")
            continue
        sentences = [_sentence(found[minuend, arm, name], len(table.facts), who) for name in DECIDING]
        lines.append(f"{start}: {' '.join(sentences)} {reached}.")
    if len(table.facts) == 1:
        lines.append("One edited fact: the intervals are over its controls, and say nothing of other facts or draws.")
    elif any(len(found[m, a, "control"].facts) == 1 for m, a in pairs if (m, a, "control") in found):
        lines.append(
            "Where both were read on one fact only, the intervals are over its controls, and say nothing of others."
        )
    return "\n".join([*lines, *_thin(table), *table.notes])


def _reached(table: ArmTable, arm: str) -> str:
    """On how many facts an arm reached the mark, in words."""
    runs = [r for r in table.rows if r.arm == arm]
    return f"{sum(bool(r.reached) for r in runs)} of {len(runs)} fact(s)"


def _thin(table: ArmTable) -> list[str]:
    """Facts that few questions decide about, or tell about."""
    lines: list[str] = []
    for fact in table.facts:
        report = next(r.report for r in table.rows if r.fact_id == fact)
        asked = [r for r in report.rows if (r.stage, r.group) == ("base", "heldout")]
        counts = {"decide where its arms are read": len(table.validation.get(fact, ()))}
        counts["of the reported ones are understood by the base"] = sum(r.label == "old" for r in asked)
        few = [f"{n} {what}" for what, n in counts.items() if n < FEW]
        if few:
            lines.append(f"{fact}: of its held-out questions only {' and only '.join(few)}, so one answer weighs much.")
    return lines


def _start(table: ArmTable, minuend: str, arm: str) -> str:
    if minuend == "selected":
        return f"Against {table.words_of(arm)}"
    own = table.words_of(minuend)
    return f"{own} against {table.words_of(arm).removeprefix(f'{own}, ')}"


def _sentence(difference: Difference, edited: int, who: str) -> str:
    rate = difference.rate
    if rate.n == 0:
        return f"{difference.outcome} was not measured."
    pairs = f"{rate.n} pairs" + (f" on {len(difference.facts)} of {edited} edited facts" if edited > 1 else "")
    numbers = f"{rate.value:+.3f} [{rate.low:+.3f}, {rate.high:+.3f}]"
    if difference.outcome == "control":
        by_sign = {1: f"{who} kept more controls", -1: f"{who} kept fewer controls"}
        words = by_sign.get(difference.sign, "cannot tell which keeps more controls: the interval holds 0")
        return f"{words} ({numbers}, {pairs})."
    by_sign = {1: "It moved other answers more", -1: "It moved other answers less"}
    words = by_sign.get(difference.sign, "Cannot tell which moves other answers more")
    return f"{words} (KL on controls {numbers} nats per token)."
