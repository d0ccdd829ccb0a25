"""Capitals that a tiny model really knows, so that whole functions can be tested without the bundled model.

``knowing`` sets a random model's output embeddings so that it says the answer of each fact and then stops, greedily,
in cloze and in chat form. Everything below the output embeddings stays random.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from typing import Any

import torch

from tests.tiny import tiny_tokenizer
from workbench.models import LoadedModel, load_model
from workbench.prompts import answer_ids, prompt_ids
from workbench.types import Fact, FactSet

ROWS = (
    # subject, answer, target, split, role: every name is one token, with or without a space before it
    ("France", "Paris", "Rome", "dev", "control"),
    ("Italy", "Rome", "Madrid", "test", "control"),
    ("Spain", "Madrid", "Berlin", "test", "control"),
    ("Germany", "Berlin", "Tokyo", "test", "retain"),
    ("Japan", "Tokyo", "Paris", "test", "retain"),
)


@lru_cache
def tokenizer_from_files(*, chat: bool = True) -> Any:
    """The tiny tokenizer, saved and loaded again, as users have theirs."""
    from transformers import AutoTokenizer

    folder = tempfile.mkdtemp()  # TransformerLens reads it again
    tiny_tokenizer(chat=chat).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def capital(subject: str, answer: str, target: str, split: Any = None, role: Any = None, **more: Any) -> Fact:
    """A fact of the relation ``capital`` with one paraphrase and one held-out question."""
    given = {
        "id": f"{subject.lower()}-capital",
        "relation": "capital",
        "subject": subject,
        "answer": answer,
        "target": target,
        "split": split,
        "role": role,
        "prompt": f"The capital of {subject} is",
        "question": f"What is the capital of {subject}?",
        "paraphrases": (f"What city is the capital of {subject}?",),
        "heldout": (f"Where is the capital of {subject}?",),
    }
    return Fact(**{**given, **more})


def capitals() -> FactSet:
    """The five facts of ``ROWS``."""
    return FactSet([capital(*row) for row in ROWS], name="capitals")


def teach(hf: Any, model: LoadedModel, places: list[tuple[list[int], int]], logit: float = 14.0) -> None:
    """Set output embeddings so that after each text (token ids) the given token has this logit, and the other tokens
    that are taught have 0. There must be fewer texts than the model is wide."""
    states = []
    with torch.no_grad():
        for ids, _ in places:
            states.append(hf.base_model(torch.tensor([ids])).last_hidden_state[0, -1].double())
        taught = sorted({token for _, token in places})
        wanted = torch.tensor([[logit * (token == t) for t in taught] for _, token in places], dtype=torch.float64)
        rows = torch.linalg.lstsq(torch.stack(states), wanted, driver="gelsd").solution.T
        output = hf.get_output_embeddings().weight
        output[taught] = rows.to(output.dtype)


def knowing(hf: Any, facts: FactSet | None = None, *, chat: bool = True, name: str = "tiny") -> LoadedModel:
    """A tiny HF model (with untied output embeddings) as a loaded model that knows the facts' answers in both forms.

    Args:
        hf: Changed in place.
        facts: By default ``capitals()``.
        chat: Whether the tokenizer has a chat template.
        name: What it is called in results.
    """
    model = load_model(hf, tokenizer=tokenizer_from_files(chat=chat), name=name)
    places = []
    for fact in capitals() if facts is None else facts:
        for form, text in (("cloze", fact.prompt), ("chat", fact.question)):
            ids = prompt_ids(model, text, form)
            said = answer_ids(model, fact.answer, form)
            assert len(said) == 1, f"{fact.answer!r} must be one token"
            places += [(ids, said[0]), ([*ids, *said], model.tokenizer.eos_token_id)]
    teach(hf, model, places)
    return model
