"""Which neurons to give gates: selectors compared by what they can do to first order, on dev facts.

    python -m benchmarks.selectors [--facts 10]

A selector's neurons are moved along the fit's first direction (the gradient of the new answer on the training prompts,
divided by the Fisher information of retained answers). The figure of merit is the rise of log P(new answer) on the
fact's held-out questions, in nats, for each square root of a nat of KL that the same move costs control facts (half the
mean over drawn answers of the squared score; all dev control facts but the edited one). Larger is better.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import workbench as wb
from benchmarks.tune import dev_facts
from workbench.editing.retain import default_retain
from workbench.editing.selector import NEURONS, RETAINED, gate_scores
from workbench.editing.training.fit_rows import retain_rows, wanted_rows
from workbench.editing.training.sensitivity import DAMPING, fisher_information, gate_gradients
from workbench.types import Component, Selection
from workbench.types.intervals import mean_over

K = (500, NEURONS, 8000)


def first_move(gain: Tensor, fisher: Tensor, picked: Tensor) -> Tensor:
    """The first step of a natural gradient over the picked gates, up to its length."""
    return torch.where(picked, gain / (fisher + DAMPING * fisher[picked].mean()), torch.zeros(()))


def merit(move: Tensor, held: Tensor, controls: Tensor) -> float:
    """Nats gained on held-out questions per square root of a nat of KL on control facts."""
    return float(held @ move / (controls @ move).square().mean().div(2).sqrt())


def largest(scores: Tensor, k: int) -> Tensor:
    """Where the k largest scores are."""
    return torch.zeros_like(scores, dtype=torch.bool).index_fill(0, scores.topk(k).indices, True)


def main() -> None:
    """Run, print a Markdown table, write ``benchmarks/results/selectors.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/selectors.json"))
    args = parser.parse_args()
    model, facts = wb.load_model(), wb.load_facts()
    dev = facts.core.filter(split="dev")
    neurons = Selection([Component(at, "MLP") for at in range(model.shape.n_layers)]).entries(model)
    draw = torch.Generator().manual_seed(args.seed)
    others = list(wb.known_facts(model, dev.filter(role="control"), progress=False))
    rows = [retain_rows(model, [f], [])[1] for f in others]
    cost = gate_gradients(model, [r for one in rows for r in one], neurons, draw=draw)
    of = [f.id for f, one in zip(others, rows, strict=True) for _ in one]
    found: dict[str, dict[str, list[float]]] = {}
    for fact in dev_facts(model, facts, args.facts, args.seed):
        asked = replace(fact, question=fact.heldout[0], paraphrases=fact.heldout[1:], heldout=())
        recipe = wb.Recipe()
        gain = gate_gradients(model, wanted_rows(model, [fact], "learn", recipe), neurons).mean(0)
        held = wanted_rows(model, [asked], "learn", replace(recipe, contexts=False))
        held_gain = gate_gradients(model, held, neurons).mean(0)
        kept = list(default_retain(model, [fact], pool=dev, size=RETAINED, progress=False))
        fisher = fisher_information(model, retain_rows(model, kept, [fact]), neurons, args.seed)
        contrast = wb.contrast_facts(model, fact, pool=dev, progress=False)
        effect = wb.attribute(model, fact, "neuron", contrast=contrast, pool=dev, progress=False)
        scores = {
            "gain / root of Fisher information (default)": gate_scores(model, fact, pool=dev, progress=False).flatten(),
            "gain alone": gain.abs(),
            "attribution minus controls'": effect.values.flatten(),
            "random": torch.rand(len(gain), generator=torch.Generator().manual_seed(args.seed)),
        }
        rest = cost[[i != fact.id for i in of]]
        for name, score in scores.items():
            for k in K:
                value = merit(first_move(gain, fisher, largest(score, k)), held_gain, rest)
                found.setdefault(f"{name}, {k}", {})[fact.id] = [value]
        print(f"<!-- {fact.id} -->", flush=True)
    print(
        "| selector, neurons | nats per root of a nat, mean (95% interval over facts) | geometric mean |\n|---|---|---|"
    )
    table = {}
    for name, values in found.items():
        rate = mean_over(values)
        middle = math.exp(sum(math.log(max(v, 0.01)) for (v,) in values.values()) / len(values))
        table[name] = {"mean": rate.value, "low": rate.low, "high": rate.high, "n": rate.n, "geometric": middle}
        print(f"| {name} | {rate.value:.1f} ({rate.low:.1f} to {rate.high:.1f}) | {middle:.1f} |")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"table": table, "by fact": found}, indent=1))


if __name__ == "__main__":
    main()
