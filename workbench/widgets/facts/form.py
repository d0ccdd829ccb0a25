"""FactForm: the fields of a fact of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ipywidgets import HTML, Button, Combobox, Text, VBox

from workbench.types import Fact
from workbench.widgets.shared import markup

FIELDS = {
    "subject": ("Subject", "France"),
    "prompt": ("Prompt", "The capital of France is"),
    "answer": ("Answer", "Paris"),
    "target": ("Target", "Rome"),
    "question": ("Question", "optional: What is the capital of France?"),
    "relation": ("Relation", "optional: country-capital"),
}
_STYLE = {"description_width": "72px"}


def default_question(prompt: str) -> str:
    """The chat form of a fact that was written without one."""
    return f"Complete the sentence: {prompt}"


class FactForm(VBox):
    """A field for each part of a fact, and a button.

    Args:
        relations: Offered for the relation; any other can be written.
        on_use: Called without arguments when the button is pressed.
    """

    def __init__(self, relations: Sequence[str], on_use: Callable[[], object]) -> None:
        self.fields: dict[str, Any] = {
            name: (Combobox if name == "relation" else Text)(
                description=label, placeholder=example, style=_STYLE, layout={"width": "auto"}
            )
            for name, (label, example) in FIELDS.items()
        }
        self.fields["relation"].options = tuple(filter(None, relations))
        use = Button(description="Use this fact", tooltip="Check the fact written here and choose it")
        use.on_click(lambda _: on_use())
        super().__init__([HTML(markup.title("Or write a new one")), *self.fields.values(), use])

    @property
    def fact(self) -> Fact:
        """The fact as it is written. Settable.

        Raises:
            ValueError: On reading, something is missing or does not fit; with the message of ``Fact``.
        """
        given = {name: field.value for name, field in self.fields.items()}
        if not given["question"].strip() and given["prompt"].strip():
            given["question"] = default_question(given["prompt"])
        return Fact(**given)

    @fact.setter
    def fact(self, fact: Fact) -> None:
        for name, field in self.fields.items():
            field.value = getattr(fact, name)
