"""Joint targets (PMET): two vectors of one loss, and every module towards the target of its own kind, worked out again
with plain hooks."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from tests.helpers.deltas import assert_near
from tests.helpers.tiny_facts import capitals, tiny
from tests.helpers.traces import hooked
from workbench.editing.solved import solving as solving_module
from workbench.editing.solved.places import Context, training_contexts
from workbench.editing.solved.spots import Spot
from workbench.editing.solved.target import Target, TargetSettings, _Search
from workbench.types import LowRankDelta, TrainedRecipe

FACTS = capitals()
FRANCE = FACTS[0]
LAYER = 1
NAMES = {"attn": f"model.layers.{LAYER}.self_attn.o_proj", "mlp": f"model.layers.{LAYER}.mlp.down_proj"}
TAUGHT = TrainedRecipe(contexts=False, retain_weight=0.0)
PLAIN = TargetSettings(
    steps=1,
    rate=0.1,
    last_rate=1.0,
    batch=8,
    others=0,
    hinge=None,
    kl_weight=0.0,
    about_weight=0.0,
    size_weight=0.0,
    largest=0.5,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def taught() -> list[Context]:
    return training_contexts(tiny(), [FRANCE], "learn", TAUGHT)


def test_both_vectors_have_the_gradient_of_one_loss() -> None:
    """The mean NLL of the answers with both vectors added at the subject, by autograd through plain hooks."""
    model, contexts = tiny(), taught()
    spots = {module: Spot(module, LAYER) for module in ("attn", "mlp")}
    search = _Search(model, contexts, [], [*spots.values()], PLAIN, None, None)
    generator = torch.Generator().manual_seed(3)
    added = {module: 0.3 * torch.randn(model.shape.d_model, generator=generator) for module in spots}
    for module, spot in spots.items():
        search.vectors[spot].data.copy_(added[module])
    loss, _ = search.backward(range(len(contexts)), ())
    plain = {module: vector.clone().requires_grad_(True) for module, vector in added.items()}
    losses: list[Tensor] = []
    for context in contexts:
        at = torch.zeros(1, len(context.ids), 1)
        at[0, list(context.subject)] = 1
        adds = {NAMES[m]: (False, lambda state, m=m, at=at: state + at * plain[m]) for m in spots}
        with hooked(model.hf, adds):
            logits = model.hf(torch.tensor([context.ids])).logits[0]
        row = context.row
        first = len(row.prompt) + row.departs
        wanted = torch.tensor(row.answer[row.departs :])
        losses.append(nn.functional.cross_entropy(logits[first - 1 : first - 1 + len(wanted)], wanted))
    total = torch.stack(losses).mean()
    total.backward()
    assert loss == pytest.approx(float(total.detach()), rel=1e-4)
    for module, spot in spots.items():
        expected, found = plain[module].grad, search.vectors[spot].grad
        assert expected is not None and found is not None and float(expected.norm()) > 1e-3
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_every_module_works_towards_the_target_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """With given targets at layer 1: of the two written layers the lower one takes 1 / sqrt(2) of what its kind lacks
    at layer 1, the upper one all that is left; attention first, each on top of what was written before. The update of
    each is R W K^T (w I + K W K^T)^-1, W the weight of a key: 1 by the number of keys."""
    model, contexts = tiny(), taught()
    generator = torch.Generator().manual_seed(5)
    added = {m: torch.randn(model.shape.d_model, generator=generator).double() for m in ("attn", "mlp")}

    def given(*args: Any, **options: Any) -> Target:
        spots = args[3]
        assert [spot.kind for spot in spots] == ["attn", "mlp"] and {spot.layer for spot in spots} == {LAYER}
        return Target({spot: added[spot.kind] for spot in spots}, dict.fromkeys(spots, 1.0))

    monkeypatch.setattr(solving_module, "find_target", given)
    weight = 0.7
    settings: dict[str, Any] = {"covariance": "identity", "contexts": False, "covariance_weight": weight, "rank": None}
    recipe = wb.recipes.IntAttnEdit(targets="joint", layers=(0, LAYER), ridge=0.0, **settings)
    edit = wb.rewrite(model, FRANCE, recipe=recipe, pool=FACTS, progress=False)
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta)

    network: Any = copy.deepcopy(model.hf).double()

    def read(name: str, *, on_input: bool) -> Tensor:
        """At every occurrence of the subject, [width, n]."""
        caught: list[Tensor] = []
        for context in contexts:
            rows = list(context.subject)
            keep = lambda state, rows=rows: caught.append(state[0, rows].detach()) or state  # noqa: E731
            with hooked(network, {name: (on_input, keep)}), torch.no_grad():
                network(torch.tensor([context.ids]))
        return torch.cat(caught).T

    goals = {module: read(NAMES[module], on_input=False) + added[module][:, None] for module in added}
    order = [(0, "attn"), (0, "mlp"), (1, "attn"), (1, "mlp")]
    assert [(w.layer, w.module) for w in edit.writes] == order
    for layer, module in order:
        name = NAMES[module].replace(f".{LAYER}.", f".{layer}.")
        keys = read(name, on_input=True)
        lacking = (goals[module] - read(NAMES[module], on_input=False)) / math.sqrt(2 - layer)
        scaled = keys / keys.shape[1]
        update = lacking @ scaled.T @ torch.linalg.inv(weight * torch.eye(len(keys)).double() + scaled @ keys.T)
        u, v = delta.factors[layer, name.split(f"layers.{layer}.")[1]]
        assert_near(u.double() @ v.double(), update)
        network.get_submodule(name).weight += update
