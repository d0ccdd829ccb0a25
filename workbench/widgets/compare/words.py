"""How the parts of a CompareView say which edited model they are about: one wording, in headers, titles and hints."""

from __future__ import annotations


def strength_words(strength: float) -> str:
    """A strength with two digits after the point, such as ``"0.30"``; with more where two would not say it."""
    short = f"{strength:.2f}"
    return short if float(short) == strength else f"{strength:.4g}"


def at_words(stage: str, strength: float) -> str:
    """Which edited model, such as ``"learn at strength 0.30"``."""
    return f"{stage} at strength {strength_words(strength)}"


def after_words(stage: str, strength: float) -> str:
    """The head of its column, such as ``"after learn, strength 0.30"``."""
    return f"after {stage}, strength {strength_words(strength)}"
