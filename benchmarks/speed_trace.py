"""How fast tracing is, beside what researchers use today, in one run.

    python -m benchmarks.speed_trace [--repeats N] [--device cpu|cuda] [--dtype float32|bfloat16] [--growth]

Two ways are timed in turn, so that a busy machine slows both; a repeat gives one ratio, and the table shows the median.
Of the slow ways a few cells drawn by seed are timed and scaled to all of them; so are the values that are compared.
The text to trace is found before: both ways are given it. Values that differ by more than 1e-4 in float32 are an error;
a goal that is missed is a "no" in the table.

In bfloat16 the slow way is no truth either. Both are compared with the same rounded weights in float32: the slow way's
distance (root of the mean square) is the noise floor, and ours should be within 1.5 times that.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
from torch import Tensor

import workbench as wb
from benchmarks.lib.code import code_of
from benchmarks.lib.timing import largest_difference, matrix_speed, met, seconds
from benchmarks.slow_trace import MengLoop
from workbench.language.prompts import swapped, traced_prompt
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import TraceSite, causal_trace, default_window
from workbench.tracing.cell_effects import window_of
from workbench.tracing.restoration import Restoration, cone_tokens
from workbench.types.intervals import spearman

SITES: tuple[TraceSite, ...] = ("resid", "mlp", "attn")
SWAPS = ("nineteen-eighty-four-author", "athens-country")
NOISY = ("michael-jordan-sport", "ostrich-class", "acropolis-city", "north-carolina-state-capital")
"""Facts whose clozes have early (the first two) and late subjects."""
SAMPLES = 10
NEAR = 1e-4
"""Largest difference of values in float32."""
GOALS: dict[str, tuple[str, str, float]] = {
    "lens": ("times faster", "at least", 15),
    "heads": ("times faster", "at least", 10),
    "gradient": ("forward passes", "at most", 4),
    "backward": ("backward passes", "exactly", 1),
    "loop": ("fraction of the ceiling", "at least", 0.6),
    "floor": ("times the floor of a matrix product", "at most", 2.5),
}


class Arithmetic:
    """Operations (two for each multiplication) of a model's linear maps and attention."""

    def __init__(self, model: Any) -> None:
        shape = model.shape
        layer = model.hf.get_submodule(f"{model.architecture.family.layers}.0")
        self.layer = 2 * sum(p.numel() for p in layer.parameters() if p.ndim == 2)
        self.head = 2 * shape.d_vocab * shape.d_model
        self.layers, self.width = shape.n_layers, 4 * shape.n_heads * shape.d_head
        self.keys_values = 4 * shape.d_model * shape.n_kv_heads * shape.d_head

    def forward(self, rows: int, tokens: int, heads: int) -> float:
        """Of a whole forward pass with logits at some tokens of each row."""
        return rows * (self.layers * tokens * (self.layer + self.width * tokens / 2) + heads * self.head)

    def cone(self, cells: list[Restoration], samples: int, tokens: int, total: int) -> float:
        """Of what cells must compute, and one clean and the corrupted runs of the tokens that differ. In the last layer
        that is a cell's last token, and keys and values of the others."""
        before = samples * cone_tokens([c for c in cells if c.start < self.layers - 1], self.layers - 1, tokens)
        last = [c for c in cells if c.start < self.layers]
        through = before + samples * len(last) + (1 + samples) * self.layers * tokens
        read = samples * sum(tokens - c.first for c in last) * self.keys_values
        return through * (self.layer + self.width * total / 2) + read + (len(cells) * samples + 1 + samples) * self.head


def forward_speed(model: Any, arithmetic: Arithmetic) -> float:
    """Operations a second of the model's own forward pass on a large batch, logits at the last tokens only."""
    ids = torch.randint(10, 1000, (64, 32), device=model.device)
    with torch.no_grad():
        model.hf(ids[:1])
        took, _ = seconds(lambda: model.hf(ids, logits_to_keep=1), model.device)
    return arithmetic.forward(64, 32, 1) / took


def cells_of(sites: Sequence[TraceSite], n_layers: int, tokens: int) -> list[Restoration]:
    """The cells of a trace with the default window."""
    found = []
    for site in sites:
        width = 1 if site == "resid" else default_window(n_layers)
        for at in range(n_layers):
            found += [Restoration(site, window_of(at, width, n_layers), position) for position in range(tokens)]
    return found


class Swap:
    """One fact and its partner, as TransformerLens' functions take them."""

    def __init__(self, model: Any, facts: Any, name: str) -> None:
        self.model, self.fact = model, facts[name]
        _ = model.bridge  # booted before anything is timed
        first = causal_trace(model, self.fact, form="cloze", corruption="swap", metric="logit_diff", progress=False)
        self.partner = facts[first.prompts[0].partner]
        self.prompt = first.prompts[0]
        self.ids = torch.tensor([self.prompt.token_ids], device=model.device)
        text = traced_prompt(model, self.fact, form="cloze")
        self.corrupted = torch.tensor([swapped(model, self.fact, text, self.partner).token_ids], device=model.device)
        self.start = int((self.ids != self.corrupted).nonzero()[0, 1])
        self.options: dict[str, Any] = {
            "form": "cloze",
            "corruption": "swap",
            "partner": self.partner,
            "metric": "logit_diff",
            "progress": False,
        }

    def lens(
        self, function: Any, hook: str, cells: list[tuple[int, int]], names: list[str]
    ) -> tuple[float, float, Any]:
        """TransformerLens' time for the clean run, for these cells, and their values (not minus the baseline)."""

        def difference(logits: Tensor) -> Tensor:
            return logits[0, -1, self.prompt.answer_id].float() - logits[0, -1, self.prompt.other_id].float()

        device = self.model.device
        with torch.no_grad():
            record = lambda: self.model.bridge.run_with_cache(self.ids, names_filter=lambda n: n.endswith(hook))  # noqa: E731
            clean, (_, cache) = seconds(record, device)
            options = {"index_axis_names": None, "index_df": pd.DataFrame(cells, columns=names)}
            took, values = seconds(
                lambda: function(self.model.bridge, self.corrupted, cache, difference, **options), device
            )
        return clean, took, values.flatten()


def agreement(ours: Sequence[float], slow: Sequence[float], exact: Sequence[float]) -> dict[str, float]:
    """How near the values of both ways are; with ``exact`` ones (for bfloat16), how far both are from those."""
    if not exact:
        return {"largest difference": largest_difference(ours, slow)}

    def apart(values: Sequence[float]) -> float:
        return statistics.fmean((a - b) ** 2 for a, b in zip(values, exact, strict=True)) ** 0.5

    found = {"distance of ours to float32": apart(ours), "noise floor: distance of the peer's": apart(slow)}
    within = "yes" if apart(ours) <= 1.5 * apart(slow) else "no"
    return found | {"rank correlation": spearman(ours, slow), "ours at most 1.5 times the floor": within}


def against_lens(
    swap: Swap, kind: str, repeats: int, drawn: int, rng: random.Random, exact: Any | None
) -> dict[str, Any]:
    """Ratio of TransformerLens' time to ours, and how the values of the cells drawn agree."""
    from transformer_lens.patching import get_act_patch_attn_head_out_all_pos, get_act_patch_resid_pre

    model = swap.model
    width = len(swap.prompt.token_ids) if kind == "resid" else model.shape.n_heads
    every = model.shape.n_layers * width
    # Drawn where the effects are not 0 by construction; a peer's cell takes as long anywhere.
    first = swap.start if kind == "resid" else 0
    compared = [(layer, at) for layer in range(model.shape.n_layers) for at in range(first, width)]
    ratios, ours, theirs = [], [], []
    measured: list[tuple[float, float]] = []
    truth: list[float] = []

    def ours_of(one: Any) -> Any:
        if kind == "resid":
            return causal_trace(one, swap.fact, **swap.options)
        return attribute(one, swap.fact, method="patching", **swap.options)

    precise = None if exact is None else ours_of(exact)
    for _ in range(repeats):
        took, found = seconds(lambda: ours_of(model), model.device)
        if kind == "resid":
            cells, names = rng.sample(compared, drawn), ["layer", "pos"]
            clean, part, values = swap.lens(get_act_patch_resid_pre, "hook_resid_pre", cells, names)
        else:
            cells, names = rng.sample(compared, drawn), ["layer", "head"]
            clean, part, values = swap.lens(get_act_patch_attn_head_out_all_pos, "hook_z", cells, names)
        slow = clean + part * every / drawn
        ratios.append(slow / took)
        ours.append(took)
        theirs.append(slow)
        measured += [(float(found.values[c]) + found.corrupted, float(v)) for c, v in zip(cells, values, strict=True)]
        truth += [] if precise is None else [float(precise.values[c]) + precise.corrupted for c in cells]
    return {
        "fact": swap.fact.id,
        "tokens": len(swap.prompt.token_ids),
        "subject at": swap.start,
        "cells": every,
        "cells compared": len(measured),
        "seconds": statistics.median(ours),
        "peer's seconds": statistics.median(theirs),
        "times faster": statistics.median(ratios),
        **agreement([a for a, _ in measured], [b for _, b in measured], truth),
    }


def against_loop(
    model: Any, fact: Any, repeats: int, drawn: int, rng: random.Random, exact: Any | None
) -> dict[str, Any]:
    """Our trace of three sites against the loop of Meng et al., and both against what the cone allows."""
    arithmetic = Arithmetic(model)
    prompt = traced_prompt(model, fact, form="cloze")
    total, start = len(prompt.token_ids), prompt.subject[0]
    loop = MengLoop(model, prompt, samples=SAMPLES)
    cells = cells_of(SITES, model.shape.n_layers, total - start)
    n_cells = len(SITES) * model.shape.n_layers * total
    cone = arithmetic.cone(cells, SAMPLES, total - start, total)
    whole = n_cells * arithmetic.forward(1 + SAMPLES, total, total)
    ratios, fractions, floors, ours = [], [], [], []
    measured: list[tuple[float, float]] = []
    truth: list[float] = []
    options: dict[str, Any] = {"form": "cloze", "samples": SAMPLES, "progress": False}
    precise = None if exact is None else causal_trace(exact, fact, SITES, **options)
    for _ in range(repeats):
        large = forward_speed(model, arithmetic)
        matrix = matrix_speed(model.device, model.dtype)
        took, found = seconds(lambda: causal_trace(model, fact, SITES, **options), model.device)
        picks: list[tuple[TraceSite, int, int]] = [
            (rng.choice(SITES), rng.randrange(model.shape.n_layers), rng.randrange(start, total)) for _ in range(drawn)
        ]
        part, values = seconds(lambda picks=picks: [loop.cell(*pick) for pick in picks], model.device)
        matrix = (matrix + matrix_speed(model.device, model.dtype)) / 2
        large = (large + forward_speed(model, arithmetic)) / 2
        slow = part * n_cells / drawn
        ceiling = whole / cone * large / (whole / slow)
        ratios.append(slow / took)
        fractions.append(slow / took / ceiling)
        floors.append(took / (cone / matrix))
        ours.append(took)
        measured += [(float(found[s].values[at, i]), value) for (s, at, i), value in zip(picks, values, strict=True)]
        truth += [] if precise is None else [float(precise[s].values[at, i]) for s, at, i in picks]
    return {
        "fact": fact.id,
        "tokens": total,
        "subject at": start,
        "cells": n_cells,
        "seconds": statistics.median(ours),
        "times faster": statistics.median(ratios),
        "arithmetic saved": whole / cone,
        "fraction of the ceiling": statistics.median(fractions),
        "times the floor of a matrix product": statistics.median(floors),
        **agreement([a for a, _ in measured], [b for _, b in measured], truth),
    }


def gradient(model: Any, fact: Any, corrupted: str, options: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Gradient attribution for heads, MLPs and neurons together, in forward passes of the same text: as the model is
    called, with logits at every token, and with those of the last one only, which are all that a trace needs."""
    prompt = traced_prompt(model, fact, form="cloze")
    ids = torch.tensor([prompt.token_ids], device=model.device)
    units: dict[str, list[float]] = {"forward passes": [], "forward passes with one token's logits": []}
    kept = dict(zip(units, (0, 1), strict=True))
    backwards = mock.Mock(side_effect=torch.autograd.grad)
    for _ in range(repeats):
        with torch.no_grad(), mock.patch.object(torch.autograd, "grad", backwards):
            before = {
                name: seconds(lambda n=n: model.hf(ids, logits_to_keep=n), model.device)[0] for name, n in kept.items()
            }
            took, _ = seconds(lambda: attribute(model, fact, ("head", "mlp", "neuron"), **options), model.device)
            after = {
                name: seconds(lambda n=n: model.hf(ids, logits_to_keep=n), model.device)[0] for name, n in kept.items()
            }
        for name, found in units.items():
            found.append(2 * took / (before[name] + after[name]))
    return {
        "fact": fact.id,
        "corrupted by": corrupted,
        "tokens": len(prompt.token_ids),
        "subject at": prompt.subject[0],
        **{name: statistics.median(found) for name, found in units.items()},
        "backward passes": backwards.call_count / repeats,
    }


def gradients(model: Any, facts: Any, swaps: list[Swap], repeats: int) -> list[dict[str, Any]]:
    """A corrupted run by a swap, and by noise: a run for each sample."""
    rows = [gradient(model, s.fact, "swap", s.options, repeats) for s in swaps]
    for name in (NOISY[0], NOISY[2]):
        for samples in (1, 4):
            options = {"form": "cloze", "corruption": "noise", "samples": samples, "progress": False}
            rows.append(gradient(model, facts[name], f"noise, {samples} sample(s)", options, repeats))
    return rows


def judged(rows: list[dict[str, Any]], *goals: str) -> list[dict[str, Any]]:
    """Rows with a column for each goal: whether it is met."""
    for row in rows:
        for name in goals:
            column, kind, level = GOALS[name]
            row[f"{column} {kind} {level:g}"] = met(row[column], kind, level)
    return rows


def markdown(result: dict[str, Any]) -> str:
    """The tables that the README and docs/results/speed.md quote."""
    lines = [f"{result['baseline']}.", ""]
    for title, rows in result["tables"].items():
        columns = list(rows[0])
        lines += [f"**{title}**", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(_shown(row[c]) for c in columns) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main(given: Sequence[str] | None = None) -> None:
    """Run, print Markdown tables, write ``benchmarks/results/speed_trace.json``.

    Args:
        given: Arguments; those of the command line by default.

    Raises:
        SystemExit: In float32, values that differ by more than ``NEAR``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--drawn", type=int, default=12, help="cells of the slow ways that are timed in a repeat")
    parser.add_argument("--only", nargs="*", default=["lens", "heads", "gradient", "loop"])
    parser.add_argument("--swaps", nargs="+", default=SWAPS, metavar="FACT", help="facts of the traces by swap")
    parser.add_argument("--noisy", nargs="+", default=NOISY, metavar="FACT", help="facts of the noise trace")
    parser.add_argument("--growth", action="store_true", help="also time and memory on random models of growing size")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_trace.json"))
    args = parser.parse_args(given)
    code = code_of(__file__)
    model = wb.load_model(device=args.device, dtype=getattr(torch, args.dtype))
    exact = None
    if args.dtype != "float32":
        exact = wb.load_model(copy.deepcopy(model.hf).float(), tokenizer=model.tokenizer, name=f"{model.name}, float32")
    facts, rng = wb.load_facts(), random.Random(0)
    swaps = [Swap(model, facts, name) for name in args.swaps] if {"lens", "heads", "gradient"} & set(args.only) else []
    tables: dict[str, list[dict[str, Any]]] = {}
    if "lens" in args.only:
        rows = [against_lens(s, "resid", args.repeats, args.drawn, rng, exact) for s in swaps]
        title = "Residual trace, swap, against TransformerLens' get_act_patch_resid_pre on its bridge"
        tables[title] = judged(rows, "lens")
    if "heads" in args.only:
        rows = [against_lens(s, "head", args.repeats, args.drawn, rng, exact) for s in swaps]
        title = "Every head by exact patching, against get_act_patch_attn_head_out_all_pos on its bridge"
        tables[title] = judged(rows, "heads")
    if "gradient" in args.only:
        rows = gradients(model, facts, swaps, 3 * args.repeats)
        title = "Gradient attribution of all heads, MLPs and neurons, in forward passes of the plain HF model"
        tables[title] = judged(rows, "gradient", "backward")
    if "loop" in args.only:
        rows = [against_loop(model, facts[name], args.repeats, args.drawn, rng, exact) for name in args.noisy]
        title = f"Noise trace, {SAMPLES} samples, three sites, against the loop of Meng et al. on the plain HF model"
        tables[title] = judged(rows, "loop", "floor")
    if args.growth:
        from benchmarks.growth import growth

        tables |= growth(torch.device(args.device), getattr(torch, args.dtype))
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    result = {
        "code": code.to_dict(),
        "baseline": f"{model.name}, {args.dtype}, {where}; medians of {args.repeats} ratios; of the slow ways "
        f"{args.drawn} cells a repeat, scaled to all",
        "cores": os.cpu_count(),
        "tables": tables,
    }
    print(markdown(result))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1))
    far = [r["fact"] for rows in tables.values() for r in rows if not r.get("largest difference", 0) <= NEAR]
    if far:
        raise SystemExit(f"Values differ by more than {NEAR:g} from the slow way's on {far}.")


if __name__ == "__main__":
    main()
