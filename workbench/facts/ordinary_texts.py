"""Ordinary text for what is measured or fitted once a model, without a network: the base's own replies to questions of
retained facts, and prose of the package's own (CC0), which no evaluation measures.

Padding never counts, and neither does what all texts begin with: a template's system prompt would count once a text,
always the same. A text's first token never counts: models park attention on it, and its states are many times as long
as any others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import chain, zip_longest
from typing import NamedTuple

from workbench.facts.known import pool_or_bundled
from workbench.facts.retained import RETAIN_TOKENS, retain_pool, retainable
from workbench.language.generation import greedy_answers
from workbench.language.padding import common_beginning
from workbench.language.prompts import prompt_ids
from workbench.language.tokens import begun_ids, longest_text
from workbench.models.load import LoadedModel
from workbench.types import FactSet
from workbench.types.cancelling import CancelBar, CancelFlag
from workbench.types.plain import shortened, whole_numbers

PROSE_SHARE = 0.2
"""Of the tokens of the default texts, at most so many are prose."""
FIRST = 1
"""Of a text that shares no beginning with the others, so many first tokens do not count."""
_WORDINGS = 10
_VERSION = 2
"""Of what counts in given texts. A file of another version is not read."""
Ids = tuple[int, ...]


class TextGroup(NamedTuple):
    """Texts of which as many first tokens do not count.

    Args:
        texts: Token ids.
        shared: How many first tokens of each do not count.
    """

    texts: tuple[Ids, ...]
    shared: int = 0

    @property
    def counted(self) -> int:
        """Tokens that count."""
        return sum(len(text) - self.shared for text in self.texts)


Texts = Sequence[str | Sequence[int] | TextGroup]
"""What may be measured on."""


@lru_cache(maxsize=1)
def prose() -> tuple[str, ...]:
    """The package's own paragraphs."""
    text = files("workbench").joinpath("facts/data/prose.txt").read_text(encoding="utf-8")
    return tuple(paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip())


def default_texts(
    model: LoadedModel,
    pool: FactSet | None,
    max_tokens: int,
    *,
    progress: bool = True,
    cancel: CancelFlag | None = None,
) -> list[TextGroup]:
    """Questions of retained facts with the base's own replies, through the chat template, and prose.

    Args:
        model: The base model.
        pool: Where the facts come from; those of it with the role ``"retain"``, else the bundled ones.
        max_tokens: Most tokens that count.
        progress, cancel: As in ``covariance``.
    """
    facts = retainable(model, (), retain_pool(pool_or_bundled(pool)), progress=progress, cancel=cancel)
    plain = _cut([_readable(model, text) for text in prose()], FIRST, int(PROSE_SHARE * max_tokens))
    # One question of each fact, then the next: as many facts as can be.
    by_wording = zip_longest(*(fact.training_questions[:_WORDINGS] for fact in facts))
    asked = [prompt_ids(model, q, "chat") for q in dict.fromkeys(chain(*by_wording)) if q is not None]
    shared = max(common_beginning(asked), FIRST) if len(asked) > 1 else FIRST
    room = max_tokens - plain.counted
    enough: list[Sequence[int]] = []
    total = 0
    for ids in asked:
        if total >= room:
            break
        enough.append(ids)
        total += len(ids) - shared + RETAIN_TOKENS // 2
    replies = greedy_answers(model, enough, max_new_tokens=RETAIN_TOKENS, progress=CancelBar(cancel))
    whole = [(*ids, *reply.token_ids) for ids, reply in zip(enough, replies, strict=True)]
    return [group for group in (_cut(whole, shared, room), plain) if group.texts]


def given_texts(model: LoadedModel, texts: Texts, max_tokens: int) -> list[TextGroup]:
    if isinstance(texts, str):
        raise ValueError(f"texts must be several texts, got one: {texts[:40]!r}. Write [text].")
    texts = list(texts)  # an iterator is gone after one look
    groups = [text for text in texts if isinstance(text, TextGroup)]
    alone = [_readable(model, text) for text in texts if not isinstance(text, TextGroup)]
    return [*groups, *([_cut([ids for ids in alone if ids], FIRST, max_tokens)] if alone or not groups else [])]


def _readable(model: LoadedModel, text: str | Sequence[int]) -> Ids:
    """A text's token ids, as many as the model reads.

    Raises:
        ValueError: It is neither a text nor token ids of the model.
    """
    if isinstance(text, str):
        return tuple(begun_ids(model, text)[: longest_text(model)])
    ids = whole_numbers(text)
    if ids is None:
        raise ValueError(f"texts must be texts, or lists of token ids; one is {shortened(text)}.")
    if beyond := [id for id in ids if not 0 <= id < model.shape.d_vocab]:
        raise ValueError(f"Token ids must be from 0 to {model.shape.d_vocab - 1}, got {beyond[0]}.")
    return tuple(ids[: longest_text(model)])


def _cut(texts: Sequence[Ids], shared: int, most: int) -> TextGroup:
    """The first texts with at most so many tokens that count; the last one cut short."""
    out: list[Ids] = []
    left = most
    for text in texts:
        text = text[: shared + left]
        if len(text) > shared:
            out.append(text)
            left -= len(text) - shared
        if left <= 0:
            break
    return TextGroup(tuple(out), shared)


def texts_hash(groups: Sequence[TextGroup]) -> str:
    return hashlib.sha256(repr((_VERSION, [tuple(group) for group in groups])).encode()).hexdigest()[:16]
