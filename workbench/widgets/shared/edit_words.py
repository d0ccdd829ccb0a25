"""What an edit moves, in words: the one place of the panels that says what kind of thing that is."""

from __future__ import annotations

import math

from workbench.types import Edit


def moved_words(edit: Edit) -> str:
    """How much an edit has moved, and the farthest of it where that is known."""
    delta = edit.delta()
    farthest = delta.largest_move()
    return delta.words() if math.isnan(farthest) else f"{delta.words()}, the farthest by {farthest:.3g}"


def trainable_words(n: int, adjective: str = "") -> str:
    """How many numbers an edit may move, such as ``"1,536 trainable gates"``."""
    return f"{n:,} {adjective}{'gate' if n == 1 else 'gates'}"
