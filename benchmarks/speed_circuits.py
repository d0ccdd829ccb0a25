"""How fast scores of all edges are: beside the passes that their gradients need, and beside what is used today.

    python -m benchmarks.speed_circuits [--repeats N] [--device cpu|cuda] [--only bundled lens auto-circuit]

``bundled``: EAP-IG over all edges of the bundled model (grouped heads), as processor time in units of one forward and
backward pass of as many rows through the same network; then 100 exact edges, a path, and one circuit's recovery.
``lens``: EAP over all edges of a random GPT-2 (12 layers, 12 heads, d_model 768) beside ``attribution_patch`` of the
installed TransformerLens, in turn. A difference of what MLPs carry to the logits is an error; that all edges agree is
tested on small models (``tests/unit/test_edges_oracle.py``).
``auto-circuit``: the same beside auto-circuit 1.0.1 (its metadata names no licence; nothing of it is here), with
texts of 16 and of 64 tokens. It runs in an environment of its own with all that its metadata asks for, which the part
makes in the user's cache folder at first (pip, minutes, 2.4 GB; ``benchmarks/lib/auto_circuit.txt`` has the versions),
on as many threads, in turn with ours. Its scores are ``mask_gradient_prune_scores(..., grad_function="logit",
answer_function="avg_diff", mask_val=0)`` of ``patchable_model(..., factorized=True, separate_qkv=True)``. That is EAP
of the clean run: its first source is the residual stream that enters layer 0, as our ``embedding``; biases are no part
of what its heads write, which a difference of two runs does not have either; its gradient is of minus the logit
difference, so that its scores are ours with the other sign. All edges must agree. Its integrated gradients are not
EAP-IG: they move all edges between the two runs at once, not the input, and sum over masks from 0 to 1. They are not
compared. CircuitKIT is not compared either: its licence asks organisations for a permission.

A repeat gives one ratio of processor times (of each side the faster of two), and the table shows the median. Writes
``benchmarks/results/speed_circuits.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import workbench as wb
from benchmarks.lib.auto_circuit import PACKAGE, VERSIONS, apart, started
from benchmarks.lib.auto_circuit_peer import licence, version
from benchmarks.lib.code import code_of
from benchmarks.lib.peer_environment import EnvironmentNotMade, environment
from benchmarks.lib.timing import met, seconds
from workbench.circuits.wiring import Wired
from workbench.models.engine import pooled_engine
from workbench.models.layerwise import Layerwise
from workbench.tracing.corruption import set_up
from workbench.tracing.runs import FastRuns
from workbench.tracing.setup import SetupOptions

FACT = "france-capital"
STEPS = 5
TOKENS = 16
LONGER = 64
NEAR = 1e-3
GOALS: dict[str, tuple[str, float]] = {
    "EAP-IG, in passes that its gradients need": ("at most", 4),
    "times faster than TransformerLens": ("at least", 5),
    f"{TOKENS} tokens: times faster than auto-circuit": ("at least", 5),
    f"{LONGER} tokens: times faster than auto-circuit": ("at least", 5),
}
Found = dict[str, float | str]


def fastest(work: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """The least processor time of a call (wall time on an accelerator), seconds."""
    found: list[float] = []
    for _ in range(repeats + 1):
        began = time.process_time()
        wall, _ = seconds(work, device)
        found.append(wall if device.type == "cuda" else time.process_time() - began)
    return min(found)


def bundled(repeats: int, device: str) -> Found:
    """The bundled model, on the chat form of a fact."""
    model = wb.load_model(device=device)
    facts = wb.load_facts()
    contrast = wb.Contrast.of(model, facts[FACT], form="chat", pool=facts)
    with pooled_engine(Layerwise, model) as engine:
        setup = set_up(model, engine, contrast, SetupOptions())
        shares = torch.arange(1, STEPS + 1, device=model.device)[:, None, None] / STEPS
        clean = setup.clean[:, setup.start :]
        rows = replace(setup, corrupted=setup.corrupted + shares.to(clean) * (clean - setup.corrupted))
        runs = FastRuns(engine)
        with torch.no_grad():
            runs.record(rows, ("z",))
        passes = fastest(lambda: runs.gradients(rows, ("resid",)), repeats, model.device)
    with pooled_engine(Wired, model):  # whose view is made once
        pass
    edges = wb.edges(model, contrast, steps=STEPS)
    scored = fastest(lambda: wb.edges(model, contrast, steps=STEPS), repeats, model.device)
    top = edges.top(100)
    exact = fastest(lambda: wb.edges(model, contrast, method="patching", chosen=top), 1, model.device)
    path = fastest(lambda: wb.path_patch(model, contrast, "L0MLP", "L23H4"), 1, model.device)
    alone = fastest(lambda: wb.faithfulness(model, contrast, top, minimality=False), 1, model.device)
    return {
        "edges": edges.n_edges,
        "a forward and backward pass of 5 rows, s": passes,
        "EAP-IG, s": scored,
        "EAP-IG, in passes that its gradients need": scored / passes,
        "100 exact edges, s": exact,
        "a path, s": path,
        "recovery and completeness of a circuit, s": alone,
    }


def random_gpt2(device: str) -> wb.LoadedModel:
    """A random GPT-2 (12 layers, 12 heads, d_model 768) with the bundled model's vocabulary."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tokenizer = wb.load_model().tokenizer
    network: Any = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer)))
    network.set_attn_implementation("eager")  # as TransformerLens has it
    return wb.load_model(network.eval().to(device), tokenizer=tokenizer, name="random GPT-2")


def pair(tokens: int) -> dict[str, Any]:
    """Two random texts that differ in the third token, and two answers."""
    clean = torch.randint(1000, 2000, (tokens,), generator=torch.Generator().manual_seed(tokens)).tolist()
    return {"clean": clean, "corrupted": [*clean[:2], clean[2] + 1, *clean[3:]], "answer": 5, "wrong": 7}


def against_lens(repeats: int, device: str) -> Found:
    """EAP on a random GPT-2, by both."""
    from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch

    model, texts = random_gpt2(device), pair(TOKENS)
    contrast = wb.Contrast(**texts)
    for parameter in model.bridge.parameters():
        parameter.requires_grad_(True)
    from_ids, to_ids = (torch.tensor([texts[run]], device=model.device) for run in ("corrupted", "clean"))
    config = EdgeAttributionConfig(granularity="edge")

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, -1, texts["answer"]] - logits[0, -1, texts["wrong"]]

    def theirs() -> Any:
        return attribution_patch(model.bridge, from_ids, to_ids, metric, config)

    slow, fast = list[float](), list[float]()
    for _ in range(repeats):
        slow.append(fastest(theirs, 1, model.device))
        fast.append(fastest(lambda: wb.edges(model, contrast, method="eap"), 1, model.device))
    edges = wb.edges(model, contrast, method="eap")
    direct: dict[int, float] = {}
    for (writer, reader), score in theirs().edge_scores.items():
        if writer.kind == "mlp_out" and reader.kind == "logits":
            direct[writer.layer] = direct.get(writer.layer, 0.0) + score
    far = max(abs(edges[f"L{layer}MLP -> logits"] - score) for layer, score in direct.items())
    if not far <= NEAR:
        raise SystemExit(f"The scores of the two differ by {far:.2g}.")
    return {
        "version": " ".join(version("transformer-lens")),
        "licence": licence("transformer-lens")[1],
        "edges": edges.n_edges,
        "TransformerLens, s": statistics.median(slow),
        "EAP, s": statistics.median(fast),
        "times faster than TransformerLens": statistics.median(a / b for a, b in zip(slow, fast, strict=True)),
        "largest difference": far,
    }


def against_auto_circuit(repeats: int, device: str) -> Found:
    """EAP on a random GPT-2, by both, on every edge."""
    python = environment(PACKAGE, VERSIONS, part="auto-circuit")
    model, found = random_gpt2(device), Found()
    for tokens in (TOKENS, LONGER):
        texts = pair(tokens)
        contrast = wb.Contrast(**texts)
        with started(python, model.hf, texts) as peer:

            def ours(contrast: wb.Contrast = contrast) -> wb.EdgeMap:
                return wb.edges(model, contrast, method="eap")

            edges = ours()
            peer.ask("score")  # the first of each is slower
            slow, fast = list[float](), list[float]()
            for _ in range(repeats):
                slow.append(min(peer.ask("score")["seconds"] for _ in range(2)))
                fast.append(fastest(ours, 1, model.device))
            said = peer.ask("write")
            far = apart(edges, peer.scores())
        levels = max(abs(said["clean"] - edges.clean), abs(said["corrupted"] - edges.corrupted))
        if not max(far.absolute, far.relative, levels) <= NEAR:
            raise SystemExit(f"The scores of the two differ by {far}, the logit differences by {levels:.2g}.")
        versions = ", ".join(map(" ".join, said["versions"].items()))
        found |= {"version": versions, "licence": said["licences"]["auto-circuit"], "edges": edges.n_edges} | {
            f"{tokens} tokens: {what}": value
            for what, value in {
                "auto-circuit, s": statistics.median(slow),
                "EAP, s": statistics.median(fast),
                "times faster than auto-circuit": statistics.median(a / b for a, b in zip(slow, fast, strict=True)),
                "largest difference": far.absolute,
                "the same, of the largest score": far.relative,
            }.items()
        }
    return found


PARTS: dict[str, Callable[[int, str], Found]] = {
    "bundled": bundled,
    "lens": against_lens,
    "auto-circuit": against_auto_circuit,
}


def judged(part: str, found: Found) -> list[dict[str, Any]]:
    """The rows of a part, with its goals and whether they are met."""
    rows: list[dict[str, Any]] = []
    for what, value in found.items():
        row: dict[str, Any] = {"part": part, "what": what, "value": value, "goal": "", "met": ""}
        if what in GOALS and not isinstance(value, str):
            kind, level = GOALS[what]
            row |= {"goal": f"{kind} {level:g}", "met": met(value, kind, level)}
        rows.append(row)
    return rows


def markdown(row: dict[str, Any]) -> str:
    """A line of the table."""
    shown = (f"{one:.3g}" if isinstance(one, float) else str(one) for one in row.values())
    return f"| {' | '.join(shown)} |"


def main(given: Sequence[str] | None = None) -> None:
    """Run, print a Markdown table, write ``benchmarks/results/speed_circuits.json``.

    Args:
        given: Arguments; those of the command line by default.

    Raises:
        SystemExit: Scores that differ by more than ``NEAR``, or no environment for a part that needs one.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--only", nargs="*", default=[*PARTS], choices=[*PARTS])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_circuits.json"))
    args = parser.parse_args(given)
    if "auto-circuit" in args.only:  # before anything is timed
        if args.device != "cpu":
            parser.error("The part auto-circuit runs on the CPU only: use --device cpu, or --only bundled lens.")
        try:
            environment(PACKAGE, VERSIONS, part="auto-circuit")
        except EnvironmentNotMade as error:
            raise SystemExit(str(error)) from error
    code, rows = code_of(__file__), list[dict[str, Any]]()
    print("| part | what | value | goal | met |\n|---|---|---|---|---|")
    for part in args.only:
        of_part = judged(part, PARTS[part](args.repeats, args.device))
        print(*map(markdown, of_part), sep="\n", flush=True)
        rows += of_part
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    baseline = f"float32, {where}; medians of {args.repeats} ratios of processor time"
    result = {"code": code.to_dict(), "baseline": baseline, "cores": os.cpu_count(), "tables": {"Circuits": rows}}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
