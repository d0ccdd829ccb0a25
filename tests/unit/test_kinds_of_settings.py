"""Every setting of every recipe refuses a value of another kind than its annotation, by its name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pytest

import workbench as wb
from workbench.types import BaseRecipe
from workbench.types.annotations import fits, kind_words, kinds_of
from workbench.types.refused import RefusedValue

KINDS = sorted({type(recipe) for recipe in wb.recipes.RECIPES.values()}, key=lambda kind: kind.__name__)
STRANGE: tuple[Any, ...] = ("3", 1.5, True, None, ("x",), float("inf"), {"a": 1}, object())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_value_of_another_kind_is_refused_by_name(kind: type[Any]) -> None:
    asked = 0
    for one in fields(kind):
        for value in STRANGE:
            if fits(value, kinds_of(kind)[one.name]):
                continue
            asked += 1
            with pytest.raises(ValueError, match=one.name) as caught:
                kind(**{one.name: value})
            assert repr(value) in str(caught.value)
    assert asked > 2 * len(fields(kind))


def test_messages_name_what_is_allowed() -> None:
    with pytest.raises(RefusedValue, match=r"Recipe\.force must be True or False, got 'False'"):
        wb.recipes.MEMIT(force="False")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RefusedValue, match=r"Recipe\.layers must be a tuple of whole numbers or None, got \(True,\)"):
        wb.recipes.MEMIT(layers=(True,))
    assert kind_words(float | None) == "a number or None"


def test_a_recipe_whose_annotations_cannot_be_read_is_not_checked_by_them() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Own(BaseRecipe):
        what: Unseen = 3  # pyright: ignore[reportUndefinedVariable]

    assert Own(what="anything").seed == 0
    with pytest.raises(RefusedValue, match="seed must be a whole number"):
        Own(seed="x")  # pyright: ignore[reportArgumentType]


def test_lists_become_tuples() -> None:
    recipe = wb.recipes.MEMIT(layers=[0, 1])  # pyright: ignore[reportArgumentType]
    assert recipe == wb.recipes.MEMIT(layers=(0, 1)) == wb.recipes.MEMIT.from_dict(recipe.to_dict())
    assert hash(recipe) == hash(wb.recipes.MEMIT(layers=(0, 1)))
