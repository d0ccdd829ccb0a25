"""Every recipe as an arm of a comparison, with random selections of the same size beside it.

What a method is given, or chooses, may be as good as any other choice of the same size. So where it says what moves,
the same recipe is run on random components too: as many of each kind, from the same layers and from anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

from workbench.comparing.arms import (
    ARMS,
    BOTH_RANDOM,
    Arm,
    NotPossible,
    Plan,
    Planning,
    Where,
    drawn_like,
    fit_plan,
    stays,
)
from workbench.comparing.arms import expanded as with_both_random
from workbench.editing.methods.table import METHODS, RECIPES
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Edit, TrainedRecipe
from workbench.types.arms import Trained

WHERE: dict[str, tuple[Where, str]] = {
    "random-layers": ("same-layers", "random, same layers"),
    "random-anywhere": ("anywhere", "random, anywhere"),
}
"""Of the random arms beside a method, by the ending of their names."""
_WITHOUT_PATH: dict[str, Any] = {"early_stop": None, "average": 0, "draw_back": None}
"""An arm that is read along its steps is evaluated as it is after one of them."""


def lineup(asked: Sequence[str | BaseRecipe], *, last_steps: int, random_beside: bool) -> dict[str, Arm]:
    """The arms that are asked for, by name and in order.

    Args:
        asked: Names of ``ARMS``, ``"random"``, names of built-in recipes, and recipes.
        last_steps: Of the last stage of the comparison's recipe. A method that takes more is looked at as often in all.
        random_beside: Whether the random arms stand beside each method that selects.

    Raises:
        ValueError: None, an unknown one, or one twice.
    """
    found: dict[str, Arm] = {}
    for one in asked:
        recipe = one if isinstance(one, BaseRecipe) else None if one in (*ARMS, BOTH_RANDOM) else RECIPES.get(one)
        if recipe is not None:
            arms = _arms_of(recipe, found, last_steps, random_beside)
        elif isinstance(one, str) and one in (*ARMS, BOTH_RANDOM):
            arms = [ARMS[name] for name in with_both_random([one])]
        else:
            raise ValueError(_unknown(asked))
        twice = [arm.name for arm in arms if arm.name in found]
        if twice:
            raise ValueError(
                f"{_unknown(asked)} {twice[0]!r} is there twice; two recipes of one name need names: "
                "dataclasses.replace(recipe, name='...')."
            )
        found |= {arm.name: arm for arm in arms}
    if not found:
        raise ValueError(_unknown(asked))
    return found


def _unknown(asked: Sequence[Any]) -> str:
    names = [one if isinstance(one, str) else type(one).__name__ for one in asked]
    recipes = [name for name in RECIPES if name not in ARMS]
    return (
        f"arms must be some of {[*ARMS, BOTH_RANDOM]}, each once ('random' is both kinds of random), names of built-in "
        f"recipes ({recipes}), or recipes of wb.recipes, got {names}."
    )


def teaches(recipe: BaseRecipe) -> bool:
    """Whether its last stage teaches the target, so that there is a new answer to read it by."""
    return recipe.stage_names[-1] != "unlearn"


def _arms_of(recipe: BaseRecipe, others: dict[str, Arm], last_steps: int, random_beside: bool) -> list[Arm]:
    """A recipe's arm, and its random ones."""
    name = f"{recipe.name or recipe.method}{' recipe' if recipe.name in ARMS else ''}"
    words = _words(recipe)
    if words in [arm.words for arm in (*ARMS.values(), *others.values())]:
        words = f"{words} ({name})"
    path = isinstance(recipe, TrainedRecipe) and teaches(recipe)
    if path:
        there = {f.name for f in fields(recipe)}
        recipe = replace(recipe, **{k: v for k, v in _WITHOUT_PATH.items() if k in there})
    spread = path and recipe.stage_steps[-1] > last_steps
    of_all: dict[str, Any] = {"fit": fit_plan, "unit": _unit(recipe), "path": path, "spread": spread, "is_method": True}
    arms = [Arm(name=name, words=words, plan=partial(_itself, name, recipe), **of_all)]
    for ending, (where, how) in WHERE.items() if random_beside and recipe.trains != "nothing" else ():
        beside = f"{name}: {ending}"
        plan = partial(_random, beside, name, where, recipe)
        arms.append(Arm(name=beside, words=f"{words}, {how}", plan=plan, beside=name, **of_all))
    return arms


def _words(recipe: BaseRecipe) -> str:
    """The method's title, with the recipe's name where that says something else."""
    title = METHODS[recipe.method].title
    plain: Callable[[str], str] = lambda text: "".join(filter(str.isalnum, text)).casefold()  # noqa: E731
    known = not recipe.name or recipe.name == recipe.method or plain(recipe.name) in plain(title)
    return title if known else f"{title}, {recipe.name}"


def _unit(recipe: BaseRecipe) -> Trained:
    return "gates" if recipe.trains == "gates" else "tokens" if recipe.trains == "nothing" else "weights"


def _itself(name: str, recipe: BaseRecipe, planning: Planning) -> list[Plan]:
    """The recipe on the selection that was given (of a method that selects: or on the default selector's); else on what
    the method chooses. One that moves no component has none."""
    takes = recipe.trains != "nothing" and (planning.given or recipe.selects)
    return [Plan(name, None, planning.selection if takes else None, recipe)]


def _random(name: str, beside: str, where: Where, recipe: BaseRecipe, planning: Planning) -> list[Plan]:
    """The recipe on random selections, which are drawn when what it moves is known."""
    if where == "same-layers" and recipe.whole_layers:
        raise NotPossible(
            f"{METHODS[recipe.method].title} moves whole layers, so those of the same layers are the same."
        )
    return [Plan(name, seed, None, recipe, beside) for seed in planning.draws]


def drawn_beside(model: LoadedModel, plan: Plan, moved: Edit | None, notes: list[str]) -> Plan:
    """A random plan with its selection, like what the edit beside it moved; what is in every draw is noted once.

    Raises:
        NotPossible: That was not made or names no components, or nothing is left to draw.
    """
    if moved is None:
        raise NotPossible(f"{plan.beside} was not run.")
    if not len(moved.selection):
        raise NotPossible(f"{plan.beside} moves the {moved.scope}, so there is nothing else to draw.")
    where = WHERE[plan.arm.rsplit(": ", 1)[1]][0]
    if where == "anywhere" and plan.recipe.one_module:
        where = "one-layer"
    assert plan.seed is not None
    try:
        drawn = drawn_like(model, moved.selection, where, plan.seed)
    except ValueError as error:
        raise NotPossible(str(error)) from error
    notes += [note for note in stays(plan.arm, moved.selection, where) if note not in notes]
    return replace(plan, selection=drawn)
