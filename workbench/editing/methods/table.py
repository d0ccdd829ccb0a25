"""The table of editing methods, and the built-in recipes by name: ``wb.recipes``.

A new method is a file in ``workbench.editing.methods`` and a row in ``METHODS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from workbench.editing.methods.full import FullFineTuning, make_full
from workbench.editing.methods.ia3 import DEFAULT, IA3, make_ia3
from workbench.editing.methods.ia3 import RECIPES as IA3_RECIPES
from workbench.editing.methods.lora import LoRA, make_lora
from workbench.editing.task import Task
from workbench.types import BaseRecipe, Edit, TrainedRecipe

__all__ = ["DEFAULT", "IA3", "METHODS", "RECIPES", "TRAINED", "FullFineTuning", "LoRA", "Recipe", "named_recipe"]

Recipe = IA3
"""The recipe that the workbench is named for, as ``wb.Recipe``."""


@dataclass(frozen=True)
class Method:
    """An editing method.

    Args:
        title: For tables and menus.
        recipe: The class of its recipes.
        make: Makes the edit.
        source: The paper.
    """

    title: str
    recipe: type[BaseRecipe]
    make: Callable[[Task], Edit]
    source: str


METHODS: dict[str, Method] = {
    method.recipe.method: method
    for method in (
        Method("IA3 unlearn-then-learn", IA3, make_ia3, "arXiv 2508.07075"),
        Method("LoRA", LoRA, make_lora, "arXiv 2106.09685"),
        Method("full fine-tuning", FullFineTuning, make_full, ""),
    )
}
"""By the name that recipes and saved files have for them."""

RECIPES: dict[str, BaseRecipe] = {**IA3_RECIPES, "lora": LoRA(), "full": FullFineTuning()}
"""The built-in recipes by name."""

TRAINED: dict[str, TrainedRecipe] = {name: one for name, one in RECIPES.items() if isinstance(one, TrainedRecipe)}
"""Those whose methods take steps."""


def named_recipe(name: str) -> BaseRecipe:
    """A built-in recipe.

    Args:
        name: One of ``RECIPES``.

    Returns:
        The recipe; its type chooses the method.

    Raises:
        ValueError: An unknown name; the message lists the built-in ones and the nearest.

    Example:
        >>> wb.recipes.named_recipe("lora").method
        'lora'
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown recipe {name!r}; the built-in ones are {list(RECIPES)}.{hint}")
    return RECIPES[name]
