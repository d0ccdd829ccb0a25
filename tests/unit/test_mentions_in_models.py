"""What a model is said to know can be traced and taught: the answer is found where it was recognised."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, knowing
from workbench.editing.training.rows import around_old
from workbench.facts.known import known_facts
from workbench.language.prompts import traced_prompt
from workbench.types import Fact


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def test_an_answer_of_another_spelling_is_known_and_traced() -> None:
    """The model says "Paris"; the fact has it with an accent."""
    model = knowing(tiny_llama(tied=False, bias=True), capitals())
    plain, accented = capital("France", "Paris", "Rome"), capital("France", "Páris", "Rome")
    assert known_facts(model, [accented], form="any", progress=False).ids == (accented.id,)
    for form in ("chat", "cloze"):
        prompt = traced_prompt(model, accented, form=form)
        assert prompt.answer_token.strip() == "Paris" and prompt == traced_prompt(model, plain, form=form)


@pytest.mark.parametrize(
    ("answer", "said", "split"),
    [
        ("Port-au-Prince", "It is Port au Prince.", ("It is ", "Port au Prince", ".")),
        ("Xi'an", "It is Xi’an, I think.", ("It is ", "Xi’an", ", I think.")),
        ("New York", "It is **New** York!", ("It is **", "New** York", "!")),
        ("Brasilia", "It is Brasi\u0301lia.", ("It is ", "Brasi\u0301lia", ".")),
    ],
)
def test_the_models_own_words_are_taught_around_an_answer_of_another_spelling(
    answer: str, said: str, split: tuple[str, str, str]
) -> None:
    """Not the fact's cloze, as where the answer is not named."""
    fact = Fact(subject="X", prompt="The city of X is", question="Which city?", answer=answer, target="Rome")
    assert around_old(said, fact) == split
