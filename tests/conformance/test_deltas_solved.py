"""What every method without training promises of its delta, on each shape of model: exact strengths, stages and
removal, only what was picked, weights that equal factors whichever way they are stored, and a seed that decides it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.deltas import assert_near
from tests.helpers.small_fits import assert_unchanged, unchanged
from tests.helpers.tiny_facts import FAMILIES, capitals, tiny
from workbench.models.deltas import fold
from workbench.models.family import stores_transposed
from workbench.models.views import shared_view
from workbench.types import BaseRecipe, Edit, LowRankDelta

FACTS = capitals()
SMALL: dict[str, Any] = {"covariance": "identity", "contexts": False, "others": 0, "steps": 3, "force": True}
FEW: dict[str, Any] = {"covariance": "measured", "min_tokens": 1, "covariance_tokens": 300, "kept": 0.3}
PICKED = "L0H1 L1H0 L1N3 L1N5 L1N8 L1N9"
RECIPES: dict[str, Callable[[int], BaseRecipe]] = {
    "ROME": lambda seed: wb.recipes.ROME(**SMALL, seed=seed),
    "MEMIT": lambda seed: wb.recipes.MEMIT(**SMALL, seed=seed, batch_size=1),
    "AlphaEdit": lambda seed: wb.recipes.AlphaEdit(**{**SMALL, **FEW}, seed=seed, batch_size=1),
    "EMMET": lambda seed: wb.recipes.EMMET(**SMALL, seed=seed),
    "IntAttn-Edit": lambda seed: wb.recipes.IntAttnEdit(**SMALL, balance=0.5, seed=seed, batch_size=1),
    "UltraEdit": lambda seed: wb.recipes.UltraEdit(contexts=False, seed=seed),
}
METHODS = pytest.mark.parametrize("method", RECIPES)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp()))


@cache
def edit_of(family: str, method: str, seed: int = 0) -> Edit:
    return wb.rewrite(tiny(family), FACTS[0], PICKED, recipe=RECIPES[method](seed), pool=FACTS, progress=False)


def logits_of(network: Any, family: str) -> torch.Tensor:
    with torch.no_grad():
        return network(torch.tensor([tiny(family).token_ids("The capital of France is Paris")])).logits[0, -1]


@FAMILIES
@METHODS
def test_an_edit_is_exact_and_leaves_nothing_behind(method: str, family: str) -> None:
    model, before = tiny(family), unchanged(tiny(family))
    edit, base = edit_of(family, method), logits_of(tiny(family).runner, family)
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta) and delta.factors
    picked = {
        (layer, model.architecture.gate_module(layer, site).module.partition(f".{layer}.")[2]): set(index)
        for (layer, site), index in wb.Selection(PICKED).entries(model).items()
    }
    for key, (_, v) in delta.factors.items():
        assert set(v.any(0).nonzero().flatten().tolist()) == picked[key]
    with wb.applied(model, edit, strength=0.0) as edited:
        assert torch.equal(logits_of(edited.hf, family), base)
    with wb.applied(model, edit) as edited:
        whole = logits_of(edited.hf, family)
    assert not torch.allclose(whole, base, atol=1e-4)
    view = shared_view(model.hf)
    fold(view, model.architecture, delta)
    assert_near(logits_of(view, family), whole)
    for key, (u, v) in delta.factors.items():
        name = model.architecture.module_name(*key)
        moved = view.get_submodule(name).weight - model.hf.get_submodule(name).weight
        assert_near(moved.T if stores_transposed(model.hf.get_submodule(name)) else moved, u @ v)
    assert torch.equal(logits_of(model.runner, family), base)
    assert_unchanged(model, before)


@METHODS
def test_a_seed_decides_an_edit(method: str) -> None:
    again = wb.rewrite(tiny(), FACTS[0], PICKED, recipe=RECIPES[method](0), pool=FACTS, progress=False)
    assert again.id == edit_of("llama", method).id
