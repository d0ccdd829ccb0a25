"""Context prefixes that the model writes, drawn by seed: what precedes the rewriting prompt in ROME and MEMIT."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workbench.language.padding import pad, pad_token
from workbench.language.tokens import begun_ids, decoded
from workbench.models.load import LoadedModel

ROME_LENGTHS = (5,) * 10 + (10,) * 10
"""Tokens of ROME's twenty sampled contexts."""
MEMIT_STARTS = ("The", "Therefore", "Because", "I", "You")
"""What MEMIT's five sampled contexts begin with; they have ten tokens."""
LIKELIEST = 5
"""A token is drawn from so many of the likeliest."""


@torch.no_grad()
def sampled_texts(model: LoadedModel, starts: Sequence[str], length: int, seed: int) -> list[str]:
    """Continue texts by tokens drawn from the likeliest.

    Args:
        model: The model.
        starts: What each text begins with; empty for nothing but what the tokenizer puts before a text.
        length: Tokens of each text, its start included.
        seed: Of the draw, which depends on nothing else than the model.

    Returns:
        The texts in one line each, without special tokens and braces.
    """
    generator = torch.Generator().manual_seed(seed)
    special = sorted({t for t in model.tokenizer.all_special_ids if t < model.shape.d_vocab})
    rows = [begun_ids(model, start) for start in starts]
    # A model that begins with nothing goes on from the end of a text before.
    rows = [row or [pad_token(model)] for row in rows]
    leads = [len(row) - len(model.token_ids(start) if start else ()) for row, start in zip(rows, starts, strict=True)]
    while unfinished := [i for i, row in enumerate(rows) if len(row) - leads[i] < length]:
        ids, mask = pad([rows[i] for i in unfinished], pad_token(model), "right")
        logits = model.runner(input_ids=ids.to(model.device), use_cache=False).logits.float().cpu()
        last = logits[torch.arange(len(ids)), mask.sum(1) - 1]
        last[:, special] = -torch.inf
        top = last.topk(min(LIKELIEST, last.shape[1]))
        drawn = torch.multinomial(top.values.softmax(-1), 1, generator=generator)
        for i, token in zip(unfinished, top.indices.gather(1, drawn).flatten().tolist(), strict=True):
            rows[i].append(token)
    texts = [decoded(model, row[lead:]) for row, lead in zip(rows, leads, strict=True)]
    return [" ".join(text.replace("{", " ").replace("}", " ").split()) for text in texts]


def rome_contexts(model: LoadedModel, seed: int) -> tuple[str, ...]:
    """The bare prompt, ten contexts of 5 tokens and ten of 10, as ``"prefix. {}"``.

    Source: kmeng01/rome rome/rome_main.py, ``context_template_length_params [[5, 10], [10, 10]]``.
    """
    texts = [
        text
        for length in sorted(set(ROME_LENGTHS))
        for text in sampled_texts(model, [""] * ROME_LENGTHS.count(length), length, seed)
    ]
    return ("{}", *(f"{text}. {{}}" for text in texts))


def memit_contexts(model: LoadedModel, seed: int) -> tuple[str, ...]:
    """The bare prompt and five contexts of 10 tokens with given first words, as ``"prefix. {}"``.

    Source: kmeng01/memit memit/memit_main.py.
    """
    return ("{}", *(f"{text}. {{}}" for text in sampled_texts(model, MEMIT_STARTS, 10, seed)))
