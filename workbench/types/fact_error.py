"""What is wrong with the texts of a fact: which field, why, and both in words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from workbench.types.flat_text import flatten
from workbench.types.mentions import find_subject, is_named

FactReason = Literal["empty", "spaces", "not in the prompt", "part of a word", "same text", "same token"]
_NOT_EMPTY = ("subject", "prompt", "question", "answer", "target", "refusal")
_NO_SPACES = ("answer", "target", "subject", "prompt")


class FactError(ValueError):
    """A text of a fact that does not fit.

    Args:
        message: The value, what is allowed and the fix, as Python shows it.
        field: The field of ``Fact``.
        reason: Why it does not fit, for those who say it in other words.
        token: For ``"same token"``: the token with which both answers start.

    Example:
        >>> from workbench.types.fact_error import FactError
        >>> try:
        ...     wb.Fact(subject="Peru", prompt="Its capital is", question="Which?", answer="Lima", target="Quito")
        ... except FactError as error:
        ...     print(error.field, "|", error.reason)
        subject | not in the prompt
    """

    def __init__(self, message: str, *, field: str, reason: FactReason, token: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.reason: FactReason = reason
        self.token = token


def fact_errors(texts: Mapping[str, str]) -> Iterator[FactError]:
    """All that is wrong with the texts of a fact, in the order in which ``Fact`` looks at them.

    Args:
        texts: By field; fields that are left out are not looked at.

    Example:
        >>> from workbench.types.fact_error import fact_errors
        >>> [(e.field, e.reason) for e in fact_errors({"subject": "Peru", "prompt": "Say: ", "answer": ""})]
        [('answer', 'empty'), ('prompt', 'spaces'), ('subject', 'not in the prompt')]
    """
    texts = {name: unicodedata.normalize("NFC", text) for name, text in texts.items()}
    given = {name: text for name, text in texts.items() if (text if text.isascii() else flatten(text).text).strip()}
    for name in _NOT_EMPTY:
        if name in texts and name not in given:
            message = f"Fact.{name} is empty ({texts[name]!r}); give it a text."
            yield FactError(message, field=name, reason="empty")
    for name in _NO_SPACES:
        if name in given and given[name] != given[name].strip():
            yield FactError(
                f"Fact.{name} is {given[name]!r}: a space at either end would become a token of its own, and the wrong "
                f"token would be traced or trained. Write {given[name].strip()!r}; the space between prompt and answer "
                "is added for you.",
                field=name,
                reason="spaces",
            )
    if {"subject", "prompt"} <= given.keys() and given["subject"] not in given["prompt"]:
        yield FactError(
            f"The subject {given['subject']!r} is not in the prompt {given['prompt']!r}. It must stand there literally "
            "(same case), so that its tokens can be corrupted; change one of the two.",
            field="subject",
            reason="not in the prompt",
        )
    elif {"subject", "prompt"} <= given.keys() and not _stands_alone(given["subject"], given["prompt"]):
        yield FactError(
            f"The subject {given['subject']!r} stands in the prompt {given['prompt']!r} only inside a longer word"
            f"{_longer_word(given['subject'], given['prompt'])}, where no trace would find it. Write the whole word as "
            "the subject, or change the prompt.",
            field="subject",
            reason="part of a word",
        )
    if {"answer", "target"} <= given.keys() and _read_alike(given["answer"], given["target"]):
        both = f"both {given['answer']!r}"
        if given["answer"].casefold() != given["target"].casefold():
            both = f"one answer to whoever reads them ({given['answer']!r} and {given['target']!r})"
        yield FactError(
            f"Answer and target are {both}; the target must be another answer.", field="target", reason="same text"
        )


def shared_answer(answers: Sequence[str], targets: Sequence[str], *, case_sensitive: bool = False) -> FactError | None:
    """What is wrong where one name stands for both answers of a fact: every text that names it would count as both.

    Args:
        answers: The true answer, then its aliases.
        targets: The target, then its aliases.
        case_sensitive: Whether names that differ in case are two.

    Example:
        >>> from workbench.types.fact_error import shared_answer
        >>> shared_answer(["Paris", "Lutetia"], ["Rome", "lutetia"]).field
        'target_aliases'
    """
    for i, answer in enumerate(answers):
        for j, target in enumerate(targets):
            if not (i or j) or not (answer == target if case_sensitive else _read_alike(answer, target)):
                continue  # answer and target themselves: ``fact_errors``
            field = "target_aliases" if j else "answer_aliases"
            old = "an alias of the answer" if i else "the answer"
            new = "an alias of the target" if j else "the target"
            both = repr(answer) if answer == target else f"{answer!r} ({target!r})"
            return FactError(
                f"{both} is {old} and {new} at once: whoever says it would have said both. Take it out of "
                f"Fact.{field}, or choose another target.",
                field=field,
                reason="same text",
            )
    return None


def _stands_alone(subject: str, prompt: str) -> bool:
    """Whether a prompt that holds a subject letter by letter also mentions it there."""
    found = [place.start() for place in re.finditer(re.escape(subject), prompt)]
    if any(
        _is_edge(prompt[:i][-1:], subject[0]) and _is_edge(prompt[i + len(subject) :][:1], subject[-1]) for i in found
    ):
        return True
    spans = find_subject(prompt, subject)
    return any(first <= start < last for first, last in spans for start in found)


def _is_edge(beside: str, end: str) -> bool:
    """Whether a name surely ends where this stands beside its last or first character: of plain texts it is quick to
    say."""
    return not beside or beside.isspace() or (end.isalpha() and end.isascii() and beside in "'\"(),.:;?!-/")


def _read_alike(answer: str, target: str) -> bool:
    """Whether two answers are one to whoever reads them."""
    if answer.isascii() and target.isascii():
        return answer.casefold() == target.casefold()
    return is_named(answer, (target,))


def _longer_word(subject: str, prompt: str) -> str:
    """The word of a prompt that holds a subject, in brackets; nothing where no letters touch it."""
    word = re.search(rf"[\w']*{re.escape(subject)}[\w']*", prompt)
    return f" ({word[0]!r})" if word and word[0] != subject else ""
