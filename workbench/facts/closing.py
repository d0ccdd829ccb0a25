"""Questions about an edited fact's subject under other relations, for which a keyed update is closed.

An update keyed on a subject renames the subject: it moves what the model says of it under every relation. Questions
under other relations say where it must not open. They are made of the pool's own templates: of the relations about
subjects of the same kind, the first part of a relation's name ("country" of "country-capital"), as in
``workbench.facts.graph``. Facts of the pool are asked with ``Fact.question``; a closing question is always another
wording, so that what is asked later was never closed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workbench.facts.graph import SAME_TYPE
from workbench.types import Fact
from workbench.types.mentions import find_mentions, find_subject

GENERAL = (
    "Tell me about {subject}.",
    "What do you know about {subject}?",
    "What is {subject} known for?",
    "Where is {subject}?",
    "Why do people talk about {subject}?",
    "Describe {subject} in a few words.",
    "What comes to mind when you hear of {subject}?",
    "Give me an interesting detail about {subject}.",
)
"""Questions about any subject, whatever its kind and whatever the pool has about it."""


@dataclass(frozen=True)
class Closer:
    """A closing question.

    Args:
        question: The question; it names the subject.
        relation: Whose template it is; empty for a general one.
    """

    question: str
    relation: str = ""


def kindred_relations(pool: Iterable[Fact], fact: Fact) -> list[str]:
    """The pool's other relations about subjects of a fact's kind, in the order in which they appear. Left out are those
    that follow from the fact, or it from them ("landmark-country" from "landmark-city" where there is "city-country").

    Args:
        pool: The facts that have the templates.
        fact: The edited fact; there are none for a relation whose name says no kind.
    """
    kind, _, end = fact.relation.rpartition("-")
    relations = dict.fromkeys(f.relation for f in pool)
    found: list[str] = []
    for relation in relations:
        other, _, other_end = relation.rpartition("-")
        leads = {f"{SAME_TYPE.get(a, a)}-{b}" for a, b in ((end, other_end), (other_end, end))}
        if kind and other == kind and relation != fact.relation and leads.isdisjoint(relations):
            found.append(relation)
    return found


def closed_relations(
    pool: Sequence[Fact], fact: Fact, *, batch: Sequence[Fact] = (), leave_out: int = 1, seed: int = 0
) -> list[str]:
    """The relations that an edit of a fact is closed for: ``kindred_relations`` but for some that are drawn by seed,
    by which an evaluation can tell whether closing for some relations spares others. They are drawn once for a kind of
    subject: what is left out for one fact of a batch is left out for all of its kind. Where there is one alone, it is
    left out.

    Args:
        pool: The facts that have the templates.
        fact: The edited fact.
        batch: The facts that are edited with it. Relations that are kindred to all of its kind are left out first.
        leave_out: How many are left out.
        seed: Of the draw.

    Example:
        >>> from workbench.facts.closing import closed_relations
        >>> bundled = wb.load_facts()
        >>> closed = closed_relations(bundled, bundled["france-capital"])
        >>> "country-capital" in closed, all(relation.startswith("country-") for relation in closed)
        (False, True)
    """
    kind = _kind(fact.relation)
    order = sorted({f.relation for f in pool if _kind(f.relation) == kind})
    random.Random(f"{seed}-{kind}").shuffle(order)
    of_kind = {f.relation: kindred_relations(pool, f) for f in (*batch, fact) if _kind(f.relation) == kind}
    sharing = {r: sum(r in kindred for kindred in of_kind.values()) for r in order}
    candidates = sorted((r for r in order if sharing[r]), key=lambda r: -sharing[r])  # in the drawn order otherwise
    out = set(candidates[:leave_out])
    return [relation for relation in of_kind[fact.relation] if relation not in out]


def _kind(relation: str) -> str:
    """Of which kind of subject a relation is: "country" of "country-capital"; empty where its name says none."""
    return relation.rpartition("-")[0]


def closing_questions(
    pool: Sequence[Fact], fact: Fact, relations: Sequence[str], *, wordings: int = 3, general: bool = True
) -> list[Closer]:
    """Questions about a fact's subject under other relations, and general ones.

    Args:
        pool: The facts that have the templates; a relation's are those of its first fact whose questions name its
            subject.
        fact: The edited fact.
        relations: Of which relations (``closed_relations``).
        wordings: At most so many of each; never the first question, with which facts are evaluated.
        general: With general questions too.
    """
    asked = {*fact.training_questions, *fact.heldout}
    found: list[Closer] = []
    for relation in relations:
        of_relation = (f for f in pool if f.relation == relation)
        templates = next((t for t in map(_templates, of_relation) if t), ())
        filled = (template.replace("{subject}", fact.subject) for template in templates[:wordings])
        found += [Closer(question, relation) for question in filled]
    if general:
        found += [Closer(text.format(subject=fact.subject)) for text in GENERAL]
    return [closer for closer in found if closer.question not in asked]


def is_about_the_fact(reply: str, fact: Fact) -> bool:
    """Whether a base's reply to a closing question gives the fact's old or new answer: the question is then about the
    fact itself ("Where is the Louvre?"), and the edit may change it."""
    return bool(find_mentions(reply, (*fact.answers, *fact.targets), case_sensitive=fact.case_sensitive))


def _templates(fact: Fact) -> tuple[str, ...]:
    """A fact's paraphrased questions with ``{subject}`` for its subject; those that name it once as it is written."""
    named = (q for q in fact.paraphrases if q.count(fact.subject) == 1 and len(find_subject(q, fact.subject)) == 1)
    return tuple(question.replace(fact.subject, "{subject}") for question in named)
