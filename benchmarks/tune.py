"""The levers of the edit, one at a time, on dev facts; the defaults were chosen with this, never on test facts.

    python -m benchmarks.tune [--facts 3] [--configs "early stop" ...] [--seed 0] [--ids sodium-symbol ...]

Every configuration is one change to the default; without ``--configs`` those of ``PAGE`` are measured. Controls are the
known dev facts of other relations with the role ``control``. Each finished edit is a line of
``benchmarks/results/tune.jsonl.xz``, named ``<configuration>-<fact>``; a rerun with the same settings goes on after the
last one.
Differences to the default are paired by fact, with a bootstrap over facts (never narrower than Student's t).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import workbench as wb
from benchmarks.lib.kept import Kept, defaults
from benchmarks.lib.rates import NO_SHARES, head, line, over_facts, plain_rates, plain_texts, rates_of, told, vars_of
from workbench.editing.retain import default_retain
from workbench.editing.selector import NEURONS, selection_facts
from workbench.editing.training.fit_rows import FitRows
from workbench.evaluation.answering import Answering
from workbench.files.atomic import write_bytes
from workbench.types import GateDelta, Rate
from workbench.types.intervals import paired_difference

Config = dict[str, Any]
RANKED = 20_000
SHOWN = ("new", "forget", "cloze_new", "control", "neighbour", "bleed", "gibberish", "kl")
QUICK: Config = {"times": (0.4, 24 / 26), "batch_size": 6, "retain_batch_size": 8, "fisher_wordings": 1}
CONFIGS: dict[str, Config] = {
    "default": {},
    "random neurons": {"by": "random"},
    "neurons by attribution minus controls'": {"by": "contrast"},
    "500 neurons": {"k": 500},
    "8000 neurons": {"k": 8000},
    "20000 neurons": {"k": 20_000},
    "8000 neurons, learn twice as long": {"k": 8000, "times": (1, 2)},
    "neurons from layer 8 on": {"lowest": 8},
    "neurons from layer 16 on": {"lowest": 16},
    "neurons from layer 20 on": {"lowest": 20},
    "neurons of the ten layers with the largest MLP effect": {"traced": 10},
    "AdamW, not natural": {"optimiser": "adam", "learning_rate": 0.04},
    "steps of twice the length": {"learning_rate": 0.06},
    "half as many steps, twice the length": {"times": (0.5, 0.5), "learning_rate": 0.06, "average": 6},
    "batches of 6 and 8 rows": {"batch_size": 6, "retain_batch_size": 8},
    "not drawn back": {"draw_back": None},
    "drawn back to 0.75": {"draw_back": 0.75},
    "gates within [0.5, 1.5]": {"max_gate": 1.5},
    "the 500 gates that moved most": {"keep": 500},
    "no hinge": {"hinge": None},
    "no average": {"average": 0},
    "early stop": {"early_stop": 0.8, "hinge": 0.9},
    "stop once p is 0.9 and the KL 0.02": {"both": (0.9, 0.02), "average": 0, "draw_back": None},
    "learn only": {"stages": ("learn",)},
    "unlearn by gradient difference": {"objective": "gradient-difference"},
    "unlearn by NPO": {"objective": "npo"},
    "unlearn by SimNPO": {"objective": "simnpo"},
    "stages half as long": {"times": (0.5, 0.5)},
    "4 and 26 steps": {"times": (0.4, 1)},
    "stages twice as long": {"times": (2, 2)},
    "learn twice as long, to repair": {"times": (1, 2)},
    "10 and 36 steps": {"times": (1, 1.4)},
    "KL weight 1": {"retain_weight": 1.0},
    "KL weight 16": {"retain_weight": 16.0},
    "KL on the question too": {"kl_on": "whole text"},
    "KL on the answer's first token": {"kl_on": "first token"},
    "retain 24 facts": {"retain_size": 24},
    "retain all facts": {"retain_size": 400},
    "retain no neighbours": {"near": False},
    "24 retain rows a step": {"retain_batch_size": 24},
    "hard retain rows": {"retain_draw": "half hardest"},
    "quick": QUICK,
    "quick, from layer 7 on": {**QUICK, "lowest": 7},
    "quicker": {**QUICK, "times": (0.4, 16 / 26), "average": 8},
    "short answers": {"answers": "short"},
    "no contexts": {"contexts": False},
    "ends not taught": {"end_below": 0.0},
}
"""Changes to the default recipe. Beside its settings: ``k`` neurons, none below layer ``lowest`` or outside the
``traced`` layers in which restoring the MLP helps most, chosen ``by`` something else; stages so many ``times`` as long;
``near`` False leaves neighbours out of the retain set; the edit is taken at the first step at which ``both`` the new
answer and the KL are so good; of its gates ``keep`` stay. A learn stage that is longer repairs: what is learned pushes
no further, only the KL does."""
CHANGES_RANKING = ("end_below", "fisher_wordings")
"""Settings with which neurons are ranked otherwise."""

PAGE = (
    "neurons by attribution minus controls'",
    "500 neurons",
    "8000 neurons",
    "neurons from layer 8 on",
    "neurons of the ten layers with the largest MLP effect",
    "retain 24 facts",
    "retain no neighbours",
    "hard retain rows",
    "KL on the question too",
    "KL on the answer's first token",
    "AdamW, not natural",
    "the 500 gates that moved most",
    "gates within [0.5, 1.5]",
    "not drawn back",
    "stop once p is 0.9 and the KL 0.02",
    "early stop",
    "learn only",
    "4 and 26 steps",
    "learn twice as long, to repair",
    "batches of 6 and 8 rows",
)
PAGE_RATES = {"new": "new", "forget": "forgotten", "control": "controls", "kl": "KL"}


def dev_facts(model: wb.LoadedModel, facts: wb.FactSet, n: int, seed: int) -> list[wb.Fact]:
    """Known dev facts by seed, each of another relation; france-capital first."""
    known = list(wb.known_facts(model, facts.filter(split="dev", role="control")))
    random.Random(seed).shuffle(known)
    picked = [facts["france-capital"]]
    for fact in known:
        if fact.relation not in {f.relation for f in picked}:
            picked.append(fact)
    return picked[:n]


def dev_controls(model: wb.LoadedModel, dev: wb.FactSet, fact: wb.Fact) -> list[wb.Fact]:
    """All known dev controls of other relations than a fact's."""
    known = wb.known_facts(model, dev.filter(role="control"), progress=False)
    return [f for f in known.without([fact]) if f.relation != fact.relation]


def chosen_neurons(
    model: wb.LoadedModel, fact: wb.Fact, options: Config, ranked: list[wb.Component], dev: wb.FactSet
) -> wb.Selection:
    """What a configuration says of the selection, taken out of its options; ``ranked`` are neurons, best first."""
    k, lowest, by = options.pop("k", NEURONS), options.pop("lowest", 0), options.pop("by", None)
    traced = options.pop("traced", None)
    if by == "random":
        return wb.Selection(ranked[:k]).random_like(model, seed=0, where="same-layers")
    if by == "contrast":
        contrast = wb.contrast_facts(model, fact, pool=dev, progress=False)
        effect = wb.attribute(model, fact, "neuron", contrast=contrast, pool=dev, progress=False)
        return effect.top(k)
    layers = set(range(lowest, model.shape.n_layers))
    if traced is not None:
        effect = wb.attribute(model, fact, "mlp", pool=dev, progress=False).values
        layers &= set(effect.argsort(descending=True)[:traced].tolist())
    within = [c for c in ranked if c.layer in layers][:k]
    assert len(within) == k, f"of the best {len(ranked)} neurons only {len(within)} are in layers {sorted(layers)}"
    return wb.Selection(within)


def once_both(new: float, kl: float) -> Callable[[wb.Edit], bool]:
    """Whether the newest step that was measured gives the new answer and holds the KL."""

    def stop(edit: wb.Edit) -> bool:
        last = edit.history[-1]
        return last.p_new is not None and last.p_new >= new and last.kl <= kl

    return stop


def pruned(edit: wb.Edit, keep: int) -> wb.Edit:
    """The edit with the gates that moved most, the others 1."""
    whole = edit.delta()
    assert isinstance(whole, GateDelta)
    changes = {place: (gate - 1).abs() for place, gate in whole.gates.items()}
    least = float(torch.cat([*changes.values()]).topk(keep).values[-1])
    moved = {place: change >= least for place, change in changes.items()}
    stages = []
    for stage in edit.stages:
        assert isinstance(stage.delta, GateDelta)
        gates = {place: torch.where(moved[place], gate, 1.0) for place, gate in stage.delta.gates.items()}
        stages.append(replace(stage, delta=GateDelta(gates)))
    return replace(edit, stages=tuple(stages))


class Tuning:
    """Edits of dev facts with changes to the default; the ranking of neurons, which most changes share, is made once
    a fact.

    Args:
        model: The base model.
        dev: The dev facts: neighbours and controls come from them.
    """

    def __init__(self, model: wb.LoadedModel, dev: wb.FactSet) -> None:
        self.model, self.dev, self.answering = model, dev, Answering(model)
        self._ranked: dict[tuple[str, wb.Recipe], list[wb.Component]] = {}

    def run(self, fact: wb.Fact, config: Config) -> dict[str, Any]:
        """One edit and its evaluation on dev controls."""
        edit = self._edit(fact, dict(config))
        report = wb.evaluate(
            self.model,
            edit=edit,
            stages=("learn",),
            controls=dev_controls(self.model, self.dev, fact),
            pool=self.dev,
            answering=self.answering,
            progress=False,
        )
        seconds = edit.provenance["settings"]["seconds_to_fit"]
        done = {"fact": fact.id, "rates": plain_rates(report), "learned": edit.learned, "seconds_to_fit": seconds}
        return done | plain_texts(report)

    def ranked(self, fact: wb.Fact, recipe: wb.Recipe) -> list[wb.Component]:
        """Neurons for a recipe, best first."""
        model, dev = self.model, self.dev
        if (fact.id, recipe) not in self._ranked:
            spared = selection_facts(model, [fact], pool=dev, seed=recipe.seed, progress=False)
            rows = FitRows(model, [fact], recipe, selection_facts=spared)
            best = wb.default_selection(model, fact, k=RANKED, rows=rows, progress=False)
            self._ranked[fact.id, recipe] = list(best)
        return self._ranked[fact.id, recipe]

    def _edit(self, fact: wb.Fact, options: Config) -> wb.Edit:
        model, dev = self.model, self.dev
        ranking = wb.Recipe(**{name: options[name] for name in CHANGES_RANKING if name in options})
        selection = chosen_neurons(model, fact, options, self.ranked(fact, ranking), dev)
        near, times = options.pop("near", True), options.pop("times", None)
        both, keep = options.pop("both", None), options.pop("keep", None)
        recipe = wb.Recipe(**options)
        if times is not None:
            lengths = zip(recipe.stage_steps, times, strict=True)
            recipe = replace(recipe, steps=tuple(round(steps * factor) for steps, factor in lengths))
        pool = dev if near else wb.FactSet([f for f in dev if f.relation != fact.relation], name="dev, no neighbours")
        retain = default_retain(model, [fact], pool=pool, size=recipe.retain_size, seed=recipe.seed, progress=False)
        stop = None if both is None else once_both(*both)
        edit = wb.rewrite(model, fact, selection, recipe=recipe, retain=retain, pool=dev, stop=stop, progress=False)
        return edit if keep is None else pruned(edit, keep)


def short_name(config: str) -> str:
    """A configuration's name in letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", config.lower()).strip("-")


def minus_default(found: dict[str, dict[str, Any]], name: str, rate: str) -> Rate:
    """A configuration's rate minus the default's on the same facts."""
    mine: dict[str, list[float]] = {}
    other: dict[str, list[float]] = {}
    for fact, one in found[name].items():
        pair = rates_of(one)[rate], rates_of(found["default"][fact])[rate]
        if all(r.n for r in pair):
            mine[fact], other[fact] = ([r.value] for r in pair)
    return paired_difference(mine, other, within=(-math.inf, math.inf) if rate in NO_SHARES else (-1.0, 1.0))


def page(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """A short table in Markdown: of each configuration the rates on every fact, with their intervals."""
    facts = list(found["default"])
    lines = [f"| | {' | '.join(f'{fact}: {rate}' for fact in facts for rate in PAGE_RATES.values())} |"]
    lines.append("|" + "---|" * (len(facts) * len(PAGE_RATES) + 1))
    for name, results in found.items():
        cells = [page_cell(results[fact], rate) if fact in results else "-" for fact in facts for rate in PAGE_RATES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page_cell(result: dict[str, Any], rate: str) -> str:
    """One rate of one edit; "-" where nothing was asked."""
    found = rates_of(result)[rate]
    return told(vars_of(found), digits=3 if rate in NO_SHARES else 2) if found.n else "-"


def main() -> None:
    """Run what is not done yet, print Markdown tables, write ``benchmarks/results/tune.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="draws the facts")
    parser.add_argument("--ids", nargs="+", default=None, help="these dev facts, not drawn ones (give --out too)")
    parser.add_argument("--configs", nargs="*", default=PAGE, choices=list(CONFIGS))
    parser.add_argument("--kept", type=Path, default=Path("benchmarks/results/tune.jsonl.xz"), help="finished edits")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tune.json"))
    args = parser.parse_args()
    kept = Kept(args.kept, __file__)
    model, facts = wb.load_model(), wb.load_facts()
    dev = facts.core.filter(split="dev")
    tuning = Tuning(model, dev)
    chosen = [dev[id] for id in args.ids] if args.ids else dev_facts(model, facts, args.facts, args.seed)
    found: dict[str, dict[str, Any]] = {}
    means: dict[str, dict[str, Rate]] = {}
    print(head(SHOWN), flush=True)
    for name in dict.fromkeys(["default", *args.configs]):
        for fact in chosen:
            settings = {**defaults(model), "change": CONFIGS[name]}
            make = partial(tuning.run, fact, CONFIGS[name])
            done = kept.measured(f"{short_name(name)}-{fact.id}", settings, make)
            found.setdefault(name, {})[fact.id] = done
            print(f"<!-- {line(fact.id, rates_of(done), SHOWN)} {done['seconds_to_fit']} s -->", flush=True)
        means[name] = {k: over_facts([*found[name].values()], k) for k in SHOWN}
        print(line(name, means[name], SHOWN), flush=True)
    print(f"\n{head(SHOWN)}")
    summary = {name: {k: minus_default(found, name, k) for k in SHOWN} for name in found if name != "default"}
    for name, rates in summary.items():
        print(line(f"{name}, minus the default", rates, SHOWN))
    print(f"\n{page(found)}")
    content = {
        "code": kept.code.to_dict(),
        "facts": [f.id for f in chosen],
        "mean": {n: {k: vars_of(r) for k, r in rates.items()} for n, rates in means.items()},
        "minus_default": {n: {k: vars_of(r) for k, r in rates.items()} for n, rates in summary.items()},
    }
    write_bytes(args.out, json.dumps(content, indent=1).encode())


if __name__ == "__main__":
    main()
