"""Does unlearning refuse? The first stage alone, by its number of steps.

    python -m benchmarks.refusals [--facts 4] [--seed 0] [--steps 10 36] [--minutes 30]

Known dev facts, each of another relation, drawn by seed. For each: the share of held-out questions that are refused,
that hold the old answer and that have neither, what the training prompts reached of the refusal, and controls (dev,
30). Each finished edit is a line of ``benchmarks/results/refusals.jsonl.xz``; a rerun goes on after the last one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.levers import Levers, shown
from benchmarks.lib.kept import Kept
from benchmarks.lib.rates import head, line
from benchmarks.tune import dev_facts
from workbench.files.atomic import write_bytes


def labels(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The share of each label among the answers to held-out questions, and the least that training reached."""
    rows = [row for one in results for row in one["answers"] if row["group"] == "heldout" and row["stage"] != "base"]
    names = sorted({row["label"] for row in rows})
    shares = {name: sum(row["label"] == name for row in rows) / len(rows) for name in names}
    return {**shares, "n": len(rows), "reached": sum(one["learned"] for one in results) / len(results)}


def main() -> None:
    """Run what is not done yet, print a table, write ``benchmarks/results/refusals.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="draws the facts")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 36])
    parser.add_argument("--minutes", type=float, default=None, help="begin no edit later than this")
    parser.add_argument("--kept", type=Path, default=Path("benchmarks/results/refusals.jsonl.xz"))
    args = parser.parse_args()
    began = time.perf_counter()
    kept, model, facts = Kept(args.kept, __file__), wb.load_model(), wb.load_facts()
    levers = Levers(model, facts)
    found: dict[int, list[dict[str, Any]]] = {}
    for fact in dev_facts(model, facts.core, args.facts, args.seed):
        for steps in args.steps:
            recipe = replace(wb.recipes.named_recipe("unlearn-only"), steps=steps)
            settings = {"model": model.fingerprint, "recipe": recipe.to_dict()}
            name = f"{steps}-steps-{fact.id}"
            done = kept.find(name, settings)
            if done is None and (args.minutes is None or time.perf_counter() - began < 60 * args.minutes):
                done = kept.measured(name, settings, partial(levers.run, fact, recipe))
            if done is not None:
                found.setdefault(steps, []).append(done)
    names = ("forget", "control", "neighbour", "gibberish")
    print(head(names))
    summary: dict[str, Any] = {}
    for steps, results in sorted(found.items()):
        summary[f"{steps} steps"] = labels(results) | {"facts": len(results)}
        print(line(f"{steps} steps, {len(results)} facts, {summary[f'{steps} steps']}", shown(results), names))
    content = {"code": kept.code.to_dict(), "refusals": summary}
    write_bytes(args.kept.with_name("refusals.json"), json.dumps(content, indent=1).encode())


if __name__ == "__main__":
    main()
