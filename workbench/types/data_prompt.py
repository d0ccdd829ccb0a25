"""DataPrompt: a prompt that a public data set asks beside a fact, with what it expects there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

DataPromptKind = Literal["neighbourhood", "attribute", "generation", "locality", "portability"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPrompt:
    """A prompt that comes with a fact in a public data set.

    Args:
        kind: ``"neighbourhood"`` (another subject whose answer is the fact's; it must stay), ``"attribute"`` (another
            subject of which the target is true already), ``"generation"`` (a text to go on with), ``"locality"``
            (something else, which must stay), or ``"portability"`` (something that follows from the target).
        prompt: The text, as the file has it: a question or the beginning of a sentence.
        answers: What is expected, after the edit, with its other forms; empty for ``"generation"``, and for
            ``"locality"`` where the file names no answer.
        group: What the data set calls it (``"Relation_Specificity"``); may be empty.

    Raises:
        ValueError: An unknown kind, or an empty prompt.

    Example:
        >>> wb.DataPrompt(kind="portability", prompt="In which country does she work?", answers=["Italy"]).answers
        ('Italy',)
    """

    kind: DataPromptKind
    prompt: str
    answers: tuple[str, ...] = ()
    group: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(DataPromptKind):
            raise ValueError(f"DataPrompt.kind must be one of {get_args(DataPromptKind)}, got {self.kind!r}.")
        if not self.prompt.strip():
            raise ValueError(f"DataPrompt.prompt is empty ({self.prompt!r}); give it a text.")
        object.__setattr__(self, "answers", tuple(self.answers))

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {"kind": self.kind, "prompt": self.prompt, "answers": list(self.answers), "group": self.group}

    @classmethod
    def read(cls, value: DataPrompt | Mapping[str, Any]) -> DataPrompt:
        """A prompt as it is, or made from what ``to_dict`` gave."""
        return value if isinstance(value, DataPrompt) else cls(**value)
