"""Peak memory of a trace, an attribution and a fit beside the forward pass's, on a model of Qwen2.5-0.5B's exact shape.

    python -m benchmarks.memory [--dtype float32|bfloat16] [--out FILE]

The weights are random, so nothing has to be downloaded, and memory does not depend on what they are. The tokenizer has
a word for each of the model's tokens. Each computation runs in a process of its own; what is measured is its largest
resident set minus what it was with the loaded model and one token read, which includes the weights. ``wb.estimate``
stands beside it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config
from transformers.initialization import no_init_weights
from transformers.models.qwen2 import Qwen2ForCausalLM

import workbench as wb
from benchmarks.lib.code import code_of
from workbench.language.generation import generate
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet

QWEN2_5_05B = Qwen2Config(
    vocab_size=151936,
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    max_position_embeddings=32768,
    rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
    bos_token_id=151643,
    eos_token_id=151645,
)
"""As its config.json has it: 494,032,768 parameters."""
TOKENS = 16
"""Of the text that is read, and of the traced one."""
SUBJECT = 12
"""Where the subject begins. What is traced is from there on; a batch is as large as it may be all the same."""
SAMPLES = {"trace": 4, "attribute": 2}
RETAINED = 4
"""Facts that stay as they are in the fit."""
WORK = ("forward", "trace", "attribute", "fit")


def words(*ids: int) -> str:
    """The text of some tokens."""
    return " ".join(f"w{i}" for i in ids)


def tokenizer(n: int) -> Any:
    """A tokenizer with a word for each token of the model."""
    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(n)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="w0", eos_token=f"w{n - 1}")


def random_model(dtype: torch.dtype, config: Qwen2Config = QWEN2_5_05B) -> LoadedModel:
    """A random model of a shape, with attention spread so that prompts matter."""
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)  # or it would be twice as large while it is made
    try:
        with no_init_weights():  # it draws each weight twice, which takes longer than what is measured
            hf: Any = Qwen2ForCausalLM(config)
        hf.tie_weights()  # which drawing them does otherwise
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, config.initializer_range)
            else:
                parameter.fill_(1.0 if "norm" in name else 0.0)
    return wb.load_model(
        hf.eval().requires_grad_(False), tokenizer=tokenizer(config.vocab_size), name="random Qwen2.5-0.5B"
    )


def known(model: LoadedModel, n: int) -> FactSet:
    """Facts that the model knows: its own first words are the answers."""
    draw = random.Random(0)
    ids = [[draw.randrange(1, 100_000) % (model.shape.d_vocab - 2) + 1 for _ in range(TOKENS)] for _ in range(n)]
    said = [generate(model, [row], max_new_tokens=1)[0].text for row in ids]
    facts = []
    for i, (row, answer) in enumerate(zip(ids, said, strict=True)):
        other = next(word for word in said[i + 1 :] + said[:i] + ["w7", "w8"] if word != answer)
        facts.append(
            Fact(
                id=f"fact-{i}",
                subject=words(*row[SUBJECT : SUBJECT + 2]),
                prompt=words(*row),
                question=words(*row),
                answer=answer,
                target=other,
                relation="random",
                role=None if i == 0 else "retain",
            )
        )
    return FactSet(facts, name="random")


def compute(what: str, model: LoadedModel, facts: FactSet) -> None:
    """One of ``WORK``."""
    options: dict[str, Any] = {"form": "cloze", "pool": facts, "progress": False}
    if what == "forward":
        with torch.no_grad():
            model.runner(torch.tensor([model.token_ids(facts[0].prompt)]))
    elif what == "trace":
        wb.causal_trace(model, facts[0], samples=SAMPLES[what], **options)
    elif what == "attribute":
        wb.attribute(model, facts[0], samples=SAMPLES[what], **options)
    elif what == "fit":
        wb.rewrite(
            model,
            facts[0],
            "L10MLP L11MLP L12MLP",
            recipe=recipe(),
            retain=facts.filter(role="retain"),
            pool=facts,
            progress=False,
        )


def recipe() -> wb.Recipe:
    """The default with one step a stage, few retained facts and questions without a context before them, so that it
    ends within minutes. Memory is the same in each step, and rests on the largest batch."""
    return wb.Recipe(steps=(1, 1), early_stop=None, retain_size=RETAINED, contexts=False)


def resident(name: str) -> int:
    """A number of /proc/self/status, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def measure(what: str, dtype: torch.dtype) -> dict[str, float]:
    """Peak memory of one computation in this process, and the estimate of it, in megabytes."""
    model = random_model(dtype)
    facts = known(model, RETAINED + 1 if what == "fit" else 3)
    model.cache.clear()
    gc.collect()
    before = resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # the peak counts from here
    compute(what, model, facts)
    found = {"weights": model.hf.num_parameters() * dtype.itemsize}
    found["peak above the loaded model"] = resident("VmHWM") - before
    return {name: round(value / 2**20, 1) for name, value in found.items()}


def estimated(what: str, dtype: str) -> float:
    """The estimate of one computation, in megabytes; NaN for a plain forward pass."""
    if what == "forward":
        return float("nan")
    if what == "fit":
        found = wb.estimate(QWEN2_5_05B, "fit", tokens=TOKENS, recipe=recipe(), dtype=dtype, speed=1.0)
    else:
        sizes: dict[str, Any] = {"tokens": TOKENS, "changed": TOKENS - SUBJECT, "samples": SAMPLES[what]}
        work: Any = what
        found = wb.estimate(QWEN2_5_05B, work, dtype=dtype, speed=1.0, **sizes)
    return found.working_bytes / 2**20


def main(argv: list[str] | None = None) -> None:
    """Measure each in a process of its own, print a table, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--one", choices=WORK, help="measure this one here, and print it as JSON")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/memory.json"))
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(args.one, getattr(torch, args.dtype))))
        return
    found: dict[str, dict[str, float]] = {}
    for what in WORK:
        began = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.memory", "--one", what, "--dtype", args.dtype]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[what] = json.loads(done.stdout.splitlines()[-1])
        found[what] |= {"estimated": round(estimated(what, args.dtype), 1)} if what != "forward" else {}
        found[what] |= {"seconds, model and facts included": round(time.perf_counter() - began)}
        print(f"{what}: {found[what]}", flush=True)
    settings = {"model": "Qwen2.5-0.5B's shape, random weights", "dtype": args.dtype, "tokens": TOKENS}
    settings |= {"samples": SAMPLES, "retained": RETAINED, "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    result = {"settings": settings, "code": code_of(__file__).to_dict(), "megabytes": found}
    args.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print("\n| computation | peak above the loaded model, MB | estimated | the same in weights |\n|---|---|---|---|")
    for what, row in found.items():
        peak, weights = row["peak above the loaded model"], row["weights"]
        guess = f"{row['estimated']:.0f}" if "estimated" in row else "-"
        print(f"| {what} | {peak:.0f} | {guess} | {peak / weights:.2f} |")


if __name__ == "__main__":
    main()
