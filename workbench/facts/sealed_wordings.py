"""Sealed wordings: questions about bundled facts, and frames around untrained questions, that no default was tuned on.

The subject counting as one word, questions of bundled and sealed relations share no template, and no four words in a
row, with what is trained of the fact, or asked of the splits ``dev`` and ``test``. A frame never stands around a
training question. Of a relation of one's own there are frames around its held-out questions alone: what these share
with training, the framed ones share too. A fact asked in sealed wordings says whether a rate belongs to the fact or to
a way of asking. Their own work, CC0.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Literal

from workbench.types import Fact

Wordings = Literal["own", "sealed"]
"""How facts are asked in an evaluation: as they have it, or in sealed wordings."""


@dataclass(frozen=True)
class SealedWordings:
    """The bundled sealed wordings.

    Args:
        frames: Around a question that was not trained, which stands for ``{question}``.
        of_relation: By bundled relation, questions with ``{subject}``.
    """

    frames: tuple[str, ...]
    of_relation: Mapping[str, tuple[str, ...]]


@lru_cache(maxsize=1)
def sealed_wordings() -> SealedWordings:
    """Read the bundled sealed wordings.

    Example:
        >>> from workbench.facts.sealed_wordings import sealed_wordings
        >>> sealed_wordings().of_relation["country-capital"][0]
        'A government meets in {subject}. In what city does it sit?'
    """
    text = files("workbench").joinpath("facts/data/wordings/sealed.json").read_text(encoding="utf-8")
    data = json.loads(text)
    return SealedWordings(tuple(data["frames"]), {relation: tuple(of) for relation, of in data["wordings"].items()})


def sealed_questions(fact: Fact) -> tuple[str, ...]:
    """All sealed questions about a fact: of a sealed fact its held-out ones, of a bundled relation its sealed
    wordings; then these in turn, one in each frame. Of another relation the fact's held-out questions are framed; there
    is none where it has no held-out question.

    Args:
        fact: Any fact.

    Example:
        >>> from workbench.facts.sealed_wordings import sealed_questions
        >>> sealed_questions(wb.load_facts()["italy-capital"])[0::2][:2]
        ('A government meets in Italy. In what city does it sit?',
         'At a pub quiz, the host reads out: A government meets in Italy. In what city does it sit?')
    """
    bare = _bare(fact)
    framed = _framed(bare or fact.heldout)
    return tuple(dict.fromkeys((*bare, *framed)))


def _bare(fact: Fact) -> tuple[str, ...]:
    """Sealed questions without a frame."""
    own = fact.heldout if fact.split == "sealed" else ()
    written = sealed_wordings().of_relation.get(fact.relation, ())
    return tuple(dict.fromkeys((*own, *(text.replace("{subject}", fact.subject) for text in written))))


def _framed(questions: tuple[str, ...]) -> list[str]:
    """Each frame around one of the questions, in turn; they are untrained."""
    frames = sealed_wordings().frames if questions else ()
    return [frame.replace("{question}", questions[i % len(questions)]) for i, frame in enumerate(frames)]


def asked_sealed(fact: Fact, *, seed: int = 0) -> Fact:
    """A fact whose held-out questions are the sealed ones, and whose question is one of them, drawn by seed: the same
    wording for all facts of a relation. One that has none (``sealed_questions``) stays as it is. It is for asking and
    judging alone; what is known of a fact, and what an edit trains, stays with the fact itself.

    Args:
        fact: The fact.
        seed: Of the draw.

    Example:
        >>> from workbench.facts.sealed_wordings import asked_sealed
        >>> reworded = asked_sealed(wb.load_facts()["italy-capital"])
        >>> reworded.question in reworded.heldout, reworded.id
        (False, 'italy-capital')
    """
    questions = sealed_questions(fact)
    if not questions:
        return fact
    drawn_from = len(_bare(fact)) or len(questions)  # wordings of the relation come before frames
    at = random.Random(f"sealed {seed} {fact.relation}").randrange(drawn_from)
    rest = tuple(question for i, question in enumerate(questions) if i != at)
    return replace(fact, question=questions[at], paraphrases=(), heldout=rest)


def with_sealed_heldout(fact: Fact) -> Fact:
    """An edited fact whose held-out questions are all sealed ones (none where there is none); its training questions
    stay.

    Example:
        >>> from workbench.facts.sealed_wordings import with_sealed_heldout
        >>> tested = with_sealed_heldout(fact)
        >>> tested.question == fact.question, set(tested.heldout) & set(fact.heldout)
        (True, set())
    """
    trained = set(fact.training_questions)
    return replace(fact, heldout=tuple(question for question in sealed_questions(fact) if question not in trained))
