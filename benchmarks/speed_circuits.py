"""How fast scores of all edges are: beside the passes that their gradients need, and beside TransformerLens.

    python -m benchmarks.speed_circuits [--repeats N] [--device cpu|cuda] [--only bundled lens]

``bundled``: EAP-IG over all edges of the bundled model (grouped heads), as processor time in units of one forward and
backward pass of as many rows through the same network; then 100 exact edges, a path, and one circuit's recovery.
``lens``: EAP over all edges of a random GPT-2 (12 layers, 12 heads, d_model 768) beside ``attribution_patch`` of the
installed TransformerLens, in turn. A difference of what MLPs carry to the logits is an error; that all edges agree is
tested on small models (``tests/unit/test_edges_oracle.py``).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

import workbench as wb
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
NEAR = 1e-3
GOALS: dict[str, tuple[str, float]] = {
    "EAP-IG, in passes that its gradients need": ("at most", 4),
    "times faster than TransformerLens": ("at least", 5),
}


def fastest(work: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """The least processor time of a call (wall time on an accelerator), seconds."""
    found: list[float] = []
    for _ in range(repeats + 1):
        began = time.process_time()
        wall, _ = seconds(work, device)
        found.append(wall if device.type == "cuda" else time.process_time() - began)
    return min(found)


def bundled(repeats: int, device: str) -> dict[str, float]:
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


def against_lens(repeats: int, device: str) -> dict[str, float]:
    """EAP on a random GPT-2, by both."""
    from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tokenizer = wb.load_model().tokenizer
    network: Any = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer)))
    network.set_attn_implementation("eager")  # as TransformerLens has it
    model = wb.load_model(network.eval().to(device), tokenizer=tokenizer, name="random GPT-2")
    clean = torch.randint(1000, 2000, (TOKENS,)).tolist()
    corrupted = [*clean[:2], clean[2] + 1, *clean[3:]]
    contrast = wb.Contrast(clean=clean, corrupted=corrupted, answer=5, wrong=7)
    for parameter in model.bridge.parameters():
        parameter.requires_grad_(True)
    from_ids, to_ids = (torch.tensor([run], device=model.device) for run in (corrupted, clean))
    config = EdgeAttributionConfig(granularity="edge")

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, -1, 5] - logits[0, -1, 7]

    def theirs() -> Any:
        return attribution_patch(model.bridge, from_ids, to_ids, metric, config)

    slow, fast = list[float](), list[float]()
    for _ in range(repeats):
        slow.append(fastest(theirs, 0, model.device))
        fast.append(fastest(lambda: wb.edges(model, contrast, method="eap"), 1, model.device))
    edges = wb.edges(model, contrast, method="eap")
    direct: dict[int, float] = {}
    for (writer, reader), score in theirs().edge_scores.items():
        if writer.kind == "mlp_out" and reader.kind == "logits":
            direct[writer.layer] = direct.get(writer.layer, 0.0) + score
    apart = max(abs(edges[f"L{layer}MLP -> logits"] - score) for layer, score in direct.items())
    if apart > NEAR:
        raise SystemExit(f"The scores of the two differ by {apart:.2g}.")
    return {
        "edges": edges.n_edges,
        "TransformerLens, s": statistics.median(slow),
        "EAP, s": statistics.median(fast),
        "times faster than TransformerLens": statistics.median(a / b for a, b in zip(slow, fast, strict=True)),
        "largest difference": apart,
    }


def main(given: Sequence[str] | None = None) -> None:
    """Run and print a Markdown table.

    Args:
        given: Arguments; those of the command line by default.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--only", nargs="*", default=["bundled", "lens"])
    args = parser.parse_args(given)
    parts = {"bundled": bundled, "lens": against_lens}
    print("| part | what | value | goal | met |\n|---|---|---|---|---|")
    for part in args.only:
        for what, value in parts[part](args.repeats, args.device).items():
            kind, level = GOALS.get(what, ("", 0.0))
            goal = f"{kind} {level:g} | {met(value, kind, level)}" if kind else " | "
            print(f"| {part} | {what} | {value:.3g} | {goal} |")


if __name__ == "__main__":
    main()
