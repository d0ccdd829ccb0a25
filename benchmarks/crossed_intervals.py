"""How often 95% intervals hold the true share where both edits and controls are drawn.

    python -m benchmarks.crossed_intervals [--repetitions 400]

Each edit harms by its own amount, each control is lost by its own, and the pair decides the rest: a probit model with
variances for edits, for controls and for the pair, around a true share. Beside the crossed interval stand those that
draw edits alone and controls alone, which is what a table has that clusters by one of them. Writes
``benchmarks/results/crossed_intervals.json``, with the table of docs/concepts/evaluation.md.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from benchmarks.lib.code import code_of
from workbench.files.atomic import write_bytes
from workbench.types.crossed import crossed_mean
from workbench.types.intervals import mean_over

RESULTS = Path("benchmarks/results/crossed_intervals.json")
SIZES = ((20, 60), (40, 60), (40, 200))
"""Edits and controls."""
SHARES = (0.9, 0.95, 0.98)
SPREADS = {
    "edits differ": (0.6, 0.1),
    "controls differ": (0.1, 0.6),
    "both differ": (0.5, 0.5),
    "neither differs": (0.0, 0.0),
}
"""Standard deviations of edits and of controls, that of a pair being 1."""
RESAMPLES = 500


def drawn(rng: np.random.Generator, edits: int, controls: int, spread: tuple[float, float], share: float) -> np.ndarray:
    """Rows of 0 and 1, [edits, controls], that are 1 with this probability over all edits and controls."""
    of_edit, of_control = spread
    mark = NormalDist().inv_cdf(share) * math.sqrt(1 + of_edit**2 + of_control**2)
    a, b = rng.normal(0, of_edit, (edits, 1)), rng.normal(0, of_control, (1, controls))
    return (a + b + rng.normal(0, 1, (edits, controls)) < mark).astype(float)


def coverage(
    seed: int, edits: int, controls: int, spread: tuple[float, float], share: float, repetitions: int
) -> dict[str, float]:
    """The share of repetitions in which each kind of interval holds the truth, and its mean width."""
    rng = np.random.default_rng(
        (seed, edits, controls, round(100 * spread[0]), round(100 * spread[1]), round(100 * share))
    )
    kinds = ("crossed", "edits alone", "controls alone")
    held, width = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0.0)
    for repetition in range(repetitions):
        rows = drawn(rng, edits, controls, spread, share)
        cells = {(i, j): [float(rows[i, j])] for i in range(edits) for j in range(controls)}
        rates = (
            crossed_mean(cells, seed=repetition, resamples=RESAMPLES),
            mean_over(dict(enumerate(rows))),
            mean_over(dict(enumerate(rows.T))),
        )
        for kind, rate in zip(kinds, rates, strict=True):
            held[kind] += rate.low <= share <= rate.high
            width[kind] += rate.high - rate.low
    found = {kind: round(held[kind] / repetitions, 4) for kind in kinds}
    return found | {f"{kind} width": round(width[kind] / repetitions, 4) for kind in kinds}


def table(cells: list[dict[str, Any]]) -> str:
    """The least coverage over the shares, in Markdown."""
    heads = [f"{edits} edits, {controls} controls" for edits, controls in SIZES]
    lines = [f"| | {' | '.join(heads)} | edits alone | controls alone |", "|---" * (len(SIZES) + 3) + "|"]
    for kind in SPREADS:
        of = [c for c in cells if c["spread"] == kind]
        least = [min(c["crossed"] for c in of if (c["edits"], c["controls"]) == size) for size in SIZES]
        alone = [min(c[name] for c in of) for name in ("edits alone", "controls alone")]
        lines.append(f"| {kind} | " + " | ".join(f"{value:.2f}" for value in (*least, *alone)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cells: list[dict[str, Any]] = []
    for kind, spread in SPREADS.items():
        for edits, controls in SIZES:
            for share in SHARES:
                found = coverage(args.seed, edits, controls, spread, share, args.repetitions)
                cells.append({"spread": kind, "edits": edits, "controls": controls, "share": share, **found})
    result = {"code": code_of(__file__).to_dict(), **vars(args), "cells": cells, "table": table(cells)}
    print(result["table"])
    write_bytes(RESULTS, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
