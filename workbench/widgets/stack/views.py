"""What the panel of a stack shows: answers after each edit, overlaps and norms as markup, and the lines of the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.plots.style import short_number
from workbench.types import AnswerClass
from workbench.types.stack import StackAnswers, StackLayer, StackOverlaps
from workbench.widgets.edit.views import BADGES
from workbench.widgets.shared import markup

PLACES = 3
"""Of two edits, at most so many places are listed: those with the largest share."""
_UNITS = {"keys": "directions read", "gates": "gates moved", "weights": "weights changed"}


def layer_words(layer: StackLayer) -> str:
    """What an edit teaches, in a line: ``"France: Paris → Rome"``."""
    facts = layer.edit.facts
    first = f"{facts[0].subject}: {facts[0].answer} → {facts[0].target}"
    return first if len(facts) == 1 else f"{first} and {len(facts) - 1} more"


def lines(layers: Sequence[StackLayer], broke: Mapping[int, str]) -> list[str]:
    """The lines of the list, in columns of one width a letter.

    Args:
        layers: The stack's edits.
        broke: In words, what each broke, by place; none where it is not known.
    """
    names = [layer_words(layer) for layer in layers]
    width = max(map(len, names), default=0)
    methods = max((len(layer.edit.method) for layer in layers), default=0)
    out: list[str] = []
    for i, (layer, name) in enumerate(zip(layers, names, strict=True)):
        switch = "● on " if layer.on else "○ off"
        strength = f"{layer.strength:.2f}"
        method = f"{layer.edit.method:<{methods}}"
        out.append(f"{i + 1:>2}  {switch}  {name:<{width}}  {method}  {strength}  {broke.get(i, '')}".rstrip())
    # A browser takes several spaces together.
    return [line.replace(" ", "\u00a0") for line in out]


def broke_words(answers: StackAnswers) -> dict[int, str]:
    """What each edit that was on broke, by place."""
    asked = {row.edit for row in answers.rows if row.edit >= 0}
    by_edit: dict[int, list[str]] = {i: [] for i in asked}
    for one in answers.broken:
        by_edit[one.by].append(one.fact_id)
    return {i: f"broke {', '.join(ids)}" if ids else "broke nothing" for i, ids in by_edit.items()}


def answers_view(answers: StackAnswers, layers: Sequence[StackLayer]) -> str:
    """The finding, and each fact's answer after each edit."""
    never = all(row.holds is None for row in answers.rows)
    outcome = "none" if never else "bad" if answers.broken else "good"
    after = list(dict.fromkeys((row.after, row.edit) for row in answers.rows))
    heads = ["fact", "base", *(f"after {edit + 1}: {layer_words(layers[edit])}" for _, edit in after[1:])]
    rows: list[list[object]] = []
    for fact in answers.facts:
        cells: list[object] = [fact]
        for row in answers.rows:
            if row.fact_id == fact:
                cells.append(markup.Markup(f"{_badge(row.label, row.holds).html} {markup.text(row.text)}"))
        rows.append(cells)
    first, *more = answers.words.splitlines()
    if ids := list(dict.fromkeys(one.fact_id for one in answers.broken)):
        first, more = f"{len(ids)} of {len(answers.facts)} facts broke: {', '.join(ids)}", [first, *more]
    hints = "".join(markup.hint(line) for line in more)
    table = markup.table(heads, rows, "Each fact's question after each edit")
    return markup.verdict(first, outcome) + hints + table


def overlaps_view(found: StackOverlaps, layers: Sequence[StackLayer]) -> str:
    """What every two edits share most, and how far the weights are from the base's after each."""
    rows = [
        (
            f"{row.first + 1}: {layer_words(layers[row.first])}",
            f"{row.second + 1}: {layer_words(layers[row.second])}",
            row.place,
            f"{_count(row.shared)} of {row.of:,} {_UNITS[row.kind]}",
            f"{row.cosine:.2f}",
        )
        for row in found.largest(PLACES)
    ]
    norms = [
        (
            f"{row.layer + 1}: {layer_words(layers[row.layer])}",
            f"{row.change:.2%}",
            f"{row.norm - 1:+.2%}",
            f"{row.place} ({row.largest:.2%})",
        )
        for row in found.norms
    ]
    overlap = markup.table(("edit", "and", "most at", "share", "cosine"), rows, "What two edits share")
    growth = ("after", "change of the weights", "growth of their norm", "largest at")
    return (overlap if rows else markup.hint("No two edits that are on share a place.")) + (
        markup.table(growth, norms, "How far the changed weights are from the base's") if norms else ""
    )


def _count(shared: float) -> str:
    return f"{shared:,.0f}" if float(shared).is_integer() else short_number(shared)


def _badge(label: AnswerClass, holds: bool | None) -> markup.Markup:
    return markup.badge(BADGES.get(label, "other"), f"{label}, broken" if holds is False else label)
