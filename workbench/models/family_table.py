"""The table of decoder families: the one place that knows module names and the names of transformers' classes.

A new family is a new row, with a tiny model in ``tests/helpers/families.py``. What is not in the table is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.models.family import Family
from workbench.types import Site

_ATTENTION: dict[str, tuple[Site, ...]] = {
    "self_attn.q_proj": ("q",),
    "self_attn.k_proj": ("k",),
    "self_attn.v_proj": ("v",),
    "self_attn.o_proj": ("z",),
}
_GATED: dict[str, tuple[Site, ...]] = {"mlp.gate_proj": ("gate",), "mlp.up_proj": ("up",), "mlp.down_proj": ("post",)}
_PHI: dict[str, tuple[Site, ...]] = {
    **{name: sites for name, sites in _ATTENTION.items() if sites != ("z",)},
    "self_attn.dense": ("z",),
    "mlp.fc1": ("up",),
    "mlp.fc2": ("post",),
}


def _llama_like(name: str, *classes: str, **options: Any) -> Family:
    """A family with Llama's module names."""
    usual: dict[str, Any] = {
        "layers": "model.layers",
        "modules": _ATTENTION | _GATED,
        "attention": "self_attn",
        "mlp": "mlp",
    }
    return Family(name, classes, **(usual | options))


_POST_NORMS: dict[str, Any] = {
    "attention": "post_attention_layernorm",
    "mlp": "post_feedforward_layernorm",
    "post_norms": True,
}


def _always(config: Any) -> bool:
    return True


def _parallel_option(config: Any) -> bool:
    return bool(getattr(config, "use_parallel_residual", False))


def _falcon_groups(config: Any) -> int:
    if getattr(config, "new_decoder_architecture", False):
        return config.num_kv_heads
    return 1 if getattr(config, "multi_query", False) else config.num_attention_heads


def _falcon_parallel(config: Any) -> bool:
    return any(getattr(config, name, False) for name in ("new_decoder_architecture", "parallel_attn"))


def _opt_problem(config: Any) -> str:
    if not config.do_layer_norm_before:
        return "it normalises the residual stream itself after every sublayer, so that nothing is simply added to it"
    if config._remove_final_layer_norm:
        return "it has no norm before the output embeddings"
    if config.word_embed_proj_dim != config.hidden_size:
        return "its embeddings are projected to another width, before the first layer and after the last"
    return ""


def _bloom_problem(config: Any) -> str:
    if config.apply_residual_connection_post_layernorm:
        return "its sublayers are added to the normalised states, so that there is no residual stream"
    if config.slow_but_exact and config.pretraining_tp > 1:
        return "with slow_but_exact it computes its output projections in slices, past their modules"
    return ""


def _hybrid_problem(config: Any) -> str:
    if getattr(config, "use_bidirectional_attention", None):
        return "it attends in both directions, and is not a decoder"
    return ""


def _encoder(config: Any) -> str:
    return "it attends to an encoder as well" if config.add_cross_attention else ""


FAMILIES: tuple[Family, ...] = (
    _llama_like("Llama", "LlamaForCausalLM"),
    _llama_like("SmolLM3", "SmolLM3ForCausalLM"),
    _llama_like("Mistral", "MistralForCausalLM"),
    _llama_like("Ministral", "MinistralForCausalLM", "Ministral3ForCausalLM"),
    _llama_like("Qwen2", "Qwen2ForCausalLM"),
    _llama_like("Qwen3", "Qwen3ForCausalLM"),
    _llama_like("Gemma", "GemmaForCausalLM", scaled_embeddings=True),
    _llama_like("Gemma 2", "Gemma2ForCausalLM", scaled_embeddings=True, problem=_hybrid_problem, **_POST_NORMS),
    _llama_like("Gemma 3", "Gemma3ForCausalLM", scaled_embeddings=True, problem=_hybrid_problem, **_POST_NORMS),
    Family(
        "Phi-1.5 and Phi-2",
        ("PhiForCausalLM",),
        "model.layers",
        _PHI,
        attention="self_attn",
        mlp="mlp",
        norm="model.final_layernorm",
        parallel=_always,
    ),
    Family(
        "Phi-3",
        ("Phi3ForCausalLM",),
        "model.layers",
        {
            "self_attn.qkv_proj": ("q", "k", "v"),
            "self_attn.o_proj": ("z",),
            "mlp.gate_up_proj": ("gate", "up"),
            "mlp.down_proj": ("post",),
        },
        attention="self_attn",
        mlp="mlp",
    ),
    _llama_like("OLMo", "OlmoForCausalLM"),
    _llama_like("OLMo 2", "Olmo2ForCausalLM", **_POST_NORMS),
    _llama_like("OLMo 3", "Olmo3ForCausalLM", **_POST_NORMS),
    _llama_like("Granite", "GraniteForCausalLM"),
    _llama_like("Cohere", "CohereForCausalLM", parallel=_always),
    _llama_like("Cohere 2", "Cohere2ForCausalLM", parallel=_always),
    _llama_like("StableLM", "StableLmForCausalLM", parallel=_parallel_option),
    _llama_like("Exaone 4", "Exaone4ForCausalLM", **_POST_NORMS),
    _llama_like("Seed-OSS", "SeedOssForCausalLM"),
    _llama_like("ERNIE 4.5 (dense)", "Ernie4_5ForCausalLM"),
    _llama_like("HunYuan (dense)", "HunYuanDenseV1ForCausalLM"),
    _llama_like("Helium", "HeliumForCausalLM"),
    _llama_like(
        "StarCoder2",
        "Starcoder2ForCausalLM",
        modules=_ATTENTION | {"mlp.c_fc": ("up",), "mlp.c_proj": ("post",)},
    ),
    Family(
        "GPT-2",
        ("GPT2LMHeadModel",),
        "transformer.h",
        {"attn.c_attn": ("q", "k", "v"), "attn.c_proj": ("z",), "mlp.c_fc": ("up",), "mlp.c_proj": ("post",)},
        attention="attn",
        mlp="mlp",
        norm="transformer.ln_f",
        problem=_encoder,
    ),
    Family(
        "GPT-J",
        ("GPTJForCausalLM",),
        "transformer.h",
        {
            "attn.q_proj": ("q",),
            "attn.k_proj": ("k",),
            "attn.v_proj": ("v",),
            "attn.out_proj": ("z",),
            "mlp.fc_in": ("up",),
            "mlp.fc_out": ("post",),
        },
        attention="attn",
        mlp="mlp",
        norm="transformer.ln_f",
        parallel=_always,
        own_attention=True,
        tuples=True,
    ),
    Family(
        "GPT-Neo",
        ("GPTNeoForCausalLM",),
        "transformer.h",
        {
            "attn.attention.q_proj": ("q",),
            "attn.attention.k_proj": ("k",),
            "attn.attention.v_proj": ("v",),
            "attn.attention.out_proj": ("z",),
            "mlp.c_fc": ("up",),
            "mlp.c_proj": ("post",),
        },
        attention="attn",
        mlp="mlp",
        norm="transformer.ln_f",
        own_attention=True,
        tuples=True,
    ),
    Family(
        "GPT-NeoX and Pythia",
        ("GPTNeoXForCausalLM",),
        "gpt_neox.layers",
        {
            "attention.query_key_value": ("q", "k", "v"),
            "attention.dense": ("z",),
            "mlp.dense_h_to_4h": ("up",),
            "mlp.dense_4h_to_h": ("post",),
        },
        attention="attention",
        mlp="mlp",
        norm="gpt_neox.final_layer_norm",
        interleaved=True,
        parallel=_parallel_option,
    ),
    Family(
        "OPT",
        ("OPTForCausalLM",),
        "model.decoder.layers",
        {
            "self_attn.q_proj": ("q",),
            "self_attn.k_proj": ("k",),
            "self_attn.v_proj": ("v",),
            "self_attn.out_proj": ("z",),
            "fc1": ("up",),
            "fc2": ("post",),
        },
        attention="self_attn",
        mlp="fc2",
        norm="model.decoder.final_layer_norm",
        flat_mlp=True,
        problem=_opt_problem,
    ),
    Family(
        "BLOOM",
        ("BloomForCausalLM",),
        "transformer.h",
        {
            "self_attention.query_key_value": ("q", "k", "v"),
            "self_attention.dense": ("z",),
            "mlp.dense_h_to_4h": ("up",),
            "mlp.dense_4h_to_h": ("post",),
        },
        attention="self_attention.dense",  # whose modules add the residual stream themselves
        mlp="mlp.dense_4h_to_h",
        norm="transformer.ln_f",
        interleaved=True,
        own_attention=True,
        tuples=True,
        problem=_bloom_problem,
    ),
    Family(
        "Falcon",
        ("FalconForCausalLM",),
        "transformer.h",
        {
            "self_attention.query_key_value": ("q", "k", "v"),
            "self_attention.dense": ("z",),
            "mlp.dense_h_to_4h": ("up",),
            "mlp.dense_4h_to_h": ("post",),
        },
        attention="self_attention",
        mlp="mlp",
        norm="transformer.ln_f",
        interleaved=True,
        parallel=_falcon_parallel,
        kv_heads=_falcon_groups,
        own_attention=True,
        tuples=True,
        adds_in_place=True,
    ),
    _llama_like("Mixtral", "MixtralForCausalLM", experts="mlp.experts"),
    _llama_like("Qwen3-MoE", "Qwen3MoeForCausalLM", experts="mlp.experts"),
    _llama_like("GLM-4 MoE", "Glm4MoeForCausalLM", experts="mlp.experts"),
    _llama_like("GPT-OSS", "GptOssForCausalLM", experts="mlp.experts"),
)

REFUSED: Mapping[str, str] = {
    "DiffLlamaForCausalLM": (
        "its attention is the difference of two softmaxes, taken and normalised over pairs of heads, so no slice of "
        "what enters the output projection is one head"
    ),
    "Gemma3ForConditionalGeneration": "it reads images too; load its text model, Gemma3ForCausalLM",
    "MambaForCausalLM": "it has no attention",
    "Mamba2ForCausalLM": "it has no attention",
    "RwkvForCausalLM": "it has no attention",
    "RecurrentGemmaForCausalLM": "most of its layers have no attention",
    "JambaForCausalLM": "most of its layers have no attention",
    "Qwen3NextForCausalLM": "most of its layers have no softmax attention",
    "Gemma3nForCausalLM": "its residual stream is several streams that are mixed by learned weights",
    "DeepseekV2ForCausalLM": "its keys and values are projected from a compressed state that heads share",
    "DeepseekV3ForCausalLM": "its keys and values are projected from a compressed state that heads share",
}
"""Classes of transformers that are known and refused: why."""
