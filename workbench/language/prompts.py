"""Forms of a fact's prompt, and the place in it at which the answer's first token is predicted.

In chat form the answer has no fixed place: the base model writes "The capital of France is Paris", so P(" Paris") right
after the question is tiny. The traced text is therefore the question plus the base model's own greedy answer up to the
answer's first token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from workbench.language.answers import find_old, is_adjective
from workbench.language.generation import Completion, greedy_answers
from workbench.models.load import LoadedModel
from workbench.types import Fact, Form, TracedPrompt
from workbench.types.fact_error import FactError

PLAIN_TEMPLATE = "Question: {question}\nAnswer:"
"""What stands in for a chat template where the tokenizer has none (GPT-2, say)."""


def chat_text(model: LoadedModel, question: str, system: str | None = None) -> str:
    """A question through the model's chat template, ready for the answer.

    Args:
        model: The model.
        question: The user's message.
        system: A system prompt; None for the template's default.
    """
    if model.chat_template is None:
        return (f"{system}\n\n" if system else "") + PLAIN_TEMPLATE.format(question=question)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    return model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def prompt_text(model: LoadedModel, text: str, form: Form) -> str:
    """A question (chat form) or a cloze (plain text) as the model reads it."""
    if form not in ("chat", "cloze"):
        raise ValueError(f"form must be 'chat' or 'cloze', got {form!r}.")
    return chat_text(model, text) if form == "chat" else text


def prompt_ids(model: LoadedModel, text: str, form: Form) -> list[int]:
    """The same as token ids."""
    return model.token_ids(prompt_text(model, text, form))


def question_span(model: LoadedModel, question: str) -> range:
    """Positions of a question's own tokens in its chat prompt; the tokens around them are the template's.

    A token that holds a part of both counts as the question's. All positions where the prompt does not hold the
    question as it was given (a template that changes it).
    """
    ids = prompt_ids(model, question, "chat")
    spans = _spans(model, ids)
    start = model.tokenizer.decode(ids).rfind(question)
    inside = [i for i, (a, b) in enumerate(spans) if a < start + len(question) and b > start]
    return range(inside[0], inside[-1] + 1) if start >= 0 and inside else range(len(ids))


def split_prompt(model: LoadedModel, fact: Fact, form: Form) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """A fact's prompt as the model reads it: its tokens, decoded one by one, and the positions of the subject's tokens
    (none where the text does not hold the subject)."""
    ids = prompt_ids(model, fact.question if form == "chat" else fact.prompt, form)
    tokens = tuple(model.tokenizer.decode([token]) for token in ids)
    try:
        return tokens, tuple(i for run in subject_runs(model, ids, fact.subject) for i in run)
    except ValueError:
        return tokens, ()


def answer_ids(model: LoadedModel, answer: str, form: Form) -> list[int]:
    """Token ids of an answer given at once: after a chat prompt it starts a line, after a cloze it follows a space.

    A plain-text stand-in for a chat template (``PLAIN_TEMPLATE``) ends like a cloze.
    """
    starts_line = form == "chat" and model.chat_template is not None
    return model.token_ids(answer if starts_line else f" {answer}")


def first_token(model: LoadedModel, answer: str, *, space: bool = True) -> int:
    """The answer's first token that is more than space, as it stands inside a text.

    Raises:
        ValueError: The answer has no such token.
    """
    for token in model.token_ids(f" {answer}" if space else answer):
        if model.tokenizer.decode([token]).strip():
            return token
    raise ValueError(f"The answer {answer!r} has no token besides spaces; give it a text.")


def check_first_tokens(model: LoadedModel, fact: Fact) -> None:
    """Raise a FactError when answer and target start with the same token, so that one token cannot tell them apart."""
    for space in (True, False):
        old, new = (first_token(model, a, space=space) for a in (fact.answer, fact.target))
        if old == new:
            token = model.tokenizer.decode([old])
            raise FactError(
                f"Fact {fact.id!r}: the answer {fact.answer!r} and the target {fact.target!r} start with the same "
                f"token {token!r}, so their first tokens cannot be told apart. Choose another target.",
                field="target",
                reason="same token",
                token=token,
            )


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
        model: The model; for an edited one the base writes the answer, so that both are traced on one text.
        fact: The fact.
        form: ``"chat"``, ``"cloze"`` or None: chat if the base's greedy answer contains the fact's answer, else cloze.
        token: Which first token is measured: the answer's, or the target's at the same place.
        start: What the model's reply is begun with; it goes on from there.
        needs_subject: Whether the text must hold the subject, as a corruption needs it. Without, ``subject`` may be
            empty.

    Returns:
        The text as tokens, the positions of the subject in it, and the tokens to ask for after it.

    Raises:
        ValueError: The base model's greedy answer does not contain the fact's answer (``AnswerNotSaid``, which shows
            what it says), the subject is not in the text, or the answer and the target share their first token.

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
    for candidate in ("chat", "cloze") if form is None else (form,):
        text = fact.question if candidate == "chat" else fact.prompt
        ids = [*prompt_ids(base, text, candidate), *(base.token_ids(start) if start else [])]
        completion = greedy_answers(base, [ids])[0]
        texts[candidate] = completion.text
        at = _find_answer(base, completion, fact)
        if at is not None:
            found = _build(base, fact, candidate, ids, completion, at, token, needs_subject)
            begun = len(prompt_ids(base, text, candidate))
            return replace(found, prefix=f"{start}{found.prefix}", reply_start=begun)
    said = "; ".join(f"{k} form says {v!r}" for k, v in texts.items())
    raise AnswerNotSaid(
        f"Fact {fact.id!r}: the model's own greedy answer does not contain {fact.answer!r}, or has its adjective "
        f"before it, so there is no place to trace ({said}). Choose a fact that it knows (known_facts), or another "
        "form.",
        fact=fact,
        texts=texts,
    )


def _find_answer(model: LoadedModel, completion: Completion, fact: Fact) -> int | None:
    """Index of the completion token in which the answer begins, or None where it is not named, or as an adjective."""
    decode = model.tokenizer.decode
    said = decode(list(completion.token_ids))
    spans = find_old(said, fact)
    if not spans or is_adjective(fact, said[slice(*spans[0])]):  # "a French company in France" gives itself away
        return None
    for i in range(len(completion.token_ids)):
        if len(decode(list(completion.token_ids[: i + 1]))) > spans[0][0]:
            return i
    return None


def _build(
    model: LoadedModel,
    fact: Fact,
    form: Form,
    ids: list[int],
    completion: Completion,
    at: int,
    token: str,
    needs_subject: bool,
) -> TracedPrompt:
    decode = model.tokenizer.decode
    found = completion.token_ids[at]
    if not decode([found]).strip():
        raise ValueError(f"Fact {fact.id!r}: the traced token {decode([found])!r} is a bare space.")
    spaced = decode([found])[:1].isspace()
    target = first_token(model, fact.target, space=spaced)
    if target == found:
        check_first_tokens(model, fact)
        raise FactError(
            f"Fact {fact.id!r}: the model's answer and the target {fact.target!r} start with the same token "
            f"{decode([found])!r}, so their first tokens cannot be told apart. Choose another target.",
            field="target",
            reason="same token",
            token=decode([found]),
        )
    full = [*ids, *completion.token_ids[:at]]
    answer, other = (found, target) if token == "answer" else (target, found)
    try:
        runs = subject_runs(model, full, fact.subject)
    except ValueError:
        if needs_subject:
            raise
        runs = []
    return TracedPrompt(
        fact_id=fact.id,
        form=form,
        text=decode(full),
        prefix=decode(list(completion.token_ids[:at])),
        token_ids=tuple(full),
        tokens=tuple(decode([t]) for t in full),
        subject=tuple(i for run in runs for i in run),
        answer_id=answer,
        answer_token=decode([answer]),
        other_id=other,
        other_token=decode([other]),
    )


def _spans(model: LoadedModel, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Character span of each token in the decoded text."""
    spans, before = [], 0
    for i in range(len(ids)):
        after = len(model.tokenizer.decode(list(ids[: i + 1])))
        spans.append((before, after))
        before = after
    return spans


def subject_runs(model: LoadedModel, ids: Sequence[int], subject: str) -> list[range]:
    """Token positions of every occurrence of the subject, the model's own answer included.

    All of them are corrupted: otherwise "The capital of France is" in the answer would still give the subject away.

    Raises:
        ValueError: The subject is not in the text.
    """
    text = model.tokenizer.decode(list(ids))
    spans = _spans(model, ids)
    runs = []
    for match in re.finditer(rf"(?<!\w){re.escape(subject)}(?!\w)", text):
        inside = [i for i, (a, b) in enumerate(spans) if a < match.end() and b > match.start()]
        runs.append(range(inside[0], inside[-1] + 1))
    if not runs:
        raise ValueError(f"The subject {subject!r} is not in the text {text!r}; write it as the fact's texts do.")
    return runs


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
    model: LoadedModel, fact: Fact, token_ids: Sequence[int], partner: Fact, *, start: int = 0
) -> list[int]:
    """A text with the partner's subject in the place of the fact's from a position on, token for token.

    Raises:
        NoSwapPartner: The partner's subject has another number of tokens.
        ValueError: The fact's subject is not in the text.
    """
    ids = list(token_ids)
    for run in subject_runs(model, ids, fact.subject):
        if run.start < start:
            continue
        piece = model.tokenizer.decode(ids[run.start : run.stop])
        new = model.token_ids(piece.replace(fact.subject, partner.subject))
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
    own, start = prompt_ids(model, theirs, prompt.form), len(prompt_ids(model, mine, prompt.form))
    if len(own) != start:
        swapped_ids(model, fact, prompt.token_ids, partner)  # raises where the subject is why
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
        ValueError: The partner's answer has the same first token.
    """
    ids = partner_ids(model, fact, prompt, partner)
    spaced = prompt.answer_token[:1].isspace()
    other = first_token(model, partner.answer, space=spaced)
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
    decode = model.tokenizer.decode
    return replace(
        prompt,
        token_ids=tuple(ids),
        tokens=tuple(decode([t]) for t in ids),
        text=decode(ids),
        other_id=other,
        other_token=decode([other]),
        partner=partner.id,
        partner_text=decode(ids),
    )
