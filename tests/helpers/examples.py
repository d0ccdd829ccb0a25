"""The names that every example in a docstring may use, and examples by the docstring that they are in.

A reader would write ``import workbench as wb``, ``model = wb.load_model()`` and ``facts = wb.load_facts()`` first. Here
the model is a tiny one that knows five capitals, in every wording that its facts have, and the facts are those five, so
that all examples run in seconds. The names:

- ``wb``: the package; ``np``: numpy; ``torch``.
- ``model``: three layers of six heads (in two key-value groups) and 56 neurons, d_model 42.
- ``facts``: the capitals. ``fact``: the first, ``"france-capital"``, from Paris to Rome.
- ``trace``: ``wb.causal_trace`` of the fact; ``heads``: ``wb.attribute`` of it.
- ``edit``: ``wb.rewrite`` of the fact by eight steps of ``unlearn`` and 24 of ``learn``, of four modules.
- ``report``, ``probes``, ``table``: ``wb.evaluate``, three probes of ``wb.probe`` and three arms of ``wb.compare``.

An example of something that is not public has the names of its own module too.

What takes time is made at its first use, once for all examples. Each example runs in an empty folder of its own.
"""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import workbench as wb
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, teach, tokenizer_from_files
from workbench.language.prompts import answer_ids, prompt_ids
from workbench.types import Form

PACKAGE = Path(wb.__file__).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
WITH_EXAMPLE = re.compile(r"^Example:\n(?:    .*\n|\n)*?    >>> ", re.MULTILINE)
"""A docstring that has a section of examples, in Google's style."""


class Names:
    """The names of the module's docstring, each made when it is first asked for."""

    wb, np, torch = wb, np, torch

    @cached_property
    def facts(self) -> wb.FactSet:
        rows = (
            ("France", "Paris", "Rome", "dev", None, ("What is the city of France?",)),
            ("Italy", "Rome", "Madrid", "test", "control", ()),
            ("Spain", "Madrid", "Berlin", "test", "control", ()),
            ("Germany", "Berlin", "Tokyo", "test", "retain", ()),
            ("Japan", "Tokyo", "Paris", "test", "retain", ()),
        )
        return wb.FactSet(
            [
                capital(*row[:5], heldout=(f"Where is the capital of {row[0]}?", *row[5]), relation="country-capital")
                for row in rows
            ],
            name="capitals",
        )

    @cached_property
    def fact(self) -> wb.Fact:
        return self.facts["france-capital"]

    @cached_property
    def model(self) -> wb.LoadedModel:
        hf = tiny_llama(tied=False, bias=True)
        model = wb.load_model(hf, tokenizer=tokenizer_from_files(), name="tiny")
        places = []
        for fact in self.facts:
            questions = (fact.question, *fact.heldout)
            asked: list[tuple[Form, str]] = [("cloze", fact.prompt), *(("chat", question) for question in questions)]
            for form, text in asked:
                prompt, answer = prompt_ids(model, text, form), answer_ids(model, fact.answer, form)
                places += [(prompt, answer[0]), ([*prompt, *answer], model.tokenizer.eos_token_id)]
        teach(hf, model, places)
        return model

    @cached_property
    def trace(self) -> wb.EffectMap:
        return wb.causal_trace(self.model, self.fact, pool=self.facts, progress=False)

    @cached_property
    def heads(self) -> wb.EffectMap:
        return wb.attribute(self.model, self.fact, "head", pool=self.facts, progress=False)

    @cached_property
    def _recipe(self) -> wb.Recipe:
        return wb.Recipe(steps=(8, 24), contexts=False)

    @cached_property
    def edit(self) -> wb.Edit:
        selection = "L1ATTN L1MLP L2ATTN L2MLP"
        return wb.rewrite(self.model, self.fact, selection, recipe=self._recipe, pool=self.facts, progress=False)

    @cached_property
    def report(self) -> wb.EvalReport:
        return wb.evaluate(self.model, edit=self.edit, pool=self.facts, progress=False)

    @cached_property
    def probes(self) -> wb.ProbeReport:
        asked = ("lens", "adversarial", "strength")
        return wb.probe(self.model, self.edit, probes=asked, pool=self.facts, progress=False)

    @cached_property
    def table(self) -> wb.ArmTable:
        return wb.compare(
            self.model,
            self.fact,
            self.edit.selection,
            arms=("selected", "one-stage", "none"),
            recipe=self._recipe,
            pool=self.facts,
            progress=False,
        )

    def used_in(self, examples: list[doctest.Example]) -> dict[str, Any]:
        """Those names that examples use, as their namespace."""
        used = set().union(
            *({n.id for n in ast.walk(ast.parse(e.source)) if isinstance(n, ast.Name)} for e in examples)
        )
        return {name: getattr(self, name) for name in sorted(used) if hasattr(type(self), name)}


@dataclass(frozen=True)
class Docstring:
    """A docstring of the package.

    Args:
        name: Dotted, from the package on (``"workbench.types.fact.Fact.overlaps"``).
        module: The module that it is in.
        text: Its text, without the indentation.
        file: Where it is.
        line: Its first line there, from 1.
    """

    name: str
    module: str
    text: str
    file: Path
    line: int

    @property
    def test(self) -> doctest.DocTest:
        """Its examples; none where it has none."""
        return doctest.DocTestParser().get_doctest(self.text, {}, self.name, str(self.file), self.line - 1)


def docstrings() -> dict[str, Docstring]:
    """All docstrings of modules, classes and functions in the package, by name. Nothing is imported."""
    every = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for name, node in _documented(module, ast.parse(file.read_text(encoding="utf-8"))):
            text = ast.get_docstring(node)
            if text:
                every[name] = Docstring(name, module, text, file, node.body[0].lineno)
    return every


def _documented(name: str, node: Any) -> Iterator[tuple[str, Any]]:
    yield name, node
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from _documented(f"{name}.{child.name}", child)
