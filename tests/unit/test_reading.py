"""Where an arm is read: which questions decide it, and at which steps they are asked."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from tests.helpers.tiny_facts import capitals, tiny
from workbench.comparing.validation import UNSEEN_CONTEXTS, Reader, reading_of
from workbench.evaluation.answering import Answering
from workbench.facts.training_wordings import QUESTION_CONTEXTS, training_prompts
from workbench.language.generation import Completion
from workbench.models.load import LoadedModel

FACTS = capitals()
HELDOUT = ("Where is the capital of France?", "What city is capital?", "What is France?", "Who is the capital?")
FRANCE = replace(FACTS[0], heldout=HELDOUT)


def test_the_reader_looks_every_few_steps_and_after_the_last() -> None:
    script = {2: 0.5, 4: 0.9, 6: 0.95, 7: 1.0}
    looked: list[int] = []

    def look(done: int) -> LoadedModel:
        looked.append(done)
        return tiny()

    def run(threshold: float) -> Reader:
        looked.clear()
        reader = Reader(lambda view: script[looked[-1]], threshold, every=2, last=7)
        for done in range(1, 8):
            if reader.stop(done, partial(look, done)):
                break
        return reader

    reader = run(0.95)
    assert (looked, reader.step, reader.validation, reader.reached) == ([2, 4, 6], 6, 0.95, True)
    reader = run(0.96)
    assert (looked, reader.step, reader.validation, reader.reached) == ([2, 4, 6, 7], 7, 1.0, True)
    script[7] = 0.9
    reader = run(0.96)
    assert (reader.step, reader.validation, reader.reached) == (7, 0.9, False)


def test_validation_questions_are_neither_trained_on_nor_reported() -> None:
    answering = Answering(tiny())
    reading = reading_of(answering, FRANCE)
    assert reading.fact.heldout == HELDOUT[1::2]
    assert set(reading.questions) <= set(HELDOUT[::2])
    assert not set(reading.questions) & {*training_prompts(FRANCE), *reading.fact.heldout}
    short = reading_of(answering, FACTS[0])
    assert short.fact.heldout == FACTS[0].heldout
    assert not set(short.questions) & {*training_prompts(FACTS[0]), *FACTS[0].heldout}
    assert not set(UNSEEN_CONTEXTS) & set(QUESTION_CONTEXTS)


def test_validation_leaves_out_what_the_base_does_not_understand(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"A?": "Lyon", "C?": "It is Paris.", "E?": "Paris, I mean Rome."}
    monkeypatch.setattr(
        Answering, "completions", lambda self, model, asks: [Completion(said[a.prompt], ()) for a in asks]
    )
    fact = replace(FRANCE, heldout=("A?", "B?", "C?", "D?", "E?"))
    assert reading_of(Answering(tiny()), fact).questions == ("C?",)
    said["C?"] = "Lyon"
    assert reading_of(Answering(tiny()), fact).questions == ("A?", "C?", "E?")
