"""Recipes as they are, but for few steps and texts."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from workbench.types import BaseRecipe


def in_short(recipe: BaseRecipe, **changes: Any) -> BaseRecipe:
    """A recipe with two steps a stage and little text, and with the changes that it has fields for."""
    known = {field.name for field in fields(recipe)}
    steps = getattr(recipe, "steps", None)
    given = {
        "steps": 2 if not isinstance(steps, tuple) else (2,) * len(steps),
        "contexts": False,
        "covariance_tokens": 1500,
        **changes,
    }
    return replace(recipe, **{name: value for name, value in given.items() if name in known})
