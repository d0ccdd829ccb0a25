"""What a FactChooser shows of facts, as markup and as lines of a list."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from workbench.plots.style import visible
from workbench.types import Fact, NextToken
from workbench.widgets.facts.reading import Reading
from workbench.widgets.shared import charts, markup
from workbench.widgets.shared.voice import FORM_WORDS, quoted

READING = markup.hint("Reading the model's own answer ...")
COLUMNS = (("subject", 20), ("answer", 14), ("target", 14), ("known", 13))
"""The columns of the list with their widths, in characters."""
_SHORT = {"chat": "chat", "cloze": "raw"}
_SPACE, _ISOLATE, _END = "\u00a0", "\u2068", "\u2069"


def mark(forms: Sequence[str] | None) -> str:
    """In which forms a fact is known; None: it was not asked in all of them yet."""
    if forms is None:
        return "? not asked"
    return f"✓ {' + '.join(_SHORT[form] for form in forms)}" if forms else "✗ not known"


def line(*texts: str) -> str:
    """Texts in the columns of the list, cut or filled up to their widths; each keeps its script's direction to itself.

    Example:
        >>> from workbench.widgets.facts.views import line
        >>> line("France", "Paris").split()
        ['\\u2068France\\u2069', '\\u2068Paris\\u2069']
    """
    cells = [_cell(text, width) for text, (_, width) in zip(texts, COLUMNS, strict=False)]
    return _SPACE.join(cells).rstrip(_SPACE)


def header() -> str:
    """The names of the columns, above the list."""
    return markup.block(f'<div class="wb-listhead">{markup.text(line(*(name for name, _ in COLUMNS)))}</div>')


def _cell(text: str, width: int) -> str:
    shown, used = "", 0
    for character in visible(text):
        wide = 2 if unicodedata.east_asian_width(character) in "WF" else 0 if unicodedata.combining(character) else 1
        if used + wide > width - (wide > 0):
            shown, used = f"{shown}…", used + 1
            break
        shown, used = shown + character, used + wide
    return f"{_ISOLATE}{shown}{_END}{_SPACE * max(0, width - used)}"


def about(fact: Fact, known: str) -> str:
    """A fact with its question and its mark."""
    words = known if known.startswith(("?", "✗")) else f"{known[0]} known:{known[1:]}"
    return markup.title(f"{fact.prompt} {fact.answer}", f"Question: {fact.question} · {words}")


def target(fact: Fact) -> str:
    """What an edit is to teach."""
    return markup.block(f"Edit target: <b><bdi>{markup.text(fact.target)}</bdi></b>")


def strip(reading: Reading) -> str:
    """The prompt token by token, what the chat template adds folded away, and the traced token."""
    before, after = range(reading.own.start), range(reading.own.stop, reading.template)
    template = "".join(reading.tokens[: reading.own.start])
    name = "system + user template" if "system" in template.casefold() else "template"
    folded = {where: label for where, label in ((before, name), (after, "template")) if len(where)}
    prompt = reading.prompt
    if prompt is None:
        return markup.tokens(reading.tokens, reading.subject, folded=folded)
    tokens = (*reading.tokens, prompt.answer_token)
    return markup.tokens(tokens, reading.subject, len(reading.tokens), folded=folded)


def traced(reading: Reading) -> str:
    """Which token is traced, in words; or that none is."""
    prompt = reading.prompt
    if prompt is None:
        return markup.block(markup.text("No token is traced: there is no place to trace. The prompt as it is split:"))
    before = f"; before it the model itself says {quoted(prompt.prefix)}" if prompt.prefix.strip() else ""
    words = f" ({FORM_WORDS[prompt.form]}{before})."
    return markup.block(f"Traced token: {markup.token(prompt.answer_token).html}{markup.text(words)}")


def warning(reading: Reading) -> str:
    """What is odd about the traced place; empty where nothing is."""
    prompt = reading.prompt
    if prompt is None:
        return ""
    if reading.repeats:
        return (
            "The model writes your prompt once more, and the traced token is a word of that, not an answer. Choose Raw "
            "prompt, or write a question."
        )
    if prompt.form == "cloze" and prompt.prefix.strip():
        return (
            f"The answer is not what the model says first: before it the model itself says {quoted(prompt.prefix)}. "
            "What is traced is the place after these words, not the end of your prompt."
        )
    return ""


def following(reading: Reading) -> str:
    """The likeliest next tokens at the end of the strip as bars."""
    where = "after this prompt" if reading.prompt is None else "in the place of the traced token"
    return charts.bars(shares(reading.following), f"Next token {where}: probability")


def shares(following: Sequence[NextToken]) -> dict[str, float | None]:
    """Probabilities by token; several bytes of characters look alike."""
    tokens = [token.token for token in following]
    return {t.token if tokens.count(t.token) == 1 else f"{t.token} ({t.id})": t.probability for t in following}
