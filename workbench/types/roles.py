"""Positions of a traced text as roles, in words, so that texts of different lengths can be laid beside each other.

A role belongs to one mention of the subject: "last subject token" is that of the prompt's first mention, and the one in
the model's own reply is "last subject token of the reply". The two behave differently, so they are never averaged.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.types.traced_prompt import TracedPrompt

LAST_SUBJECT_TOKEN = "last subject token"
LAST_TOKEN = "last token"
BEFORE_CHANGE, CHANGED, AFTER_CHANGE = "tokens before the change", "changed tokens", "tokens after the change"
"""Of a contrast: where its runs differ, and what stands before and after that and has no name of its own."""
_OF_SUBJECT = ("first subject token", "middle subject tokens", LAST_SUBJECT_TOKEN)
_AROUND = {0: "tokens before the subject", 2: "tokens without the subject", 3: "tokens after the subject"}
_ORDINALS = ("", "first", "second", "third", "fourth", "fifth")
_Place = tuple[int, int, int, int]
"""Prompt, reply or last token; before, at or after the subject; which mention; which of its tokens. They sort in
reading order."""


def role_of(prompt: TracedPrompt, position: int) -> str:
    """The role of a position of a text. A mention of one token has only a last token.

    Example:
        >>> from workbench.types.roles import role_of
        >>> prompt = wb.traced_prompt(model, fact, form="cloze")
        >>> [(token, role_of(prompt, i)) for i, token in enumerate(prompt.tokens)][2:]
        [(' of', 'tokens before the subject'), (' France', 'last subject token'), (' is', 'last token')]
    """
    return prompt.roles[position] if prompt.roles else _words(_place(prompt, position))


def roles_of(prompts: Iterable[TracedPrompt]) -> tuple[str, ...]:
    """All roles that there are in some texts, in reading order: of contrasts by their mean place in those texts."""
    prompts = tuple(prompts)
    if any(prompt.roles for prompt in prompts):
        where: dict[str, list[float]] = {}
        for prompt in prompts:
            for i in range(len(prompt.tokens)):
                where.setdefault(role_of(prompt, i), []).append(i / len(prompt.tokens))
        return tuple(sorted(where, key=lambda role: fmean(where[role])))
    places = {_place(prompt, i) for prompt in prompts for i in range(len(prompt.token_ids))}
    return tuple(dict.fromkeys(_words(place) for place in sorted(places)))


def is_of_subject(role: str) -> bool:
    """Whether a role is that of a token of the subject."""
    return role.startswith((*_OF_SUBJECT, CHANGED))


def _place(prompt: TracedPrompt, position: int) -> _Place:
    start = len(prompt.token_ids) if prompt.reply_start is None else prompt.reply_start
    reply = int(position >= start)
    within = [i for i in prompt.subject if (i >= start) == reply]
    if position in within:
        mention = sum(i - 1 not in within for i in within if i <= position)
        kind = 2 if position + 1 not in within else int(position - 1 in within)
        return reply, 1, mention, kind
    if position == prompt.position:
        return 2, 0, 0, 0
    if not within:
        return reply, 2, 0, 0
    return reply, 0 if position < within[0] else 3, 0, 0


def _words(place: _Place) -> str:
    part, where, mention, kind = place
    if part == 2:
        return LAST_TOKEN
    words = _OF_SUBJECT[kind] if where == 1 else _AROUND[where]
    if part == 1:
        words += " of the reply" if where == 1 else " in the reply"
    if mention > 1:
        words += f", {_ORDINALS[mention] if mention < len(_ORDINALS) else f'{mention}th'} mention"
    return words
