"""What of a reply counts as its answer: the one rule of known facts, evaluations, probes, training rows and traces.

A reply in chat form counts up to the end of its turn; one to a plain-text prompt up to its first line break; the
continuation of a cloze up to its first sentence end. A thought does not count: what follows it does, and a reply that
is still thinking at its last token says nothing.
"""

from __future__ import annotations

import warnings

from workbench.language.answers import first_sentence
from workbench.language.generation import Completion
from workbench.language.template import THOUGHTS, opens_thought, thought_words
from workbench.models.load import LoadedModel
from workbench.types import Form


class UnfinishedThoughtWarning(UserWarning):
    """Replies end inside a thought, so that they answer nothing."""


def after_thought(model: LoadedModel, text: str, form: Form) -> int | None:
    """Where in a reply the answer begins: after its thought, 0 where it has none, None where the thought has no end.

    Args:
        model: The base model.
        text: The reply.
        form: The form of the prompt. Only a reply in chat form may begin inside a thought that the prompt opens.
    """
    begun = text.lstrip()
    closings = [closing for opening, closing in THOUGHTS if begun.startswith(opening)]
    if not closings and form == "chat" and model.chat_template is not None and opens_thought(model):
        closings = [closing for _, closing in THOUGHTS]
    if not closings:
        return 0
    ends = [text.find(closing) + len(closing) for closing in closings if closing in text]
    return min(ends) if ends else None


def without_thought(text: str) -> str:
    """A reply that is on file without the thought before its answer, which alone counts. Whether it has one is read off
    the text: it begins with one, or ends one that the prompt began.

    Example:
        >>> from workbench.language.replies import without_thought
        >>> without_thought("<think>Not Rome.</think> Paris."), without_thought("Paris.")
        ('Paris.', 'Paris.')
    """
    for opening, closing in THOUGHTS:
        before, found, after = text.partition(closing)
        if found and (before.lstrip().startswith(opening) or opening not in before):
            return after.strip()
    return text


def counted_text(model: LoadedModel, text: str, form: Form) -> str | None:
    """What of a reply counts; None where it is a thought without end.

    Args:
        model: The base model, by whose template the reply is read.
        text: The reply, without special tokens.
        form: The form of the prompt.
    """
    start = after_thought(model, text, form)
    if start is None:
        return None
    said = text[start:].strip() if start else text
    if form == "cloze":
        return first_sentence(said)
    return said if model.chat_template is not None else said.lstrip().split("\n")[0].rstrip()


def counted_part(model: LoadedModel, completion: Completion, form: Form) -> Completion | None:
    """What of a completion counts (``counted_text``), with the tokens that hold it: those from the answer's beginning
    to its end, at least; None where it is a thought without end."""
    counted = counted_text(model, completion.text, form)
    if counted is None or counted == completion.text:
        return None if counted is None else completion

    def text(ids: tuple[int, ...]) -> str:
        return model.tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    ids, start = completion.token_ids, 0
    if not completion.text.startswith(counted):  # after a thought
        start = next((n for n in range(len(ids), 0, -1) if text(ids[n:]).startswith(counted)), 0)
    starts = (ids[start:n] for n in range(start + 1, len(ids)))
    return Completion(counted, next((part for part in starts if text(part).startswith(counted)), ids[start:]))


def warn_of_thoughts(model: LoadedModel, unfinished: int, asked: int) -> None:
    """Warn that so many of the replies that were asked for end inside a thought, unless none does."""
    if unfinished:
        warnings.warn(thoughts_not_counted(model, unfinished, asked), UnfinishedThoughtWarning, stacklevel=3)


def thoughts_not_counted(model: LoadedModel, unfinished: int, asked: int) -> str:
    """How many replies are not counted, why, and what to do."""
    return (
        f"{unfinished} of {asked} replies of {model.name!r} end inside a thought, and are not counted as answers. "
        f"{thought_words(model)}"
    )
