"""A subject to swap with for a fact of one's own: which of a pool may fit, and what the model says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from workbench.facts.known_table import FORMS
from workbench.language.generation import greedy_answers
from workbench.language.prompts import NoSwapPartner, prompt_ids, swapped, swapped_ids
from workbench.language.tokens import SubjectPlace, following_ids, subject_places
from workbench.models.load import LoadedModel
from workbench.types import Fact, Form, TracedPrompt, slug

MOST_TRIED = 500
"""Subjects of a pool whose tokens are counted before the search is given up."""
MOST_ASKED = 8
"""Suggested subjects of which the model is asked what is right for them."""
_ANSWER_TOKENS, _ANSWER_WORDS = 8, 4
_GAP = "\0"  # in no text that a person writes
_BREAK = re.compile(r"[.,;:!?()\n]")


def partner_fact(fact: Fact, subject: str, answer: str) -> Fact:
    """A fact with another subject in the same texts; its target is the fact's own answer.

    Raises:
        FactError: The answer is that of the fact.
    """
    return Fact(
        id=f"swap-{slug(subject)}",
        subject=subject,
        prompt=fact.prompt.replace(fact.subject, subject),
        question=fact.question.replace(fact.subject, subject),
        answer=answer,
        target=fact.answer,
    )


def check_subject(model: LoadedModel, fact: Fact, subject: str, form: Form | None = None) -> None:
    """Raise NoSwapPartner where a subject has another number of tokens than the fact's.

    Args:
        model: Whose tokens count.
        fact: The fact.
        subject: What is to take the place of its subject.
        form: In which form of the prompt; None: it is enough that it fits in one.
    """
    partner = partner_fact(fact, subject, fact.target)
    refused: NoSwapPartner | None = None
    for asked in FORMS if form is None else (form,):
        text = fact.question if asked == "chat" else fact.prompt
        try:
            swapped_ids(model, fact, prompt_ids(model, text, asked), partner)
        except NoSwapPartner as error:
            refused = error
        except ValueError:  # the subject is not in this form's text: no place to trace there either
            continue
        else:
            return
    if refused is not None:
        raise refused


def fitting_facts(model: LoadedModel, fact: Fact, pool: Sequence[Fact], form: Form | None = None) -> Iterator[Fact]:
    """Facts of a pool whose subject has as many tokens as the fact's, those of the most similar relation first.

    Args:
        model: Whose tokens count.
        fact: The fact.
        pool: The pool.
        form: In which form of the prompt; None: it is enough that it fits in one.
    """
    forms = [_places(model, fact, asked) for asked in (FORMS if form is None else (form,))]

    def fits(subject: str) -> bool:
        return any(
            places and all(len(following_ids(model, p.before, p.with_name(subject))) == len(p.run) for p in places)
            for places in forms
        )

    return (other for other in islice(_candidates(fact, pool), MOST_TRIED) if fits(other.subject))


def _places(model: LoadedModel, fact: Fact, form: Form) -> list[SubjectPlace]:
    """Each place of the subject in a prompt; none where it is not there."""
    ids = prompt_ids(model, fact.question if form == "chat" else fact.prompt, form)
    try:
        return subject_places(model, ids, fact.subject)
    except ValueError:
        return []


def suggested_partner(model: LoadedModel, fact: Fact, prompt: TracedPrompt, pool: Sequence[Fact]) -> Fact | None:
    """The first of some subjects of a pool for which the model says what the pool has as its answer: one of a kind.

    Where there is none: the first whose answer it names later; else the first for which it says anything that can be
    told from the fact's answer.

    Args:
        model: The model.
        fact: The fact.
        prompt: Its traced text.
        pool: Where the subjects come from.
    """
    asked: list[tuple[Fact, list[int]]] = []
    for other in fitting_facts(model, fact, pool, prompt.form):
        try:
            draft = partner_fact(fact, other.subject, fact.target)
            asked.append((other, swapped_ids(model, fact, prompt.token_ids, draft)))
        except NoSwapPartner:  # where the model says the subject itself it has other tokens
            continue
        if len(asked) == MOST_ASKED:
            break
    fitting: list[Fact] = []
    named: list[Fact] = []
    for (other, _), answer in zip(asked, said_after(model, [ids for _, ids in asked]), strict=True):
        try:
            partner = find_partner(model, fact, prompt, other.subject, answer)
        except ValueError:  # the same answer, or none
            continue
        if answer.casefold() in {a.casefold() for a in other.answers}:
            return partner
        fitting.append(partner)
        if any(name.casefold() in answer.casefold() for name in other.answers):  # "the country of Morocco"
            with suppress(ValueError):  # it may begin as the fact's answer does
                named.append(find_partner(model, fact, prompt, other.subject, other.answer))
    return next(iter([*named, *fitting]), None)


def find_partner(model: LoadedModel, fact: Fact, prompt: TracedPrompt, subject: str, answer: str | None = None) -> Fact:
    """The fact to swap with.

    Args:
        model: The model, which says the answer where none is given.
        fact: The fact.
        prompt: Its traced text.
        subject: What takes the place of its subject.
        answer: What is right for that; None for what the model says first in that place.

    Raises:
        NoSwapPartner: The subject has another number of tokens.
        FactError: The answer is that of the fact, or begins with the same token; or the model says nothing.
    """
    if answer is None:
        draft = partner_fact(fact, subject, fact.target)
        (answer,) = said_after(model, [swapped_ids(model, fact, prompt.token_ids, draft)])
    partner = partner_fact(fact, subject, answer)
    swapped(model, fact, prompt, partner)
    return partner


def partner_of_map(model: LoadedModel, fact: Fact, prompt: TracedPrompt) -> Fact | None:
    """The fact that was swapped in for a fact of one's own, read from a map's own text; None where the text does not
    say.

    Its answer is as much as the map keeps of it, the first token, so that a swap with it is the same to the bit.

    Args:
        model: The model that was traced.
        fact: The fact.
        prompt: What the map says of its text and of the swapped one.
    """
    if prompt.partner_text is None or prompt.other_token is None:
        return None
    first, *rest = prompt.text.split(fact.subject)
    if not rest:
        return None
    longer = len(prompt.partner_text) - len(prompt.text)
    end = len(first) + len(fact.subject) + longer // len(rest)
    try:
        partner = partner_fact(fact, prompt.partner_text[len(first) : end], prompt.other_token.strip())
        as_made = swapped(model, fact, replace(prompt, partner=None), partner)
    except ValueError:  # no fact can be made of it, or it has other tokens
        return None
    return partner if (as_made.partner_text, as_made.other_id) == (prompt.partner_text, prompt.other_id) else None


def said_after(model: LoadedModel, texts: Sequence[Sequence[int]]) -> list[str]:
    """What the model says after each text (token ids), up to the first sign of punctuation and at most a few words."""
    said: list[str] = []
    for completion in greedy_answers(model, texts, max_new_tokens=_ANSWER_TOKENS):
        words = (_BREAK.split(completion.text)[0].strip() or completion.text).split()
        said.append(" ".join(words[:_ANSWER_WORDS]))
    return said


def _candidates(fact: Fact, pool: Sequence[Fact]) -> Iterator[Fact]:
    """A fact of each other subject, by how near its relation is: the same wording, then answers and words in common."""
    wording = fact.prompt.replace(fact.subject, _GAP)
    words = set(wording.split())
    relations: dict[str, list[Fact]] = {}
    for other in pool:
        relations.setdefault(other.relation, []).append(other)
    answers = {a.casefold() for a in fact.answers}

    def nearness(members: list[Fact]) -> float:
        first = members[0]
        theirs = first.prompt.replace(first.subject, _GAP)
        shared = len(words & set(theirs.split())) / len(words | set(theirs.split()))
        same = theirs == wording or (fact.relation != "" and first.relation == fact.relation)
        named = any(a.casefold() in answers for f in members for a in f.answers)
        return 4 * same + 2 * named + shared

    seen = {fact.subject.casefold()}
    for members in sorted(relations.values(), key=nearness, reverse=True):
        for other in members:
            name = other.subject.casefold()
            if name not in seen and answers.isdisjoint(a.casefold() for a in other.answers):
                seen.add(name)
                yield other
