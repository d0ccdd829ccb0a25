"""What sweeps call, in worker processes too: it must be in a module that they can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from tests.helpers.tiny_facts import capitals
from workbench.models.load import LoadedModel
from workbench.sweeps.results import SweepResults
from workbench.sweeps.sweep import sweep
from workbench.tracing.attribution import attribute
from workbench.types import EffectMap, Fact, FactSet


def heads(model: LoadedModel, fact: Fact, *, pool: FactSet) -> EffectMap:
    """A map of heads."""
    return attribute(model, fact, "head", pool=pool, progress=False)


def heads_or_error(model: LoadedModel, fact: Fact, *, pool: FactSet, bad: str) -> EffectMap:
    """A map of heads, but for one fact, which fails."""
    if fact.id == bad:
        raise ArithmeticError(f"{fact.subject} has no capital")
    return heads(model, fact, pool=pool)


def heads_after_a_death(model: LoadedModel, fact: Fact, *, pool: FactSet, flag: Path, at: str) -> EffectMap:
    """A map of heads; the first process that comes to one of the facts is killed, as by a machine that goes away."""
    if fact.id == at and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return heads(model, fact, pool=pool)


def number_or_death(model: LoadedModel, fact: Fact, *, at: str) -> int:
    """A number; one fact ends its process each time."""
    if fact.id == at:
        os._exit(1)
    return len(fact.answer)


def leaves(model: LoadedModel, fact: Fact, *, at: str) -> int:
    """A number; at one fact the function ends the program."""
    if fact.id == at:
        raise SystemExit(3)
    return len(fact.answer)


def taken(model: LoadedModel, fact: Fact, *, left: list[int], noise: Any) -> list[float]:
    """What is drawn from options that change with it."""
    return [left.pop(), round(float(noise.random()), 6)]


def spoils(model: LoadedModel, fact: Fact, *, at: str) -> int:
    """A number; at one fact the weights are changed in place."""
    if fact.id == at:
        with torch.no_grad():
            model.hf.lm_head.weight.mul_(1.5)
    return len(fact.answer)


def drawn(model: LoadedModel, fact: Fact) -> float:
    """A random number, without a seed."""
    return float(torch.rand(()))


def threads(model: LoadedModel, fact: Fact) -> dict[str, Any]:
    """Where this runs, and with how many threads."""
    time.sleep(0.2)
    return {"process": os.getpid(), "threads": torch.get_num_threads()}


class Counting:
    """A function of a sweep that counts its calls; some facts fail, or interrupt."""

    def __init__(self, bad: str = "", interrupt: str = "") -> None:
        self.calls: list[str] = []
        self.bad, self.interrupt = bad, interrupt

    def __call__(self, model: LoadedModel, fact: Fact, *, value: Any = 1) -> Any:
        self.calls.append(fact.id)
        if fact.id == self.interrupt:
            raise KeyboardInterrupt
        if fact.id == self.bad:
            raise ArithmeticError(f"no answer for {fact.subject}")
        return {"answer": fact.answer, "value": value, "length": len(fact.answer)}

    def to_dict(self) -> dict[str, Any]:
        return {}


def run(function: Any, out: Path, model: LoadedModel, items: Any = None, **options: Any) -> SweepResults:
    return sweep(function, capitals() if items is None else items, out=out, model=model, progress=False, **options)
