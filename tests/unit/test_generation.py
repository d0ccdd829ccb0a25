"""Greedy generation in batches that share their first tokens equals the plain model's, row by row."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tiny_facts import FAMILIES, tiny
from tests.unit.test_resume import windowed
from workbench.generation import _shared_tokens, generate
from workbench.models import LoadedModel
from workbench.prompts import prompt_ids


def plainly(model: LoadedModel, prompt: list[int]) -> tuple[int, ...]:
    """What the HF model generates after one prompt, up to its stop token."""
    with torch.no_grad():
        row = model.hf.generate(
            torch.tensor([prompt]), max_new_tokens=7, do_sample=False, pad_token_id=0, eos_token_id=4
        )[0, len(prompt) :].tolist()
    return tuple(row[: row.index(4) + 1] if 4 in row else row)


def tokens_read(model: LoadedModel, prompts: list[list[int]], **options: Any) -> tuple[list[Any], int]:
    """Completions, and how many tokens (padding included) the model was given for them."""
    seen: list[int] = []
    handle = model.runner.get_input_embeddings().register_forward_hook(
        lambda module, args, out: seen.append(args[0].numel())
    )
    try:
        found = generate(model, prompts, max_new_tokens=7, **options)
    finally:
        handle.remove()
    return found, sum(seen)


@FAMILIES
def test_a_batch_with_a_shared_prefix_is_the_plain_model(family: str) -> None:
    model = tiny(family)
    asked = ("What is the capital of Spain?", "Who?", "Where is Rome in Italy?", "What is the language of Japan?", "I")
    prompts = [prompt_ids(model, question, "chat") for question in asked]
    found, read = tokens_read(model, prompts)
    assert [c.token_ids for c in found] == [plainly(model, prompt) for prompt in prompts]
    shared = _shared_tokens(model, [tuple(p) for p in prompts], 7)
    assert shared >= 2
    longest, decoded = max(map(len, prompts)), max(len(c.token_ids) for c in found) - 1
    assert read == shared + len(prompts) * (longest - shared + decoded)


@pytest.mark.parametrize("rows", [2, 3])
def test_a_window_within_the_texts_is_kept(rows: int) -> None:
    """Layers that see two tokens only: no prefix is shared, for padding would stand within the window."""
    model, _ = windowed()
    prompts = [[7, 8, 9, 10 + i, *range(20, 20 + 2 * i)] for i in range(rows)]
    assert _shared_tokens(model, [tuple(p) for p in prompts], 7) == 0
    assert [c.token_ids for c in generate(model, prompts, max_new_tokens=7)] == [plainly(model, p) for p in prompts]


def test_the_tokens_that_prompts_share() -> None:
    model = tiny()
    assert _shared_tokens(model, [(1, 2, 3, 4), (1, 2, 5), (1, 2, 3, 9)], 5) == 2
    assert _shared_tokens(model, [(1, 2), (1, 2, 5)], 5) == 1  # each keeps a token of its own
    assert _shared_tokens(model, [(1, 2, 3), (1, 2, 3)], 5) == 2
    assert _shared_tokens(model, [(3,), (1, 2, 3)], 5) == 0
    assert _shared_tokens(model, [(1, 2, 3)], 5) == 0
