"""What an edit moves, in words: the one place of the panels that says what kind of thing that is."""

from __future__ import annotations

import math

from workbench.types import BaseRecipe, Edit


def moved_words(edit: Edit) -> str:
    """How much an edit has moved, and the farthest of it where that is known."""
    delta = edit.delta()
    farthest = delta.largest_move()
    return delta.words() if math.isnan(farthest) else f"{delta.words()}, the farthest by {farthest:.3g}"


def chosen_words(edit: Edit) -> str:
    """What an edit was allowed to move, and who chose it: ``"4 components picked"``."""
    if edit.selector == "all":
        return f"{edit.scope} moves"
    if edit.selector == "given":
        return f"{edit.scope} picked"
    return f"{edit.scope} by the default selector, gain over Fisher information (not a localisation)"


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
