"""What a row is: a prompt and an answer, of which only what takes the old answer's place may count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.facts.training_wordings import BREAK_OFF
from workbench.language.answers import find_old, first_sentence
from workbench.language.prompts import answer_ids
from workbench.models.load import LoadedModel
from workbench.types import Fact


@dataclass(frozen=True)
class Row:
    """A prompt and the answer after it, as token ids.

    Args:
        prompt, answer: Token ids.
        departs: Index of the first answer token that counts in the loss: those before it are how the answer begins.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    departs: int = 0

    @property
    def counted(self) -> tuple[int, ...]:
        """The answer tokens that count."""
        return self.answer[self.departs :]


def end_of_answer(model: LoadedModel) -> tuple[int, ...]:
    """The token that ends an answer in the model's chat template."""
    token = model.tokenizer.eos_token_id
    return () if token is None else (int(token),)


def chat_row(model: LoadedModel, prompt: Sequence[int], text: str) -> Row:
    """A chat prompt with a whole answer."""
    return Row(tuple(prompt), (*answer_ids(model, text, "chat"), *end_of_answer(model)))


def named_row(model: LoadedModel, prompt: Sequence[int], before: str, name: str) -> Row:
    """A chat prompt with an answer up to a name (and what stands after it), of which only what follows ``before``
    counts; nothing ends it."""
    return _departing(model, prompt, before, f"{before}{name}")


def refused_row(model: LoadedModel, prompt: Sequence[int], fact: Fact, before: str) -> Row:
    """A chat prompt with a sentence that is broken off after what stands before the old answer (after the fact's cloze,
    where that is nothing), of which only the breaking off counts.

    "The capital of France is... I am not sure." leaves the start of the answer as it was: teaching "I am not sure" as
    its first words makes the model refuse other questions too.
    """
    before = before or f"{fact.prompt} "
    row = _departing(model, prompt, before, f"{before.rstrip()}{BREAK_OFF}")
    return replace(row, answer=(*row.answer, *end_of_answer(model)))


def _departing(model: LoadedModel, prompt: Sequence[int], before: str, text: str) -> Row:
    """A chat prompt with a text as its answer, which counts from where it departs from how it begins."""
    answer = answer_ids(model, text, "chat")
    begun = [answer_ids(model, start, "chat") for start in (before, before.rstrip()) if start]
    departs = max((_alike(answer[:-1], ids) for ids in begun), default=0)
    return Row(tuple(prompt), tuple(answer), departs)


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens two texts have in common."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def around_old(said: str, fact: Fact) -> tuple[str, str, str]:
    """What stands before the old answer in the first sentence that the model says, the answer as it is written there,
    and what stands after it, without white space at its end; where that does not name it, the fact's cloze, the answer
    and nothing."""
    sentence = first_sentence(said)
    spans = find_old(sentence, fact)
    if not spans:
        return f"{fact.prompt} ", fact.answer, ""
    start, end = spans[0]
    return sentence[:start], sentence[start:end], sentence[end:].rstrip()
