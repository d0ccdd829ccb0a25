"""The text that a trace or an attribution is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Form = Literal["chat", "cloze"]
FIRST_STATES, SECOND_STATES = -1, -2
"""Stand for a run that was given as states, in the place of each of its token ids: the first one of a contrast (the
clean one), and the second."""


@dataclass(frozen=True, kw_only=True)
class TracedPrompt:
    """The exact text that was traced, and the token that was asked for.

    Args:
        fact_id: The fact, or the contrast.
        form: ``"chat"`` (question through the chat template, then the base model's own answer up to the token) or
            ``"cloze"`` (plain text).
        text: The whole text, special tokens included.
        prefix: The part of the answer that precedes the traced token, the model's own but for what its reply was begun
            with (may be empty).
        token_ids: The text's token ids.
        tokens: The same, decoded one by one.
        subject: Positions of the subject's tokens; none where a lens reads a text without it. Of a contrast: where its
            runs differ.
        answer_id, other_id: Token ids of the traced answer and of what it is compared with in ``logit_diff`` (or None).
        answer_token, other_token: The same, decoded.
        partner, partner_text: With a swap: the id of the partner's fact, and the corrupted text.
        partner_known: Whether the base model knows the partner's fact in some form, or names its answer in this one;
            None without a swap, or where it was not measured.
        reply_start: Position at which the prompt ends and the model's reply begins, of which the text has as much as
            precedes the traced token; None where it is not known.
        shared: With how many tokens answer and target both begin ("New" of "New York" and "New Delhi"). The text and
            the prefix end with them, and the traced token is the first that differs.
        shared_text: These tokens as text.
        answers, others: Of a contrast: all token ids that count as the answer, and as what it is compared with
            (``answer_id`` and ``other_id`` are the first of them); none for a fact.
        answer_rest, other_rest: Of a contrast with answers of more than one token: what follows ``answer_id`` and
            ``other_id``; then whole answers are measured.
        roles: Of a contrast: a name for each position; none for a fact, whose roles are those of its subject.
    """

    fact_id: str
    form: Form
    text: str
    prefix: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    subject: tuple[int, ...]
    answer_id: int
    answer_token: str
    other_id: int | None = None
    other_token: str | None = None
    partner: str | None = None
    partner_text: str | None = None
    partner_known: bool | None = None
    reply_start: int | None = None
    shared: int = 0
    shared_text: str = ""
    answers: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    answer_rest: tuple[int, ...] = ()
    other_rest: tuple[int, ...] = ()
    roles: tuple[str, ...] = ()

    @property
    def whole_answers(self) -> bool:
        """Whether answers of more than one token are measured as a whole."""
        return bool(self.answer_rest or self.other_rest)

    @property
    def place(self) -> tuple[int, ...]:
        """Token ids of the text before the answer, without what answer and target have in common."""
        return self.token_ids[: len(self.token_ids) - self.shared]

    @property
    def begun(self) -> str:
        """The part of the model's answer that precedes the fact's answer: ``prefix`` without ``shared_text``."""
        return self.prefix.removesuffix(self.shared_text)

    @property
    def spaced(self) -> bool:
        """Whether a space stands before the answer."""
        return (*self.tokens, self.answer_token)[len(self.place)][:1].isspace()

    @property
    def position(self) -> int:
        """The position whose next-token prediction is measured (the last one)."""
        return len(self.token_ids) - 1


def partner_notes(prompts: Sequence[TracedPrompt]) -> tuple[str, ...]:
    """What to know of the swap partners of some texts, in sentences: which of them the model does not know."""
    unknown = list(dict.fromkeys(p.partner for p in prompts if p.partner and p.partner_known is False))
    if not unknown:
        return ()
    one = len(unknown) == 1
    return (
        f"The model does not know the swap {'partner' if one else 'partners'} {', '.join(unknown)}: the corrupted run "
        f"need not say {'its answer' if one else 'their answers'}.",
    )


def require_text(prompt: TracedPrompt, what: str) -> None:
    """Raise a ValueError for a prompt that is states and no text.

    Args:
        prompt: What is read.
        what: Who reads it, in the plural, as the message begins.
    """
    if min(prompt.token_ids) < 0:
        raise ValueError(f"{what} read token ids, and contrast {prompt.fact_id!r} was given as states. Give its texts.")
