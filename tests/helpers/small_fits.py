"""Small fits on tiny models that know capitals, equal edits, and models that stay as they were."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tests.helpers.deltas import same_gates
from tests.helpers.tiny_facts import capitals, tiny
from workbench.editing.methods.table import Recipe
from workbench.editing.rewrite import rewrite
from workbench.models.load import LoadedModel
from workbench.types import Edit, FactSet

FACTS = capitals()
FRANCE, SPAIN = FACTS[0], FACTS[2]
RETAIN = FactSet([replace(f, paraphrases=()) for f in FACTS.filter(role="retain")], name="of one question each")


def recipe(**changes: Any) -> Recipe:
    """Few steps of AdamW on all rows at once, the last one's gates."""
    given: dict[str, Any] = {
        "optimiser": "adam",
        "answers": "short",
        "contexts": False,
        "steps": 3,
        "learning_rate": 0.05,
        "warmup": 0,
        "average": 0,
        "batch_size": 8,
        "retain_batch_size": 8,
        "early_stop": None,
    }
    return Recipe(**{**given, **changes})


def fitted(model: LoadedModel | None = None, selection: Any = "L1MLP", fact: Any = FRANCE, **options: Any) -> Edit:
    """A small fit; settings of ``recipe`` may be given by name."""
    settings = {k: options.pop(k) for k in list(options) if k in Recipe.__dataclass_fields__}
    given: dict[str, Any] = {"retain": RETAIN, "pool": FACTS, "progress": False, "recipe": recipe(**settings)}
    return rewrite(model or tiny(), fact, selection, **{**given, **options})


def same(a: Edit, b: Edit) -> bool:
    """Equal to the bit."""
    return a.stage_names == b.stage_names and all(
        same_gates(x.delta, y.delta) for x, y in zip(a.stages, b.stages, strict=True)
    )


def unchanged(model: LoadedModel) -> tuple[Any, ...]:
    weights = [t.clone() for t in model.hf.state_dict().values()]
    modules = [(n, id(m), m.training) for n, m in model.hf.named_modules()]
    return weights, modules


def assert_unchanged(model: LoadedModel, before: tuple[Any, ...]) -> None:
    weights, modules = unchanged(model)
    assert modules == before[1]
    assert all(torch.equal(a, b) for a, b in zip(weights, before[0], strict=True))


def plain_nll(hf: Any, prompt: list[int], answer: list[int]) -> float:
    """Hugging Face's own cross-entropy over the answer's tokens."""
    ids = torch.tensor([[*prompt, *answer]])
    labels = torch.tensor([[-100] * len(prompt) + answer])
    with torch.no_grad():
        return float(hf(ids, labels=labels).loss)
