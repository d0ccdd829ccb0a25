"""What a row is: a prompt and an answer, of which only what takes the old answer's place may count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.facts.training_wordings import BREAK_OFF
from workbench.language.answers import find_old, first_sentence
from workbench.language.prompts import answer_ids
from workbench.language.template import turn_stops
from workbench.language.tokens import decoded, space_between
from workbench.models.load import LoadedModel
from workbench.types import Fact


@dataclass(frozen=True)
class Row:
    """A prompt and the answer after it, as token ids.

    Args:
        prompt, answer: Token ids.
        departs: Index of the first answer token that counts. The tokens before it are how the base begins its answer.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    departs: int = 0

    @property
    def counted(self) -> tuple[int, ...]:
        """The answer tokens that count."""
        return self.answer[self.departs :]


def end_of_answer(model: LoadedModel) -> tuple[int, ...]:
    """The token that ends an answer: what the model's chat template writes there, else the tokenizer's end of text."""
    own = [stop for stop in turn_stops(model) if isinstance(stop, int)]
    token = own[0] if own else model.tokenizer.eos_token_id
    return () if token is None else (int(token),)


def chat_row(model: LoadedModel, prompt: Sequence[int], text: str) -> Row:
    """Make a row of a chat prompt and a whole answer, which ends, and all of which counts."""
    answer = answer_ids(model, text, "chat", before=decoded(model, prompt))
    return Row(tuple(prompt), (*answer, *end_of_answer(model)))


def named_row(model: LoadedModel, prompt: Sequence[int], before: str, name: str) -> Row:
    """Make a row whose answer stops after a name (and what stands after it). Only what follows ``before`` counts, and
    the answer does not end."""
    return _departing(model, prompt, before, f"{before}{name}")


def refused_row(model: LoadedModel, prompt: Sequence[int], fact: Fact, before: str) -> Row:
    """Make a row whose answer breaks off where the old answer would stand. Only the breaking off counts.

    It follows ``before``, or the fact's cloze where that is empty. "The capital of France is... I am not sure." leaves
    the start of the answer as it was: teaching "I am not sure" as its first words makes the model refuse other
    questions too.
    """
    before = before or fact.prompt
    row = _departing(model, prompt, before, f"{before.rstrip()}{BREAK_OFF}")
    return replace(row, answer=(*row.answer, *end_of_answer(model)))


def _departing(model: LoadedModel, prompt: Sequence[int], before: str, text: str) -> Row:
    """Make a row whose answer counts from the first token on that ``before`` does not have."""
    asked = decoded(model, prompt)
    answer = answer_ids(model, text, "chat", before=asked)
    begun = [answer_ids(model, start, "chat", before=asked) for start in (before, before.rstrip()) if start]
    departs = max((_alike(answer[:-1], ids) for ids in begun), default=0)
    return Row(tuple(prompt), tuple(answer), departs)


def _alike(first: Sequence[int], second: Sequence[int]) -> int:
    """How many first tokens two texts have in common."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))


def around_old(answer: str, fact: Fact) -> tuple[str, str, str]:
    """Split the first sentence of the model's own answer at the old answer.

    Returns:
        What stands before the old answer, the old answer as it is written there, and what stands after it, without
        white space at its end. Where the sentence does not name it: the fact's cloze, the answer and nothing.
    """
    sentence = first_sentence(answer)
    spans = find_old(sentence, fact)
    if not spans:
        return f"{fact.prompt}{space_between(fact.prompt, fact.answer)}", fact.answer, ""
    start, end = spans[0]
    return sentence[:start], sentence[start:end], sentence[end:].rstrip()
