"""What an edit moves, in words: the one place of the panels that says what kind of thing that is."""

from __future__ import annotations

import math

from workbench.types import BaseRecipe, Edit


def moved_words(edit: Edit) -> str:
    """How much an edit has moved, and the farthest of it where that is known."""
    delta = edit.delta()
    if edit.recipe.trains == "nothing":
        return delta.words()
    farthest = delta.largest_move()
    return delta.words() if math.isnan(farthest) else f"{delta.words()}, the farthest by {farthest:.3g}"


def chooser_words(edit: Edit) -> str:
    """Who chose what an edit was allowed to move: ``"picked"``."""
    if edit.picked:
        return "picked"
    if edit.selector == "all":
        return "all"
    return "by the default selector" if edit.recipe.selects else f"by its method ({edit.selector})"


def chosen_words(edit: Edit) -> str:
    """What an edit was allowed to move, and who chose it: ``"4 components picked"``."""
    if edit.recipe.trains == "nothing":
        return "No component moves"
    if edit.selector == "all":
        return f"{edit.scope} moves"
    if edit.picked:
        return f"{edit.scope} picked{edit.selector.removeprefix('given')}"
    about = ", gain over Fisher information (not a localisation)" if edit.recipe.selects else ""
    return f"{edit.scope} {chooser_words(edit)}{about}"


def trainable_words(n: int, adjective: str = "", *, of: str = "gates") -> str:
    """How many numbers an edit may move, such as ``"1,536 trainable gates"``.

    Args:
        n: How many gates the selection has.
        adjective: Before the word, with a space at its end.
        of: What the method trains (``BaseRecipe.trains``). Only gates are counted: how many other numbers there are is
            not a matter of the selection alone.
    """
    if of != "gates":
        return f"{adjective}{of}"
    return f"{n:,} {adjective}{'gate' if n == 1 else 'gates'}"


def default_words(recipe: BaseRecipe, neurons: int) -> str:
    """What a recipe moves where nothing is picked: ``"2,000 default neurons"``."""
    return f"{neurons:,} default neurons" if recipe.selects else recipe.without_selection.lower()
