"""The old answer, the target and the refusal at the place where the base model itself says a fact's answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from workbench.facts.training_wordings import BREAK_OFF
from workbench.language.tokens import decoded, following_ids
from workbench.models.load import LoadedModel
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
    space = " " if prompt.spaced else ""
    broken_off = style == "own" and prompt.begun.strip()
    return {
        "old": space + fact.answer,
        "new": space + fact.target,
        "refusal": BREAK_OFF if broken_off else space + fact.refusal,
    }


def rows_at(model: LoadedModel, prompt: TracedPrompt, texts: Iterable[str]) -> list[tuple[list[int], list[int]]]:
    """What ``answers_at`` gave, each as token ids: the text before the place, and the answer as it stands there.

    Args:
        model: The base model.
        prompt: The text up to the place.
        texts: The answers.
    """
    place = list(prompt.place)
    before = decoded(model, place)
    return [(place, following_ids(model, before, text)) for text in texts]
