"""What a model reads when it is asked: a question or a cloze, through its template, after the context of its edits.

The context is a part of the prompt like the template's own text: no place of the subject is looked for in it, and what
is traced is the question after it.
"""

from __future__ import annotations

from collections.abc import Sequence

from workbench.language.template import chat_text
from workbench.language.tokens import (
    SubjectNotNamed,
    SubjectPlace,
    begun_ids,
    check_ids,
    decoded,
    spans,
    subject_places,
)
from workbench.models.load import LoadedModel
from workbench.types import Form
from workbench.types.plain import check_text


def prompt_text(model: LoadedModel, text: str, form: Form) -> str:
    """A question (chat form) or a cloze (plain text) as the model reads it, but for the BOS token. The context of an
    edited model stands at the head of the user's message, and before a cloze."""
    if form not in ("chat", "cloze"):
        raise ValueError(f"form must be 'chat' or 'cloze', got {form!r}.")
    check_text("What is asked", text)
    message = in_context(model.context, text)
    return chat_text(model, message) if form == "chat" else message


def in_context(context: str, text: str) -> str:
    """A text after a context: a paragraph of its own."""
    return f"{context}\n\n{text}" if context else text


def context_tokens(model: LoadedModel, context: str, question: str) -> int:
    """How many tokens a context takes of the prompt of a question.

    Raises:
        ValueError: With it the prompt is longer than the model can read.
    """
    ids = begun_ids(model, chat_text(model, in_context(in_context(model.context, context), question)))
    check_ids(model, ids, "The question with its context")
    return len(ids) - len(prompt_ids(model, question, "chat"))


def prompt_ids(model: LoadedModel, text: str, form: Form) -> list[int]:
    """The same as token ids, as the tokenizer itself reads a text: with the BOS token that it puts before one, unless
    the text begins with it, as that of most chat templates does.

    Raises:
        ValueError: The model cannot read it: it is longer than the model's positions, or a token has no embedding.
    """
    ids = begun_ids(model, prompt_text(model, text, form))
    check_ids(model, ids)
    return ids


def context_span(model: LoadedModel, text: str, form: Form) -> range:
    """Positions of a model's context in a prompt (``prompt_ids``), with the white space around it; none without one.

    A token that holds a part of both is the prompt's own.
    """
    if not model.context:
        return range(0)
    ids = prompt_ids(model, text, form)
    whole, own = (decoded(model, begun_ids(model, prompt_text(of, text, form))) for of in (model, model.base))
    # What both end with comes first: a context may begin as the question does.
    after = next((n for n, (a, b) in enumerate(zip(whole[::-1], own[::-1], strict=False)) if a != b), len(own))
    rest = own[: len(own) - after]
    before = next((n for n, (a, b) in enumerate(zip(whole, rest, strict=False)) if a != b), len(rest))
    inside = [i for i, (start, end) in enumerate(spans(model, ids)) if start >= before and end <= len(whole) - after]
    return range(inside[0], inside[-1] + 1) if inside else range(0)


def own_subject_runs(model: LoadedModel, ids: Sequence[int], subject: str, context: range) -> list[range]:
    """Token positions of every occurrence of the subject outside a context (``context_span``).

    Raises:
        ValueError: There is none.
    """
    return [place.run for place in own_subject_places(model, ids, subject, context)]


def asked_subject_runs(model: LoadedModel, ids: Sequence[int], subject: str, form: Form) -> list[range]:
    """``own_subject_runs`` of token ids that begin with a prompt of any text: the context's place in it is the same.

    Raises:
        ValueError: There is none.
    """
    return own_subject_runs(model, ids, subject, context_span(model, subject, form))


def own_subject_places(model: LoadedModel, ids: Sequence[int], subject: str, context: range) -> list[SubjectPlace]:
    if not context:
        return subject_places(model, ids, subject)
    found = [p for p in subject_places(model, ids, subject) if p.run.start not in context]
    if not found:
        raise SubjectNotNamed(f"The subject {subject!r} is in the edit's context alone, not in what is asked after it.")
    return found
