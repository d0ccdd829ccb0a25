"""The Python that repeats what was clicked, for a fresh kernel: each function writes one expression or a few lines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeGuard

from workbench.editing.methods.table import IA3, RECIPES
from workbench.facts.known import load_facts
from workbench.models.bundled import NAME
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, DataPrompt, Fact, FactSet, Selection
from workbench.types.plain import is_tuple


def start_code(model: LoadedModel) -> str:
    """The import and the model, with its template options. A model from elsewhere is called by its name; its folder is
    not known here."""
    template = f"template={model.template!r}" if model.template else ""
    if model.name == NAME:
        return f"import workbench as wb\n\nmodel = wb.load_model({template})\n"
    return (
        "import workbench as wb\n\n"
        f"# fingerprint {model.fingerprint[:12]}; load it the way it was loaded\n"
        f"model = wb.load_model({model.name!r}{', ' * bool(template)}{template})\n"
    )


def is_bundled(fact: Fact) -> bool:
    """Whether a fact is the same as the bundled one of its id, so that code can look it up."""
    bundled = load_facts()
    return fact.id in bundled and bundled[fact.id] == fact


def own_pool(pool: FactSet | None) -> TypeGuard[FactSet]:
    """Whether a pool is not the bundled set, so that code must define it."""
    return pool is not None and list(pool) != list(load_facts())


def pool_argument(pool: FactSet | None) -> str:
    """The further argument ``pool=pool`` of a call, where there is a ``pool``."""
    return ", pool=pool" if own_pool(pool) else ""


def fact_code(fact: Fact) -> str:
    """One fact: looked up in ``facts``, the bundled ones, where it is the same, else written out."""
    return f"facts[{fact.id!r}]" if is_bundled(fact) else fact_call(fact)


def fact_call(fact: Fact) -> str:
    """The call that makes a fact, with the fields that are not their default, one a line."""
    lines = "".join(f"    {argument},\n" for argument in _arguments(fact))
    return f"wb.Fact(\n{lines})"


def fact_call_in_a_line(fact: Fact) -> str:
    """The same call as an argument of another one."""
    return f"wb.Fact({', '.join(_arguments(fact))})"


def _arguments(fact: Fact) -> list[str]:
    values = {field: getattr(fact, field.name) for field in fields(Fact)}
    given = {f.name: v for f, v in values.items() if f.default is MISSING or v != f.default}
    return [f"{name}={_written(value)}" for name, value in given.items()]


def _written(value: Any) -> str:
    """A field's value as code."""
    if is_tuple(value) and all(isinstance(one, DataPrompt) for one in value):
        return f"[{', '.join(f'wb.{one!r}' for one in value)}]"
    return repr(value)


def needs_facts(facts: Iterable[Fact], pool: FactSet | None = None) -> bool:
    """Whether ``facts_code`` of these loads the bundled ones as ``facts``."""
    if not own_pool(pool):
        return any(map(is_bundled, facts))
    return any(map(is_bundled, pool)) or any(is_bundled(f) and not _read_again(f, pool) for f in facts)


def _read_again(fact: Fact, pool: FactSet) -> bool:
    """Whether code finds a fact in a pool that it reads from a file."""
    return pool.source is not None and fact in pool


def facts_code(facts: Sequence[Fact], pool: FactSet | None = None, name: str = "fact") -> str:
    """Lines that define ``facts`` where they are looked up, ``fact`` (or by another name; one, or a list), and ``pool``
    if it is not the bundled set. Facts of a file are read again, not written out."""
    load = "facts = wb.load_facts()\n" if needs_facts(facts, pool) else ""
    own = pool if own_pool(pool) else None
    looked_up = [own is not None and _read_again(f, own) for f in facts]
    written = [f"pool[{f.id!r}]" if there else fact_code(f) for f, there in zip(facts, looked_up, strict=True)]
    listed = "".join(textwrap.indent(w, "    ") + ",\n" for w in written)
    fact = f"{name} = {written[0]}\n" if len(written) == 1 else f"{name} = [\n{listed}]\n"
    defined = "" if own is None else pool_code(own)
    return f"{load}{defined}{fact}" if any(looked_up) else f"{load}{fact}{defined}"


def pool_code(pool: FactSet) -> str:
    """The lines that define ``pool``: its file is read again, and what is not from there is looked up or written."""
    source, own = pool.source, [f.id for f in pool if not is_bundled(f)]
    looked_up = [f.id for f in pool if is_bundled(f)]
    in_order = pool.ids in ((*own, *looked_up), (*looked_up, *own))
    if source is None or len(own) > source.n or not in_order:
        members = "".join(textwrap.indent(fact_code(f), "        ") + ",\n" for f in pool)
        return f"pool = wb.FactSet(\n    [\n{members}    ],\n    name={pool.name!r},\n)\n"
    own_first = not looked_up or pool.ids[: len(own)] == tuple(own)
    parts = (source.code, "facts") if own_first else ("facts", source.code)
    read = " + ".join(parts) if looked_up else source.code
    everything = not looked_up or all(f.id in pool for f in load_facts())
    if len(own) == source.n and everything:
        return f"pool = {read}\n"
    lines = "".join(f"        {', '.join(map(repr, pool.ids[i : i + 4]))},\n" for i in range(0, len(pool), 4))
    return f"pool = ({read}).filter(\n    ids=[\n{lines}    ]\n)\n"


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


@dataclass(frozen=True)
class EditLines:
    """The lines that make an edit and its evaluation, once ``model``, ``fact`` and ``pool`` are there.

    Args:
        editing: All but the line of the selection.
        selecting: The line that defines ``selection``; empty where the edit comes from elsewhere.
        selection: The selection that this line defines; None for the default selector.
    """

    editing: str
    selecting: str = ""
    selection: Selection | None = None

    def __str__(self) -> str:
        return self.selecting + self.editing

    def after(self, selection: Selection) -> str:
        """The lines where ``selection`` is defined already, as this one."""
        known = self.selection is not None and list(self.selection) == list(selection)
        return self.editing if known else str(self)


def edit_lines(
    selection: Selection | None,
    recipe: BaseRecipe,
    *,
    pool: FactSet | None = None,
    max_controls: int | None = None,
    control: bool = False,
) -> EditLines:
    """One edit and its evaluation, and those of a random control of the same size if asked for."""
    more = pool_argument(pool)
    default = "the default selector" if recipe.selects else recipe.without_selection.lower()
    comment = f"  # None: {default}" if selection is None else ""
    where = ", where='one-layer'" if recipe.one_module else ""
    beside = (
        f"drawn = edit.selection.random_like(model, seed=recipe.seed{where})\n"
        f"control = wb.rewrite(model, fact, drawn, recipe=edit.recipe{more})\n"
        f"control_report = wb.evaluate(model, edit=control, max_controls={max_controls}{more})\n"
    )
    editing = (
        f"recipe = {recipe_code(recipe)}\n"
        f"edit = wb.rewrite(model, fact, selection, recipe=recipe{more})\n"
        f"report = wb.evaluate(model, edit=edit, max_controls={max_controls}{more})\n"
        f"{beside if control else ''}"
    )
    return EditLines(editing, f"selection = {selection_code(selection)}{comment}\n", selection)


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
    """The whole of one edit and its evaluation, for a fresh kernel; see ``edit_lines``."""
    lines = edit_lines(selection, recipe, pool=pool, max_controls=max_controls, control=control)
    return f"{start_code(model)}{facts_code(facts, pool)}{lines}"
