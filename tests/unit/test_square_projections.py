"""Output projections that are square, where a transposed update would have the right shape: attention of a model whose
heads are as wide together as its residual stream, stored either way."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.deltas import assert_near
from tests.helpers.solved import FACTS, FRANCE, QUICK
from tests.helpers.tiny import tiny_gpt2, tiny_llama
from tests.helpers.tiny_facts import knowing
from tests.helpers.traces import hooked
from workbench.editing.solved.places import training_contexts
from workbench.models.deltas import fold
from workbench.models.family import stores_transposed
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.types import BaseRecipe, Edit, LowRankDelta

HEADS = (1, 3)
PICKED = " ".join(f"L1H{head}" for head in HEADS)
ONE: dict[str, Any] = {**QUICK, "steps": 4, "min_tokens": 1, "covariance_tokens": 600, "clozes": False, "force": True}
RECIPES: dict[str, BaseRecipe] = {
    "rome": wb.recipes.ROME(**ONE),
    "emmet": wb.recipes.EMMET(**ONE),
    "memit": wb.recipes.MEMIT(**ONE),
    "alphaedit": wb.recipes.AlphaEdit(**{**ONE, "kept": 0.5}),
    "int-attn": wb.recipes.IntAttnEdit(**ONE, balance=0.5),
    "int-attn, attention alone": wb.recipes.IntAttnEdit(**ONE, balance=1),
    "joint": wb.recipes.IntAttnEdit(**ONE, targets="joint"),
}
EXACT = ("rome", "emmet")
MAKERS: dict[str, Any] = {
    "llama": lambda: tiny_llama(tied=False, bias=True, hidden_size=48),
    "gpt2": lambda: tiny_gpt2(tie_word_embeddings=False),
}


@pytest.fixture(autouse=True, scope="module")
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@cache
def square(family: str) -> LoadedModel:
    model = knowing(MAKERS[family]())
    shape = model.shape
    assert shape.n_heads * shape.d_head == shape.d_model
    return model


def projection(model: LoadedModel, network: Any) -> Any:
    return network.get_submodule(model.architecture.gate_module(1, "z").module)


def at_the_subject(model: LoadedModel, network: Any, edit: Edit) -> tuple[Tensor, Tensor]:
    """What the projection reads and gives out at the subject's last tokens of all that is taught, by plain hooks."""
    recipe: Any = edit.recipe
    name = model.architecture.gate_module(1, "z").module
    keys: list[Tensor] = []
    outputs: list[Tensor] = []

    def watch(into: list[Tensor], rows: list[int]) -> Any:
        return lambda state: into.append(state[0, rows].double()) or state

    for context in training_contexts(model, edit.facts, "learn", recipe.taught, clozes=False):
        rows = list(context.subject)
        for on_input, into in ((True, keys), (False, outputs)):
            with hooked(network, {name: (on_input, watch(into, rows))}), torch.no_grad():
                network(torch.tensor([context.ids]))
    return torch.cat(keys), torch.cat(outputs)


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("method", RECIPES)
def test_heads_are_written_the_right_way_round(method: str, family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model = square(family)
    edit = wb.rewrite(model, FRANCE, PICKED, recipe=RECIPES[method], pool=FACTS, progress=False)
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta)
    ((_, (u, v)),) = delta.factors.items()
    update = (u @ v).double()
    assert update.shape[0] == update.shape[1]
    d = model.shape.d_head
    columns = [i for head in HEADS for i in range(head * d, (head + 1) * d)]
    outside = [i for i in range(update.shape[1]) if i not in columns]
    assert bool((update[:, outside] == 0).all()), "what other heads write stays"
    assert bool(update[outside].any(1).all()), "it writes to the whole stream"
    base, weight = at_the_subject(model, model.hf, edit), projection(model, model.hf).weight.detach()
    (write,) = edit.writes
    assert write.residual_before is not None and write.residual_after is not None
    view = shared_view(model.hf)
    fold(view, model.architecture, delta)
    with wb.applied(model, edit) as edited:
        for network in (edited.hf, view):
            keys, outputs = at_the_subject(model, network, edit)
            assert_near(keys, base[0])
            moved = outputs - base[1]
            assert_near(moved, keys @ update.T)
            assert float((moved - keys @ update).abs().max()) > 1e-2, "transposed it would do something else"
            if method in EXACT:  # one key: the mean of what was read gets what it lacked
                assert float(moved.mean(0).norm()) == pytest.approx(write.residual_before, rel=1e-3)
    if method in EXACT:
        assert write.residual_after < 1e-3 * write.residual_before
    else:
        assert write.residual_after < write.residual_before
    stored = projection(model, view).weight.detach() - weight
    assert_near((stored.T if stores_transposed(projection(model, model.hf)) else stored).double(), update)
    edit.to_peft(tmp_path / "adapter", model=model)
    reloaded: Any = PeftModel.from_pretrained(copy.deepcopy(model.hf), str(tmp_path / "adapter")).eval()
    ids = torch.tensor([model.token_ids("The capital of France is Paris")])
    with torch.no_grad():
        assert_near(reloaded(ids).logits, view(ids).logits)
