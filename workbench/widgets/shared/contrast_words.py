"""Contrasts as code and in words, the same in every panel."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields

from torch import Tensor

from workbench.models.load import LoadedModel
from workbench.types import Contrast, Fact, FactSet
from workbench.types.contrast import Token
from workbench.widgets.shared.code import facts_code, start_code


def traced_code(
    model: LoadedModel, traced: Sequence[Fact] | Sequence[Contrast], pool: FactSet | None, panel: str
) -> str:
    """Lines that define the model, and ``fact`` or ``contrast`` (one, or a list).

    Args:
        model: The model.
        traced: The facts or contrasts.
        pool: Where swap partners come from.
        panel: Who was given the model, as code that cannot make it says.
    """
    start = traced_start(model, panel)
    facts = [one for one in traced if isinstance(one, Fact)]
    if facts:
        return f"{start}{facts_code(facts, pool)}"
    return start + contrasts_code([one for one in traced if isinstance(one, Contrast)])


def traced_start(model: LoadedModel, panel: str) -> str:
    """The lines that define the model alone; arguments as in ``traced_code``."""
    if model.applied:
        return f"import workbench as wb\n\nmodel = ...  # the edited model that this {panel} was given\n"
    return start_code(model)


def contrasts_code(contrasts: Sequence[Contrast]) -> str:
    """The lines that define ``contrast``: one, or a list."""
    calls = [contrast_call(one) for one in contrasts]
    listed = "".join(textwrap.indent(call, "    ") + ",\n" for call in calls)
    several = f"[\n{listed}]"
    return f"contrast = {calls[0] if len(calls) == 1 else several}\n"


def contrast_call(contrast: Contrast) -> str:
    """The call that makes a contrast, with the fields that are not their default, one a line. States cannot be written:
    they are left to be filled in."""
    lines: list[str] = []
    for each in fields(Contrast):
        value = getattr(contrast, each.name)
        default = None if each.default is MISSING else each.default
        if value is None or value == default or (each.name == "positions" and not value):
            continue
        if isinstance(value, Tensor):
            lines.append(f"    {each.name}=...,  # the states that were given, {list(value.shape)}\n")
            continue
        lines.append(f"    {each.name}={dict(value) if isinstance(value, Mapping) else value!r},\n")
    return f"wb.Contrast(\n{''.join(lines)})"


def contrast_answers(contrast: Contrast) -> str:
    """The answer and the wrong answer in a line."""
    wrong = f", not {_listed(contrast.wrongs)}" if contrast.wrongs else ""
    return f"{_listed(contrast.answers)}{wrong}"


def traced_lines(traced: Fact | Contrast) -> list[str]:
    """What is asked, and its answers, in a line each."""
    if isinstance(traced, Fact):
        return [traced.question, f"{traced.answer} → {traced.target}"]
    return [traced.clean if isinstance(traced.clean, str) else traced.id, contrast_answers(traced)]


def _listed(tokens: Sequence[Token]) -> str:
    first = tokens[0] if isinstance(tokens[0], int) else f"{tokens[0]!r}"
    return f"{first}" if len(tokens) == 1 else f"{first} (or {len(tokens) - 1} more)"
