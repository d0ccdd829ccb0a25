"""Stepper: the phases of a run in a line, each with how long it took or how long it still takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.widgets.shared import markup

PhaseState = Literal["done", "now", "next"]
MARKS: dict[PhaseState, str] = {"done": "✓", "now": "▶", "next": "○"}
_SAID: dict[PhaseState, str] = {"done": "done: ", "now": "going on: ", "next": "then: "}


@dataclass(frozen=True, kw_only=True)
class PhaseRow:
    """One phase of a run, as it stands.

    Args:
        name: Its name.
        state: ``"done"``, ``"now"`` or ``"next"``.
        words: How far it is, such as ``"12 of 26"``; raw text.
        time: How long it took, or takes; raw text.
        done, total: How far it is, as a number; None where that is not known.
    """

    name: str
    state: PhaseState
    words: str = ""
    time: str = ""
    done: int | None = None
    total: int = 1


def stepper(rows: Sequence[PhaseRow], foot: str = "") -> str:
    """The phases side by side, wrapping, and a line below them.

    Args:
        rows: In order.
        foot: Raw text, such as how long all of it takes.
    """
    items: list[str] = []
    for row in rows:
        current = ' aria-current="step"' if row.state == "now" else ""
        value = "" if row.done is None else f' value="{row.done}"'
        bar = f'<progress max="{max(1, row.total)}"{value} aria-label="{markup.text(row.name)}"></progress>'
        words = f"<span>{markup.text(row.words)}</span>" if row.words else ""
        time = f'<span class="wb-muted">{markup.text(row.time)}</span>' if row.time else ""
        name = (
            f'<span aria-hidden="true">{MARKS[row.state]}</span> <span class="wb-sr">{_SAID[row.state]}</span>'
            f"<b>{markup.text(row.name)}</b>"
        )
        items.append(
            f'<li class="wb-step-{row.state}"{current}><span>{name}</span>{words}{time}'
            f"{bar if row.state == 'now' else ''}</li>"
        )
    below = f'<p class="wb-muted">{markup.text(foot)}</p>' if foot else ""
    return markup.block(f'<ol class="wb-steps">{"".join(items)}</ol>{below}') if items else ""
