"""How fast fitting is beside the HF Trainer, and how long the parts of a default edit take, in one run.

    python -m benchmarks.speed_fit [--repeats N] [--device cpu|cuda] [--dtype float32|bfloat16] [--only step parts ...]

``step``: one batch of all training prompts, the same modules (MLP gates from a third of the depth on), AdamW without
weight decay; the Trainer with PEFT's IA3 on the plain HF model, and the product's loop, in turn; a repeat gives one
ratio, and the table shows the median; their operations are counted too. Both start from gates of 1, and their losses
are compared step by step: a larger difference than the goal's is an error, any other goal that is missed a "no" in the
table.
``parts``: a default edit on a freshly loaded model, with its parts, and its linear maps at the speed of one large
matrix product in the same run: the same rows and steps in the same precision can hardly be faster.
``known``: ``known_facts`` over 400 facts that are on record nowhere, and again from the cache on disk.
``slider``: probabilities of three answers to one prompt at a new strength. ``import``: ``import workbench`` in a new
process. ``memory``: peak memory of a new process that makes the quickstart's calls.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

import workbench as wb
from benchmarks.lib.code import code_of
from benchmarks.lib.timing import PEAK, largest_difference, matrix_speed, met, seconds
from workbench.editing.applied import Dial
from workbench.editing.methods.table import Recipe
from workbench.editing.retain import default_retain
from workbench.editing.training.fit_rows import retain_rows, wanted_rows
from workbench.editing.training.rows import Row, end_of_answer
from workbench.editing.training.sensitivity import fisher_information, gate_gradients
from workbench.facts.training_wordings import training_prompts
from workbench.language.prompts import answer_ids, prompt_ids
from workbench.language.scoring import continuation_probabilities
from workbench.models.deltas.gates import ia3_config
from workbench.models.views import shared_view
from workbench.types import Component, Selection, Step

FACT = "france-capital"
STEPS = 10
RATE = 0.01
KNOWN = 400
STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BASELINE = "A step: the HF Trainer with PEFT's IA3 on the plain HF model, the same rows, modules and optimiser."
APART = "step: largest difference of losses"
GOALS: dict[str, tuple[str, float]] = {
    "step: times faster than the Trainer": ("at least", 3),
    APART: ("at most", 1e-3),
    "parts: whole default edit, s": ("at most", 60),
    "known: 400 facts, cold, s": ("at most", 240),
    "known: 400 facts, cached, s": ("at most", 2),
    "slider: one prompt, s": ("at most", 0.15),
    "import: import workbench, s": ("at most", 0.2),
    "memory: peak of the quickstart's calls, GB": ("at most", 2.5),
}
QUICKSTART = """
import workbench as wb
model, facts = wb.load_model(), wb.load_facts()
fact = facts["france-capital"]
wb.causal_trace(model, fact, form="cloze", progress=False)
wb.attribute(model, fact, unit="head")
edit = wb.rewrite(model, fact, progress=False)
wb.evaluate(model, edit=edit, max_controls=40, progress=False)
"""
IMPORT = "import time; began = time.perf_counter(); import workbench; print(time.perf_counter() - began)"

Found = dict[str, float]


def upper(model: wb.LoadedModel) -> Selection:
    """The MLPs from a third of the depth on."""
    n = model.shape.n_layers
    return Selection([Component(layer, "MLP") for layer in range(n // 3, n)])


def by_trainer(model: wb.LoadedModel, rows: list[Row], selection: Selection, folder: str) -> tuple[list[float], float]:
    """Losses and the median seconds of a step (the first left out) of the HF Trainer with PEFT's IA3."""
    from peft import get_peft_model
    from transformers import Trainer, TrainerCallback, TrainingArguments

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **options: Any) -> None:
            times.append(time.perf_counter())

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in batch)
        fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
        return {k: torch.tensor([r[k] + [v] * (width - len(r[k])) for r in batch]) for k, v in fill.items()}

    data: Any = [
        {
            "input_ids": [*r.prompt, *r.answer],
            "attention_mask": [1] * (len(r.prompt) + len(r.answer)),
            "labels": [-100] * len(r.prompt) + list(r.answer),
        }
        for r in rows
    ]
    peft_model = get_peft_model(shared_view(model.hf), ia3_config(model.architecture, selection.entries(model)))
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=len(rows),
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=0.0,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=model.device.type == "cpu",
    )
    trainer = Trainer(
        model=peft_model,
        args=arguments,
        train_dataset=data,
        data_collator=collate,
        callbacks=[Clock()],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, median_gap(times)


def by_workbench(model: wb.LoadedModel, fact: wb.Fact, rows: int, selection: Selection) -> tuple[list[float], float]:
    """The same of ``rewrite``."""
    times: list[float] = []

    def on_step(step: Step) -> None:
        if step.step < STEPS:  # the last entry comes after the last step
            times.append(time.perf_counter())

    recipe = Recipe(
        stages=("learn",),
        answers="short",
        steps=STEPS,
        optimiser="adam",
        learning_rate=RATE,
        warmup=0,
        average=0,
        batch_size=rows,
        retain_weight=0.0,
        hinge=None,
    )
    edit = wb.rewrite(model, fact, selection, recipe=recipe, on_step=on_step, progress=False)
    return [step.loss for step in edit.history][:STEPS], median_gap(times)


def median_gap(times: list[float]) -> float:
    """Median of the differences after the first."""
    return statistics.median(b - a for a, b in pairwise(times[1:]))


def measure_step(model: wb.LoadedModel, fact: wb.Fact, repeats: int) -> Found:
    """Both ways in turn."""
    answer = (*answer_ids(model, f"{fact.target}.", "chat"), *end_of_answer(model))
    rows = [Row(tuple(prompt_ids(model, q, "chat")), answer) for q in training_prompts(fact)]
    selection, ratios, ours, theirs, apart = upper(model), [], [], [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            expected, slow = by_trainer(model, rows, selection, folder)
        losses, fast = by_workbench(model, fact, len(rows), selection)
        apart.append(largest_difference(expected, losses))
        ratios.append(slow / fast)
        theirs.append(slow)
        ours.append(fast)
    with FlopCounterMode(display=False) as counter, tempfile.TemporaryDirectory() as folder:
        by_trainer(model, rows, selection, folder)
    operations = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        by_workbench(model, fact, len(rows), selection)
    return {
        "step: times faster than the Trainer": statistics.median(ratios),
        APART: largest_difference(apart, [0.0] * repeats),
        "step: Trainer, s": statistics.median(theirs),
        "step: workbench, s": statistics.median(ours),
        "step: rows": len(rows),
        "step: operations of linear maps, times fewer": operations / counter.get_total_flops(),
    }


def measure_parts(model: wb.LoadedModel, fact: wb.Fact) -> Found:
    """A default edit on a model that was asked nothing yet; then the selector's parts alone, for a second model."""
    device, fresh = model.device, wb.load_model(model.hf, tokenizer=model.tokenizer, name=model.name)
    whole, edit = seconds(lambda: wb.rewrite(fresh, fact, progress=False), device)
    settings = edit.provenance["settings"]
    found = {
        "parts: whole default edit, s": whole,
        "parts: retain set and selection, s": settings["seconds_to_select"],
        "parts: rows, Fisher information and stages, s": settings["seconds_to_fit"],
    }
    for stage in edit.stage_names:
        at = [s.seconds for s in edit.history if s.stage == stage and s.seconds]
        found[f"parts: stage {stage}, s"] = at[-1] - at[0]
    fresh = wb.load_model(model.hf, tokenizer=model.tokenizer, name=model.name)
    with FlopCounterMode(display=False) as counter:
        wb.rewrite(fresh, fact, progress=False)
    found["parts: linear maps of the edit, TFLOP"] = counter.get_total_flops() / 1e12
    found["parts: the same at the speed of a large matrix product, s"] = counter.get_total_flops() / matrix_speed(
        device, model.dtype
    )
    fresh = wb.load_model(model.hf, tokenizer=model.tokenizer, name=model.name)
    kept = list(default_retain(fresh, [fact], progress=False))
    neurons = Selection([Component(at, "MLP") for at in range(fresh.shape.n_layers)]).entries(fresh)
    found["parts: answers to training prompts, s"], wanted = seconds(
        lambda: wanted_rows(fresh, [fact], "learn", Recipe()), device
    )
    found["parts: answers to retained questions (shipped), s"], kinds = seconds(
        lambda: retain_rows(fresh, kept, [fact]), device
    )
    found["parts: gradients of the new answer, s"], _ = seconds(lambda: gate_gradients(fresh, wanted, neurons), device)
    found["parts: Fisher information, s"], _ = seconds(lambda: fisher_information(fresh, kinds, neurons, 0), device)
    return found


def measure_known(model: wb.LoadedModel) -> Found:
    """The bundled facts in other words, so that the table that is shipped knows none; then from the cache on disk."""
    facts = wb.FactSet([replace(f, question=f"Do you know this? {f.question}") for f in list(wb.load_facts())[:KNOWN]])
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, WORKBENCH_CACHE=folder):
        cold, _ = seconds(lambda: wb.known_facts(model, facts, progress=False), model.device)
        cached, _ = seconds(lambda: wb.known_facts(model, facts, progress=False), model.device)
    return {"known: 400 facts, cold, s": cold, "known: 400 facts, cached, s": cached}


def measure_slider(model: wb.LoadedModel, fact: wb.Fact) -> Found:
    """The median over strengths, after a first one."""
    recipe = Recipe(stages=("learn",), answers="short", optimiser="adam", retain_weight=0.0, steps=1, contexts=False)
    every = Selection([Component(layer, "MLP") for layer in range(model.shape.n_layers)])  # as low as a default edit
    edit = wb.rewrite(model, fact, every, recipe=recipe, progress=False)
    dial, prompt = Dial(model, edit), prompt_ids(model, fact.question, "chat")
    rows = [(prompt, answer_ids(model, text, "chat")) for text in (fact.answer, fact.target, fact.refusal)]
    times = [
        seconds(lambda s=s: continuation_probabilities(dial.at(s), rows), model.device)[0] for s in (1.0, *STRENGTHS)
    ]
    return {"slider: one prompt, s": statistics.median(times[1:])}


def in_new_process(code: str) -> float:
    """The number that a piece of code prints last."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Run, print a Markdown table, write ``benchmarks/results/speed_fit.json``.

    Raises:
        SystemExit: In float32, losses of both ways that differ by more than the goal allows.
    """
    kinds = ("step", "parts", "known", "slider", "import", "memory")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--only", nargs="+", default=kinds, choices=kinds)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_fit.json"))
    args = parser.parse_args()
    code = code_of(__file__, without=())
    model = wb.load_model(device=args.device, dtype=getattr(torch, args.dtype))
    fact = wb.load_facts()[FACT]
    measures: dict[str, Callable[[], Found]] = {
        "step": lambda: measure_step(model, fact, args.repeats),
        "parts": lambda: measure_parts(model, fact),
        "known": lambda: measure_known(model),
        "slider": lambda: measure_slider(model, fact),
        "import": lambda: {
            "import: import workbench, s": statistics.median(in_new_process(IMPORT) for _ in range(args.repeats))
        },
        "memory": lambda: {"memory: peak of the quickstart's calls, GB": in_new_process(QUICKSTART + PEAK) / 1e9},
    }
    where = {"device": args.device, "dtype": args.dtype, "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    print(f"{BASELINE} {model.name}: {where}\n\n| what | measured | goal | met |\n|---|---|---|---|", flush=True)
    found: Found = {}
    for kind in args.only:
        for name, value in measures[kind]().items():
            found[name] = value
            goal = "{} {:g} | {}".format(*GOALS[name], met(value, *GOALS[name])) if name in GOALS else "|"
            print(f"| {name} | {value:.3g} | {goal} |", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    judged = {name: met(value, *GOALS[name]) for name, value in found.items() if name in GOALS}
    args.out.write_text(
        json.dumps(
            {
                "code": code.to_dict(),
                "baseline": BASELINE,
                "where": where,
                "model": model.fingerprint,
                "found": found,
                "met": judged,
            },
            indent=1,
        )
    )
    if judged.get(APART) == "no" and args.dtype == "float32":
        raise SystemExit(f"Losses differ by {found[APART]:.3g} from the Trainer's.")


if __name__ == "__main__":
    main()
