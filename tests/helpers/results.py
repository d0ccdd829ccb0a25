"""Results with given numbers for the tests of figures: effect maps, an edit with its history, a report."""

from __future__ import annotations

import math
from typing import Any

import torch

from workbench.editing.methods.table import Recipe
from workbench.types import (
    Edit,
    EditStage,
    EffectMap,
    EvalReport,
    Fact,
    GateDelta,
    Rate,
    Selection,
    Step,
    TracedPrompt,
)

EVIL = (
    "<img src=x onerror=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    "%{x}",
    "</script><script>alert(1)</script>",
    "$\\alpha$",
    "&lt;b&gt;",
)
TOKENS = ("The", " capital", " of", " of", " France", "\n", " is")
FACT = Fact(
    subject="France",
    prompt="The capital of France is",
    question="What is the capital of France?",
    answer="Paris",
    target="Rome",
    id="france-capital",
)


def prompt(tokens: tuple[str, ...], subject: tuple[int, ...]) -> TracedPrompt:
    return TracedPrompt(
        fact_id="france-capital",
        form="cloze",
        text="".join(tokens),
        prefix="",
        token_ids=tuple(range(len(tokens))),
        tokens=tokens,
        subject=subject,
        answer_id=3,
        answer_token=" Paris",
    )


def trace(
    tokens: tuple[str, ...] = TOKENS, subject: tuple[int, ...] = (4,), layers: int = 3, **changes: Any
) -> EffectMap:
    values = torch.arange(layers * len(tokens), dtype=torch.float32).view(layers, -1) / 100 - 0.05
    options: dict[str, Any] = {
        "values": values,
        "axes": ("layer", "position"),
        "labels": {"layer": tuple(f"L{i}" for i in range(layers)), "position": tokens},
        "unit": "resid",
        "metric": "probability",
        "method": "noise",
        "clean": 0.812,
        "corrupted": 0.034,
        "stderr": values.abs() / 10,
        "n": 10,
        "prompts": (prompt(tokens, subject),),
    }
    return EffectMap(**{**options, **changes})


def head_map() -> EffectMap:
    values = torch.linspace(-2, 1, 5 * 6).view(5, 6)
    labels = {"layer": tuple(f"L{i}" for i in range(5)), "head": tuple(f"H{i}" for i in range(6))}
    return EffectMap(
        values=values,
        axes=("layer", "head"),
        labels=labels,
        unit="head",
        metric="logit_diff",
        method="attribution",
        clean=4.2,
    )


def layer_map(stderr: bool = True) -> EffectMap:
    values = torch.tensor([0.5, -0.25, 1.0, 0.0])
    return EffectMap(
        values=values,
        axes=("layer",),
        labels={"layer": ("L0", "L1", "L2", "L3")},
        unit="mlp",
        metric="logit_diff",
        method="patching",
        clean=4.2,
        stderr=torch.tensor([0.1, 0.2, 0.3, 0.4]) if stderr else None,
        n=12 if stderr else 1,
    )


def neuron_map() -> EffectMap:
    values = torch.zeros(14, 9)
    values[13, 7], values[2, 3], values[5, 0], values[0, 8] = 0.9, -0.7, 0.5, -0.2
    labels = {"layer": tuple(f"L{i}" for i in range(14)), "neuron": tuple(f"N{i}" for i in range(9))}
    return EffectMap(
        values=values,
        axes=("layer", "neuron"),
        labels=labels,
        unit="neuron",
        metric="probability",
        method="attribution - controls",
        clean=0.8,
    )


def edit(fact: Fact = FACT, recipe: Recipe | None = None) -> Edit:
    history = [
        Step(stage="unlearn", step=i, loss=4.0 - i, kl=0.1 * i, p_old=0.8 - 0.3 * i if i != 1 else None)
        for i in range(3)
    ]
    history += [Step(stage="learn", step=i, loss=5.0 - i, kl=0.5, p_new=0.4 * i, p_refusal=0.9) for i in range(2)]
    delta = GateDelta({(1, "post"): torch.ones(4)})
    return Edit(
        stages=(EditStage("unlearn", delta), EditStage("learn", delta)),
        selection=Selection("L1MLP"),
        selector="given",
        recipe=recipe or Recipe(),
        facts=(fact,),
        retain_ids=(),
        history=tuple(history),
        base_fingerprint="f" * 64,
        base_name="micro",
    )


def report() -> EvalReport:
    def rate(value: float, low: float, high: float, n: int = 8) -> Rate:
        return Rate(value, n, low, high, "wilson")

    nothing = Rate(math.nan, 0, math.nan, math.nan, "wilson", 0)
    base = {"new": rate(0.0, 0.0, 0.3), "control": rate(1.0, 0.9, 1.0, 44), "neighbour": nothing}
    learn = {
        "new": rate(1.0, 0.7, 1.0),
        "forget": rate(0.75, 0.4, 0.9),
        "control": rate(0.9, 0.8, 0.95, 44),
        "neighbour": nothing,
        "gibberish": rate(-0.01, -0.03, 0.02, 100),
        "bleed": rate(0.0, 0.0, 0.1, 44),
    }
    rates = {"base": base, "learn": learn}
    return EvalReport(rows=(), rates=rates, facts=("france-capital",), stages=("base", "learn"))


PROBABILITIES = {
    "before": {"old: Paris": 0.8, "new: Rome": 0.01},
    "unlearn": {"old: Paris": 0.02, "new: Rome": 0.03, "refusal": 0.9},
    "learn": {"old: Paris": 0.0, "new: Rome": 0.96, "refusal": 0.02},
}
