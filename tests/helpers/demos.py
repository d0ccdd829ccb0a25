"""A tiny model in the place of the demo's, and short edits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import knowing
from workbench import demo
from workbench.models.load import LoadedModel


def demo_model(
    monkeypatch: pytest.MonkeyPatch, folder: Path, facts: wb.FactSet, in_short: Callable[[Any], tuple[Any, Any]]
) -> LoadedModel:
    """A tiny model that knows some facts, which the demo and the code of its page load from now on.

    Args:
        monkeypatch: Puts it in place.
        folder: For the cache.
        facts: They; the bundled ones too.
        in_short: From a recipe to the selection and the recipe that are used instead.
    """
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "cache"))
    knows = knowing(tiny_llama(tied=False), facts)
    real = wb.rewrite

    def short(model: Any, fact: Any, *, recipe: Any, **options: Any) -> wb.Edit:
        selection, quick = in_short(recipe)
        return real(model, fact, selection, recipe=quick, **options)

    monkeypatch.setattr("workbench.facts.known._bundled_facts", lambda: facts)
    monkeypatch.setattr(demo, "load_model", lambda: knows)
    monkeypatch.setattr(demo, "rewrite", short)
    for name, value in {"load_model": lambda: knows, "rewrite": short}.items():
        monkeypatch.setattr(wb, name, value)  # for the code of the page
    return knows
