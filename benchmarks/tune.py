"""The levers of the edit, one at a time, on dev facts; the defaults were chosen with this, never on test facts.

    python -m benchmarks.tune [--facts 4] [--configs default adam ...] [--seed 0]

Every configuration is one change to the default. Controls are all other known dev facts. Each finished edit is a file,
``benchmarks/results/tune/<configuration>-<fact>.json``; a rerun with the same settings goes on after the last one.
Differences to the default are paired by fact, with a bootstrap over facts.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

import workbench as wb
from benchmarks.edit_quality import head, line, over_facts, plain_rates, rates_of, vars_of
from benchmarks.kept import kept
from workbench.atomic import write_bytes
from workbench.editing import loop
from workbench.editing.batches import Shuffled
from workbench.evaluation.answering import Answering
from workbench.evaluation.metrics import bootstrap
from workbench.types import Rate

Config = dict[str, Any]
SHOWN = ("new", "forget", "cloze_new", "control", "neighbour", "bleed", "gibberish", "kl")
CONFIGS: dict[str, Config] = {
    "default": {},
    "500 neurons": {"k": 500},
    "8000 neurons": {"k": 8000},
    "neurons from layer 16 on": {"lowest": 16},
    "neurons from layer 20 on": {"lowest": 20},
    "AdamW, not natural": {"optimiser": "adam", "learning_rate": 0.04},
    "no hinge": {"hinge": None},
    "no average": {"average": 0},
    "early stop": {"early_stop": 0.8, "hinge": 0.9},
    "gates within [0.5, 1.5]": {"max_gate": 1.5},
    "learn only": {"stages": ("learn",)},
    "stages half as long": {"steps": 0.5},
    "stages twice as long": {"steps": 2.0},
    "steps twice as long": {"learning_rate": 0.06},
    "KL weight 1": {"retain_weight": 1.0},
    "KL weight 16": {"retain_weight": 16.0},
    "retain 24 facts": {"retain_size": 24},
    "retain all facts": {"retain_size": 400},
    "24 retain rows a step": {"retain_batch_size": 24},
    "hard retain rows": {"hard": True},
    "short answers": {"answers": "short"},
    "no contexts": {"contexts": False},
}
"""Changes to the default recipe. Beside its settings: ``k`` neurons, none below layer ``lowest``, ``steps`` a factor,
and ``hard``: half of each retain batch are the rows with the highest KL when last seen."""


def dev_facts(model: wb.LoadedModel, facts: wb.FactSet, n: int, seed: int) -> list[wb.Fact]:
    """Known dev facts by seed, each of another relation; france-capital first."""
    known = list(wb.known_facts(model, facts.filter(split="dev", role="control")))
    random.Random(seed).shuffle(known)
    picked = [facts["france-capital"]]
    for fact in known:
        if fact.relation not in {f.relation for f in picked}:
            picked.append(fact)
    return picked[:n]


@contextmanager
def hard_rows() -> Iterator[None]:
    """Draw half of each retain batch from the rows whose KL was highest when they were last seen."""
    latest: dict[int, float] = {}
    measure, batches = loop.Training._kl, loop.retain_batches

    def measured(training: loop.Training, logits: Sequence[torch.Tensor], rows: Sequence[int]) -> torch.Tensor:
        kl = measure(training, logits, rows)
        parts = kl.detach().split([len(one) for one in logits])
        latest.update((row, float(part.mean())) for row, part in zip(rows, parts, strict=True))
        return kl

    def hardest(near: Sequence[int], far: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
        every = iter(Shuffled([*near, *far], size - size // 2, seed))
        for batch in batches(near, far, size // 2, seed + 7):
            worst = sorted((row for row in latest if row not in batch), key=lambda row: -latest[row])
            rest = [row for row in [*worst, *next(every)] if row not in batch]
            yield [*batch, *dict.fromkeys(rest)][:size]

    loop.Training._kl, loop.retain_batches = measured, hardest
    try:
        yield
    finally:
        loop.Training._kl, loop.retain_batches = measure, batches


def selection_of(model: wb.LoadedModel, fact: wb.Fact, config: Config, dev: wb.FactSet) -> wb.Selection | None:
    """What a configuration says of the selection; None for the default."""
    k, lowest = config.pop("k", None), config.pop("lowest", None)
    if lowest is not None:
        every = wb.default_selection(model, fact, k=20000, pool=dev, progress=False)
        return wb.Selection([c for c in every if c.layer >= lowest][:2000])
    return None if k is None else wb.default_selection(model, fact, k=k, pool=dev, progress=False)


def run(model: wb.LoadedModel, fact: wb.Fact, config: Config, dev: wb.FactSet, answering: Answering) -> dict[str, Any]:
    """One edit and its evaluation on dev controls."""
    options = dict(config)
    selection = selection_of(model, fact, options, dev)
    hard, factor = options.pop("hard", False), options.pop("steps", 1.0)
    stages = options.get("stages", wb.Recipe().stages)
    options["steps"] = tuple(round(factor * steps) for steps in wb.Recipe(stages=stages).stage_steps)
    with hard_rows() if hard else nullcontext():
        edit = wb.rewrite(model, fact, selection, recipe=wb.Recipe(**options), pool=dev, progress=False)
    controls = [
        f
        for f in wb.known_facts(model, dev.filter(role="control"), progress=False).without([fact])
        if f.relation != fact.relation
    ]
    report = wb.evaluate(model, edit=edit, controls=controls, pool=dev, answering=answering, progress=False)
    return {
        "fact": fact.id,
        "rates": plain_rates(report),
        "seconds_to_fit": edit.provenance["settings"]["seconds_to_fit"],
    }


def minus_default(found: dict[str, dict[str, Any]], name: str, rate: str) -> Rate:
    """A configuration's rate minus the default's on the same facts."""
    values = {}
    for fact, one in found[name].items():
        mine, other = rates_of(one)[rate], rates_of(found["default"][fact])[rate]
        if mine.n and other.n:
            values[fact] = [mine.value - other.value]
    return bootstrap(values)


def main() -> None:
    """Run what is not done yet, print Markdown tables, write ``benchmarks/results/tune.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="draws the facts")
    parser.add_argument("--configs", nargs="*", default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tune.json"))
    args = parser.parse_args()
    model, facts = wb.load_model(), wb.load_facts()
    dev = facts.filter(split="dev")
    answering = Answering(model)
    chosen = dev_facts(model, facts, args.facts, args.seed)
    found: dict[str, dict[str, Any]] = {}
    means: dict[str, dict[str, Rate]] = {}
    print(head(SHOWN), flush=True)
    for name in dict.fromkeys(["default", *args.configs]):
        for fact in chosen:
            path = args.out.with_suffix("") / f"{name.replace(' ', '-')}-{fact.id}.json"
            settings = {"recipe": wb.Recipe().to_dict(), "change": CONFIGS[name], "model": model.fingerprint}
            done = kept(path, settings, partial(run, model, fact, CONFIGS[name], dev, answering))
            found.setdefault(name, {})[fact.id] = done
            print(f"<!-- {line(fact.id, rates_of(done), SHOWN)} {done['seconds_to_fit']} s -->", flush=True)
        means[name] = {k: over_facts([*found[name].values()], k) for k in SHOWN}
        print(line(name, means[name], SHOWN), flush=True)
    print(f"\n{head(SHOWN)}")
    summary = {name: {k: minus_default(found, name, k) for k in SHOWN} for name in found if name != "default"}
    for name, rates in summary.items():
        print(line(f"{name}, minus the default", rates, SHOWN))
    content = {
        "facts": [f.id for f in chosen],
        "mean": {n: {k: vars_of(r) for k, r in rates.items()} for n, rates in means.items()},
        "minus_default": {n: {k: vars_of(r) for k, r in rates.items()} for n, rates in summary.items()},
    }
    write_bytes(args.out, json.dumps(content, indent=1).encode())


if __name__ == "__main__":
    main()
