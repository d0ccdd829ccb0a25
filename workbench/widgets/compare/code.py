"""The Python that repeats what a CompareView shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact, FactSet
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
    *,
    edit_lines: str | None,
    pool: FactSet | None,
    options: Mapping[str, Any],
    strength: float,
    question: str | None,
    with_maps: bool,
) -> str:
    """The maps, the probabilities at one strength and the answers to one question.

    Args:
        model, edit, fact, pool: As in ``CompareView``.
        edit_lines: Lines that make ``edit``; None for the rewrite that made it.
        options: Of ``compare_maps``; with the stage.
        strength: Of the edit.
        question: The last one that was answered, or None.
        with_maps: Whether maps were computed.
    """
    if edit_lines is None:
        chosen = edit.selection if edit.selector == "given" else len(edit.selection) or None
        edit_lines = (
            f"selection = {selection_code(chosen)}\n"
            f"recipe = {recipe_code(edit.recipe)}\n"
            f"edit = wb.rewrite(model, fact, selection, recipe=recipe{pool_argument(pool)})\n"
        )
    shown = shown_code(
        edit, fact, pool=pool, options=options, strength=strength, question=question, with_maps=with_maps
    )
    looked_up = not _is_the_edits(fact, edit) and is_bundled(fact)
    load = "facts = wb.load_facts()\n" if looked_up and not needs_facts(edit.facts, pool) else ""
    return f"{start_code(model)}{load}{facts_code(edit.facts, pool)}{edit_lines.rstrip()}\n\n{shown}"


def shown_code(
    edit: Edit,
    fact: Fact,
    *,
    pool: FactSet | None,
    options: Mapping[str, Any],
    strength: float,
    question: str | None,
    with_maps: bool,
) -> str:
    """The part of ``compare_code`` that uses ``model``, ``edit`` and ``facts`` (and ``pool``, where one was given)."""
    stage = options["stage"]
    settings = ", ".join(f"{name}={value!r}" for name, value in options.items())
    maps = f"maps = wb.compare_maps(model, edit, traced, {settings}{pool_argument(pool)})\n" * with_maps
    lines = (
        f"traced = {'fact' if _is_the_edits(fact, edit) else fact_code(fact)}\n{maps}"
        f"with wb.applied(model, edit, {stage!r}, strength={strength!r}) as edited:\n"
        '    probabilities = wb.answer_probabilities(edited, traced)["before"]\n'
    )
    if question is not None:
        lines += f'question = {question!r}\nanswers = {{"base": wb.ask(model, question)}}\n'
        for name in edit.stage_names:
            lines += (
                f"with wb.applied(model, edit, {name!r}) as edited:\n"
                f"    answers[{'after ' + name!r}] = wb.ask(edited, question)\n"
            )
    return lines


def _is_the_edits(fact: Fact, edit: Edit) -> bool:
    """Whether a fact is the only one of an edit, which the code calls ``fact``."""
    return [fact] == list(edit.facts)
