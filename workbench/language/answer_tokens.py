"""The tokens of an answer as it stands after a prompt, and the first by which two answers can be told apart."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.language.template import chat_text, turn
from workbench.language.tokens import decoded, following_ids, space_between, token_text
from workbench.models.load import LoadedModel
from workbench.types import Fact, Form
from workbench.types.fact_error import FactError
from workbench.types.word_forms import UNSPACED


def answer_ids(model: LoadedModel, answer: str, form: Form, *, before: str | None = None) -> list[int]:
    """Token ids of an answer given at once, as they stand after a prompt, with the space that is written there.

    Args:
        model: The model.
        answer: The answer, without a space before it.
        form: In chat form it follows the chat template, which says what stands before a reply (nothing, for most); a
            plain-text stand-in for a template (``PLAIN_TEMPLATE``) ends like a cloze.
        before: The text of the prompt, special tokens included; None for any one that ends in a word, or, where the
            answer's script puts no spaces between words, in a letter of that.
    """
    if form == "chat" and model.chat_template is not None:
        before = chat_text(model, "?") if before is None else before
        return following_ids(model, before, f"{turn(model).start}{answer}")
    if before is None:
        before = "\n" if UNSPACED.match(answer) else "a"
    return following_ids(model, before, f"{space_between(before, answer)}{answer}")


def begun_reply(model: LoadedModel, ids: Sequence[int], start: str, form: Form) -> list[int]:
    """A prompt with the beginning of its reply, as token ids; the prompt alone where that is empty."""
    return [*ids, *(answer_ids(model, start, form, before=decoded(model, ids)) if start else ())]


def first_token(model: LoadedModel, answer: str, *, space: bool = True) -> int:
    """The answer's first token that is more than space, as it stands inside a text.

    Args:
        model: The model.
        answer: The answer.
        space: Whether it follows a word and a space, or a line break.

    Raises:
        ValueError: The answer has no such token.
    """
    return named_ids(model, "a" if space else "\n", f" {answer}" if space else answer)[0]


def named_ids(model: LoadedModel, before: str, text: str) -> list[int]:
    """Token ids of a text after another one, without those at its beginning that are nothing but space.

    Raises:
        ValueError: It has no other ones.
    """
    ids = following_ids(model, before, text)
    start = next((i for i, token in enumerate(ids) if token_text(model, token).strip()), None)
    if start is None:
        raise ValueError(f"The answer {text.strip()!r} has no token besides spaces; give it a text.")
    return ids[start:]


def check_first_tokens(model: LoadedModel, fact: Fact) -> None:
    """Raise a FactError where answer and target begin with the same tokens and one of them ends there, so that no token
    tells them apart. Those that go on ("1889" and "1945") differ at a later token, at which they are traced."""
    for before, space in (("a", " "), ("\n", "")):
        old, new = (named_ids(model, before, f"{space}{name}") for name in (fact.answer, fact.target))
        n = alike(old, new)
        if n == min(len(old), len(new)):
            raise same_token(model, fact, old[:n], f"the answer {fact.answer!r}")


def alike(first: Sequence[int], second: Sequence[int]) -> int:
    """How many first tokens two texts have in common."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))


def same_token(model: LoadedModel, fact: Fact, shared: Sequence[int], answer: str) -> FactError:
    """Why answer and target cannot be told apart by a token."""
    token = decoded(model, shared)
    return FactError(
        f"Fact {fact.id!r}: {answer} and the target {fact.target!r} start with the same token {token!r}, and one of "
        "them ends there, so that they cannot be told apart by their tokens. Choose another target.",
        field="target",
        reason="same token",
        token=token,
    )
