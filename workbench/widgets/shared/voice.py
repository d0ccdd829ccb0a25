"""Errors as a panel says them: the same content as in Python, in the words that the panel has.

Errors that people meet often carry what happened in fields (`FactError`, `AnswerNotSaid`, `NoSwapPartner`,
`RefusedValue`, `OSError`): their sentence is written here from those. Of all others the text stays, without the names
of Python's classes and with the panel's words for its keywords.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from workbench.language.prompts import AnswerNotSaid, NoSwapPartner
from workbench.plots.style import visible
from workbench.probing.table import PROBES
from workbench.types.fact_error import FactError, FactReason
from workbench.types.refused import RefusedValue

FORM_WORDS = {"chat": "chat", "cloze": "raw prompt"}
"""What the panels call the forms of a prompt."""
LABELS = {
    **{name: probe.title for name, probe in PROBES.items()},
    "swap": "Swap",
    "noise": "Noise",
    "probes": "Probes",
}
"""The panels' labels of values and settings that have other names in Python."""
HINTS = (
    ("Give one with partner=Fact(...), another pool=, or use corruption='noise'.", "{swap}"),
    (", or corruption='noise'", ", or choose Noise"),
    ("corruption='noise'", "Noise"),
    ("Use normalise=False, another corruption, partner or fact.", "Choose another metric, corruption or fact."),
    ("Pick components, or pass selection=None.", 'Pick components, or choose the default selector under "Train".'),
    ("Choose a fact that it knows (known_facts), or another form.", "Choose a fact with ✓ in tab 1, or another form."),
    (
        "Give retain=[...] or another pool=, or use a recipe with retain_weight=0 and optimiser='adam'.",
        "Choose another recipe.",
    ),
    ("A session is the folder that Session.save wrote.", "A session is a folder that Save wrote."),
    ("Leave these facts out of retain=.", "Leave these facts out."),
)
"""What Python suggests in its keywords, and what a panel has instead."""
SWAP_HINT = "Give a subject to swap with in tab 1 (My fact), or choose Noise."
_UNEXPECTED = "Something went wrong that should not have: "
_FIELD = re.compile(r"\b[A-Z][A-Za-z]+\.([a-z][a-z_]*)\b(?!\()")
_FACT: dict[FactReason, str] = {
    "empty": "The {field} is empty. Write one.",
    "spaces": "The {field} begins or ends with a space. Take it away: the space before an answer is added by itself.",
    "not in the prompt": "The prompt does not hold the {field} letter by letter. Change one of the two.",
    "part of a word": "The {field} is only a part of a longer word of the prompt. Write the whole word, or change the "
    "prompt.",
    "same text": "Answer and {field} are the same. Choose another {field}.",
    "same token": "Answer and {field} begin with the same token {token}, so they cannot be told apart. Choose another "
    "{field}.",
}


def person(error: BaseException) -> str:
    """What went wrong, for somebody who sees a panel and not Python.

    Args:
        error: Anything that was raised.

    Returns:
        Raw text, to be escaped where it is shown.

    Example:
        >>> from workbench.widgets.shared.voice import person
        >>> try:
        ...     wb.Recipe(learning_rate=0)
        ... except ValueError as error:
        ...     print(person(error))
        Learning rate must be a positive number, not 0.
    """
    for kind, words in SENTENCES:
        if isinstance(error, kind):
            return words(error)
    if isinstance(error, (ValueError, TypeError, RuntimeError)) and str(error).strip():
        return plain(str(error))
    detail = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    # A KeyError that speaks in a sentence is one of ours ("No fact with the id ...").
    if isinstance(error, KeyError) and " " in detail and detail[:1].isupper():
        return plain(detail)
    return f"{_UNEXPECTED}{plain(detail.strip()) or label(type(error).__name__)}"


def label(name: str) -> str:
    """What a panel calls a setting or a value: its label, else its name as words."""
    return LABELS.get(name) or name.replace("_", " ").strip().capitalize()


def plain(text: str) -> str:
    """A text of Python's without its keywords and class names."""
    for python, panel in HINTS:
        text = text.replace(python, panel.format(swap=SWAP_HINT))
    return _FIELD.sub(lambda match: match[1].replace("_", " "), text)


def quoted(text: str, limit: int = 120) -> str:
    """What a model says, in quotation marks, its white space made visible and cut to a length."""
    return f"“{visible(text.strip(), limit)}”"


def said_words(texts: dict[str, str]) -> str:
    """What the model says by form: ``in chat “...”; after the raw prompt “...”``."""
    where = {"chat": "in chat", "cloze": "after the raw prompt"}
    return "; ".join(f"{where.get(form, form)} {quoted(text)}" for form, text in texts.items())


def _fact_error(error: FactError) -> str:
    token = f"“{visible(error.token)}”" if error.token is not None else ""
    if (error.field, error.reason) == ("answer", "same token"):  # of a partner
        return f"Both answers begin with the same token {token}: choose another subject to swap with."
    return _FACT[error.reason].format(field=error.field, token=token)


def _not_said(error: AnswerNotSaid) -> str:
    one_form = len(error.texts) == 1
    other = " Or choose the other form (Chat, Raw prompt)." if one_form else ""
    return (
        f"The model does not say {quoted(error.fact.answer)} here, so there is no place to trace. It "
        f"says {said_words(error.texts)}. Choose a fact with ✓ in tab 1, or write a fact of your own with what it says "
        f"as the answer.{other}"
    )


def _no_partner(error: NoSwapPartner) -> str:
    subject = quoted(error.fact.subject)
    if error.partner is None:
        return f"No subject of a listed fact can take the place of {subject}, token for token. {SWAP_HINT}"
    if error.text is not None:
        return (
            f"The text {quoted(error.text)} cannot take the place of the fact's, token for token: it must be another "
            "one of as many tokens. Write it as the fact's with another subject, or choose Noise."
        )
    counts = "" if error.tokens is None else f" ({error.tokens[0]}, not {error.tokens[1]})"
    return (
        f"{quoted(error.partner.subject)} cannot take the place of {subject}: it has another number of tokens{counts}. "
        "Take a subject of as many, or choose Noise."
    )


def _refused(error: RefusedValue) -> str:
    name = label(error.name)
    if isinstance(error.allowed, str):
        return f"{name} must be {error.allowed}, not {error.value}."
    choices = ", ".join(map(label, error.allowed))
    if error.value and isinstance(error.value, Sequence) and not isinstance(error.value, str):
        return f"{name}: {', '.join(map(str, error.value))} is none of them. There are: {choices}."
    return f"{name}: choose at least one of {choices}."


def _file(error: OSError) -> str:
    if error.strerror is None:
        return plain(str(error))
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror}{where}."


SENTENCES: tuple[tuple[type[BaseException], Callable[[Any], str]], ...] = (
    (FactError, _fact_error),
    (AnswerNotSaid, _not_said),
    (NoSwapPartner, _no_partner),
    (RefusedValue, _refused),
    (OSError, _file),
)
"""The errors whose sentence is written from what they carry."""
