"""The few pieces of HTML that panels share, as strings: alerts, tables, token strips, code and progress.

Texts from a model, a file or a user are untrusted. Every function takes raw text and escapes it exactly once, where it
enters the markup, so a token such as ``<img src=x onerror=...>`` is shown and never run. No script, no request, no
numbers of its own: the functions only lay out what they are given.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from workbench.plots.style import visible

STYLE = f"<style>{files('workbench').joinpath('widgets/static/panels.css').read_text(encoding='utf-8')}</style>"
"""For one ``ipywidgets.HTML`` in each panel; the same rules twice on a page do no harm."""

Kind = Literal["error", "info", "done"]
OutcomeKind = Literal["good", "partly", "bad", "none"]
AnswerKind = Literal["old", "new", "refusal", "other"]
OUTCOME_MARKS: dict[OutcomeKind, str] = {"good": "✓", "partly": "◐", "bad": "✗", "none": "–"}
"""A verdict's mark, so that its colour is never alone."""
ANSWER_MARKS: dict[AnswerKind, str] = {"old": "●", "new": "◆", "refusal": "■", "other": "○"}
"""An answer's mark: the same in badges, bars and curves."""


@dataclass(frozen=True)
class Markup:
    """HTML that was made here and is not escaped again.

    Args:
        html: The markup.
    """

    html: str


@dataclass(frozen=True)
class Progress:
    """How far something is.

    Args:
        words: Raw text beside the bar.
        done: Of ``total``; None where it is not known how far it is: the bar then only moves.
        total: All there is to do.
        note: Raw text before the bar.
    """

    words: str
    done: int | None = None
    total: int = 1
    note: str = ""


@dataclass(frozen=True)
class Message:
    """What an alert says.

    Args:
        words: Raw text.
        kind: ``"error"``, ``"info"`` or ``"done"``.
    """

    words: str
    kind: Kind = "info"


def text(value: object) -> str:
    """Any value as escaped text, for element content and quoted attributes; lone surrogates and NUL become U+FFFD.
    A ``Markup`` stays as it is."""
    if isinstance(value, Markup):
        return value.html
    clean = str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return html.escape(clean, quote=True)


def block(*parts: str) -> str:
    """Join markup in the element that carries the panels' style."""
    return f'<div class="wb">{"".join(parts)}</div>'


def title(value: object, note: object = "") -> str:
    """A heading with a line below it."""
    below = f'<p class="wb-muted">{text(note)}</p>' if note else ""
    return block(f'<div class="wb-title" role="heading" aria-level="3">{text(value)}</div>{below}')


def panel_title(value: object, note: object = "") -> str:
    """The heading of a panel, with the style of all that follows in it."""
    return STYLE + title(value, note)


def alert(message: object, kind: Kind = "error") -> str:
    """A message that screen readers announce: ``role="alert"`` for an error, else ``role="status"``. Nothing for
    None and for the empty text."""
    if message is None or not str(message):
        return ""
    words = {"error": "Error", "info": "Note", "done": "Done"}
    role = "alert" if kind == "error" else "status"
    return block(f'<div class="wb-alert wb-alert-{kind}" role="{role}"><b>{words[kind]}:</b> {text(message)}</div>')


def hint(words: object) -> str:
    """One grey line that says how to go on; nothing for the empty text."""
    return block(f'<p class="wb-hint">{text(words)}</p>') if str(words) else ""


def verdict(words: object, outcome: OutcomeKind) -> str:
    """The largest line of a panel: what came out, with a mark and a colour; screen readers announce it.

    Args:
        words: Raw text.
        outcome: ``"good"``, ``"partly"``, ``"bad"``, or ``"none"`` where nothing can be said.
    """
    mark = f'<span class="wb-mark-of" aria-hidden="true">{OUTCOME_MARKS[outcome]}</span>'
    return block(f'<div class="wb-verdict wb-verdict-{outcome}" role="status">{mark} {text(words)}</div>')


def badge(kind: AnswerKind, label: object = None) -> Markup:
    """What kind of answer a text is, by colour and mark.

    Args:
        kind: ``"old"``, ``"new"``, ``"refusal"`` or ``"other"``.
        label: Raw text; None for the kind itself.
    """
    words = text(kind if label is None else label)
    mark = f'<span aria-hidden="true">{ANSWER_MARKS[kind]}</span>'
    return Markup(f'<span class="wb-badge wb-badge-{kind}">{mark} {words}</span>')


def token(value: object) -> Markup:
    """One token in the one notation for tokens: white space made visible, its script's direction kept to itself."""
    return Markup(f'<bdi><code class="wb-token">{text(visible(value))}</code></bdi>')


def fold(summary: object, *parts: str, opened: bool = False) -> str:
    """Markup that a click on its summary shows and hides.

    Args:
        summary: Raw text.
        parts: Markup inside.
        opened: Whether it is shown at first.
    """
    return block(f"<details{' open' * opened}><summary>{text(summary)}</summary>{''.join(parts)}</details>")


def tag(value: object) -> Markup:
    """A small label in a frame, such as an answer's class."""
    return Markup(f'<span class="wb-tag">{text(value)}</span>')


def tagged(label: object, value: object) -> Markup:
    """A text behind its label."""
    return Markup(f"{tag(label).html}{text(value)}")


def table(headers: Sequence[object], rows: Iterable[Sequence[object]], caption: object = "") -> str:
    """A table whose first column heads its rows. Wide ones scroll, by keyboard too.

    Args:
        headers: One per column.
        rows: Cells as raw text or ``Markup``.
        caption: Above the table; also its accessible name.
    """
    head = "".join(f'<th scope="col">{text(h)}</th>' for h in headers)
    body = "".join(
        "<tr>"
        + "".join(f'<th scope="row">{text(c)}</th>' if not i else f"<td>{text(c)}</td>" for i, c in enumerate(row))
        + "</tr>"
        for row in rows
    )
    above = f"<caption>{text(caption)}</caption>" if caption else ""
    return block(
        f'<div class="wb-scroll" tabindex="0" role="region" aria-label="{text(caption or "Table")}"><table>{above}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def tokens(
    texts: Sequence[str],
    subject: Collection[int] = (),
    traced: int | None = None,
    *,
    folded: Mapping[range, str] | None = None,
) -> str:
    """A strip of tokens as they are split, white space made visible.

    Args:
        texts: The tokens.
        subject: Positions of the subject's tokens (bold, underlined).
        traced: Position of the traced token (dashed frame).
        folded: Runs of positions that are shown as one chip with this label and their number, until it is clicked.
    """
    items: list[str] = []
    for i, raw in enumerate(texts):
        marks = ["subject"] * (i in subject) + ["traced"] * (i == traced)
        classes = f' class="{" ".join("wb-" + m for m in marks)}"' if marks else ""
        said = f"token {i}{''.join(', ' + m for m in marks)}"
        items.append(f'<li{classes} title="{said}"><bdi>{text(visible(raw))}</bdi></li>')
    for where, label in (folded or {}).items():
        inside = "".join(items[where.start : where.stop])
        chip = f'<summary>{text(label)} ({len(where)})</summary><ul class="wb-tokens">{inside}</ul>'
        items[where.start : where.stop] = [
            f'<li class="wb-chip"><details>{chip}</details></li>',
            *[""] * (len(where) - 1),
        ]
    key = '<span class="wb-key">Bold, underlined: subject.</span>' * bool(subject)
    key += '<span class="wb-key">Dashed frame: traced token.</span>' * (traced is not None)
    return block(
        f'<ul class="wb-tokens" aria-label="{len(texts)} tokens">{"".join(items)}</ul><p class="wb-muted">{key}</p>'
    )


def code(source: str, summary: object = "Code", *, opened: bool = False) -> str:
    """Python in a collapsible read-only area, ``opened`` or not."""
    return block(
        f"<details{' open' * opened}><summary>{text(summary)}</summary>"
        f'<pre tabindex="0"><code>{text(source)}</code></pre></details>'
    )


def progress(done: int | None, total: int, note: object) -> str:
    """A progress bar with words beside it.

    Args:
        done: Of ``total``; None where it is not known how far it is: the bar then only moves.
        total: All there is to do.
        note: The words.
    """
    value = "" if done is None else f' value="{int(done)}"'
    return block(f'<progress max="{max(1, int(total))}"{value} aria-label="Progress"></progress>{text(note)}')
