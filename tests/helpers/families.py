"""A tiny random model of every family, made from its configuration in transformers, for ``tests/conformance``.

Sizes differ wherever a family allows it (heads times head width is not d_model, fewer key-value groups than heads),
every parameter is random, and multipliers, caps, windows and options have values that matter: neutral ones hide
faults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
import transformers

from tests.helpers.tiny import N_VOCAB, TOKENS, randomise, tiny_gpt2, tiny_phi3
from tests.helpers.tiny_facts import capitals, tokenizer_from_files
from workbench.language.prompts import answer_ids, prompt_ids
from workbench.models.load import LoadedModel, load_model

_SIZES = {
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "max_position_embeddings": 128,
}
_WIDE = {"head_dim": 10}  # of 6 heads: 60 entries beside a d_model of 48
_WINDOW = {"sliding_window": 3}
_SLIDING = {**_WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_EXPERTS = {"num_experts_per_tok": 2}


@dataclass(frozen=True)
class Tiny:
    """How to make a tiny model.

    Args:
        family: Its family's name in ``models/family_table.py``.
        config: The name of its configuration's class in transformers.
        options: Settings of it.
        make: Makes it otherwise.
        experts: Its MLPs are mixtures of experts, some or all.
        plain: Why traces take the plain path, one pass a cell; empty where the fast one serves.
    """

    family: str
    config: str = ""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    make: Callable[[], Any] | None = None
    experts: bool = False
    plain: str = ""

    def hf(self, seed: int = 0) -> Any:
        """The model, in eval mode, every parameter drawn by seed."""
        if self.make is not None:
            return self.make()
        config = getattr(transformers, self.config)(vocab_size=N_VOCAB, **{**TOKENS, **self.options})
        network = transformers.AutoModelForCausalLM.from_config(config)
        return randomise(network, seed)


_OWN = "its layers attend by code of their own"
_CAPPED = "its attention caps scores"
_SINKS = "its attention has sinks"
_NEOX = {"num_attention_heads": 6, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 3}
_GPT = {"n_embd": 48, "n_head": 6, "n_layer": 3, "n_inner": 56, "n_positions": 128}
_OPT = {"hidden_size": 48, "ffn_dim": 56, "num_attention_heads": 6, "num_hidden_layers": 3, "word_embed_proj_dim": 48}
_BLOOM = {"hidden_size": 48, "n_head": 6, "n_layer": 3}
_NEO = {
    "hidden_size": 48,
    "num_heads": 6,
    "num_layers": 3,
    "intermediate_size": 56,
    "window_size": 3,
    "attention_types": [[["global", "local", "global"], 1]],
    "max_position_embeddings": 128,
}
_FALCON = {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 3, "ffn_hidden_size": 56, "bias": True}


TINY: dict[str, Tiny] = {
    "llama": Tiny("Llama", "LlamaConfig", {**_SIZES, **_WIDE, "attention_bias": True, "mlp_bias": True}),
    "llama, tied": Tiny("Llama", "LlamaConfig", {**_SIZES, **_WIDE, "tie_word_embeddings": True}),
    "smollm3": Tiny("SmolLM3", "SmolLM3Config", {**_SIZES, "no_rope_layers": [1, 0, 1], "attention_bias": True}),
    "mistral": Tiny("Mistral", "MistralConfig", {**_SIZES, **_WIDE, **_WINDOW}),
    "ministral": Tiny("Ministral", "MinistralConfig", {**_SIZES, **_WIDE, **_SLIDING}),
    "ministral 3": Tiny("Ministral", "Ministral3Config", {**_SIZES, **_WIDE}),
    "qwen2": Tiny(
        "Qwen2",
        "Qwen2Config",
        {**_SIZES, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    ),
    "qwen3": Tiny("Qwen3", "Qwen3Config", {**_SIZES, **_WIDE, "attention_bias": True, "tie_word_embeddings": True}),
    "gemma": Tiny("Gemma", "GemmaConfig", {**_SIZES, **_WIDE}),
    "gemma 2": Tiny(
        "Gemma 2",
        "Gemma2Config",
        {**_SIZES, **_WIDE, **_SLIDING, "query_pre_attn_scalar": 12, "final_logit_softcapping": 20.0}
        | {"attn_logit_softcapping": 5.0},
        plain=_CAPPED,
    ),
    "gemma 3": Tiny("Gemma 3", "Gemma3TextConfig", {**_SIZES, **_WIDE, **_SLIDING, "query_pre_attn_scalar": 12}),
    "phi 2": Tiny("Phi-1.5 and Phi-2", "PhiConfig", {**_SIZES, "qk_layernorm": True, "partial_rotary_factor": 0.5}),
    "phi 3": Tiny("Phi-3", make=tiny_phi3),
    "olmo": Tiny("OLMo", "OlmoConfig", {**_SIZES, "clip_qkv": 1.0}),
    "olmo 2": Tiny("OLMo 2", "Olmo2Config", _SIZES),
    "olmo 3": Tiny("OLMo 3", "Olmo3Config", {**_SIZES, **_SLIDING}),
    "granite": Tiny(
        "Granite",
        "GraniteConfig",
        {**_SIZES, "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": 8.0}
        | {"attention_multiplier": 0.4, "tie_word_embeddings": True},
    ),
    "cohere": Tiny("Cohere", "CohereConfig", {**_SIZES, "logit_scale": 0.25, "use_qk_norm": True}),
    "cohere 2": Tiny("Cohere 2", "Cohere2Config", {**_SIZES, **_WIDE, **_SLIDING, "logit_scale": 0.25}),
    "stablelm": Tiny("StableLM", "StableLmConfig", {**_SIZES, "use_qkv_bias": True}, plain=_OWN),
    "stablelm, parallel": Tiny(
        "StableLM",
        "StableLmConfig",
        {**_SIZES, "qk_layernorm": True, "use_parallel_residual": True},
        plain=_OWN,
    ),
    "exaone 4": Tiny("Exaone 4", "Exaone4Config", {**_SIZES, **_SLIDING}),
    "seed-oss": Tiny("Seed-OSS", "SeedOssConfig", {**_SIZES, **_WIDE}),
    "ernie 4.5": Tiny("ERNIE 4.5 (dense)", "Ernie4_5Config", {**_SIZES, **_WIDE, "use_bias": True}),
    "hunyuan": Tiny("HunYuan (dense)", "HunYuanDenseV1Config", {**_SIZES, **_WIDE}),
    "helium": Tiny("Helium", "HeliumConfig", {**_SIZES, "head_dim": 8}),
    "starcoder2": Tiny("StarCoder2", "Starcoder2Config", {**_SIZES, **_WINDOW, "tie_word_embeddings": False}),
    "gpt2": Tiny("GPT-2", make=lambda: tiny_gpt2(tie_word_embeddings=False)),
    "gpt2, scaled by layer": Tiny(
        "GPT-2", make=lambda: tiny_gpt2(scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=True)
    ),
    "gpt-j": Tiny("GPT-J", "GPTJConfig", {**_GPT, "rotary_dim": 4}, plain=_OWN),
    "gpt-neo": Tiny("GPT-Neo", "GPTNeoConfig", {**_NEO, "tie_word_embeddings": True}, plain=_OWN),
    "gpt-neox": Tiny("GPT-NeoX and Pythia", "GPTNeoXConfig", {**_NEOX, "partial_rotary_factor": 0.5}),
    "gpt-neox, sequential": Tiny("GPT-NeoX and Pythia", "GPTNeoXConfig", {**_NEOX, "use_parallel_residual": False}),
    "opt": Tiny("OPT", "OPTConfig", {**_OPT, "max_position_embeddings": 128}),
    "bloom": Tiny("BLOOM", "BloomConfig", _BLOOM, plain=_OWN),
    "falcon": Tiny("Falcon", "FalconConfig", {**_FALCON, "tie_word_embeddings": False}, plain=_OWN),
    "falcon, groups": Tiny(
        "Falcon",
        "FalconConfig",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "tie_word_embeddings": True},
        plain=_OWN,
    ),
    "falcon, alibi": Tiny(
        "Falcon",
        "FalconConfig",
        {**_FALCON, "alibi": True, "multi_query": False, "parallel_attn": False, "tie_word_embeddings": False},
        plain=_OWN,
    ),
    "mixtral": Tiny("Mixtral", "MixtralConfig", {**_SIZES, **_EXPERTS, "num_local_experts": 3}, experts=True),
    "qwen3-moe": Tiny(
        "Qwen3-MoE",
        "Qwen3MoeConfig",
        {**_SIZES, **_WIDE, **_EXPERTS, "num_experts": 4, "moe_intermediate_size": 24, "mlp_only_layers": [0]},
        experts=True,
    ),
    "glm-4 moe": Tiny(
        "GLM-4 MoE",
        "Glm4MoeConfig",
        {**_SIZES, **_WIDE, **_EXPERTS, "moe_intermediate_size": 24, "n_routed_experts": 4, "n_shared_experts": 1}
        | {"first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "use_qk_norm": True, "attention_bias": True},
        experts=True,
    ),
    "gpt-oss": Tiny(
        "GPT-OSS",
        "GptOssConfig",
        {**_SIZES, **_WIDE, **_SLIDING, **_EXPERTS, "num_local_experts": 4},
        experts=True,
        plain=_SINKS,
    ),
}
"""By name, how to make a tiny model; several of a family whose options change what it computes."""


@lru_cache
def model_of(name: str, *, double: bool = False) -> LoadedModel:
    """A tiny model that says the capitals of ``tiny_facts.ROWS`` after their clozes; nothing may change it.

    Args:
        name: A key of ``TINY``.
        double: In double precision.
    """
    hf = TINY[name].hf()
    model = load_model(hf, tokenizer=tokenizer_from_files(chat=False), name=name)
    traits = model.architecture.traits
    logit = 14.0 if traits.logit_cap is None else float(traits.logit_cap * torch.atanh(torch.tensor(0.7)))
    _teach(hf, model, logit / traits.logit_scale)
    if double:
        hf.double()
        if TINY[name].experts:
            hf.set_experts_implementation("eager")  # the default is for single precision at most
    return model


def _teach(hf: Any, model: LoadedModel, logit: float) -> None:
    """Set the output embeddings of the answers and of the end so that each cloze is answered, and then the text ends.
    None of these tokens is in a cloze, and the end's in no text, so tied embeddings can be set as well."""
    clozes = [prompt_ids(model, fact.prompt, "cloze") for fact in capitals()]
    answers = [answer_ids(model, fact.answer, "cloze")[0] for fact in capitals()]
    _set_rows(hf, clozes, {token: [logit * (token == t) for t in answers] for token in answers})
    ended = [[*cloze, answer] for cloze, answer in zip(clozes, answers, strict=True)]
    end = {model.tokenizer.eos_token_id: [0.0] * len(clozes) + [logit] * len(ended)}
    _set_rows(hf, [*clozes, *ended], end)


def _set_rows(hf: Any, texts: list[list[int]], wanted: Mapping[int, list[float]]) -> None:
    """Output embeddings of some tokens that give these logits after the texts, before scales and caps."""
    with torch.no_grad():
        states = [hf.base_model(torch.tensor([ids])).last_hidden_state[0, -1].double() for ids in texts]
        logits = torch.tensor(list(wanted.values()), dtype=torch.float64)
        rows = torch.linalg.lstsq(torch.stack(states), logits.T, driver="gelsd").solution.T
        output = hf.get_output_embeddings().weight
        output[list(wanted)] = rows.to(output.dtype)
