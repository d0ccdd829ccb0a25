"""What other programs and other parts make of an edited model, whatever the kind of its delta: the merged model, the
adapter in plain PEFT, the bridge, direct effects, partial passes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.deltas import (
    IDS,
    Case,
    assert_near,
    draw,
    edit_with,
    gates,
    has_memory,
    logits_of,
    low_rank,
    model_of,
)
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.views import shared_view
from workbench.tracing.dla import direct_effects, head_outputs
from workbench.tracing.replacements import entries_of, replacing, zeros
from workbench.types import GateDelta, LowRankDelta, TracedPrompt


def test_the_merged_model_is_the_edited_one(case: Case, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    edit = edit_with(case.model, case.delta)
    if has_memory(case.delta):
        with pytest.raises(ValueError, match=r"nor merged weights can do that. Save it with edit.save\(folder\)"):
            wb.merge(case.model, edit, tmp_path / "merged")
        assert not (tmp_path / "merged").exists()
        return
    wb.merge(case.model, edit, tmp_path / "merged")
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        assert_near(merged(IDS).logits, logits_of(case.model, edit))


def test_the_adapter_in_plain_peft_is_the_edited_model(case: Case, tmp_path: Path) -> None:
    from peft import PeftModel

    edit = edit_with(case.model, case.delta)
    kinds = {part.kind for part in getattr(case.delta, "parts", (case.delta,))}
    if has_memory(case.delta):
        with pytest.raises(
            ValueError, match=r"neither an adapter nor merged weights can do that. Save it with edit.save\(folder\)"
        ):
            edit.to_peft(tmp_path / "adapter", model=case.model)
        assert not (tmp_path / "adapter").exists()
        return
    if "dense" in kinds:
        with pytest.raises(ValueError, match=r"whole tensor.*wb.merge\(model, edit, folder\)"):
            edit.to_peft(tmp_path / "adapter", model=case.model)
        assert not (tmp_path / "adapter").exists()
        return
    if len(kinds) > 1:
        with pytest.raises(ValueError, match=r"needs the base's weights.*edit.to_peft\(folder, model=model\)"):
            edit.to_peft(tmp_path / "adapter")
    folder = edit.to_peft(tmp_path / "adapter", model=case.model if len(kinds) > 1 else None)
    kind = json.loads((folder / "adapter_config.json").read_text())["peft_type"]
    assert kind == ("IA3" if kinds == {"gates"} else "LORA")
    plain: Any = PeftModel.from_pretrained(shared_view(case.model.hf), str(folder)).eval()
    with torch.no_grad():
        assert_near(plain(IDS).logits, logits_of(case.model, edit))


def test_the_bridge_of_an_edited_model_agrees(case: Case) -> None:
    edit = edit_with(case.model, case.delta)
    with wb.applied(case.model, edit) as edited, torch.no_grad():
        assert_near(edited.bridge(IDS), edited.hf(IDS).logits)


def test_direct_effects_are_those_of_the_edited_weights(case: Case) -> None:
    """Heads add up to the attention's output, and neurons (with the output bias) to the MLP's, on the edited model."""
    edit = edit_with(case.model, case.delta)
    prompt = a_prompt()
    with wb.applied(case.model, edit) as edited:
        for layer in range(edited.shape.n_layers):
            heads, whole = head_outputs(edited, prompt, layer)
            bias = edited.bridge.blocks[layer].attn.b_O
            total = heads.sum(1) + (0 if bias is None else bias.detach())
            torch.testing.assert_close(total, whole, atol=1e-4, rtol=1e-3)
        if has_memory(case.delta):
            with pytest.raises(ValueError, match="A memory is beside the output projection of layer 1's MLP"):
                wb.writes(edited, "L1N3")
            if case.delta.kind == "memory":  # a value at the last token comes from no component
                with pytest.raises(ValueError, match="Direct effects do not add up"):
                    direct_effects(edited, prompt, "attn")
            return
        layers, single = (direct_effects(edited, prompt, unit)[0] for unit in ("attn", "head"))
        if all(edited.bridge.blocks[layer].attn.b_O is None for layer in range(edited.shape.n_layers)):
            torch.testing.assert_close(single.sum(1), layers, atol=1e-3, rtol=1e-3)
        mlps, _ = direct_effects(edited, prompt, "mlp")
        neurons, _ = direct_effects(edited, prompt, "neuron")
        if not any("bias" in n and "mlp" in n for n, _ in case.model.hf.named_parameters()):
            torch.testing.assert_close(neurons.sum(1), mlps, atol=1e-3, rtol=1e-3)


def a_prompt() -> TracedPrompt:
    ids = IDS[0].tolist()
    return TracedPrompt(
        fact_id="any",
        form="cloze",
        text="a prompt",
        prefix="",
        token_ids=tuple(ids),
        tokens=tuple(str(i) for i in ids),
        subject=(1, 2),
        answer_id=40,
        answer_token="x",
        other_token="y",
        other_id=41,
    )


def test_a_partial_pass_sees_the_edit(case: Case) -> None:
    """Scoring starts at the lowest changed layer, from the base's states."""
    from workbench.language.scoring import continuation_probabilities

    edit = edit_with(case.model, case.delta)
    row = (IDS[0, :4].tolist(), IDS[0, 4:].tolist())
    with wb.applied(case.model, edit) as edited, torch.no_grad():
        (found,) = continuation_probabilities(edited, [row])
        logprobs = edited.hf(IDS).logits[0].log_softmax(-1)
    expected = float((logprobs[3, row[1][0]] + logprobs[4, row[1][1]]).exp())
    assert found == pytest.approx(expected, rel=1e-3)


def test_a_gate_on_a_biased_output_is_no_lora(tmp_path: Path) -> None:
    model = model_of("llama, tied")  # with biases on q, k, v and o
    gate = 1 + draw(model.shape.site_size("v"), seed=2)
    edit = edit_with(model, GateDelta({(1, "v"): gate}), low_rank(model, 3))
    with pytest.raises(ValueError, match=r"self_attn.v_proj scale its bias too.*wb.merge"):
        edit.to_peft(tmp_path / "x", model=model)
    free = model_of("llama, untied")
    edit = edit_with(free, GateDelta({(1, "v"): gate}), low_rank(free, 3))
    from peft import PeftModel

    plain: Any = PeftModel.from_pretrained(shared_view(free.hf), str(edit.to_peft(tmp_path / "y", model=free))).eval()
    with torch.no_grad():
        assert_near(plain(IDS).logits, logits_of(free, edit))


def test_a_site_whose_gates_have_not_moved_is_no_obstacle_to_peft(tmp_path: Path) -> None:
    """PEFT knows no LoRA of rank 0."""
    from peft import PeftModel

    model = model_of("gpt2, tied")
    still = GateDelta({(2, "z"): torch.ones(model.shape.site_size("z")), (1, "z"): gates(model, 0).gates[1, "z"]})
    edit = replace(edit_with(model, still, low_rank(model, 1)), modules=None)  # the model at hand names the modules
    plain: Any = PeftModel.from_pretrained(shared_view(model.hf), str(edit.to_peft(tmp_path / "x", model=model))).eval()
    with torch.no_grad():
        assert_near(plain(IDS).logits, logits_of(model, edit))
    nothing = edit_with(model, LowRankDelta({(0, "mlp.c_proj"): (torch.ones(40, 0), torch.ones(0, 56))}))
    with pytest.raises(ValueError, match="changes nothing"):
        nothing.to_peft(tmp_path / "y")


def test_a_layer_without_output_is_a_layer_whose_parts_have_none(case: Case) -> None:
    """Ablating a whole MLP or attention layer is ablating all of its neurons or heads, but for an output bias."""
    edit = edit_with(case.model, case.delta)
    modules = dict(case.model.hf.named_modules())
    family = case.model.architecture.family
    outputs = {site: f"{family.layers}.1.{name}" for name, sites in family.modules.items() for site in sites}
    biased = {site for site in ("z", "post") if getattr(modules[outputs[site]], "bias", None) is not None}
    shape = case.model.shape
    with wb.applied(case.model, edit) as edited, torch.no_grad(), pooled_engine(Resumable, edited) as engine:
        resid = engine.embed(IDS)
        clean = engine.run(resid)

        def without(text: str) -> torch.Tensor:
            entries = entries_of(edited, wb.Selection(text))
            return engine.run(resid, changes=replacing(entries, zeros(entries)(())))

        pairs = {
            "post": ("L1MLP", " ".join(f"L1N{i}" for i in range(shape.d_mlp))),
            "z": ("L1ATTN", " ".join(f"L1H{i}" for i in range(shape.n_heads))),
        }
        for site, (whole, parts) in pairs.items():
            assert (without(whole) - clean).abs().max() > 1e-3
            if site not in biased:
                assert_near(without(whole), without(parts))


def test_edges_at_strength_0_are_the_bases_to_the_bit(case: Case) -> None:
    """With biases of the projections too, which an adapter's layer adds to what is read of its weight."""
    clean, corrupted = IDS[0].tolist(), [*IDS[0, :2].tolist(), 44, *IDS[0, 3:].tolist()]
    contrast = wb.Contrast(clean=clean, corrupted=corrupted, answer=12, wrong=13)
    edit = edit_with(case.model, case.delta)
    base = wb.edges(case.model, contrast, steps=2)
    with wb.applied(case.model, edit, strength=0.0) as unchanged:
        same = wb.edges(unchanged, contrast, steps=2)
    with wb.applied(case.model, edit) as edited:
        other = wb.edges(edited, contrast, steps=2)
    assert torch.equal(same.values.nan_to_num(), base.values.nan_to_num())
    assert not torch.allclose(other.values.nan_to_num(), base.values.nan_to_num(), atol=1e-3)
