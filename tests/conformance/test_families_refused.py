"""Models that are refused, each with the reason; models of no family of the table; what decides a module's layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

import workbench as wb
from tests.helpers.families import TINY, model_of
from tests.helpers.tiny import N_VOCAB, TOKENS, loaded, random_edit, randomise, tiny_gpt2, tiny_llama
from tests.helpers.tiny_facts import capitals
from workbench.models.deltas import fold
from workbench.models.families import UnknownFamilyError, best_effort, read_architecture
from workbench.models.family_table import FAMILIES, REFUSED
from workbench.models.views import shared_view

SIZES = {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 3}


def made(config: str, **options: Any) -> Any:
    """A tiny random model by the name of its configuration."""
    given = getattr(transformers, config)(vocab_size=N_VOCAB, **{**TOKENS, **options})
    return randomise(transformers.AutoModelForCausalLM.from_config(given), 0)


def test_every_family_has_a_tiny_model() -> None:
    assert {tiny.family for tiny in TINY.values()} == {family.name for family in FAMILIES}
    classes = [name for family in FAMILIES for name in family.classes]
    assert len(classes) == len(set(classes)) and not set(classes) & REFUSED.keys()
    assert {type(model_of(name).hf).__name__ for name in TINY} == set(classes)


@pytest.mark.parametrize("name", [*(c for family in FAMILIES for c in family.classes), *REFUSED])
def test_the_classes_are_those_of_transformers(name: str) -> None:
    assert hasattr(transformers, name)


@pytest.mark.parametrize(
    ("hf", "words"),
    [
        (lambda: made("DiffLlamaConfig", **SIZES, num_key_value_heads=2), "difference of two softmaxes"),
        (
            lambda: made("OPTConfig", **SIZES, ffn_dim=56, do_layer_norm_before=False),
            "normalises the residual stream itself",
        ),
        (lambda: made("OPTConfig", **SIZES, ffn_dim=56, word_embed_proj_dim=24), "projected to another width"),
        (
            lambda: made("BloomConfig", hidden_size=48, n_head=6, apply_residual_connection_post_layernorm=True),
            "no residual stream",
        ),
        (lambda: made("BloomConfig", hidden_size=48, n_head=6, pretraining_tp=2, slow_but_exact=True), "in slices"),
        (lambda: tiny_gpt2(add_cross_attention=True), "attends to an encoder"),
        (lambda: made("Gemma3TextConfig", **SIZES, use_bidirectional_attention=True), "both directions"),
    ],
)
def test_what_cannot_be_right_is_refused_with_the_reason(hf: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        loaded(hf())


def test_a_model_of_no_family_is_refused_and_may_be_read_by_its_names() -> None:
    hf = made("ApertusConfig", **SIZES, intermediate_size=56, num_key_value_heads=2)
    with pytest.raises(
        UnknownFamilyError, match=r"ApertusForCausalLM is of no supported decoder family.*Llama, SmolLM3"
    ):
        loaded(hf)
    with pytest.raises(ValueError, match=r"Nor does it have the module names of one of them.*lacks|has no"):
        best_effort(hf)
    hf = made("ArceeConfig", **SIZES, intermediate_size=56, num_key_value_heads=2)
    with pytest.raises(ValueError, match=r"has no mlp.gate_proj in layer 0"):
        best_effort(hf)

    class MineForCausalLM(transformers.LlamaForCausalLM):
        pass

    mine: Any = MineForCausalLM(tiny_llama().config)
    with pytest.raises(UnknownFamilyError):
        read_architecture(mine)
    found = best_effort(mine)
    assert found.untested and found.family.name == "MineForCausalLM, read as Llama"
    assert found.shape == read_architecture(tiny_llama()).shape
    assert not best_effort(tiny_llama()).untested


def test_all_layers_are_looked_at() -> None:
    hf = tiny_llama()
    del hf.model.layers[2].mlp.up_proj
    with pytest.raises(ValueError, match=r"has no mlp.up_proj in layer 2"):
        loaded(hf)
    hf = tiny_llama()
    hf.model.layers[1].self_attn.o_proj = nn.Linear(40, 42, bias=False)
    with pytest.raises(ValueError, match=r"layers.1.self_attn.o_proj .* has 40 inputs.* 48 are expected"):
        loaded(hf)
    hf = tiny_llama()
    hf.model.layers[2].mlp.down_proj = nn.Bilinear(5, 6, 7)
    with pytest.raises(ValueError, match=r"layers.2.mlp.down_proj .* is a Bilinear.* must be a Linear or a Conv1D"):
        loaded(hf)


def test_a_mixture_whose_first_layer_is_dense_has_no_neurons_anywhere() -> None:
    model = model_of("glm-4 moe")
    assert model.architecture.traits.experts == (1, 2)
    for text in ("L0N5", "L1N5", "L0MLP", "L1H2 L2GATEUP"):
        with pytest.raises(ValueError, match=r"2 of 3 layers \(L1 first\) the MLP is a mixture of experts"):
            wb.rewrite(model, capitals()[0], text, pool=capitals(), progress=False)


def test_conv1d_or_linear_is_told_by_the_class_of_the_module() -> None:
    """GPT-2 with one square output projection made a plain Linear, and the same numbers."""
    hf = tiny_gpt2(n_inner=40)
    for name in ("attn", "mlp"):
        of = getattr(hf.transformer.h[1], name)
        conv: Conv1D = of.c_proj
        assert conv.weight.shape == (40, 40)
        linear = nn.Linear(40, 40)
        linear.weight, linear.bias = nn.Parameter(conv.weight.T.contiguous()), nn.Parameter(conv.bias.clone())
        of.c_proj = linear.requires_grad_(False)
    plain, mixed = loaded(tiny_gpt2(n_inner=40)), loaded(hf)
    ids = torch.tensor([[5, 90, 17, 201, 33]])
    delta = random_edit(plain, "L1ATTN L1MLP L2MLP L2H1").delta()
    logits = []
    with torch.no_grad():
        for model in (plain, mixed):
            view = shared_view(model.hf)
            fold(view, model.architecture, delta)
            with wb.applied(model, random_edit(model, "L1ATTN L1MLP L2MLP L2H1")) as edited:
                logits += [view(ids).logits, edited.hf(ids).logits]
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], atol=1e-4, rtol=1e-4)
