"""How close lenses are to what the bundled model says, layer by layer, on texts that no lens was fitted on.

    python -m benchmarks.lenses [--lenses logit tuned] [--texts 12] [--cached] [--no-probe]

Three lenses: the logit lens, the tuned lens with least squares alone (``steps=0``), and the default. The measure is
KL(the model's next-token distribution || the lens) in nats, and how often both have the same likeliest token. Two sets
of texts: sentences of ordinary prose, and questions of control facts through the chat template with the base's own
replies; neither is fitted on. Tokens that all texts begin with, and the first, do not count. Intervals take texts.
Then the lens probe of the edit on file (``soft_forgetting/``) through the logit and the tuned lens, each with its quick
null: how far P(old) ends below its highest, and how often *pretends to forget* is said where nothing is hidden. The
lenses are fitted anew, for their seconds; ``--cached`` reads them where they were fitted before. Writes
``benchmarks/results/lenses.json`` with the tables of docs/results/lenses.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import torch

import workbench as wb
from benchmarks.lib.code import code_of
from workbench.evaluation.ordinary_text import ordinary_passages
from workbench.facts.ordinary_texts import TextGroup, given_texts
from workbench.files.atomic import write_bytes
from workbench.language.generation import greedy_answers
from workbench.language.padding import common_beginning
from workbench.language.prompts import prompt_ids
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.lens_fit import STEPS
from workbench.types import LensKind, NullGroup
from workbench.types.intervals import mean_over
from workbench.types.lens import row_labels

RESULTS = Path("benchmarks/results/lenses.json")
EDIT = Path("benchmarks/results/soft_forgetting/france-capital/edit")
LENSES = ("logit", "least squares", "tuned")
FITTED = {"least squares": 0, "tuned": STEPS}
"""By lens, the steps after least squares."""
FOLDER = "WORKBENCH_CACHE"
QUESTIONS, REPLY = 40, 12
"""Questions that are asked, and the longest reply in tokens."""
AT_ONCE = 64
"""Tokens whose logits are held at a time."""


def held_out(model: LoadedModel, most: int) -> dict[str, TextGroup]:
    """The sets of texts, at most so many in each: prose, and questions with replies."""
    (prose,) = given_texts(model, [" ".join(passage) for passage in ordinary_passages()][:most], 1_000_000)
    known = wb.known_facts(model, wb.load_facts().filter(role="control"), progress=False)
    asked = [tuple(prompt_ids(model, fact.question, "chat")) for fact in list(known)[: min(QUESTIONS, most)]]
    replies = greedy_answers(model, asked, max_new_tokens=REPLY)
    whole = tuple((*ids, *reply.token_ids) for ids, reply in zip(asked, replies, strict=True))
    return {"prose": prose, "questions": TextGroup(whole, common_beginning(asked))}


def measured(model: LoadedModel, group: TextGroup, lenses: Mapping[str, wb.TunedLens | None]) -> dict[str, Any]:
    """By lens and row, the mean divergence with its interval, and the share of tokens with the same likeliest one."""
    kl: dict[str, list[dict[str, list[float]]]] = {}
    same: dict[str, list[float]] = {}
    with torch.no_grad(), pooled_engine(Resumable, model) as engine:

        def logprobs(states: torch.Tensor) -> torch.Tensor:
            return torch.cat([engine.unembed(part).float().log_softmax(-1) for part in states.split(AT_ONCE)])

        for name in lenses:
            kl[name] = [{} for _ in range(model.shape.n_layers + 1)]
            same[name] = [0.0] * (model.shape.n_layers + 1)
        for number, text in enumerate(group.texts):
            stream = engine.whole_stream(torch.tensor([text]))[0][:, group.shared :]
            wanted = logprobs(stream[-1])
            for name, through in lenses.items():
                states = stream if through is None else through.translated(stream)
                for row, state in enumerate(states):
                    got = logprobs(state)
                    kl[name][row][str(number)] = (wanted.exp() * (wanted - got)).sum(-1).tolist()
                    same[name][row] += int((wanted.argmax(-1) == got.argmax(-1)).sum())
    return {
        name: {
            "kl": [_rate(row) for row in kl[name]],
            "same": [round(count / group.counted, 4) for count in same[name]],
        }
        for name in lenses
    }


def probed(model: LoadedModel) -> dict[str, Any]:
    """What the lens probe finds of the edit on file through each lens, and in its null."""
    edit = wb.load_edit(EDIT)
    out: dict[str, Any] = {}
    for kind in get_args(LensKind):
        report = wb.probe(model, edit, probes="lens", lens=kind, null="quick", progress=False)
        assert report.null is not None
        null, reading = report.null.probes["lens"], report.lens()
        false = null.false_positives
        out[kind] = {
            "verdict": reading.verdict,
            "taken_back": round(null.value, 4),
            "control_taken_back": round(report.lens(group="control").latent("old"), 4),
            "percentiles": {group: null.percentile(group) for group in get_args(NullGroup)},
            "draws": [[draw.group, draw.name, round(draw.value, 4), draw.found] for draw in null.draws],
            "false_positives": {
                "hits": round(false.value * false.n),
                "n": false.n,
                "low": false.low,
                "high": false.high,
            },
        }
        print(f"\n{kind}: {out[kind]}", flush=True)
    return out


def _rate(by_text: dict[str, list[float]]) -> dict[str, float]:
    rate = mean_over(by_text)
    return {"value": round(rate.value, 4), "low": round(rate.low, 4), "high": round(rate.high, 4)}


def table(found: dict[str, Any], labels: list[str]) -> str:
    """A row for each layer: the divergence of every lens, and the agreement of the first and the last."""
    ends = list(dict.fromkeys((next(iter(found)), [*found][-1])))
    heads = [*(f"{name}, nats" for name in found), *(f"{name}, same token" for name in ends)]
    lines = [f"| after | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for row, label in enumerate(labels):
        rates = [found[name]["kl"][row] for name in found]
        cells = [f"{rate['value']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]" for rate in rates]
        cells += [f"{found[name]['same'][row]:.2f}" for name in ends]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Fit, measure, print, write."""
    parser = argparse.ArgumentParser(description="How close lenses are to the bundled model.")
    parser.add_argument("--lenses", nargs="+", choices=LENSES, default=LENSES)
    parser.add_argument("--texts", type=int, default=1_000, help="at most so many of each set")
    parser.add_argument("--cached", action="store_true", help="read lenses from the user's cache, without seconds")
    parser.add_argument("--no-probe", action="store_true", help="without the lens probe")
    asked = parser.parse_args(argv)
    code = code_of(__file__).to_dict()
    model = wb.load_model()
    lenses: dict[str, wb.TunedLens | None] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as empty, patch.dict(os.environ, {} if asked.cached else {FOLDER: empty}):
        for name in asked.lenses:
            began = time.process_time()
            lenses[name] = wb.tuned_lens(model, steps=FITTED[name], progress=False) if name in FITTED else None
            if name in FITTED and not asked.cached:
                seconds[name] = round(time.process_time() - began, 1)
            print(name, lenses[name] or "", f"{seconds[name]} s of a processor" if name in seconds else "", flush=True)
    sets: dict[str, Any] = {}
    for name, group in held_out(model, asked.texts).items():
        found = measured(model, group, lenses)
        sets[name] = {"texts": len(group.texts), "tokens": group.counted, "lenses": found}
        sets[name]["table"] = table(found, list(row_labels(model.shape.n_layers)))
        print(f"\n{name}: {group.counted} tokens of {len(group.texts)} texts\n\n{sets[name]['table']}", flush=True)
    fitted_on = {name: {"tokens": lens.tokens, "held_out": lens.held_out} for name, lens in lenses.items() if lens}
    result: dict[str, Any] = {"code": code, "model": model.fingerprint, "fitted_on": fitted_on, "sets": sets}
    result |= {"seconds": {**seconds, "threads": torch.get_num_threads()}} if seconds else {}
    _write(result)  # what is measured is kept, should the probe not end
    if not asked.no_probe:
        _write({**result, "probe": probed(model)})


def _write(result: dict[str, Any]) -> None:
    write_bytes(RESULTS, json.dumps(result, indent=1, ensure_ascii=False).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
