"""Texts as a tokenizer reads them: how plain text begins, which characters a token stands for, what follows a text.

Tokens are never made of an answer alone: a tokenizer reads a text by what stands before it (SentencePiece puts a space
before a text that begins, others join a quote and the word after it). So a text is tokenised together with what it
follows, and cut where that ends.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from workbench.models.load import LoadedModel
from workbench.types.flat_text import flatten
from workbench.types.mentions import find_subject
from workbench.types.word_forms import UNSPACED

_SPACE = "\u2581"
"""How SentencePiece writes a space in the name of a token."""
_WIDE = ("\u3000", "\u303f"), ("\uff00", "\uff9f")
"""Punctuation and letters of East Asian width, after which no space is written."""


def decoded(model: LoadedModel, ids: Sequence[int]) -> str:
    """The text of token ids as it is, special tokens included."""
    return model.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


def token_text(model: LoadedModel, token: int) -> str:
    """The text of one token as it stands inside a text: with the space that a SentencePiece token begins with, which is
    lost where it is decoded alone."""
    text = decoded(model, [token])
    name = model.tokenizer.convert_ids_to_tokens([token])[0] or ""
    spaces = len(name) - len(name.lstrip(_SPACE))
    return " " * spaces + text.lstrip(" ") if spaces else text


def token_texts(model: LoadedModel, ids: Sequence[int]) -> tuple[str, ...]:
    """The same of several tokens."""
    return tuple(token_text(model, token) for token in ids)


def beginning(model: LoadedModel) -> tuple[int, ...]:
    """The special tokens that the tokenizer itself puts before plain text (BOS, for most); none where it puts none.

    What it puts after a text (EOS, for some) is not taken: the text is to go on.
    """
    alone, whole = model.token_ids("x"), list(model.tokenizer("x")["input_ids"])
    for start in range(len(whole) - len(alone) + 1):
        if whole[start : start + len(alone)] == alone:
            return tuple(whole[:start])
    special = set(model.tokenizer.all_special_ids)
    return tuple(takewhile(special.__contains__, whole))


def begun_ids(model: LoadedModel, text: str) -> list[int]:
    """Token ids of a whole text as the tokenizer itself reads it: BOS before it where it puts one, never twice."""
    ids, begin = model.token_ids(text), beginning(model)
    return ids if ids and ids[0] in begin else [*begin, *ids]


def spans(model: LoadedModel, ids: Sequence[int], start: int = 0) -> list[tuple[int, int]]:
    """The characters of ``decoded(model, ids)`` that each token stands for, from token ``start`` on.

    A token that holds some bytes of a letter stands for the letter, as in a tokenizer's own offsets; unlike those, this
    holds for tokens that a model wrote, too, which need not be those that a tokenizer makes of their text.
    """
    text = decoded(model, ids)
    found, done = [], _agree(text, decoded(model, ids[:start]))
    for end in range(start + 1, len(ids) + 1):
        now = decoded(model, ids[:end])
        agreed = _agree(text, now)
        whole = max(done, agreed)  # all letters up to here are complete
        # What the text so far has beyond that are bytes of the next letter.
        found.append((done, min(whole + 1, len(text)) if len(now) > agreed else whole))
        done = whole
    return found


def _agree(first: str, second: str) -> int:
    """How many first characters two texts have in common."""
    if first.startswith(second):
        return len(second)
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def tokens_within(places: Sequence[tuple[int, int]], start: int, end: int) -> list[int]:
    """Indices of the tokens that stand for characters of a span.

    Args:
        places: As ``spans`` gives them.
        start, end: The span.
    """
    return [i for i, (a, b) in enumerate(places) if a < end and b > start]


@dataclass(frozen=True)
class SubjectPlace:
    """One occurrence of a subject in a text.

    Args:
        run: Positions of its tokens.
        before: The text before them.
        lead, tail: What else stands in them, before the subject and after it.
    """

    run: range
    before: str
    lead: str
    tail: str

    def with_name(self, name: str) -> str:
        """What stands there with another name in the subject's place."""
        return f"{self.lead}{name}{self.tail}"


class SubjectNotNamed(ValueError):
    """A text does not mention the subject."""


_ARTICLE = re.compile(r"^(?:The|An?)\b")


def _as_inside(text: str) -> str:
    """A name as it is written inside a sentence: an article before it in lower case."""
    return _ARTICLE.sub(lambda found: found[0].lower(), flatten(text).text)


def subject_places(model: LoadedModel, ids: Sequence[int], subject: str) -> list[SubjectPlace]:
    """Every occurrence of the subject in a text, the model's own answer included; special tokens hold none. Where some
    are written as the subject is (but for the case of an article before it), these alone.

    Raises:
        SubjectNotNamed: The subject is not in the text.
    """
    text, places = decoded(model, ids), spans(model, ids)
    special = set(model.tokenizer.all_special_ids)
    found: list[SubjectPlace] = []
    named, own = find_subject(text, subject), _as_inside(subject)
    as_written = [(a, b) for a, b in named if _as_inside(text[a:b]) == own]
    for start, end in as_written or named:
        inside = tokens_within(places, start, end)
        if inside and special.isdisjoint(ids[i] for i in inside):
            (first, _), (_, last) = places[inside[0]], places[inside[-1]]
            run = range(inside[0], inside[-1] + 1)
            found.append(SubjectPlace(run, text[:first], text[first:start], text[end:last]))
    if not found:
        raise SubjectNotNamed(f"The subject {subject!r} is not in the text {text!r}; write it as the fact's texts do.")
    return found


def subject_runs(model: LoadedModel, ids: Sequence[int], subject: str) -> list[range]:
    """Token positions of every occurrence of the subject, the model's own answer included.

    All of them are corrupted: otherwise "The capital of France is" in the answer would still give the subject away.

    Raises:
        ValueError: The subject is not in the text.
    """
    return [place.run for place in subject_places(model, ids, subject)]


def following_ids(model: LoadedModel, before: str, text: str) -> list[int]:
    """Token ids of a text as it stands after another one.

    Both are tokenised together and cut where the first ends. Where a token would lie across the cut ("(P"), the text
    has the tokens that it has after a line break: what stands before it is given, and stays as it is.
    """
    for context in (before, "\n"):
        own, joint = model.token_ids(context) if context else [], model.token_ids(f"{context}{text}")
        if joint[: len(own)] == own:
            return joint[len(own) :]
    return model.token_ids(text)


def space_between(before: str, text: str) -> str:
    """The space that is written between two texts, or an empty text: none after a space, an opening bracket or quote,
    nor after a letter of a script that puts no spaces between words."""
    if not before or before[-1].isspace() or text[:1].isspace():
        return ""
    last, opens = before[-1], ("Ps", "Pi")
    if UNSPACED.match(last) or any(a <= last <= b for a, b in _WIDE) or unicodedata.category(last) in opens:
        return ""
    if last in "$£#@":
        return ""
    if last in "\"'`*_":  # it opens where nothing, a space or another opening stands before it
        outside = before.rstrip("\"'`*_")
        return "" if not outside or outside[-1].isspace() or unicodedata.category(outside[-1]) in opens else " "
    return " "


def longest_text(model: LoadedModel) -> int | None:
    """How many positions the model has, or None where its configuration does not say."""
    most = getattr(model.hf.config.get_text_config(), "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else None


def check_ids(model: LoadedModel, ids: Sequence[int], what: str = "The text") -> None:
    """Raise a ValueError for a text that the model cannot read: longer than its positions, or with a token that has no
    embedding.

    Args:
        model: The model.
        ids: The text's token ids.
        what: The text, as the message begins.
    """
    most = longest_text(model)
    if most is not None and len(ids) > most:
        raise ValueError(f"{what} has {len(ids)} tokens, and the model reads at most {most}. Give a shorter one.")
    rows = model.shape.d_vocab
    beyond = next((token for token in ids if token >= rows), None)
    if beyond is not None:
        raise ValueError(
            f"{what} holds the token {token_text(model, beyond)!r} with id {beyond}, and the model has embeddings for "
            f"{rows} tokens only. Resize them (hf_model.resize_token_embeddings) and train the new ones, or use the "
            "tokenizer that the model was trained with."
        )
