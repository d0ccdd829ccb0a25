"""A traced text about another subject."""

from __future__ import annotations

from dataclasses import replace

from workbench.language.prompt_text import prompt_ids
from workbench.language.tokens import check_ids, decoded, following_ids, token_texts
from workbench.models.load import LoadedModel
from workbench.types import Fact, TracedPrompt
from workbench.types.mentions import find_subject


def with_other_subject(text: str, subject: str, other: str) -> str:
    """A text with another subject wherever it mentions its own, however that is written."""
    for begin, end in reversed(find_subject(text, subject)):
        text = text[:begin] + other + text[end:]
    return text


def traced_like(model: LoadedModel, prompt: TracedPrompt, fact: Fact, other: Fact) -> TracedPrompt:
    """A traced text about another subject, which the model need not know: the other fact's own question or cloze, then
    the reply as far as the traced text has it, with the subject exchanged. The tokens that are asked for stay.

    Args:
        model: The model; its context stands before the text, as it does in that of ``fact``.
        prompt: The traced text of ``fact``.
        fact: Whose subject is exchanged.
        other: Whose subject comes in.
    """
    ids = prompt_ids(model, other.question if prompt.form == "chat" else other.prompt, prompt.form)
    prefix = with_other_subject(prompt.prefix, fact.subject, other.subject)
    before = decoded(model, ids)
    full = [*ids, *following_ids(model, before, prefix)]
    check_ids(model, full)
    return replace(
        prompt,
        fact_id=other.id,
        text=decoded(model, full),
        prefix=prefix,
        token_ids=tuple(full),
        tokens=token_texts(model, full),
        subject=(),
        reply_start=len(ids),
    )
