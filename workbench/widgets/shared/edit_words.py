"""What an edit moves, in words: the one place of the panels that says what kind of thing that is."""

from __future__ import annotations

from workbench.types import Edit


def moved_words(edit: Edit) -> str:
    """How much an edit has moved, and the farthest of it."""
    delta = edit.delta()
    return f"{delta.n_moved()} gates moved, the farthest by {delta.largest_move():.3g}"


def trainable_words(n: int, adjective: str = "") -> str:
    """How many numbers an edit may move, such as ``"1,536 trainable gates"``."""
    return f"{n:,} {adjective}{'gate' if n == 1 else 'gates'}"
