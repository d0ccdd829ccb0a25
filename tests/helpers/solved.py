"""Closed-form edits of tiny models that know the capitals, in a few steps."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import Tensor

import workbench as wb
from tests.helpers.tiny_facts import MAKERS, capitals, knowing
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Edit, LowRankDelta

FACTS = capitals()
FRANCE, ITALY, SPAIN = FACTS[0], FACTS[1], FACTS[2]
QUICK: dict[str, Any] = {"steps": 3, "contexts": False, "covariance_tokens": 1500}


@lru_cache
def tiny(family: str) -> LoadedModel:
    """A model that knows the capitals; nothing may change it."""
    return knowing(MAKERS[family]())


def rome(**options: Any) -> BaseRecipe:
    return wb.recipes.ROME(**{**QUICK, "layers": (1,), **options})


def memit(**options: Any) -> BaseRecipe:
    return wb.recipes.MEMIT(**{**QUICK, "layers": (0, 1), **options})


def solved(model: LoadedModel, recipe: BaseRecipe, facts: Any = FRANCE, selection: Any = None, **options: Any) -> Edit:
    return wb.rewrite(model, facts, selection, recipe=recipe, **{"pool": FACTS, "progress": False, **options})


def factors_of(edit: Edit, stage: str | None = None) -> dict[tuple[int, str], tuple[Tensor, Tensor]]:
    delta = edit.delta(stage)
    assert isinstance(delta, LowRankDelta)
    return {key: (u.double(), v.double()) for key, (u, v) in delta.factors.items()}
