"""Bars of the answers' probabilities, the base's and the edited model's on one axis from 0 to 1.

Sizes are pixels, whatever the width of the page: scaled, their text would be larger or smaller than that beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from workbench.plots.style import short_number, visible
from workbench.widgets.shared import markup
from workbench.widgets.shared.markup import ANSWER_MARKS, AnswerKind, text

_COLOURS = {"old": "wb-s0", "new": "wb-s1", "refusal": "wb-s2"}
_AXIS, _ROW, _TOP = 260, 44, 46
_GLYPH = 6.9
"""Pixels that a character of the labels takes at most, of most scripts."""


def answer_bars(base: Mapping[str, float], edited: Mapping[str, float], heading: str, name: str) -> str:
    """Two bars for each answer: the base's as a frame, the edited model's filled.

    Args:
        base, edited: Probabilities by label, which begins with the kind of answer (``"old: Paris"``), with the same
            labels.
        heading: Above the bars; also the accessible name, with all numbers.
        name: Of the edited model, for the key.
    """
    labels = {label: visible(label, 34) for label in edited}
    left = 34 + _GLYPH * max(map(len, labels.values()), default=0)
    width, bottom = left + _AXIS + 130, _TOP + _ROW * len(edited)
    parts = [
        f'<line class="wb-grid" x1="{x:.0f}" x2="{x:.0f}" y1="{_TOP - 6}" y2="{bottom}"/>'
        f'<text x="{x:.0f}" y="{bottom + 16}" text-anchor="middle">{share:g}</text>'
        for share in (0.0, 0.5, 1.0)
        for x in (left + _AXIS * share,)
    ]
    rows = [
        _row(label, labels[label], left, _TOP + _ROW * i, base[label], value)
        for i, (label, value) in enumerate(edited.items())
    ]
    key = (
        f'{_frame("wb-muted", 4, 23, 16)}<text x="26" y="32">base</text>'
        f'<rect class="wb-bar wb-muted" x="70" y="23" width="16" height="10"/><text x="92" y="32">{text(name)}</text>'
    )
    numbers = "; ".join(f"{n}: {_number(p)}, base {_number(base[n])}" for n, p in edited.items())
    return markup.block(
        f'<figure class="wb-scroll"><svg width="{width:.0f}" height="{bottom + 24}" role="img" '
        f'style="width: {width:.0f}px; max-width: none; height: {bottom + 24}px" aria-label="{text(heading)}. '
        f'{text(numbers)}"><text class="wb-head" x="4" y="14">{text(heading)}</text>{key}{"".join(parts)}'
        f"{''.join(rows)}</svg></figure>"
    )


def _row(label: str, shown: str, left: float, y: float, base: float, edited: float) -> str:
    """One answer: its mark and label, the frame of the base and the bar of the edited model, with their numbers."""
    kind = label.split(":", 1)[0]
    mark = ANSWER_MARKS[cast(AnswerKind, kind)] if kind in ANSWER_MARKS else ANSWER_MARKS["other"]
    was, now = (_AXIS * min(1.0, max(0.0, value)) for value in (base, edited))
    colour = _COLOURS.get(kind, "wb-s3")
    return (
        f"<g><title>{text(label)}: {_number(edited)}, base {_number(base)}</title>"
        f'<text class="{colour}" x="4" y="{y + 20}">{mark}</text><text x="22" y="{y + 20}">{text(shown)}</text>'
        f"{_frame(colour, left, y + 2, was)}"
        f'<text class="wb-muted" x="{left + was + 6:.0f}" y="{y + 12}">{_number(base)}</text>'
        f'<rect class="wb-bar {colour}" x="{left:.0f}" y="{y + 16}" width="{now:.1f}" height="14"/>'
        f'<text x="{left + now + 6:.0f}" y="{y + 28}">{_number(edited)}</text></g>'
    )


def _frame(colour: str, x: float, y: float, width: float) -> str:
    """An empty bar."""
    return (
        f'<rect class="{colour}" x="{x:.0f}" y="{y}" width="{width:.1f}" height="10" fill="none" stroke="currentColor" '
        'stroke-width="1.5"/>'
    )


def _number(value: float) -> str:
    return short_number(value, share=True)
