"""How fast ROME and MEMIT are beside their published procedures, on the same seeds and contexts, in one run.

    python -m benchmarks.speed_editors [--device cpu|cuda] [--facts N] [--covariance identity|measured]

Both are ``wb.rewrite`` with the published settings: once as the authors' programs compute them (all rewriting prompts
of a fact and its KL prompt in one pass of the whole model), once by passes of only what the vector changes. The table
has the seconds of both on the clock and of the processor (which other programs on the machine do not change), how many
times sooner the second is, and how far its updates are from those of the first; a difference above the goal is an
error. Seconds are without the covariance.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import workbench as wb
from benchmarks.lib.code import code_of
from benchmarks.lib.timing import met, seconds
from workbench.editing.solved.published_edit import AsPublished
from workbench.types import Edit, Fact, LowRankDelta

LAYERS = {"ROME": (9,), "MEMIT": (5, 6, 7, 8, 9)}
SOONER, APART = "times sooner", "largest relative difference of an update"
GOALS: dict[str, tuple[str, float]] = {SOONER: ("at least", 3), APART: ("at most", 1e-3)}
Found = dict[str, float]


def edited(model: wb.LoadedModel, fact: Fact, name: str, published: AsPublished, covariance: Any) -> tuple[Edit, Found]:
    """An edit, with its seconds."""
    kind = getattr(wb.recipes, name)
    recipe = kind(layers=LAYERS[name], published=published, covariance=covariance)
    began = time.process_time()
    took, edit = seconds(lambda: wb.rewrite(model, fact, recipe=recipe, progress=False), model.device)
    without = float(edit.provenance["settings"].get("seconds_for_covariance", 0.0))
    return edit, {"s": took - without, "processor s": time.process_time() - began}


def difference(plain: Edit, fast: Edit) -> float:
    """The largest relative difference of an update, in Frobenius norms."""
    deltas = [edit.delta() for edit in (plain, fast)]
    one, other = (delta.factors for delta in deltas if isinstance(delta, LowRankDelta))
    updates = [(u @ v, other[key][0] @ other[key][1]) for key, (u, v) in one.items()]
    return max(float((a - b).norm() / a.norm()) for a, b in updates)


def measure(model: wb.LoadedModel, facts: list[Fact], name: str, covariance: str) -> Found:
    """Medians over facts, and the largest difference."""
    rows: list[Found] = []
    for fact in facts:
        plain, slow = edited(model, fact, name, True, covariance)
        fast, quick = edited(model, fact, name, "fast", covariance)
        rows.append(
            {
                "published, s": slow["s"],
                "fast, s": quick["s"],
                "published, processor s": slow["processor s"],
                "fast, processor s": quick["processor s"],
                SOONER: slow["s"] / quick["s"],
                "times less of the processor": slow["processor s"] / quick["processor s"],
                APART: difference(plain, fast),
            }
        )
    return {key: (max if key == APART else statistics.median)(row[key] for row in rows) for key in rows[0]}


def main() -> None:
    """Run, print a Markdown table, write ``benchmarks/results/speed_editors.json``.

    Raises:
        SystemExit: Updates differ by more than the goal allows.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--facts", type=int, default=1)
    parser.add_argument("--covariance", default="identity", choices=["identity", "measured"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_editors.json"))
    args = parser.parse_args()
    code = code_of(__file__, without=())
    model = wb.load_model(device=args.device)
    facts = list(wb.load_facts().filter(split="dev"))[: args.facts]
    where = {"device": args.device, "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    where |= {"covariance": args.covariance, "facts": [fact.id for fact in facts]}
    print(f"{model.name}: {where}\n\n| what | measured | goal | met |\n|---|---|---|---|", flush=True)
    found: dict[str, Found] = {}
    for name in LAYERS:
        found[name] = measure(model, facts, name, args.covariance)
        for key, value in found[name].items():
            goal = "{} {:g} | {}".format(*GOALS[key], met(value, *GOALS[key])) if key in GOALS else "|"
            print(f"| {name}: {key} | {value:.3g} | {goal} |", flush=True)
    judged = {f"{name}: {key}": met(found[name][key], *GOALS[key]) for name in found for key in GOALS}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"code": code.to_dict(), "where": where, "model": model.fingerprint, "found": found, "met": judged}
    args.out.write_text(json.dumps(result, indent=1))
    if "no" in [judged[f"{name}: {APART}"] for name in found]:
        raise SystemExit("The fast path gives other updates than the published procedure.")


if __name__ == "__main__":
    main()
