"""Every family: gates and low-rank updates against plain hooks and merged weights, fits, exports; what mixtures of
experts are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.deltas import assert_near, draw, edit_with, gates_of
from tests.helpers.families import TINY, model_of
from tests.helpers.family_checks import check
from tests.helpers.family_plain import Change, Place, Plain, sites_of
from tests.helpers.tiny_facts import capitals
from workbench.models.deltas import fold
from workbench.models.family import sizes
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.types import Component, Delta, GateDelta, LowRankDelta, Selection, Site

FACTS = capitals()
FRANCE = FACTS[0]


def ids_of(model: LoadedModel) -> Tensor:
    return torch.tensor([model.token_ids("The capital of France is Paris")])


def all_gates(model: LoadedModel, seed: int = 0, layers: tuple[int, ...] = (0, 1, 2)) -> GateDelta:
    """Gates on every site of some layers, zero and negative ones among them."""
    found: dict[tuple[int, Site], Tensor] = {}
    for layer in layers:
        for i, site in enumerate(sites_of(model)):
            gate = 1 + draw(model.shape.site_size(site), seed=seed + 10 * layer + i)
            gate[0], gate[1] = 0.0, -0.5
            found[layer, site] = gate
    return GateDelta(found)


def all_factors(model: LoadedModel, seed: int = 0, layer: int = 1) -> LowRankDelta:
    """Updates of ranks 1 and 2 on every linear module of a layer."""
    factors: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
    for i, module in enumerate(model.architecture.family.modules):
        d_out, d_in = sizes(model.hf.get_submodule(model.architecture.module_name(layer, module)))
        rank = 1 + i % 2
        factors[layer, module] = draw(d_out, rank, seed=seed + i), draw(rank, d_in, seed=seed + i + 50)
    return LowRankDelta(factors)


def edited_logits(model: LoadedModel, delta: Delta, strength: float = 1.0) -> Tensor:
    with wb.applied(model, edit_with(model, delta), strength=strength) as edited, torch.no_grad():
        return edited.hf(ids_of(model)).logits[0, -1]


def promises(model: LoadedModel, delta: Delta, by_hooks: Tensor) -> None:
    """What holds for every delta."""
    found = edited_logits(model, delta)
    assert_near(found, by_hooks)
    view = shared_view(model.hf)
    fold(view, model.architecture, delta)
    with torch.no_grad():
        assert_near(view(ids_of(model)).logits[0, -1], by_hooks)
        base = model.runner(ids_of(model)).logits[0, -1]
    assert torch.equal(edited_logits(model, delta, strength=0.0), base)
    assert not torch.allclose(found, base, atol=1e-2)


@check("gates")
def test_gates_are_plain_products(name: str) -> None:
    model = model_of(name)
    delta, plain = all_gates(model), Plain(model, FRANCE)
    changes: dict[tuple[int, str], tuple[Place, Tensor]] = {}
    for (layer, site), gate in delta.gates.items():
        place = model.architecture.gate_module(layer, site)
        _, whole = changes.setdefault((layer, place.module), ((site, layer), torch.ones(0)))
        if not len(whole):
            outputs, inputs = sizes(model.hf.get_submodule(place.module))
            whole = torch.ones(inputs if place.on_input else outputs)
        for i in range(len(gate)):  # entry by entry, as a component names them
            whole[place.places([i])] = gate[i]
        changes[layer, place.module] = (site, layer), whole
    with torch.no_grad():
        by_hooks = plain.logits({place: times(whole) for place, whole in changes.values()}, ids=ids_of(model))
    promises(model, delta, by_hooks)


def times(gate: Tensor) -> Change:
    return lambda value: value * gate


@check("low-rank")
def test_low_rank_updates_are_plain_sums(name: str) -> None:
    model = model_of(name)
    delta = all_factors(model)
    view = shared_view(model.hf)
    handles = []
    for (layer, module), (u, v) in delta.factors.items():
        linear = view.get_submodule(model.architecture.module_name(layer, module))
        handles.append(linear.register_forward_hook(lambda _, args, out, u=u, v=v: out + args[0] @ v.T @ u.T))
    with torch.no_grad():
        by_hooks = view(ids_of(model)).logits[0, -1]
    promises(model, delta, by_hooks)
    both = all_gates(model, layers=(0, 1)).then(delta).then(all_gates(model, seed=7, layers=(1,)))
    folded = shared_view(model.hf)
    fold(folded, model.architecture, both)
    with torch.no_grad():
        assert_near(edited_logits(model, both), folded(ids_of(model)).logits[0, -1])


@check("edit")
def test_only_selected_slices_move(name: str, record_property: Callable[[str, object], None]) -> None:
    model = model_of(name)
    neurons = [] if model.shape.no_neurons else ["L1N5", "L2N0"]
    selection = Selection(["L1H2", "L0K0", "L2V0", "L1Q3", *neurons])
    recipe = wb.Recipe(
        stages=("learn",),
        steps=6,
        early_stop=None,
        draw_back=None,
        optimiser="adam",
        learning_rate=0.02,
        warmup=0,
        retain_weight=0,
        batch_size=64,
    )
    before = {key: value.clone() for key, value in model.hf.state_dict().items()}
    edit = wb.rewrite(model, FRANCE, selection, recipe=recipe, pool=FACTS, progress=False)
    entries = selection.entries(model)
    for stage in edit.stages:
        for key, gate in gates_of(stage.delta).items():
            mask = torch.zeros(len(gate), dtype=torch.bool)
            mask[list(entries[key])] = True
            assert bool((gate[~mask] == 1).all()), key
            assert bool((gate[mask] != 1).any()), key
    assert all(torch.equal(before[key], value) for key, value in model.hf.state_dict().items())
    losses = [step.loss for step in edit.history]
    assert losses[-1] < losses[0] - 0.01, losses
    if model.shape.no_neurons:
        for chosen in ("L1N5", "L1MLP", "L1GATEUP", None):
            with pytest.raises(ValueError, match=re.escape(model.shape.no_neurons)):
                wb.rewrite(model, FRANCE, chosen and Selection(chosen), recipe=recipe, pool=FACTS, progress=False)
        record_property("without", f"no neurons and no whole MLPs: {model.shape.no_neurons}")


@check("export")
def test_exports_reload_in_plain_libraries(name: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = model_of(name)
    folder = wb.export_base(tmp_path / "base", model)
    for kind, delta in {"gates": all_gates(model), "factors": all_factors(model)}.items():
        edit, wanted = edit_with(model, delta), edited_logits(model, delta)
        edit.to_peft(tmp_path / kind, model=model)
        base: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
        with torch.no_grad():
            assert_near(base(ids_of(model)).logits[0, -1], model.runner(ids_of(model)).logits[0, -1])
            plain: Any = PeftModel.from_pretrained(base, str(tmp_path / kind)).eval()
            assert_near(plain(ids_of(model)).logits[0, -1], wanted)
    merged = wb.merge(model, edit_with(model, all_gates(model)), tmp_path / "merged")
    network: Any = AutoModelForCausalLM.from_pretrained(merged, local_files_only=True).eval()
    with torch.no_grad():
        assert_near(network(ids_of(model)).logits[0, -1], edited_logits(model, all_gates(model)))
    saved = edit_with(model, all_gates(model))
    wb.load_edit(saved.save(tmp_path / "edit")).to_peft(tmp_path / "again")
    first, again = ((tmp_path / kind / "adapter_model.safetensors").read_bytes() for kind in ("gates", "again"))
    assert first == again


@pytest.mark.parametrize("name", [name for name, tiny in TINY.items() if tiny.experts])
def test_an_expert_has_no_neurons(name: str) -> None:
    shape = model_of(name).shape
    assert not wb.types.all_components(shape, "N")
    with pytest.raises(ValueError, match="mixture of experts"):
        Component.parse("L0N0").check(shape)
    assert not Selection("L1MLP L2GATEUP").entries(shape)  # there to be seen, with nothing to train


def test_panels_of_a_mixture_ask_for_no_neurons() -> None:
    model = model_of("mixtral")
    picker = wb.CircuitPicker(model, FRANCE, pool=FACTS, form="cloze", compute=False)
    picker.compute().wait(60)
    assert set(picker.maps) >= {"heads", "mlps", "resid"} and "neurons" not in picker.maps
    picker.selection = Selection("L1MLP L1H2")
    assert Selection("L1MLP L1H2").n_parameters(model) == model.shape.d_head
