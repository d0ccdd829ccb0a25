"""Rates of edits, and the texts behind them, as they are kept in files: back as ``Rate``s, means over facts, and cells
of Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import workbench as wb
from workbench.types import Rate
from workbench.types.intervals import mean_over, wilson
from workbench.types.rates import RATES

NO_SHARES = tuple(name for name, rule in RATES.items() if rule.kind != "share")


def plain_rates(report: wb.EvalReport) -> dict[str, Any]:
    """A report's rates by stage and name, as plain values."""
    return {stage: {name: vars_of(rate) for name, rate in rates.items()} for stage, rates in report.rates.items()}


def plain_texts(report: wb.EvalReport) -> dict[str, Any]:
    """Every text behind a report's rates, as plain values: the ``"answers"`` to all prompts at all stages, those to
    controls and neighbours too, each with its class, and the ``"sentences"`` of ordinary text."""
    return {"answers": [asdict(row) for row in report.rows], "sentences": [asdict(row) for row in report.texts]}


def rates_of(result: dict[str, Any], stage: str = "learn") -> dict[str, Rate]:
    """The rates of one edit, with today's intervals (``recounted``)."""
    return {name: recounted(name, Rate(**rate), stage) for name, rate in result["rates"][stage].items()}


def recounted(name: str, rate: Rate, stage: str) -> Rate:
    """A rate that is on file with today's interval, where the number of rows and facts says it: a share of one fact's
    rows, or of one row of each of several facts, is Wilson's; what is true by definition has none."""
    rule = RATES.get(name)
    if rule is None or not rate.n:
        return rate
    if stage == "base" and rule.fixed_at_base:
        return rate.defined()
    if rule.kind == "share" and rate.clusters in (1, rate.n):
        return replace(wilson(round(rate.value * rate.n), rate.n), clusters=rate.clusters)
    return rate


def by_fact(results: Sequence[dict[str, Any]], name: str) -> dict[str, list[float]]:
    """The values of a rate that were measured, by fact: one for each of its edits."""
    values: dict[str, list[float]] = {}
    for result in results:
        rate = rates_of(result)[name]
        if rate.n:
            values.setdefault(result["fact"], []).append(rate.value)
    return values


def over_facts(results: Sequence[dict[str, Any]], name: str) -> Rate:
    """A rate over edits: mean of the edits' values, with an interval over whole facts (all seeds of one
    together)."""
    return mean_over(by_fact(results, name), within=RATES[name].within)


def worst(results: Sequence[dict[str, Any]], name: str) -> float:
    """The worst fact's rate, all its edits together; NaN where it was measured on none."""
    means = [sum(values) / len(values) for values in by_fact(results, name).values()]
    if not means:
        return math.nan
    return min(means) if RATES[name].better == "higher" else max(means)


def head(names: Sequence[str]) -> str:
    """The first two rows of a Markdown table."""
    return "| fact | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1)


def line(name: str, rates: dict[str, Rate], names: Sequence[str]) -> str:
    """One row of a Markdown table."""
    return f"| {name} | " + " | ".join(str(rates[k]) for k in names) + " |"


def told(rate: dict[str, Any], *, clusters: bool = False, digits: int = 2) -> str:
    """A rate with its interval; on request on how many facts it rests."""
    facts = f" (n = {rate['clusters']})" if clusters else ""
    if rate["n"] and not Rate(**rate).has_interval:
        return f"{round(rate['value'], digits) + 0.0:.{digits}f} {Rate(**rate).interval}".strip() + facts
    value, low, high = (f"{round(rate[part], digits) + 0.0:.{digits}f}" for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]{facts}"


def vars_of(rate: Rate) -> dict[str, Any]:
    """A rate as plain values."""
    return asdict(rate)
