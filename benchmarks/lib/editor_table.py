"""The table of editors: a line a method, means over facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.lib.rates import head, over_facts

SHOWN = (
    *("new", "forget", "control", "control_firm", "neighbour", "same_subject", "same_answer", "bleed", "cloze_new"),
    *("reversed_new", "twohop_new", "text_nll_change", "kl"),
)


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """A line a method, in Markdown: means over facts with intervals over whole facts."""
    names = (*SHOWN, "primed", "recovered", "efficacy", "paraphrase", "neighbourhood", "fluency", "seconds", "numbers")
    lines = [head(names).replace("| fact |", "| method |")]
    for method, of in results.items():
        there = {name: over_facts([r for r in of if name in r["rates"]["learn"]], name) for name in SHOWN}
        means = [str(there[name]) for name in SHOWN]
        means += [mean_of(of, "probes", "priming", "bleed"), recovered(of)]
        means += [mean_of(of, "counterfact", name) for name in ("efficacy", "paraphrase", "neighbourhood", "fluency")]
        means += [mean_of(of, "seconds"), mean_of(of, "numbers")]
        lines.append(f"| {method} ({len(of)}) | {' | '.join(means)} |")
    return "\n".join(lines)


def mean_of(results: Sequence[dict[str, Any]], *path: str) -> str:
    """The mean of a value somewhere in results, where it is there."""
    values: list[float] = []
    for result in results:
        value: Any = result
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        value = value["value"] if isinstance(value, dict) and value.get("n") else value
        values += [value] if isinstance(value, (int, float)) else []
    return f"{sum(values) / len(values):.2f} (n={len(values)})" if values else "-"


def recovered(results: Sequence[dict[str, Any]]) -> str:
    """The mean share of prompts to which a probe brings the old answer back, over probes and facts."""
    values = [
        rates["old"]["value"]
        for result in results
        for name, rates in result.get("probes", {}).items()
        if name != "priming" and rates.get("old", {}).get("n")
    ]
    return f"{sum(values) / len(values):.2f} (n={len(values)})" if values else "-"
