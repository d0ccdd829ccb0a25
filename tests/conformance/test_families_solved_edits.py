"""Every family: closed-form edits are solved, move their own columns only, and are exact to apply and to export."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.deltas import assert_near, draw
from tests.helpers.families import model_of
from tests.helpers.family_checks import check
from tests.helpers.tiny_facts import capitals
from workbench.editing.solved.cut_passes import CutPasses
from workbench.editing.solved.published_target import WholePasses, texts_of
from workbench.models.deltas import fold
from workbench.models.family import stores_transposed
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.types import Edit, LowRankDelta

FACTS = capitals()
FRANCE = FACTS[0]
SMALL: dict[str, Any] = {"covariance": "identity", "contexts": False, "others": 0, "steps": 3, "force": True}
"""Little text and few steps; C = I, which needs no text."""


def logits_of(network: Any, model: LoadedModel) -> torch.Tensor:
    with torch.no_grad():
        return network(torch.tensor([model.token_ids("The capital of France is Paris")])).logits[0, -1]


def attention_and_mlp(model: LoadedModel, **settings: Any) -> Edit:
    """Heads of layer 0 and neurons of layers 0 and 1, or heads alone where there are no neurons."""
    neurons = "" if model.shape.no_neurons else "L0N3 L0N5 L1N0 L1N8 L1N13"
    selection = f"L0H1 L1H0 {neurons}"
    recipe = wb.recipes.IntAttnEdit(balance=0.5, **{**SMALL, **settings})
    return wb.rewrite(model, FRANCE, selection, recipe=recipe, pool=FACTS, progress=False)


@check("solved")
def test_a_closed_form_is_solved_and_exact(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    from peft import PeftModel

    model = model_of(name)
    before = {key: value.clone() for key, value in model.hf.state_dict().items()}
    edit = attention_and_mlp(model)
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta)
    entries = edit.selection.entries(model)
    wanted: dict[tuple[int, str], set[int]] = {}
    for (layer, site), index in entries.items():
        module = model.architecture.gate_module(layer, site).module.partition(f".{layer}.")[2]
        wanted[layer, module] = set(index)
    assert {key: set(v.any(0).nonzero().flatten().tolist()) for key, (_, v) in delta.factors.items()} == wanted
    assert len(wanted) == (2 if model.shape.no_neurons else 4)
    losses = [step.loss for step in edit.history]
    assert losses[-1] < losses[0]
    assert all(write.residual_before and write.residual_after is not None for write in edit.writes)

    base = logits_of(model.runner, model)
    with wb.applied(model, edit) as edited:
        found = logits_of(edited.hf, model)
    with wb.applied(model, edit, strength=0.0) as edited:
        assert torch.equal(logits_of(edited.hf, model), base)
    assert not torch.allclose(found, base, atol=1e-3)
    view = shared_view(model.hf)
    fold(view, model.architecture, delta)
    assert_near(logits_of(view, model), found)
    for key, (u, v) in delta.factors.items():  # weights as the family stores them, square ones too
        module: Any = view.get_submodule(model.architecture.module_name(*key))
        plain: Any = model.hf.get_submodule(model.architecture.module_name(*key))
        moved = module.weight - plain.weight
        assert_near(moved.T if stores_transposed(plain) else moved, u @ v)

    edit.to_peft(tmp_path / "adapter", model=model)
    reloaded: Any = PeftModel.from_pretrained(copy.deepcopy(model.hf), str(tmp_path / "adapter")).eval()
    assert_near(logits_of(reloaded, model), found)
    assert wb.load_edit(edit.save(tmp_path / "edit")).id == edit.id
    assert all(torch.equal(before[key], value) for key, value in model.hf.state_dict().items())
    if model.shape.no_neurons:
        with pytest.raises(ValueError, match=re.escape(model.shape.no_neurons)):
            wb.rewrite(model, FRANCE, recipe=wb.recipes.MEMIT(layers=(1,), **SMALL), pool=FACTS, progress=False)
        record_property("without", f"no MLPs: {model.shape.no_neurons}")


@check("solved")
def test_cut_passes_are_whole_passes(name: str) -> None:
    """A vector at the subject, and the gradient at it, by the whole model and by passes of only what it changes."""
    model = model_of(name, double=True)
    texts = texts_of(model, FRANCE, ("{}", "I like Paris. {}", "Paris Madrid Berlin Paris. {}"), target=True, kl=True)
    upcasts = model.architecture.family.name in ("GPT-J", "GPT-Neo")  # their attention is in single precision
    for residual in (True,) if model.shape.no_neurons else (False, True):
        vector = draw(model.shape.d_model, seed=1).double().requires_grad_()
        found: list[list[torch.Tensor]] = []
        for passes in (WholePasses, CutPasses):
            run = passes(model, texts, 1 - residual, residual=residual)
            rows, last = run.likely(vector)
            likely = torch.cat([*rows, last[None]])
            (gradient,) = torch.autograd.grad(likely.sin().sum(), vector)
            found.append([likely.detach(), gradient, run.start])
        for whole, cut in zip(*found, strict=True):
            assert bool(whole.any())
            torch.testing.assert_close(cut, whole, atol=1e-3 if upcasts else 1e-8, rtol=1e-6)
