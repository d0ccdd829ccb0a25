"""Compare recipes and selectors on dev facts; the defaults were chosen with this, never on test facts.

python -m benchmarks.tune --facts 6 --configs default adam
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

from numpy import nanmean

import workbench as wb
from workbench.evaluation.answering import Answering

Config = dict[str, Any]
SHOWN = ("new", "old", "forget", "cloze_new", "control", "neighbour", "bleed", "gibberish", "kl")
CONFIGS: dict[str, Config] = {
    "default": {},
    "adam": {"optimiser": "adam", "learning_rate": 0.04},
    "short-answers": {"answers": "short"},
    "no-hinge": {"hinge": None},
    "no-average": {"average": 0},
    "early-stop": {"early_stop": 0.8, "hinge": 0.9},
    "400-neurons": {"k": 400},
    "learn-only": {"recipe": "learn-only"},
}
"""Changes to the default recipe; ``recipe`` is the recipe's name, ``k`` the number of neurons."""


def dev_facts(model: wb.LoadedModel, facts: wb.FactSet, n: int, seed: int) -> list[wb.Fact]:
    """Known dev facts by seed, each of another relation; france-capital first."""
    known = list(wb.known_facts(model, facts.filter(split="dev", role="control")))
    random.Random(seed).shuffle(known)
    picked = [facts["france-capital"]]
    for fact in known:
        if fact.relation not in {f.relation for f in picked}:
            picked.append(fact)
    return picked[:n]


def run(model: wb.LoadedModel, fact: wb.Fact, config: Config, dev: wb.FactSet, answering: Answering) -> dict[str, Any]:
    """One edit and its evaluation on dev controls."""
    options = dict(config)
    name, k = options.pop("recipe", "unlearn-then-learn"), options.pop("k", None)
    recipe = wb.Recipe.named(name, **options)
    selection = wb.default_selection(model, fact, k=k, pool=dev, progress=False) if k else None
    edit = wb.rewrite(model, fact, selection, recipe=recipe, pool=dev, progress=False)
    controls = [f for f in wb.known_facts(model, dev.filter(role="control")) if f.id != fact.id]
    report = wb.evaluate(model, edit=edit, controls=controls, pool=dev, answering=answering, progress=False)
    rates = {f"{s}.{n}": r.value for s in report.stages[1:] for n, r in report.rates[s].items()}
    steps = {s: max(h.step for h in edit.history if h.stage == s) for s in edit.stage_names}
    return {"rates": rates, "steps": steps, "seconds_to_fit": edit.provenance["settings"]["seconds_to_fit"]}


def main() -> None:
    """Run the configurations and print one line per fact and one mean line per configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--configs", nargs="*", default=list(CONFIGS))
    parser.add_argument("--extra", default="{}", help="more configurations as JSON: name -> recipe settings")
    parser.add_argument("--out", type=Path, default=Path("out/tune.jsonl"))
    args = parser.parse_args()
    configs = {**CONFIGS, **json.loads(args.extra)}
    model, facts = wb.load_model(), wb.load_facts()
    dev = facts.filter(split="dev")
    answering = Answering(model)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.configs:
        found = []
        for fact in dev_facts(model, facts, args.facts, args.seed):
            began = time.perf_counter()
            try:
                result = run(model, fact, configs[name], dev, answering)
            except ValueError as error:
                print(name, fact.id, "failed:", error, flush=True)
                continue
            found.append(result)
            with args.out.open("a") as file:
                file.write(json.dumps({"config": name, "fact": fact.id, **result}) + "\n")
            shown = {k: round(result["rates"][f"learn.{k}"], 3) for k in SHOWN}
            seconds = time.perf_counter() - began
            print(f"{name:14s} {fact.id:28s} {shown} {result['steps']} {seconds:.0f} s", flush=True)
        means = {k: round(nanmean([r["rates"][f"learn.{k}"] for r in found]), 3) for k in SHOWN}
        print(f"== {name}: {means}", flush=True)


if __name__ == "__main__":
    main()
