"""How time and memory of a trace grow with layers, positions, samples and the batch, on random Llamas of growing size.

Run by ``python -m benchmarks.speed_trace --growth``. Arithmetic is counted, so that the table shows what time follows.
"""

from __future__ import annotations

import statistics
from typing import Any
from unittest import mock

import torch
from transformers import LlamaConfig
from transformers.models.llama import LlamaForCausalLM

from benchmarks.lib.timing import seconds
from workbench.models.layerwise import Layerwise
from workbench.models.load import load_model
from workbench.tracing import restore
from workbench.tracing.restoration import Restoration, cone_tokens
from workbench.tracing.restore import effects

BASE = {"layers": 4, "positions": 16, "samples": 2, "max_rows": 1024}
STEPS = {
    "layers": (2, 4, 8),
    "positions": (1, 4, 16, 64, 200),
    "samples": (1, 4, 16),
    "max_rows": (64, 256, 1024, 4096),
}
FREE_MB = (64, 256, 1024, 8192)
LONG = {"layers": 4, "positions": 200, "samples": 4}
D_MODEL, VOCAB = 256, 1000


def random_llama(layers: int, device: torch.device, dtype: torch.dtype) -> Any:
    """A random model of width 256 with 8 heads in 2 key-value groups."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=D_MODEL,
        intermediate_size=3 * D_MODEL,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    hf: Any = LlamaForCausalLM(config)
    hf = hf.to(device=device, dtype=dtype).eval().requires_grad_(False)
    return load_model(hf, tokenizer=object(), name="random")


def growth(device: torch.device, dtype: torch.dtype) -> dict[str, list[dict[str, Any]]]:
    """One table for each setting that grows; the others stay as in ``BASE``."""
    models = {layers: random_llama(layers, device, dtype) for layers in STEPS["layers"]}
    engine = Layerwise(models[LONG["layers"]])
    free = f"The same with the default of max_rows, by what is free; {', '.join(f'{v} {k}' for k, v in LONG.items())}"
    return {
        f"Residual trace of a random Llama (width {D_MODEL}) as {name} grow; else "
        + ", ".join(f"{v} {k}" for k, v in BASE.items() if k != name): [
            {name: value} | measure(models, **(BASE | {name: value})) for value in values
        ]
        for name, values in STEPS.items()
    } | {
        free: [
            {"free MB": mb, "max_rows": (rows := rows_with(mb * 2**20, engine, LONG["positions"]))}
            | measure(models, **LONG, max_rows=rows)
            for mb in FREE_MB
        ]
    }


def rows_with(free: int, engine: Layerwise, positions: int) -> int:
    """The default of ``max_rows`` on a machine with so many bytes free."""
    with mock.patch.object(restore, "free_memory", return_value=free):
        return restore.default_rows(engine, positions)


def measure(models: dict[int, Any], *, layers: int, positions: int, samples: int, max_rows: int) -> dict[str, Any]:
    """Time of all residual cells, the same by one batched forward pass a cell, and the most memory at once."""
    engine = Layerwise(models[layers])
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(1, positions, D_MODEL, generator=generator).to(engine.device, models[layers].dtype)
    corrupted = torch.randn(samples, positions, D_MODEL, generator=generator).to(clean)
    cells = [Restoration("resid", range(at, at + 1), p) for at in range(layers) for p in range(positions)]
    took, plain = [], []
    with torch.no_grad():
        recording = engine.record(clean, ("resid",))
        for _ in range(3 if positions < 100 else 1):
            once, _ = seconds(lambda: engine.run(corrupted), engine.device)
            whole, _ = seconds(lambda: sweep(engine, recording, corrupted, cells, max_rows), engine.device)
            took.append(whole)
            plain.append(once * len(cells))
    through = samples * cone_tokens(cells, layers, positions)
    return {
        "cells": len(cells),
        "thousand tokens through a layer": through / 1000,
        "seconds": statistics.median(took),
        "microseconds a token and layer": 1e6 * statistics.median(took) / through,
        "times faster than a forward pass a cell": statistics.median([p / t for p, t in zip(plain, took, strict=True)]),
        "peak MB": peak_memory(engine, recording, corrupted, cells, max_rows) / 2**20,
        "budget MB": max_rows * engine.row_bytes(positions) / 2**20,
    }


def sweep(engine: Layerwise, recording: Any, corrupted: torch.Tensor, cells: list[Restoration], max_rows: int) -> None:
    """Every cell's effect on one logit."""
    for _ in effects(engine, recording, corrupted, None, cells, lambda logits: logits[:, 0], max_rows=max_rows):
        pass


def peak_memory(
    engine: Layerwise, recording: Any, corrupted: torch.Tensor, cells: list[Restoration], max_rows: int
) -> float:
    """Most bytes allocated at once during a sweep, beyond what there was before."""
    if engine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.no_grad():
            sweep(engine, recording, corrupted, cells, max_rows)
        return float(torch.cuda.max_memory_allocated() - before)
    from torch.profiler import ProfilerActivity, profile

    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        sweep(engine, recording, corrupted, cells, max_rows)
    held = most = 0
    recorded: Any = profiler.profiler
    for event in recorded.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return float(most)
