"""The old answer, the target and the refusal at the place where the base model itself says a fact's answer."""

from __future__ import annotations

from typing import Literal

from workbench.facts.training_wordings import BREAK_OFF
from workbench.types import Fact, TracedPrompt
from workbench.types.recipe import AnswerStyle

Answer = Literal["old", "new", "refusal"]


def answers_at(prompt: TracedPrompt, fact: Fact, style: AnswerStyle) -> dict[Answer, str]:
    """What may stand at the answer's place, with the space before it where one belongs there.

    Args:
        prompt: The text up to the place.
        fact: The fact.
        style: What an edit teaches (``Recipe.answers``). With ``"own"`` the refusal breaks off the sentence that has
            begun ("... I am not sure."); else, or where none has begun, it is the fact's whole refusal.
    """
    space = " " if prompt.answer_token[:1].isspace() else ""
    broken_off = style == "own" and prompt.prefix.strip()
    return {
        "old": space + fact.answer,
        "new": space + fact.target,
        "refusal": BREAK_OFF if broken_off else space + fact.refusal,
    }
