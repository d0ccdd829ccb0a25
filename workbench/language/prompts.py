"""Forms of a fact's prompt, and the place in it at which the answer's first token is predicted.

In chat form the answer has no fixed place: the base model writes "The capital of France is Paris", so P(" Paris") right
after the question is tiny. The traced text is therefore the question plus the base model's own greedy answer up to the
answer's first token, or, where the target begins with the same tokens, up to the first one that differs.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from workbench.language.answer_tokens import alike, begun_reply, check_first_tokens, named_ids, same_token
from workbench.language.answer_tokens import answer_ids as answer_ids
from workbench.language.answer_tokens import first_token as first_token
from workbench.language.answers import find_old, is_adjective
from workbench.language.generation import Completion, greedy_answers
from workbench.language.prompt_text import context_span, own_subject_places, own_subject_runs
from workbench.language.prompt_text import prompt_ids as prompt_ids
from workbench.language.prompt_text import prompt_text as prompt_text
from workbench.language.replies import after_thought
from workbench.language.template import thought_words
from workbench.language.tokens import (
    SubjectNotNamed,
    check_ids,
    decoded,
    following_ids,
    spans,
    token_text,
    token_texts,
    tokens_within,
)
from workbench.models.load import LoadedModel
from workbench.types import Fact, Form, TracedPrompt
from workbench.types.fact_error import FactError
from workbench.types.torch_settings import own_torch_settings


def question_span(model: LoadedModel, question: str) -> range:
    """Positions of a question's own tokens in its chat prompt; the tokens around them are the template's.

    A token that holds a part of both counts as the question's. All positions where the prompt does not hold the
    question as it was given (a template that changes it).
    """
    ids = prompt_ids(model, question, "chat")
    text = decoded(model, ids)
    for written in (question, *(unicodedata.normalize(form, question) for form in ("NFC", "NFKC", "NFD"))):
        start = text.rfind(written.strip())
        inside = tokens_within(spans(model, ids), start, start + len(written.strip())) if start >= 0 else []
        if inside:
            return range(inside[0], inside[-1] + 1)
    return range(len(ids))


def split_prompt(model: LoadedModel, fact: Fact, form: Form) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """A fact's prompt as the model reads it: its tokens, decoded one by one, and the positions of the subject's tokens
    (none where the text does not hold the subject)."""
    text = fact.question if form == "chat" else fact.prompt
    ids = prompt_ids(model, text, form)
    try:
        runs = own_subject_runs(model, ids, fact.subject, context_span(model, text, form))
        return token_texts(model, ids), tuple(i for run in runs for i in run)
    except ValueError:
        return token_texts(model, ids), ()


@own_torch_settings()
def traced_prompt(
    model: LoadedModel,
    fact: Fact,
    *,
    form: Form | None = None,
    token: Literal["answer", "target"] = "answer",
    start: str = "",
    needs_subject: bool = True,
) -> TracedPrompt:
    """Make the text to trace, and choose the token to ask for (see the module's docstring).

    Args:
        model: The model; for an edited one the base writes the answer, so that both are traced on one text (but for the
            context of an edit that has one, which is part of the text and holds no subject).
        fact: The fact.
        form: ``"chat"``, ``"cloze"`` or None: chat if the question names the subject and the base's greedy answer
            contains the fact's answer, else cloze.
        token: Which first token is measured: the answer's, or the target's at the same place.
        start: What the model's reply is begun with; it goes on from there.
        needs_subject: Whether the text must hold the subject, as a corruption needs it. Without, ``subject`` may be
            empty.

    Returns:
        The text as tokens, the positions of the subject in it, and the tokens to ask for after it: the first tokens of
        the answer and the target, or, where they begin alike, the first that differ (``shared`` says after how many).

    Raises:
        ValueError: The base model's greedy answer does not contain the fact's answer (``AnswerNotSaid``, which shows
            what it says), the subject is not in the text, the text is longer than the model can read, or answer and
            target begin with the same tokens and one of them ends there.

    Example:
        >>> prompt = wb.traced_prompt(model, fact, form="cloze")
        >>> prompt.tokens
        ('The', ' capital', ' of', ' France', ' is')
        >>> prompt.subject, prompt.answer_token
        ((3,), ' Paris')
    """
    if token not in ("answer", "target"):
        raise ValueError(f"token must be 'answer' or 'target', got {token!r}.")
    base = model.base
    texts: dict[str, str] = {}
    thinks, unnamed = False, None
    for candidate in ("chat", "cloze") if form is None else (form,):
        text = fact.question if candidate == "chat" else fact.prompt
        ids = begun_reply(base, prompt_ids(base, text, candidate), start, candidate)
        completion = greedy_answers(base, [ids])[0]
        texts[candidate] = completion.text
        place = _find_answer(base, candidate, ids, completion, fact)
        if place is not None:
            begun = len(prompt_ids(model, text, candidate))
            if model.context:
                place = _after_context(model, place, text, candidate)
            context = context_span(model, text, candidate)
            try:
                found = _build(model, fact, candidate, place, token, needs_subject, context)
            except SubjectNotNamed as error:
                if form is not None or candidate == "cloze":
                    raise
                unnamed = error  # the cloze of a fact names its subject
                continue
            return replace(found, prefix=f"{start}{found.prefix}", reply_start=begun)
        thinks = thinks or after_thought(base, completion.text, candidate) is None
    said = "; ".join(f"{k} form says {v!r}" for k, v in texts.items())
    said += f"; it thinks, and comes to no answer. {thought_words(base).rstrip('.')}" if thinks else ""
    if unnamed is not None:
        raise SubjectNotNamed(f"{unnamed} In cloze form, where it is, the answer is not said ({said}).") from unnamed
    raise AnswerNotSaid(
        f"Fact {fact.id!r}: the model's own greedy answer does not contain {fact.answer!r}, or has its adjective "
        f"before it, so there is no place to trace ({said}). Choose a fact that it knows (known_facts), or another "
        "form.",
        fact=fact,
        texts=texts,
    )


@dataclass(frozen=True)
class _Place:
    """Where a reply names the answer.

    Args:
        before: The text before the first token of the answer: the prompt and the reply up to there.
        said: What stands before the answer in that token (a space, for most).
        prompt: Token ids of the prompt and the reply up to the answer.
        answer: Token ids of the answer.
        prefix: The reply up to the answer, as text.
    """

    before: str
    said: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    prefix: str


def _after_context(model: LoadedModel, place: _Place, text: str, form: Form) -> _Place:
    """The place in the base's reply, after the prompt with the model's context."""
    asked, own = prompt_ids(model, text, form), prompt_ids(model.base, text, form)
    before = f"{decoded(model, asked)}{place.before[len(decoded(model, own)) :]}"
    return replace(place, before=before, prompt=(*asked, *place.prompt[len(own) :]))


def _find_answer(
    model: LoadedModel, form: Form, ids: Sequence[int], completion: Completion, fact: Fact
) -> _Place | None:
    """Where a completion of a prompt names the answer; None where it does not, or as an adjective, or in a thought."""
    whole = [*ids, *completion.token_ids]
    text, places = decoded(model, whole), spans(model, whole, len(ids))
    begin = places[0][0] if places else len(text)
    thought = after_thought(model, text[begin:], form)
    if thought is None:
        return None
    begin_answer = begin + thought
    named = find_old(text[begin_answer:], fact)
    if not named:
        return None
    start, end = (begin_answer + at for at in named[0])
    if is_adjective(fact, text[start:end]):  # "a French company in France" gives itself away
        return None
    within = tokens_within(places, start, end)
    first = places[within[0]][0]
    at, stop = len(ids) + within[0], len(ids) + within[-1] + 1
    return _Place(text[:first], text[first:start], tuple(whole[:at]), tuple(whole[at:stop]), text[begin:first])


def _build(
    model: LoadedModel, fact: Fact, form: Form, place: _Place, token: str, needs_subject: bool, context: range
) -> TracedPrompt:
    if not token_text(model, place.answer[0]).strip():
        raise ValueError(f"Fact {fact.id!r}: the traced token {decoded(model, place.answer[:1])!r} is a bare space.")
    target = named_ids(model, place.before, f"{place.said}{fact.target}")
    n = alike(place.answer, target)
    if n == min(len(place.answer), len(target)):
        check_first_tokens(model, fact)
        raise same_token(model, fact, target[:n], "the model's answer")
    full = [*place.prompt, *place.answer[:n]]
    check_ids(model, full, "The prompt with the model's own answer")
    answer, other = (place.answer[n], target[n]) if token == "answer" else (target[n], place.answer[n])
    try:
        runs = own_subject_runs(model, full, fact.subject, context)
    except ValueError:
        if needs_subject:
            raise
        runs = []
    text = decoded(model, full)
    begun = text[len(place.before) :] if n else ""
    return TracedPrompt(
        fact_id=fact.id,
        form=form,
        text=text,
        prefix=f"{place.prefix}{begun}",
        token_ids=tuple(full),
        tokens=token_texts(model, full),
        subject=tuple(i for run in runs for i in run),
        answer_id=answer,
        answer_token=token_text(model, answer),
        other_id=other,
        other_token=token_text(model, other),
        shared=n,
        shared_text=begun,
    )


class AnswerNotSaid(ValueError):
    """The model does not say a fact's answer, so that there is no place to trace.

    Args:
        message: What it says, and how to go on.
        fact: The fact.
        texts: What the model says, by the form that was asked.
    """

    def __init__(self, message: str, *, fact: Fact, texts: dict[str, str]) -> None:
        super().__init__(message)
        self.fact, self.texts = fact, texts


class NoSwapPartner(ValueError):
    """No subject can be swapped in for a fact's, so that its prompt can only be corrupted by noise.

    Args:
        message: What was looked for, and how to go on.
        fact: The fact whose subject stays.
        partner: The partner that was asked for and does not fit; None where none of a pool fits.
        tokens: How many tokens its subject has, and how many the fact's.
        text: The partner's own prompt, where that is what does not fit.
    """

    def __init__(
        self,
        message: str,
        *,
        fact: Fact,
        partner: Fact | None = None,
        tokens: tuple[int, int] | None = None,
        text: str | None = None,
    ) -> None:
        super().__init__(message)
        self.fact, self.partner, self.tokens, self.text = fact, partner, tokens, text


def swapped_ids(
    model: LoadedModel,
    fact: Fact,
    token_ids: Sequence[int],
    partner: Fact,
    *,
    start: int = 0,
    context: range = range(0),
) -> list[int]:
    """A text with the partner's subject in the place of the fact's from a position on and outside a context, token for
    token.

    Raises:
        NoSwapPartner: The partner's subject has another number of tokens.
        ValueError: The fact's subject is not in the text.
    """
    ids = list(token_ids)
    for place in own_subject_places(model, ids, fact.subject, context):
        if place.run.start < start:
            continue
        run, new = place.run, following_ids(model, place.before, place.with_name(partner.subject))
        if len(new) != len(run):
            raise NoSwapPartner(
                f"The swap subject {partner.subject!r} ({partner.id}) has {len(new)} tokens where {fact.subject!r} has "
                f"{len(run)}; positions would shift. Choose a subject of {len(run)} tokens, or corruption='noise'.",
                fact=fact,
                partner=partner,
                tokens=(len(new), len(run)),
            )
        ids[run.start : run.stop] = new
    return ids


def partner_ids(model: LoadedModel, fact: Fact, prompt: TracedPrompt, partner: Fact) -> list[int]:
    """The corrupted text: the partner's own question or cloze **as it is written**, then the reply as far as the traced
    text has it, with the partner's subject in the place of the fact's.

    Raises:
        NoSwapPartner: The partner's prompt, or in the reply its subject, has another number of tokens.
        ValueError: The fact's subject is not in the text.
    """
    mine, theirs = (one.question if prompt.form == "chat" else one.prompt for one in (fact, partner))
    context = context_span(model, mine, prompt.form)
    own, start = prompt_ids(model, theirs, prompt.form), len(prompt_ids(model, mine, prompt.form))
    if len(own) != start:
        # It raises where the subject is why.
        swapped_ids(model, fact, prompt.token_ids, partner, context=context)
        raise NoSwapPartner(
            f"The partner {partner.id!r} is written {theirs!r}, {len(own)} tokens in {prompt.form} form where {mine!r} "
            f"has {start}; positions would shift. Write it with as many tokens, such as "
            f"{mine.replace(fact.subject, partner.subject)!r}, or use corruption='noise'.",
            fact=fact,
            partner=partner,
            text=theirs,
        )
    return [*own, *swapped_ids(model, fact, prompt.token_ids, partner, start=start)[start:]]


def swapped(model: LoadedModel, fact: Fact, prompt: TracedPrompt, partner: Fact) -> TracedPrompt:
    """The prompt of the partner, as ``partner_ids`` makes it: as it is written, token for token as long as the fact's.

    Its ``token_ids`` are the corrupted run's; ``other_id`` becomes the partner's answer.

    Raises:
        NoSwapPartner: The partner's prompt or subject has another number of tokens, or its text is that of the fact.
        ValueError: The partner's answer has the same token at the traced place, or, where the fact's answer and target
            begin alike, begins otherwise: then it has no token there.
    """
    ids = partner_ids(model, fact, prompt, partner)
    answer = named_ids(model, decoded(model, prompt.place), f"{' ' if prompt.spaced else ''}{partner.answer}")
    shared = prompt.token_ids[len(prompt.place) :]
    if tuple(answer[: len(shared)]) != shared or len(answer) == len(shared):
        raise FactError(
            f"The answer {partner.answer!r} of the partner {partner.id!r} does not begin with {prompt.shared_text!r} "
            f"and go on, as the answer and the target of {fact.id!r} do, so it has no token where they are told apart. "
            "Take another partner, or another target.",
            field="answer",
            reason="same token",
            token=prompt.shared_text,
        )
    other = answer[len(shared)]
    if other == prompt.answer_id:
        raise FactError(
            f"The partner {partner.id!r} has an answer with the same first token {prompt.answer_token!r}; take "
            "another.",
            field="answer",
            reason="same token",
            token=prompt.answer_token,
        )
    if ids == list(prompt.token_ids):
        text = partner.question if prompt.form == "chat" else partner.prompt
        raise NoSwapPartner(
            f"The partner {partner.id!r} has the text of {fact.id!r}, {text!r}, so nothing would be corrupted. Give it "
            "another subject.",
            fact=fact,
            partner=partner,
            text=text,
        )
    return replace(
        prompt,
        token_ids=tuple(ids),
        tokens=token_texts(model, ids),
        text=decoded(model, ids),
        other_id=other,
        other_token=token_text(model, other),
        partner=partner.id,
        partner_text=decoded(model, ids),
    )
