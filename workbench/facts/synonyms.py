"""Synonyms of the words by which questions name a relation, so that a question can be asked in other words.

The list is the project's own, and for English questions. A subject is never exchanged.
"""

from __future__ import annotations

import re
from itertools import pairwise

from workbench.types.mentions import find_subject

SYNONYMS: dict[str, str] = {
    "scientific study": "science",
    "seat of government": "capital",
    "main language": "primary tongue",
    "official language": "primary tongue",
    "chemical symbol": "chemical abbreviation",
    "class of animal": "type of creature",
    "usual color": "typical hue",
    "come from": "originate from",
    "comes from": "originates from",
    "came up with": "conceived",
    "known for": "famous for",
    "famous for": "known for",
    "capital": "seat of government",
    "currency": "money",
    "language": "tongue",
    "nationality": "citizenship",
    "country": "nation",
    "nation": "country",
    "continent": "part of the world",
    "city": "town",
    "company": "firm",
    "firm": "company",
    "located": "situated",
    "wrote": "authored",
    "author": "writer",
    "writer": "author",
    "painted": "created",
    "painter": "artist",
    "discovered": "first found",
    "invented": "devised",
    "inventor": "originator",
    "created": "made",
    "founded": "set up",
    "celebrated": "observed",
    "opposite": "antonym",
    "color": "hue",
    "colour": "hue",
    "unit": "measure",
    "sport": "game",
    "dish": "food",
    "called": "named",
    "baby": "young",
    "person": "somebody",
    "born": "brought into the world",
    "died": "passed away",
    "husband": "spouse",
    "wife": "spouse",
    "job": "profession",
    "profession": "occupation",
    "occupation": "profession",
    "employer": "company that employs",
    "religion": "faith",
    "river": "stream",
    "mountain": "peak",
    "ruler": "sovereign",
}
"""By word or phrase, another way to say it; longer phrases are looked for first."""
_WORDS = re.compile(
    r"\b(" + "|".join(sorted(map(re.escape, SYNONYMS), key=len, reverse=True)) + r")\b", flags=re.IGNORECASE
)


def in_synonyms(question: str, subject: str) -> str | None:
    """A question with the words that name its relation exchanged for synonyms; None where it has none of the list.

    Args:
        question: The question.
        subject: Stays as it is written.

    Example:
        >>> from workbench.facts.synonyms import in_synonyms
        >>> in_synonyms("What is the capital of France?", "France")
        'What is the seat of government of France?'
    """
    kept = find_subject(question, subject)
    cuts = [0, *(at for span in kept for at in span), len(question)]
    parts = [question[a:b] for a, b in pairwise(cuts)]
    out = "".join(part if i % 2 else _WORDS.sub(_other, part) for i, part in enumerate(parts))
    return out if out != question else None


def _other(found: re.Match[str]) -> str:
    word = SYNONYMS[found[0].lower()]
    return word[0].upper() + word[1:] if found[0][0].isupper() else word
