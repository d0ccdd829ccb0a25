"""Tiny tokenizers and chat templates of each kind that people's models have, made offline in a moment.

All have ``N_VOCAB`` tokens at most, so that each goes with any tiny model.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tests.helpers.tiny import BOS, CHAT_TEMPLATE, EOS, PAD, SPECIAL, tiny_tokenizer

THINKING = CHAT_TEMPLATE.replace(
    "<|im_start|>assistant\n",
    "<|im_start|>assistant\n{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}",
)
"""Opens a thought unless it is told not to (Qwen3)."""
ALWAYS_THINKING = CHAT_TEMPLATE.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
"""Opens a thought whatever it is told (DeepSeek-R1's distillates)."""
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
"""Writes BOS itself and a space before the reply, and refuses a system prompt (Mistral, Llama 2)."""
PLAIN_TURNS = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""Ends a turn with no special token."""
_WORDS = ("The", "capital", "of", "is", "France", "Paris", "Rome", "Question", "Answer", "What")


def with_template(template: str | None, **options: Any) -> Any:
    """The tiny tokenizer with another chat template."""
    tokenizer = tiny_tokenizer(**options)
    tokenizer.chat_template = template
    return tokenizer


def beginning_with(*special: str, eos: bool = False, template: str | None = None) -> Any:
    """The tiny tokenizer, which puts special tokens before plain text, as BOS, and may put EOS after it."""
    tokenizer = with_template(template, chat=False)
    ids = tokenizer.convert_tokens_to_ids([*special, EOS])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=" ".join([*special, "$A", *([EOS] if eos else [])]),
        pair=" ".join([*special, "$A", "$B"]),
        special_tokens=list(zip([*special, EOS], ids, strict=True)),
    )
    return tokenizer


def normalising(form: str = "NFC") -> Any:
    """The tiny tokenizer, which composes letters before it reads a text (Qwen)."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = getattr(normalizers, form)()
    return tokenizer


def joining() -> Any:
    """A byte-level tokenizer that reads a sign together with the word after it (Llama 3, Qwen): "(P" is one token."""
    tokenizer = tiny_tokenizer(chat=False)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    merges = [("(", "P"), ('"', "P")]
    vocab = dict(tokenizer.get_vocab()) | {"(P": len(tokenizer), '"P': len(tokenizer) + 1}
    backend.model = models.BPE(vocab=vocab, merges=merges)
    split = pre_tokenizers.Split(Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS, pad_token=PAD)


def sentencepiece(scheme: str = "normalizer", *, bos: bool = True, template: str | None = None) -> Any:
    """A tokenizer as SentencePiece makes them, which writes spaces as "▁" and falls back to bytes.

    Args:
        scheme: Where the first "▁" comes from: ``"normalizer"`` (Llama 2, older Mistral: before every text), or how
            ``Metaspace`` prepends it (``"first"``, ``"always"``, ``"never"``).
        bos: Put BOS before plain text.
        template: A chat template.
    """
    vocab = {token: i for i, token in enumerate([*SPECIAL, "<unk>"])}
    vocab |= {f"<0x{b:02X}>": len(vocab) + b for b in range(256)}
    for letter in ["\u2581", *"abcdefghijklmnopqrstuvwxyzTFPRQAW()[]/?.,:0123456789"]:
        vocab.setdefault(letter, len(vocab))
    merges: dict[tuple[str, str], None] = {}
    bare = sorted(_WORDS, key=lambda w: (w.islower(), -len(w)))  # in this order none breaks up another
    for word in [*(f"\u2581{w}" for w in bare), *bare]:
        for end in range(1, len(word)):
            vocab.setdefault(word[: end + 1], len(vocab))
            merges[word[:end], word[end]] = None
    backend = Tokenizer(models.BPE(vocab=vocab, merges=list(merges), unk_token="<unk>", byte_fallback=True))
    if scheme == "normalizer":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        backend.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        strip = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
        backend.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
    backend.add_special_tokens(list(SPECIAL))
    if bos:
        backend.post_processor = TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocab[BOS])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token="<unk>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )
