"""FactForm: the fields of a fact of one's own, with what does not fit below each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ipywidgets import HTML

from workbench.types import Fact
from workbench.widgets.facts.field_form import FieldForm
from workbench.widgets.shared import markup
from workbench.widgets.shared.layout import primary, row

FIELDS = {
    "subject": ("Subject", "France"),
    "prompt": ("Prompt", "The capital of France is"),
    "answer": ("Answer", "Paris"),
    "target": ("Target", "Rome"),
    "question": ("Question", "optional: What is the capital of France?"),
    "swap": ("Swap with", "optional: Spain"),
    "swap_answer": ("Its answer", "optional: what the model says"),
    "relation": ("Relation", "optional: country-capital"),
}
TIPS = {
    "subject": "What the fact is about, letter by letter as in the prompt",
    "prompt": "A sentence that ends right before the answer",
    "answer": "What the model says, and should",
    "target": "What an edit is to teach instead",
    "question": "What the model is asked as a chat; without it, to complete the sentence",
    "swap": "Another subject of as many tokens, for which another answer is right; it takes every place of the subject",
    "swap_answer": "What is right for that subject; without it, what the model says",
    "relation": "What is asked for; the listed facts of the same relation are its neighbours",
}
ROWS = (("subject", "relation"), ("prompt",), ("answer", "target"), ("question",), ("swap", "swap_answer"))
_HINT = (
    "Target: what an edit is to teach. Swap with: another subject of as many tokens; the circuit is found by what "
    "changes when it takes the place of this one, at every place where this one stands. Without it noise is used."
)


def default_question(prompt: str) -> str:
    """The chat form of a fact that was written without one."""
    return f"Complete the sentence: {prompt}"


class FactForm(FieldForm):
    """A field for each part of a fact, and a button. Enter in any field is the button.

    Args:
        relations: Offered for the relation; any other can be written.
        on_use: Called without arguments when the button or Enter is pressed.
        on_change: Called when subject, prompt, question, answer or relation has changed.
    """

    def __init__(self, relations: Sequence[str], on_use: Callable[[], object], on_change: Callable[[], object]) -> None:
        self._suggested, self._found = "", ""
        use = primary("Use this fact", tooltip="Check the fact written here and choose it; Enter in any field")
        use.on_click(lambda _: on_use())

        def changed(name: str) -> None:
            if name not in ("swap", "swap_answer", "target"):
                on_change()

        below = [HTML(markup.hint(_HINT)), row(use)]
        super().__init__(FIELDS, TIPS, ROWS, below, on_use, changed, offers=("relation",))
        self.fields["relation"].options = tuple(filter(None, relations))

    @property
    def texts(self) -> dict[str, str]:
        """What is written, by field, without spaces at either end; the question is made of the prompt where there is
        none."""
        given = {name: field.value.strip() for name, field in self.fields.items()}
        if not given["question"] and given["prompt"]:
            given["question"] = default_question(given["prompt"])
        return given

    @property
    def fact(self) -> Fact:
        """The fact as it is written. Settable.

        Raises:
            FactError: On reading, something is missing or does not fit.
        """
        texts = self.texts
        return Fact(
            subject=texts["subject"],
            prompt=texts["prompt"],
            question=texts["question"],
            answer=texts["answer"],
            target=texts["target"],
            relation=texts["relation"],
        )

    @fact.setter
    def fact(self, fact: Fact) -> None:
        self._fill({name: getattr(fact, name, "") for name in FIELDS})
        if fact.question == default_question(fact.prompt):
            self._fill({"question": ""})

    def draft(self, texts: Mapping[str, str]) -> None:
        """Begin another fact with some fields; the others are empty."""
        self._fill(dict.fromkeys(self.fields, "") | dict(texts))
        self.tell({})

    # The subject to swap with

    @property
    def suggests(self) -> bool:
        """Whether the subject to swap with is not a person's own, so that another may be suggested."""
        return self.fields["swap"].value == self._suggested

    def suggest(self, subject: str, answer: str = "") -> None:
        """Fill in a subject to swap with and its answer, until a person writes another."""
        self._suggested, self._found = subject, answer
        self._fill({"swap": subject, "swap_answer": answer})

    def found(self, answer: str) -> None:
        """Fill in what the model says for the subject to swap with."""
        self._found = answer
        self._fill({"swap_answer": answer})

    @property
    def answer_given(self) -> str:
        """The answer of the subject to swap with, where a person wrote it."""
        answer = self.texts["swap_answer"]
        return "" if answer == self._found else answer

    def _fill(self, texts: Mapping[str, str]) -> None:
        super()._fill(texts)
        if not texts.get("swap", "-"):
            self._suggested = ""
