"""The Python that repeats what a CompareView shows."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact, FactSet
from workbench.widgets.compare.asking import Answered, asked_code
from workbench.widgets.shared.code import (
    fact_code,
    facts_code,
    is_bundled,
    needs_facts,
    pool_argument,
    recipe_code,
    selection_code,
    start_code,
)


def compare_code(
    model: LoadedModel,
    edit: Edit,
    fact: Fact,
    shown: str,
    *,
    edit_lines: str | None,
    pool: FactSet | None,
) -> str:
    """The whole script for a fresh kernel.

    Args:
        model, edit, fact, pool: As in ``CompareView``.
        shown: Its last part, see ``shown_code``.
        edit_lines: Lines that make ``edit``; None for the rewrite that made it.
    """
    if edit_lines is None:
        number = len(edit.selection) or None if edit.recipe.takes_number else None
        chosen = edit.selection if edit.picked else number
        edit_lines = (
            f"selection = {selection_code(chosen)}\n"
            f"recipe = {recipe_code(edit.recipe)}\n"
            f"edit = wb.rewrite(model, fact, selection, recipe=recipe{pool_argument(pool)})\n"
        )
    looked_up = not _is_the_edits(fact, edit) and is_bundled(fact)
    load = "facts = wb.load_facts()\n" if looked_up and not needs_facts(edit.facts, pool) else ""
    return f"{start_code(model)}{load}{facts_code(edit.facts, pool)}{edit_lines.rstrip()}\n\n{shown}"


def shown_code(
    edit: Edit,
    fact: Fact,
    *,
    pool: FactSet | None,
    stage: str,
    strength: float,
    maps: str,
    edges: str,
    answers: Sequence[Answered],
) -> str:
    """The part that uses ``model``, ``edit`` and ``facts`` (and ``pool``, where one was given): the maps, the
    edges, the probabilities at one strength, and the answers.

    Args:
        edit, fact, pool: As in ``CompareView``.
        stage, strength: Of the probabilities.
        maps: Keywords of ``compare_maps``; empty where no maps are shown.
        edges: Keywords of ``compare_edges``; empty where no edges are shown.
        answers: The questions that were answered.
    """
    compared = f"maps = wb.compare_maps(model, edit, traced, {maps}{pool_argument(pool)})\n" if maps else ""
    return (
        f"traced = {'fact' if _is_the_edits(fact, edit) else fact_code(fact)}\n{compared}{edges_code(edges, pool)}"
        f"with wb.applied(model, edit, {stage!r}, strength={strength!r}) as edited:\n"
        '    probabilities = wb.answer_probabilities(edited, traced)["before"]\n'
        f"with wb.applied(model, edit, {stage!r}, strength=0.0) as unchanged:\n"
        '    base_probabilities = wb.answer_probabilities(unchanged, traced)["before"]\n'
        f"{asked_code(answers)}"
    )


def edges_code(arguments: str, pool: FactSet | None) -> str:
    """The call that scores the edges of ``traced``.

    Args:
        arguments: Keywords of ``compare_edges``; empty where no edges are shown.
        pool: As in ``CompareView``.
    """
    if not arguments:
        return ""
    return f"changes = wb.compare_edges(model, edit, traced, {arguments}{pool_argument(pool)})\n"


def _is_the_edits(fact: Fact, edit: Edit) -> bool:
    """Whether a fact is the only one of an edit, which the code calls ``fact``."""
    return [fact] == list(edit.facts)
