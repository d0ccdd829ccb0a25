"""Does a dry run tell what an edit breaks? Predicted openings beside what edits of the same facts left.

    python -m benchmarks.dry_runs [--ids ireland-demonym ...] [--levers "keyed" ...]

For each dev fact and lever of ``benchmarks/levers.py`` the mean opening at the subject's other facts and at neighbours,
the edited subject being 1 (``wb.dry_run``), which is known before anything is trained, beside the share of the same
group that the edit left right, from ``benchmarks/results/levers.jsonl.xz``: run ``benchmarks.levers`` first for what is
missing there. Each dry run is a line of ``benchmarks/results/dry_runs.jsonl.xz``; a rerun goes on after the last one.
The last line has the rank correlation of opening and loss over all edits.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.levers import LEVERS
from benchmarks.lib.kept import Kept
from benchmarks.lib.rates import told, vars_of
from benchmarks.lib.store import ENDING, Store
from benchmarks.tune import short_name
from workbench.files.atomic import write_bytes
from workbench.types import BaseRecipe
from workbench.types.dry_run import ReachGroup
from workbench.types.intervals import SHARES, mean_over, spearman

FACTS = (
    "brazil-continent",
    "cuba-language",
    "france-capital",
    "indonesia-currency",
    "ireland-demonym",
    "japan-currency",
    "russia-language",
    "thailand-continent",
)
"""Dev facts whose subjects have many other known facts: those of docs/results/levers.md."""
SHOWN = (
    "AlphaEdit, then consolidate 16, firm",
    "AlphaEdit closed by 1, then consolidate 16, firm",
)
POSITIVE = (0.0, math.inf)
GROUPS: dict[ReachGroup, str] = {"same subject": "same_subject", "neighbour": "neighbour"}
"""A dry run's groups, and what an edit's rate of them is called."""


def planned(model: wb.LoadedModel, fact: wb.Fact, recipe: BaseRecipe, dev: wb.FactSet) -> dict[str, Any]:
    """One dry run."""
    began = time.perf_counter()
    plan = wb.dry_run(model, fact, recipe=recipe, pool=dev, progress=False)
    openings = {group: {reach.fact_id: reach.opening for reach in plan.of(group)} for group in GROUPS}
    return {"fact": fact.id, "openings": openings, "seconds": round(time.perf_counter() - began, 1)}


def main() -> None:
    """Run what is not done yet, print a Markdown table, write ``benchmarks/results/dry_runs.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", nargs="+", default=list(FACTS))
    parser.add_argument("--levers", nargs="+", default=list(SHOWN), choices=list(LEVERS))
    parser.add_argument("--edits", type=Path, default=Path("benchmarks/results/levers.jsonl.xz"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dry_runs.json"))
    args = parser.parse_args()
    kept, edits = Kept(args.out.with_suffix(ENDING), __file__), Store(args.edits).lines()
    model = wb.load_model()
    dev = wb.load_facts().filter(split="dev")
    pairs: dict[ReachGroup, list[tuple[float, float]]] = {group: [] for group in GROUPS}
    summary: dict[str, Any] = {}
    print("| | " + " | ".join(f"opening: {group} | left: {group}" for group in GROUPS) + " |\n|" + "---|" * 5)
    for name in args.levers:
        openings: dict[ReachGroup, dict[str, list[float]]] = {group: {} for group in GROUPS}
        left: dict[ReachGroup, dict[str, list[float]]] = {group: {} for group in GROUPS}
        for id in args.ids:
            recipe, lever = LEVERS[name], f"{short_name(name)}-{id}"
            settings = {"model": model.fingerprint, "method": recipe.method, "recipe": recipe.to_dict()}
            done = kept.measured(lever, settings, partial(planned, model, dev[id], recipe, dev))
            for group, rate_name in GROUPS.items():
                rate = edits[lever].result["rates"]["learn"].get(rate_name)
                opened = [*done["openings"][group].values()]
                if opened and rate and rate["n"]:
                    openings[group][id], left[group][id] = [sum(opened) / len(opened)], [rate["value"]]
                    pairs[group].append((openings[group][id][0], 1 - rate["value"]))
        rates = {
            group: (mean_over(openings[group], within=POSITIVE), mean_over(left[group], within=SHARES))
            for group in GROUPS
        }
        summary[name] = {group: [vars_of(rate) for rate in both] for group, both in rates.items()}
        cells = [told(rate, clusters=True) for both in summary[name].values() for rate in both]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    correlations: dict[str, float] = {}
    for group, of in pairs.items():
        if len({lost for _, lost in of}) > 1:  # else there is no order of losses
            correlations[group] = spearman(*zip(*of, strict=True))
            print(f"<!-- {group}: rank correlation of opening and loss {correlations[group]:.2f}, {len(of)} edits -->")
    content = {"code": kept.code.to_dict(), "facts": args.ids, "levers": summary, "correlations": correlations}
    write_bytes(args.out, json.dumps(content, indent=1).encode())


if __name__ == "__main__":
    main()
