"""What a FactChooser shows of a fact, as markup: whether it is known, and its prompt token by token."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.facts.known import FORMS
from workbench.language.prompts import split_prompt
from workbench.models.load import LoadedModel
from workbench.types import Fact, TracedPrompt
from workbench.widgets.shared import markup

READING = markup.block(markup.text("Reading the model's own answer ..."))


def mark(forms: Sequence[str] | None) -> str:
    """In which forms a fact is known; None: it was not asked in all of them yet."""
    if forms is None:
        return "? not asked"
    return f"✓ known: {' + '.join(forms)}" if forms else "✗ not known"


def about(fact: Fact, known: str) -> str:
    """A fact with its target, its question and its mark."""
    return markup.title(f"{fact.prompt} {fact.answer}", f"to become {fact.target}; asked: {fact.question}; {known}")


def traced(prompt: TracedPrompt) -> str:
    """The traced text, token by token, and which token is traced."""
    before = f"; before it the model itself says {prompt.prefix!r}" if prompt.prefix else ""
    note = f"Traced token: {prompt.answer_token!r} ({prompt.form} form{before})."
    strip = markup.tokens((*prompt.tokens, prompt.answer_token), prompt.subject, len(prompt.tokens))
    return markup.block(markup.text(note)) + strip


def untraced(model: LoadedModel, fact: Fact) -> str:
    """The prompt in both forms as it is split, where no token of it can be marked as traced."""
    parts = [markup.block(markup.text("No token is traced: there is no place to trace. The prompt as it is split:"))]
    for form in FORMS:
        tokens, subject = split_prompt(model, fact, form)
        parts += [markup.block(markup.text(f"{form} form")), markup.tokens(tokens, subject)]
    return "".join(parts)
