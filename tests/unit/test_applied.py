"""Edited models: exact at strength 0, made of the base's own weights, and never in each other's way."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.deltas import gates_of
from tests.helpers.tiny import tiny_gpt2, tiny_llama, tiny_phi3
from tests.helpers.tiny_facts import capitals, edit_of, knowing, some_gates
from workbench.editing.applied import Dial, applied
from workbench.models.load import LoadedModel
from workbench.types import Edit, GateDelta

MAKERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tiny_llama(tied=False, bias=True),
    "gpt2": lambda: tiny_gpt2(tie_word_embeddings=False),
    "phi3": tiny_phi3,
}
FAMILIES = pytest.mark.parametrize("family", MAKERS)
SPLIT = {"llama": ("z", "post", "q", "k", "v", "gate", "up"), "gpt2": ("z", "post", "up"), "phi3": ("z", "post")}
FUSED = {"llama": (), "gpt2": ("q", "k", "v"), "phi3": ("q", "k", "v", "gate", "up")}


@lru_cache
def tiny(family: str = "llama") -> LoadedModel:
    return knowing(MAKERS[family](), capitals())


def two_stages(model: LoadedModel) -> Edit:
    sites = [(1, s) for s in (*SPLIT[name_of(model)], *FUSED[name_of(model)])]
    return edit_of(model, some_gates(model, *sites), some_gates(model, (0, "post"), (1, "z"), seed=1))


def name_of(model: LoadedModel) -> str:
    return {"LlamaForCausalLM": "llama", "GPT2LMHeadModel": "gpt2"}.get(type(model.base.hf).__name__, "phi3")


def logits(hf: Any, model: LoadedModel, rows: int = 1) -> Tensor:
    with torch.no_grad():
        out = hf(torch.tensor([model.token_ids("The capital of France is")] * rows))
    return out if isinstance(out, Tensor) else out.logits


@FAMILIES
@pytest.mark.parametrize("rows", [1, 3])
def test_strength_0_is_the_base_to_the_bit(family: str, rows: int) -> None:
    model = tiny(family)
    with applied(model, two_stages(model), strength=0.0) as edited:
        assert torch.equal(logits(edited.hf, model, rows), logits(model.hf, model, rows))
        assert torch.equal(logits(edited.runner, model, rows), logits(model.runner, model, rows))


@FAMILIES
def test_strength_0_is_the_base_to_the_bit_in_the_bridge(family: str) -> None:
    model = tiny(family)
    with applied(model, two_stages(model), strength=0.0) as edited:
        assert torch.equal(logits(edited.bridge, model), logits(model.bridge, model))


def test_strength_0_is_the_base_to_the_bit_in_half_precision() -> None:
    hf = tiny_llama(tied=False)
    model = knowing(hf)
    hf.to(torch.bfloat16)
    with applied(model, two_stages(model), strength=0.0) as edited:
        assert edited.dtype == torch.bfloat16
        assert torch.equal(logits(edited.hf, model), logits(model.hf, model))
    with applied(model, two_stages(model)) as edited:
        assert not torch.equal(logits(edited.hf, model), logits(model.hf, model))


@FAMILIES
@pytest.mark.parametrize("stage", [None, "unlearn"])
def test_a_turned_dial_is_the_edit_made_anew(family: str, stage: str | None) -> None:
    model = tiny(family)
    edit = two_stages(model)
    dial = Dial(model, edit, stage)
    for strength in (1.0, 0.3, 0.0, 1.0, -0.5):
        turned = dial.at(strength)
        with applied(model, edit, stage, strength) as anew:
            assert turned.fingerprint == anew.fingerprint
            assert torch.equal(logits(turned.hf, model), logits(anew.hf, model))
        if strength == 0:
            assert torch.equal(logits(turned.hf, model), logits(model.hf, model))


def test_a_dial_keeps_its_place_at_a_bad_strength() -> None:
    model = tiny()
    dial = Dial(model, two_stages(model))
    before = logits(dial.at(0.5).hf, model)
    with pytest.raises(ValueError, match="finite"):
        dial.at(float("nan"))
    assert torch.equal(logits(dial._view, model), before)


@FAMILIES
def test_gates_multiply_what_they_say(family: str) -> None:
    """Each site of an edited model against plain hooks on the base."""
    model = tiny(family)
    layer = f"{model.architecture.family.layers}.1"
    for site in (*SPLIT[family], *FUSED[family]):
        gates = some_gates(model, (1, site))
        place = model.architecture.gate_module(1, site)
        assert place.module.startswith(layer)
        module = model.hf.get_submodule(place.module)
        gate = gates[1, site]

        def scale(value: Tensor, span: Tensor = place.index, gate: Tensor = gate) -> Tensor:
            value = value.clone()
            value[..., span] *= gate
            return value

        if place.on_input:
            handle = module.register_forward_pre_hook(lambda m, a, f=scale: (f(a[0]), *a[1:]))
        else:
            handle = module.register_forward_hook(lambda m, a, out, f=scale: f(out))
        try:
            expected = logits(model.hf, model)
        finally:
            handle.remove()
        with applied(model, edit_of(model, gates)) as edited:
            torch.testing.assert_close(logits(edited.hf, model), expected, atol=2e-4, rtol=1e-5)
            assert (logits(edited.hf, model) - logits(model.hf, model)).abs().max() > 1e-2


@FAMILIES
def test_the_bridge_of_an_edited_model_computes_the_same(family: str) -> None:
    model = tiny(family)
    gates = some_gates(model, *((1, site) for site in SPLIT[family]))
    with applied(model, edit_of(model, gates)) as edited:
        torch.testing.assert_close(logits(edited.bridge, model), logits(edited.hf, model), atol=3e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "site"),
    [(family, site) for family, sites in FUSED.items() for site in sites],
)
def test_the_bridge_of_an_edited_model_with_fused_projections(family: str, site: Any) -> None:
    model = tiny(family)
    with applied(model, edit_of(model, some_gates(model, (1, site)))) as edited:
        torch.testing.assert_close(logits(edited.bridge, model), logits(edited.hf, model), atol=3e-4, rtol=1e-5)


def test_hooks_work_on_an_edited_model() -> None:
    """Its cached z is before the gate; zeroing it there takes the attention's output away."""
    model = tiny("gpt2")
    gates = some_gates(model, (1, "z"))
    ids = torch.tensor([model.token_ids("The capital of France is")])
    with applied(model, edit_of(model, gates)) as edited:
        _, cache = edited.bridge.run_with_cache(ids, names_filter=lambda n: n.endswith(("hook_z", "hook_attn_out")))
        z, out = cache["blocks.1.attn.hook_z"], cache["blocks.1.hook_attn_out"]
        attention = model.hf.transformer.h[1].attn.c_proj
        torch.testing.assert_close(
            (z.flatten(2) * gates[1, "z"]) @ attention.weight + attention.bias, out, atol=1e-4, rtol=0
        )
        _, cache_base = model.bridge.run_with_cache(ids, names_filter="blocks.1.attn.hook_z")
        torch.testing.assert_close(z, cache_base["blocks.1.attn.hook_z"], atol=1e-4, rtol=0)
        changed = edited.bridge.run_with_hooks(
            ids, fwd_hooks=[("blocks.1.attn.hook_z", lambda value, hook: torch.zeros_like(value))]
        )
        assert (changed - logits(edited.bridge, model)).abs().max() > 1e-3


@FAMILIES
def test_weights_are_shared(family: str) -> None:
    model = tiny(family)
    own = {p.data_ptr() for p in model.hf.parameters()}
    with applied(model, two_stages(model)) as edited:
        names = [n for n, p in edited.hf.named_parameters() if p.data_ptr() not in own]
        assert names
        assert all("ia3_l" in n for n in names)
        assert own <= {p.data_ptr() for p in edited.hf.parameters()}
        assert not any(p.requires_grad for p in edited.hf.parameters())
        assert edited.hf is not model.hf
        assert not edited.hf.training


def test_strength_is_a_straight_line_between_the_gates() -> None:
    model = tiny()
    edit = two_stages(model)
    for strength in (0.25, 0.5, 2.0, -1.0):
        with applied(model, edit, strength=strength) as edited:
            for key, gate in gates_of(edit.delta()).items():
                torch.testing.assert_close(gates_of(edited.delta)[key], 1 + strength * (gate - 1))
    assert all(torch.equal(gates_of(edit.delta(strength=1.0))[k], g) for k, g in gates_of(edit.delta()).items())


def test_stages_are_products_up_to_the_named_one() -> None:
    model = tiny()
    edit = two_stages(model)
    first, second = (gates_of(s.delta) for s in edit.stages)
    with applied(model, edit, "unlearn") as edited:
        assert set(gates_of(edited.delta)) == set(first)
        assert torch.equal(gates_of(edited.delta)[1, "z"], first[1, "z"])
        assert edited.applied[0].stage == "unlearn"
        unlearned = logits(edited.hf, model)
    with applied(model, edit, "learn") as edited:
        assert torch.equal(gates_of(edited.delta)[1, "z"], first[1, "z"] * second[1, "z"])
        assert torch.equal(gates_of(edited.delta)[0, "post"], second[0, "post"])
        learned = logits(edited.hf, model)
    with applied(model, edit) as edited:
        assert torch.equal(logits(edited.hf, model), learned)
        assert edited.applied[0].stage == "learn"
    assert not torch.equal(unlearned, learned)


def test_nested_and_repeated_use() -> None:
    model = tiny()
    edit, other = two_stages(model), edit_of(model, some_gates(model, (2, "post"), seed=3))
    base = logits(model.hf, model)
    with applied(model, edit) as a:
        alone = logits(a.hf, model)
        with applied(model, other) as b, applied(model, edit) as again:
            assert not torch.equal(logits(b.hf, model), alone)
            assert torch.equal(logits(again.hf, model), alone)
            assert torch.equal(logits(model.hf, model), base)
        assert torch.equal(logits(a.hf, model), alone)
    with applied(model, edit) as a:
        assert torch.equal(logits(a.hf, model), alone)
    assert torch.equal(logits(model.hf, model), base)
    assert torch.equal(logits(model.runner, model), base)


def test_stacking() -> None:
    model = tiny()
    edit, other = two_stages(model), edit_of(model, some_gates(model, (1, "post"), seed=3))
    with applied(model, edit) as once:
        with (
            pytest.raises(ValueError, match=r"carries 1 edit\(s\) already. Pass stack=True .*model.base"),
            applied(once, other),
        ):
            pass
        with applied(once, other, stack=True, strength=0.5) as twice:
            assert [a.edit for a in twice.applied] == [edit, other]
            assert [a.strength for a in twice.applied] == [1.0, 0.5]
            assert twice.base is model
            expected = gates_of(edit.delta())[1, "post"] * (1 + 0.5 * (gates_of(other.delta())[1, "post"] - 1))
            torch.testing.assert_close(gates_of(twice.delta)[1, "post"], expected)
            with applied(model, edit_of(model, dict(gates_of(twice.delta)))) as same:
                assert torch.equal(logits(twice.hf, model), logits(same.hf, model))
        with applied(model, other, strength=0.5) as first, applied(first, edit, stack=True) as reverse:
            assert reverse.fingerprint != twice.fingerprint


def test_fingerprints_of_edited_models() -> None:
    model = tiny()
    edit = two_stages(model)
    seen = {model.fingerprint}
    for stage, strength in (("unlearn", 1.0), ("learn", 1.0), ("learn", 0.5), ("learn", 0.0)):
        with applied(model, edit, stage, strength) as edited:
            seen.add(edited.fingerprint)
    assert len(seen) == 5
    with applied(model, edit) as edited, applied(model, edit, "learn") as again:
        assert edited.fingerprint == again.fingerprint
        assert edited.fingerprint in seen


def test_an_edit_of_another_base_is_refused() -> None:
    model = tiny()
    other = knowing(tiny_llama(seed=1, tied=False), name="other")
    edit = two_stages(model)
    with pytest.raises(ValueError) as caught, applied(other, edit):
        pass
    for part in ("'tiny'", model.fingerprint[:16], "'other'", other.fingerprint[:16]):
        assert part in str(caught.value)


def test_unknown_stages_and_strengths() -> None:
    model = tiny()
    edit = edit_of(model, some_gates(model, (1, "post")))
    with (
        pytest.raises(ValueError, match=r"no stage 'unlearn'; the recipe .* made \['learn'\]"),
        applied(model, edit, "unlearn"),
    ):
        pass
    for strength in (float("nan"), float("inf")):
        with (
            pytest.raises(ValueError, match="strength must be a finite number"),
            applied(model, edit, strength=strength),
        ):
            pass


def test_an_exception_inside_the_block_leaves_the_base_as_it_was() -> None:
    model = tiny()
    before = logits(model.hf, model)
    modules = [(n, id(m)) for n, m in model.hf.named_modules()]

    def fail(edited: LoadedModel) -> None:
        assert edited.bridge is not None
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"), applied(model, two_stages(model)) as edited:
        fail(edited)
    assert [(n, id(m)) for n, m in model.hf.named_modules()] == modules
    assert torch.equal(logits(model.hf, model), before)
    assert model.applied == ()
    with applied(model, two_stages(model)) as edited:
        assert not torch.equal(logits(edited.hf, model), before)


def test_the_edited_model_says_what_it_is() -> None:
    model = tiny()
    with applied(model, two_stages(model), "unlearn", 0.5) as edited:
        assert "edited (unlearn at 0.5)" in repr(edited)
        assert edited.base is model
        assert edited.tokenizer is model.tokenizer
        assert edited.shape == model.shape


# Gates and edits as values


def test_deltas_multiply_and_scale() -> None:
    a = GateDelta({(0, "z"): torch.tensor([2.0, 3.0]), (1, "post"): torch.tensor([0.5, 1.0, 1.0])})
    b = GateDelta({(0, "z"): torch.tensor([4.0, 1.0]), (2, "k"): torch.tensor([7.0])})
    product = (a * b).gates
    assert {k: v.tolist() for k, v in product.items()} == {
        (0, "z"): [8.0, 3.0],
        (1, "post"): [0.5, 1, 1],
        (2, "k"): [7.0],
    }
    assert a.n_moved() == 3
    assert a.largest_move() == 2.0
    assert GateDelta({}).largest_move() == 0.0
    assert a.scaled(0.5).gates[0, "z"].tolist() == [1.5, 2.0]
    assert a.scaled(0.0).n_moved() == 0


def test_what_comes_after_a_delta_to_give_another() -> None:
    """A gate that was closed before cannot be opened: what comes after it stays at 1."""
    whole = GateDelta({(0, "z"): torch.tensor([3.0, 2.0, 5.0])})
    before = GateDelta({(0, "z"): torch.tensor([2.0, 1.0, 0.0]), (1, "post"): torch.tensor([4.0])})
    after = (whole / before).gates
    assert after[0, "z"].tolist() == [1.5, 2.0, 1.0] and after[1, "post"].tolist() == [0.25]
    assert (before * (whole / before)).gates[0, "z"].tolist() == [3.0, 2.0, 0.0]
    assert (whole / GateDelta({})).gates[0, "z"].tolist() == [3.0, 2.0, 5.0]


def test_a_delta_keeps_its_own_copy() -> None:
    raw = torch.ones(3)
    delta = GateDelta({(0, "z"): raw})
    raw[0] = 5
    assert delta.n_moved() == 0


def test_the_id_changes_with_what_the_edit_does() -> None:
    model = tiny()
    gates = some_gates(model, (1, "z"))
    other = {(1, "z"): gates[1, "z"].clone()}
    other[1, "z"][5] += 1e-6
    ids = {
        edit_of(model, gates).id,
        edit_of(model, other).id,
        edit_of(model, gates, gates).id,
        edit_of(model, {(1, "q"): gates[1, "z"]}).id,
    }
    assert len(ids) == 4
    assert edit_of(model, gates).id == edit_of(model, dict(gates)).id
