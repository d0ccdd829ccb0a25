"""The Python that repeats what was clicked, for a fresh kernel: each function writes one expression or a few lines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

from workbench.editing.recipes import IA3, RECIPES
from workbench.facts.known import load_facts
from workbench.models.bundled import NAME
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Fact, FactSet, Selection


def start_code(model: LoadedModel) -> str:
    """The import and the model. A model from elsewhere is called by the name it has; its folder is not known here."""
    if model.name == NAME:
        return "import workbench as wb\n\nmodel = wb.load_model()\n"
    return (
        "import workbench as wb\n\n"
        f"# fingerprint {model.fingerprint[:12]}; load it the way it was loaded\n"
        f"model = wb.load_model({model.name!r})\n"
    )


def fact_code(fact: Fact) -> str:
    """One fact: looked up among the bundled ones where it is the same, else written out."""
    bundled = load_facts()
    if fact.id in bundled and bundled[fact.id] == fact:
        return f"facts[{fact.id!r}]"
    given = []
    for field in fields(Fact):
        value = getattr(fact, field.name)
        if field.default is MISSING or value != field.default:
            given.append(f"    {field.name}={value!r},\n")
    return f"wb.Fact(\n{''.join(given)})"


def facts_code(facts: Sequence[Fact], pool: FactSet | None = None) -> str:
    """Lines that define ``facts`` and ``fact`` (one, or a list), and ``pool`` if it is not the bundled set."""
    written = [fact_code(f) for f in facts]
    one = (
        written[0] if len(written) == 1 else "[\n" + "".join(textwrap.indent(w, "    ") + ",\n" for w in written) + "]"
    )
    lines = ["facts = wb.load_facts()\n"] if any(w.startswith("facts[") for w in written) else []
    lines.append(f"fact = {one}\n")
    if pool is not None and list(pool) != list(load_facts()):
        members = "".join(textwrap.indent(fact_code(f), "        ") + ",\n" for f in pool)
        lines.append(f"pool = wb.FactSet(\n    [\n{members}    ],\n    name={pool.name!r},\n)\n")
        if "facts[" in members and len(lines) == 2:
            lines.insert(0, "facts = wb.load_facts()\n")
    return "".join(lines)


def recipe_code(recipe: BaseRecipe) -> str:
    """A recipe by its name, with the settings that differ from the built-in one of that name."""
    known = RECIPES.get(recipe.name)
    base = known if isinstance(known, type(recipe)) else type(recipe)()
    names = [f.name for f in fields(recipe)]
    changed: dict[str, Any] = {n: getattr(recipe, n) for n in names if getattr(recipe, n) != getattr(base, n)}
    settings = [f"{name}={value!r}" for name, value in changed.items()]
    if base is not known:
        name = "Recipe" if type(recipe) is IA3 else f"recipes.{type(recipe).__name__}"
        return f"wb.{name}({', '.join(settings)})"
    return f"wb.Recipe.named({', '.join([repr(recipe.name), *settings])})"


def selection_code(selection: Selection | int | None) -> str:
    """A selection as text, in lines of a readable length; None for the default selector, a number for so many of its
    neurons."""
    if not isinstance(selection, Selection):
        return repr(selection)
    lines = textwrap.wrap(str(selection), 96) or [""]
    if len(lines) == 1:
        return repr(lines[0])
    return "(\n" + "".join(f"    {line + ' '!r}\n" for line in lines[:-1]) + f"    {lines[-1]!r}\n)"


def edit_code(
    model: LoadedModel,
    facts: Sequence[Fact],
    selection: Selection | None,
    recipe: BaseRecipe,
    *,
    pool: FactSet | None = None,
    max_controls: int | None = None,
    control: bool = False,
) -> str:
    """The whole of one edit and its evaluation, and those of a random control of the same size if asked for."""
    given = facts_code(facts, pool)
    more = ", pool=pool" if "\npool = " in given else ""
    comment = "  # None: the default selector" if selection is None else ""
    beside = (
        "drawn = edit.selection.random_like(model, seed=recipe.seed)\n"
        f"control = wb.rewrite(model, fact, drawn, recipe=edit.recipe{more})\n"
        f"control_report = wb.evaluate(model, edit=control, max_controls={max_controls}{more})\n"
    )
    return (
        f"{start_code(model)}{given}"
        f"selection = {selection_code(selection)}{comment}\n"
        f"recipe = {recipe_code(recipe)}\n"
        f"edit = wb.rewrite(model, fact, selection, recipe=recipe{more})\n"
        f"report = wb.evaluate(model, edit=edit, max_controls={max_controls}{more})\n"
        f"{beside if control else ''}"
    )
