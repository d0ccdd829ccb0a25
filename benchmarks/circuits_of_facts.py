"""Is the default selection a circuit? Its faithfulness curve beside those of four other rankings, on dev facts.

    nice python -m benchmarks.circuits_of_facts [--facts 5] [--seed 0]

Of each known dev fact (drawn by seed, each of another relation, with enough partners) the nodes are ranked in four ways
on the item with the first partner, and judged on items with other partners, by swap ablation: the clean prompt is the
same, the corrupted run is not. Nodes are all heads and neurons, since the default selection is one of neurons.

* ``default``: what ``wb.rewrite`` trains, in its own order (gain over Fisher information), made on the fact's wordings;
* ``trace``: layers' attention and MLPs by their largest cell in a causal trace;
* ``patching``: exact patching of every head and MLP; an MLP stands for its neurons in order;
* ``eap-ig``: integrated gradients of every head and neuron;
* ``random``: three random orders.

A finished fact is kept in ``benchmarks/results/circuits_of_facts.jsonl.xz``. Intervals are over facts. Writes
``benchmarks/results/circuits_of_facts.json``, with the tables of docs/results/circuits.md.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.lib.code import code_of
from benchmarks.lib.kept import Kept
from workbench.editing.selector import NEURONS
from workbench.files.atomic import write_bytes
from workbench.language.tokens import token_text
from workbench.types import Rate
from workbench.types.faithfulness_curve import SIZES
from workbench.types.intervals import mean_over

KEPT = Path("benchmarks/results/circuits_of_facts.jsonl.xz")
RESULTS = Path("benchmarks/results/circuits_of_facts.json")
JUDGED = 4
"""Items of each fact on which rankings are judged."""
DRAWS = 3
WORDS = {
    "default": "the default selection's order",
    "trace": "the top of a causal trace",
    "patching": "exact patching of heads and MLPs",
    "eap-ig": "EAP-IG of heads and neurons",
    "random": "random nodes",
}


def items_of(model: wb.LoadedModel, fact: wb.Fact, facts: wb.FactSet) -> list[wb.Contrast]:
    """The fact with its first partner, then with others, each swap another one; fewer where fewer fit."""
    found: dict[Any, wb.Contrast] = {}
    for partner in (None, *facts.neighbours(fact)):
        try:
            contrast = wb.Contrast.of(model, fact, pool=facts, partner=partner)
        except ValueError:  # of another length, or with the same answer
            continue
        found.setdefault(tuple(contrast.corrupted or ()), contrast)
        if len(found) == 1 + JUDGED:
            break
    return list(found.values())


def chosen_facts(model: wb.LoadedModel, facts: wb.FactSet, n: int, seed: int) -> dict[str, list[wb.Contrast]]:
    """Known dev facts by seed, each of another relation and with enough partners, with their items."""
    known = list(wb.known_facts(model, facts.filter(split="dev"), progress=False))
    random.Random(seed).shuffle(known)
    found: dict[str, list[wb.Contrast]] = {}
    relations: set[str] = set()
    for fact in known:
        if fact.relation in relations or len(found) == n:
            continue
        items = items_of(model, fact, facts)
        if len(items) == 1 + JUDGED:
            found[fact.id] = items
            relations.add(fact.relation)
    return found


def rankings_of(model: wb.LoadedModel, fact: wb.Fact, item: wb.Contrast, facts: wb.FactSet) -> dict[str, Any]:
    """The four rankings of one fact."""
    every = model.shape.n_layers * model.shape.d_mlp
    traces = wb.causal_trace(model, item, ("attn", "mlp"), metric="logit_diff", progress=False)
    kinds = {"attn": "ATTN", "mlp": "MLP"}
    largest = {site: effects.values.amax(effects.axes.index("position")).tolist() for site, effects in traces.items()}
    return {
        "default": wb.default_selection(model, fact, pool=facts.filter(split="dev"), k=every, progress=False),
        "trace": {f"L{i}{kinds[site]}": value for site, values in largest.items() for i, value in enumerate(values)},
        "patching": wb.attribute(model, item, ("head", "mlp"), method="patching", progress=False),
        "eap-ig": wb.attribute(model, item, ("head", "neuron"), method="ig", progress=False),
    }


def measured(
    model: wb.LoadedModel, fact: wb.Fact, items: Sequence[wb.Contrast], facts: wb.FactSet, neurons: int = NEURONS
) -> dict[str, Any]:
    """The curves of one fact, and what its default selection does by itself beside others of its size."""
    began = time.process_time()
    rankings = rankings_of(model, fact, items[0], facts)
    judged = items[1:]
    curve = wb.faithfulness_curve(model, judged, rankings, random=DRAWS, progress=False)
    chosen = wb.Selection(list(rankings["default"])[:neurons])
    top = [one.component for one in wb.ranked({"neuron": rankings["eap-ig"]["neuron"]}, k=neurons, by="abs")]
    parts = {"default": chosen, "eap-ig": wb.Selection(top), "random": chosen.random_like(model, seed=0)}
    of_parts: dict[str, Any] = {}
    for name, part in parts.items():
        faithful = wb.faithfulness(model, judged, part, minimality=False, progress=False)
        of_parts[name] = {"recovery": faithful.recovery.value, "completeness": faithful.completeness.value}
    return {
        "judged_against": [token_text(model, int(token)) for item in judged for token in item.wrongs],
        "counts": curve.counts,
        "parts": curve.parts,
        "recovery": {name: [rate.value for rate in curve.recovery(name)] for name in curve.rankings},
        "cpr": {name: rate.value for name, rate in curve.cpr.items()},
        "cmd": curve.cmd,
        "neurons": of_parts,
        "cpu_seconds": round(time.process_time() - began),
    }


def over_facts(values: Iterable[tuple[str, float]]) -> Rate:
    """The mean of a value a fact, with an interval over facts."""
    return mean_over({name: [value] for name, value in values})


def cell(rate: Rate) -> str:
    """A mean with its interval."""
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"


def tables(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The tables of the docs: curves, and neurons of the default's number."""
    first = next(iter(found.values()))
    shown = [i for i, size in enumerate(SIZES) if size >= 0.005]
    head = " | ".join(f"{SIZES[i]:.1%} ({first['counts'][i]})" for i in shown)
    curves = [f"| ranking | {head} | CPR | CMD |", "|---" * (len(shown) + 3) + "|"]
    for name in WORDS:
        points = [over_facts((fact, one["recovery"][name][i]) for fact, one in found.items()) for i in shown]
        areas = [over_facts((fact, one[area][name]) for fact, one in found.items()) for area in ("cpr", "cmd")]
        curves.append(f"| {WORDS[name]} | {' | '.join(map(cell, [*points, *areas]))} |")
    alone = ["| 2,000 neurons | recovery, alone | completeness: lost without them |", "|---|---|---|"]
    for name in ("default", "eap-ig", "random"):
        rates = [
            over_facts((fact, one["neurons"][name][what]) for fact, one in found.items())
            for what in ("recovery", "completeness")
        ]
        alone.append(f"| {name} | {' | '.join(map(cell, rates))} |")
    by_fact = [f"| fact | {' | '.join(WORDS)} |", "|---" * (len(WORDS) + 1) + "|"]
    for fact, one in found.items():
        areas = [f"{one['cpr'][name]:.2f} / {one['cmd'][name]:.2f}" for name in WORDS]
        by_fact.append(f"| {fact} | {' | '.join(areas)} |")
    return {"curves": "\n".join(curves), "neurons": "\n".join(alone), "facts": "\n".join(by_fact)}


def main(given: Sequence[str] | None = None) -> None:
    """Measure what is not done yet, print the tables, write them.

    Args:
        given: Arguments; none by default.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="draws the facts")
    parser.add_argument("--kept", type=Path, default=KEPT, help="finished facts")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args([] if given is None else given)
    kept, code = Kept(args.kept, __file__), code_of(__file__).to_dict()
    model, facts = wb.load_model(), wb.load_facts().core
    found: dict[str, dict[str, Any]] = {}
    for name, items in chosen_facts(model, facts, args.facts, args.seed).items():
        settings = {"model": model.fingerprint, "sizes": SIZES, "judged": JUDGED, "draws": DRAWS, "neurons": NEURONS}
        found[name] = kept.measured(name, settings, lambda: measured(model, facts[name], items, facts))  # noqa: B023
        print(f"<!-- {name}: {found[name]['cpu_seconds']} s of processor time -->", flush=True)
    result = {"code": code, "model": model.fingerprint, "seed": args.seed, "facts": list(found)}
    result |= {"judged": JUDGED, "draws": DRAWS, "tables": tables(found)}
    print(*result["tables"].values(), sep="\n\n")
    write_bytes(args.out, json.dumps(result, indent=1, ensure_ascii=False).encode())


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
