"""How often 95% intervals of shares hold the true share, near 1.

    python -m benchmarks.intervals [--repetitions 1000]

Facts are drawn again and again: one row each, or several wordings that are alike (the correlation of two wordings of
one fact, by a beta distribution over facts). Beside the package's intervals stands the percentile bootstrap over facts,
which was there before. Writes ``benchmarks/results/intervals.json``, with the table of docs/concepts/evaluation.md.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lib.code import code_of
from workbench.files.atomic import write_bytes
from workbench.types.intervals import mean_over

RESULTS = Path("benchmarks/results/intervals.json")
FACTS = (9, 40, 60, 80)
SHARES = (0.85, 0.9, 0.95, 0.97, 0.99)
ROWS = {
    "one row a fact": (1, 0.0),
    "4 wordings, correlation 0.1": (4, 0.1),
    "4 wordings, correlation 0.5": (4, 0.5),
    "8 wordings, correlation 0.3": (8, 0.3),
    "8 wordings, correlation 0.8": (8, 0.8),
}
"""Wordings of a fact, and how alike two of them are."""
RESAMPLES, BOOTSTRAPPED = 500, 4
"""Of the bootstrap; it takes long, so it is made in one of so many repetitions."""


def drawn(rng: np.random.Generator, facts: int, wordings: int, alike: float, share: float) -> np.ndarray:
    """Rows of 0 and 1, [facts, wordings], that are 1 with this probability over all facts."""
    c = (1 - alike) / alike if alike else math.inf
    of_fact = np.full(facts, share) if not alike else rng.beta(share * c, (1 - share) * c, size=facts)
    return (rng.random((facts, wordings)) < of_fact[:, None]).astype(float)


def percentiles(rng: np.random.Generator, rows: np.ndarray) -> tuple[float, float]:
    """The percentile bootstrap that draws whole facts."""
    n = len(rows)
    means = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) @ rows.mean(1) / n
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def coverage(seed: int, facts: int, wordings: int, alike: float, share: float, repetitions: int) -> dict[str, float]:
    """The share of repetitions in which an interval holds the truth, and its mean width, of both kinds of interval."""
    rng = np.random.default_rng((seed, facts, wordings, round(100 * alike), round(100 * share)))
    held = {"score": 0, "bootstrap": 0}
    width = {"score": 0.0, "bootstrap": 0.0}
    for repetition in range(repetitions):
        rows = drawn(rng, facts, wordings, alike, share)
        rate = mean_over(dict(enumerate(rows)))
        found = {"score": (rate.low, rate.high)}
        if repetition % BOOTSTRAPPED == 0:
            found["bootstrap"] = percentiles(rng, rows)
        for name, (low, high) in found.items():
            held[name] += low <= share <= high
            width[name] += high - low
    n = {"score": repetitions, "bootstrap": -(-repetitions // BOOTSTRAPPED)}
    of = {name: round(held[name] / n[name], 4) for name in held}
    return of | {f"{name} width": round(width[name] / n[name], 4) for name in width}


def table(cells: list[dict[str, Any]]) -> str:
    """The least coverage over the shares, in Markdown: a line a kind of rows, a column a number of facts."""
    lines = [
        "| rows | " + " | ".join(f"{n} facts" for n in FACTS) + " | bootstrap, 9 to 80 facts |",
        "|---" * (len(FACTS) + 2) + "|",
    ]
    for kind in ROWS:
        of = [[c for c in cells if c["rows"] == kind and c["facts"] == n] for n in FACTS]
        least = [f"{min(c['score'] for c in some):.2f}" for some in of]
        before = f"{min(c['bootstrap'] for some in of for c in some):.2f}"
        lines.append(f"| {kind} | " + " | ".join(least) + f" | {before} |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cells: list[dict[str, Any]] = []
    for kind, (wordings, alike) in ROWS.items():
        for facts in FACTS:
            for share in SHARES:
                found = coverage(args.seed, facts, wordings, alike, share, args.repetitions)
                cells.append({"rows": kind, "facts": facts, "share": share, **found})
    result = {"code": code_of(__file__).to_dict(), **vars(args), "cells": cells, "table": table(cells)}
    print(result["table"])
    write_bytes(RESULTS, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
