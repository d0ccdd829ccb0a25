"""Tiny random models of each family with a real tokenizer, made offline in a moment.

Their sizes differ on purpose (heads x head width is not d_model where the family allows it, key-value groups are fewer
than heads), so that rows and columns cannot be mixed up. Every parameter is random, biases and norms too, so that a
forgotten bias shows.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import GPT2Config, LlamaConfig, Phi3Config, PreTrainedTokenizerFast, Qwen2Config
from transformers.models.gpt2 import GPT2LMHeadModel
from transformers.models.llama import LlamaForCausalLM
from transformers.models.phi3 import Phi3ForCausalLM
from transformers.models.qwen2 import Qwen2ForCausalLM

from workbench.editing.methods.table import Recipe
from workbench.models.load import LoadedModel, load_model
from workbench.types import Edit, EditStage, Fact, GateDelta, Selection, Step

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
SPECIAL = (PAD, BOS, EOS, "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = (
    *("The", "capital", "of", "is", "in", "city", "France", "Paris", "Rome", "Italy", "Spain", "Madrid", "Germany"),
    *("Berlin", "Japan", "Tokyo", "What", "Where", "Who", "user", "assistant", "system", "language", "painted", "by"),
    *("wrote", "I", "am", "not", "sure"),
)
"""Each of these, with or without a space before it, is one token; everything else is spelled in bytes."""


def tiny_tokenizer(*, chat: bool = True) -> Any:
    """A byte-level BPE tokenizer that round-trips any text.

    Args:
        chat: With a chat template (then ``<|im_end|>`` ends an answer), or without (then ``</s>`` does).
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    merges: dict[tuple[str, str], None] = {}
    bare = sorted(WORDS, key=lambda w: (w.islower(), -len(w)))  # in this order none breaks up another
    for word in [*(f"Ġ{w}" for w in WORDS), *bare]:
        for end in range(1, len(word)):
            merges[word[:end], word[end]] = None
            vocab.setdefault(word[: end + 1], len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token="<|im_end|>" if chat else EOS,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE if chat else None,
        clean_up_tokenization_spaces=False,
    )


N_VOCAB = len(tiny_tokenizer())
TOKENS = {"bos_token_id": 1, "eos_token_id": 4, "pad_token_id": 0}


def randomise(model: nn.Module, seed: int) -> Any:
    """Draw every parameter again: weights wide enough to matter, norms around 1, biases around 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(0.2 * noise)
            else:
                parameter.copy_(0.2 * noise + (0.0 if name.endswith("bias") else 1.0))
    return model.eval().requires_grad_(False)


def tiny_llama(seed: int = 0, *, bias: bool = False, tied: bool = True, n_layers: int = 3, **options: Any) -> Any:
    """Llama: 6 heads of width 8 in 2 key-value groups, d_model 42, d_mlp 56. Plain HF model.

    Args:
        seed: Of the weights.
        bias: Biases on q, k, v and o.
        tied: Output embeddings tied to the input's.
        n_layers: Layers.
        options: Further ``LlamaConfig`` settings.
    """
    sizes = {
        "hidden_size": 42,
        "intermediate_size": 56,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
    }
    config = LlamaConfig(
        vocab_size=N_VOCAB,
        num_hidden_layers=n_layers,
        attention_bias=bias,
        tie_word_embeddings=tied,
        **{**TOKENS, **sizes, **options},
    )
    return randomise(LlamaForCausalLM(config), seed)


def tiny_gpt2(seed: int = 0, *, n_layers: int = 3, **options: Any) -> Any:
    """GPT-2 (Conv1D, fused q, k and v, biases everywhere): 4 heads of width 10, d_mlp 56. Plain HF model."""
    sizes = {"n_embd": 40, "n_head": 4, "n_inner": 56, "n_positions": 128}
    config = GPT2Config(vocab_size=N_VOCAB, n_layer=n_layers, **{**TOKENS, **sizes, **options})
    return randomise(GPT2LMHeadModel(config), seed)


def tiny_phi3(seed: int = 0, *, n_layers: int = 3, **options: Any) -> Any:
    """Phi-3 (fused q, k and v, fused gate and up): 6 heads of width 8 in 2 groups, d_mlp 56. Plain HF model."""
    sizes = {"hidden_size": 48, "intermediate_size": 56, "num_attention_heads": 6, "num_key_value_heads": 2}
    config = Phi3Config(
        vocab_size=N_VOCAB,
        num_hidden_layers=n_layers,
        max_position_embeddings=128,
        original_max_position_embeddings=128,
        **{**TOKENS, **sizes, **options},
    )
    return randomise(Phi3ForCausalLM(config), seed)


def tiny_qwen2(seed: int = 0, *, n_layers: int = 3, **options: Any) -> Any:
    """Qwen2 whose layers above the first see two tokens only: 6 heads of width 8 in 2 groups, d_mlp 40."""
    sizes = {"hidden_size": 48, "intermediate_size": 40, "num_attention_heads": 6, "num_key_value_heads": 2}
    window = {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1}
    config = Qwen2Config(vocab_size=N_VOCAB, num_hidden_layers=n_layers, **{**TOKENS, **sizes, **window, **options})
    return randomise(Qwen2ForCausalLM(config), seed)


def loaded(hf: Any, *, chat: bool = True, name: str = "tiny") -> LoadedModel:
    """A tiny model as the package's functions take it."""
    return load_model(hf, tokenizer=tiny_tokenizer(chat=chat), name=name)


def random_edit(model: LoadedModel, selection: str = "L0ATTN L1H2 L1N5 L2MLP L2V0 L0GATEUP", seed: int = 0) -> Edit:
    """An edit of two stages with random gates on a selection (zero and negative ones too), without any fit."""
    generator = torch.Generator().manual_seed(seed)
    chosen = Selection(selection)
    stages = []
    for name in ("unlearn", "learn"):
        gates = {}
        for (layer, site), indices in chosen.entries(model).items():
            gate = torch.ones(model.shape.site_size(site))
            gate[list(indices)] += 0.7 * torch.randn(len(indices), generator=generator)
            gate[indices[0]] = 0.0
            gates[layer, site] = gate
        stages.append(EditStage(name, GateDelta(gates)))
    fact = Fact(
        subject="France",
        prompt="The capital of France is",
        question="What is the capital of France?",
        answer="Paris",
        target="Rome",
        relation="country-capital",
        target_aliases=("Roma",),
        heldout=("Which city is France's capital?",),
        split="dev",
    )
    return Edit(
        stages=tuple(stages),
        selection=chosen,
        selector="given",
        recipe=Recipe(steps=(3, 4), early_stop=None, seed=seed),
        facts=(fact,),
        retain_ids=("japan-capital", "köln"),
        history=(Step("unlearn", 0, 2.5, 0.0), Step("learn", 0, 1 / 3, 1e-12, p_old=0.1, p_new=0.7, seconds=0.25)),
        base_fingerprint=model.fingerprint,
        base_name=model.name,
        modules=model.architecture.describe(chosen.entries(model)),
        provenance={"created": "2024-05-01"},
    )
