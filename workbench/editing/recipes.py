"""The built-in recipes. Their settings were tuned on dev facts only (``benchmarks/tune.py``)."""

from __future__ import annotations

from dataclasses import replace

from workbench.types import Recipe

DEFAULT = Recipe()

RECIPES: dict[str, Recipe] = {
    "unlearn-then-learn": DEFAULT,
    "learn-only": replace(DEFAULT, name="learn-only", stages=("learn",), steps=sum(DEFAULT.stage_steps)),
    "unlearn-only": replace(DEFAULT, name="unlearn-only", stages=("unlearn",), steps=DEFAULT.stage_steps[0]),
    # arXiv 2508.07075: learning rate 5e-5, 50 epochs over 20 questions at batch 1, no retain term, short answers.
    "paper": Recipe(
        name="paper",
        answers="short",
        contexts=False,
        optimiser="adam",
        steps=1000,
        learning_rate=5e-5,
        warmup=0,
        average=0,
        batch_size=1,
        retain_weight=0.0,
        retain_size=0,
        hinge=None,
        draw_back=None,
    ),
}
"""By name: the default; one stage with as many steps in total; stage 1 alone; the paper's settings."""


def harder(recipe: Recipe) -> Recipe:
    """The same with twice the steps in its last stage, for facts that are not learned."""
    *before, last = recipe.stage_steps
    return replace(recipe, steps=(*before, 2 * last))


def changes_steps(recipe: Recipe) -> bool:
    """Whether a recipe has other steps than the built-in one of its name (than the default, where there is none)."""
    return recipe.steps not in (None, RECIPES.get(recipe.name, DEFAULT).steps)
