"""Answers that are shipped for a model are taken for its own, and for nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.tiny import loaded, tiny_llama
from workbench.language import bundled_answers as shipped
from workbench.language import generation
from workbench.language.generation import MAX_NEW_TOKENS, generate, greedy_answers, stop_tokens
from workbench.models.load import LoadedModel

PROMPTS = [(5, 6, 7), (8, 9)]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadedModel]:
    """A model of its own, whose shipped answers would be in a folder of the test."""
    shipped.shipped_answers.cache_clear()
    monkeypatch.setattr(shipped, "shipped_path", lambda fingerprint: tmp_path / f"{fingerprint[:16]}.json")
    yield loaded(tiny_llama())
    shipped.shipped_answers.cache_clear()


def ship(model: LoadedModel, fingerprint: str | None = None) -> Path:
    """Other answers than the model's own."""
    stops = tuple(stop_tokens(model))
    answers = {shipped.hashed((prompt, 12, stops)): [prompt[0], stops[0]] for prompt in PROMPTS}
    return shipped.write_shipped(fingerprint or model.fingerprint, answers)


def test_shipped_answers_are_given_without_asking(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(generation, "generate", lambda m, prompts, **o: asked.extend(prompts) or generate(m, prompts))
    ship(model)
    found = greedy_answers(model, [*PROMPTS, (3, 4)], max_new_tokens=12)
    assert [one.token_ids for one in found[:2]] == [(prompt[0], stop_tokens(model)[0]) for prompt in PROMPTS]
    assert found[0].text == model.tokenizer.decode([5]).strip()
    assert asked == [(3, 4)]


@pytest.mark.parametrize("what", ["nothing", "another model", "another version", "another length", "other stop tokens"])
def test_what_was_shipped_for_something_else_is_not_given(what: str, model: LoadedModel) -> None:
    if what == "another model":
        shipped_file = ship(model, model.fingerprint[:16] + "0" * 48)
        assert shipped_file == shipped.shipped_path(model.fingerprint), "named alike"
    elif what == "another version":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shipped, "VERSION", 0)
            ship(model)
    elif what != "nothing":
        ship(model)
    if what == "other stop tokens":
        greedy_answers(model, PROMPTS)  # nor is what was said with others before
        model.hf.generation_config.eos_token_id = [4, 5]
    length = 6 if what == "another length" else 12
    for n in (length, MAX_NEW_TOKENS):
        assert greedy_answers(model, PROMPTS, max_new_tokens=n) == generate(model, PROMPTS, max_new_tokens=n)
