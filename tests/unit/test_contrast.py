"""Contrasts: what they refuse, and how a model reads them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.tiny import loaded, tiny_llama
from tests.helpers.tiny_facts import capitals, knowing
from workbench.language.contrasts import prepare
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.corruption import set_up
from workbench.tracing.setup import SetupOptions
from workbench.types.roles import roles_of

FACTS = capitals()
PAIR: dict[str, Any] = {
    "clean": "The capital of France is",
    "corrupted": "The capital of Italy is",
    "answer": " Paris",
    "wrong": " Rome",
}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return knowing(tiny_llama(tied=False), FACTS)


def contrast(**other: Any) -> wb.Contrast:
    return wb.Contrast(**{**PAIR, **other})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"clean": " "}, "empty text"),
        ({"clean": []}, "must be a text"),
        ({"clean": [1, -2]}, "must be a text"),
        ({"clean": [1.5]}, "must be a text"),
        ({"clean": torch.zeros(3)}, r"\[tokens, d_model\], got shape \(3,\)"),
        ({"clean": torch.full((3, 4), float("nan")), "corrupted": torch.zeros(3, 4)}, "finite"),
        ({"corrupted": torch.zeros(3, 4)}, "must both be states"),
        ({"corrupted": PAIR["clean"]}, "are equal"),
        ({"corrupted": None}, "either corrupted= .* or noise="),
        ({"noise": 3.0}, "either corrupted= .* or noise="),
        ({"noise_at": 3}, "give noise= with it"),
        ({"corrupted": None, "noise": 0.0, "noise_at": 3}, "above 0"),
        ({"corrupted": None, "noise": 1.0}, "Say where the noise goes"),
        ({"answer": ""}, "must be a token"),
        ({"answer": -3}, "must be a token"),
        ({"answer": []}, "no token"),
        ({"answer": True}, "must be a token"),
        ({"wrong": [" Madrid", " Paris"]}, "' Paris' is an answer too"),
        ({"positions": {"": 3}}, "Names of positions"),
        ({"positions": {"a": []}}, "must be indices"),
        ({"positions": {"a": 1.5}}, "must be indices"),
        ({"form": "prose"}, "must be one of"),
    ],
)
def test_a_contrast_says_what_does_not_fit(given: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        contrast(**given)


def test_contrasts_are_equal_when_what_they_hold_is() -> None:
    states = torch.arange(6.0).view(3, 2)
    first, second, other = (
        wb.Contrast(clean=states, corrupted=states + by, answer=1, positions={"a": 0}) for by in (1, 1, 2)
    )
    assert first == second and hash(first) == hash(second) and first != other
    assert first != contrast()
    assert contrast().id == "the-capital-of-france-is"


def test_a_model_reads_both_runs(model: LoadedModel) -> None:
    ready = prepare(model, contrast(positions={"country": "France", "start": (0, 1), "end": -1}))
    assert ready.prompt.tokens == ("The", " capital", " of", " France", " is")
    assert ready.clean is not None and ready.corrupted is not None
    assert model.tokenizer.decode(list(ready.corrupted)) == PAIR["corrupted"]
    assert (ready.changed, ready.tokens) == ((3,), 5)
    assert ready.positions == {"country": (3,), "start": (0, 1), "end": (4,)}
    assert ready.prompt.roles == ("start", "start", "tokens before the change", "country", "end")
    assert model.tokenizer.decode([ready.answer_ids[0], ready.wrong_ids[0]]) == " Paris Rome"
    assert ready.prompt.other_token == " Rome"


def test_token_ids_are_read_as_they_are(model: LoadedModel) -> None:
    texts = prepare(model, contrast())
    assert texts.clean is not None and texts.corrupted is not None
    ids = prepare(
        model,
        contrast(
            clean=torch.tensor([texts.clean]),
            corrupted=list(texts.corrupted),
            answer={texts.answer_ids[0], 9},
            wrong=None,
        ),
    )
    assert (ids.clean, ids.corrupted) == (texts.clean, texts.corrupted)
    assert (sorted(ids.answer_ids), ids.wrong_ids) == (sorted((texts.answer_ids[0], 9)), ())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"corrupted": "The capital of Italy of Rome is"},
            r"5 tokens and the corrupted one 7\. .* first 3 and last 1 tokens agree; .* \[' France'\] and "
            r"\[' Italy', ' of', ' Rome'\]",
        ),
        ({"answer": " Oslo"}, r"' Oslo' is \d tokens here"),
        ({"answer": " Oslo", "wrong": " Osaka"}, "both begin with the token"),
        ({"answer": 7, "wrong": 10**6}, "with id 1000000"),
        ({"clean": [1, 10**6], "corrupted": [1, 2]}, "with id 1000000"),
        ({"positions": {"a": 5}}, "from 0 to 4"),
        ({"positions": {"a": "Spain"}}, "'Spain' does not occur"),
        ({"positions": {"a": "a"}}, "occurs 3 times"),
        ({"positions": {"a": 3, "b": "France"}}, "Position 3 is named 'a' and 'b'"),
        ({"clean": torch.zeros(3, 7), "corrupted": torch.ones(3, 7)}, r"\[tokens, 42\]"),
        ({"clean": torch.zeros(3, 42), "corrupted": torch.ones(2, 42)}, r"\(3, 42\) and \(2, 42\)"),
        ({"clean": torch.zeros(3, 42), "corrupted": torch.ones(3, 42), "positions": {"a": "x"}}, "have no text"),
    ],
)
def test_a_model_says_what_does_not_fit(model: LoadedModel, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        prepare(model, contrast(**given))


def test_an_answer_without_its_space_is_warned_of(model: LoadedModel) -> None:
    with pytest.warns(UserWarning, match="end of the word 'is'"):
        prepare(model, contrast(answer="Paris"))


def test_chat_form_reads_a_question(model: LoadedModel) -> None:
    asked = {"clean": "What is the capital of France?", "corrupted": "What is the capital of Italy?"}
    ready = prepare(model, contrast(**asked, answer="Paris", wrong="Rome", form="chat"))
    assert ready.prompt.text.endswith("<|im_start|>assistant\n") and ready.prompt.tokens[ready.changed[0]] == " France"


def test_roles_of_several_contrasts_are_in_reading_order(model: LoadedModel) -> None:
    first = prepare(model, contrast(positions={"country": 3})).prompt
    second = prepare(model, contrast(positions={"country": 3, "start": 0})).prompt
    assert roles_of([first, second]) == ("start", "tokens before the change", "country", "last token")


@pytest.mark.parametrize("corruption", ["swap", "noise"])
def test_a_contrast_of_a_fact_has_the_inputs_of_the_fact(model: LoadedModel, corruption: Any) -> None:
    of = wb.Contrast.of(model, FACTS[0], corruption=corruption, pool=FACTS)
    options = SetupOptions(corruption=corruption, pool=FACTS, samples=3)
    with torch.no_grad(), pooled_engine(Resumable, model) as engine:
        fact, own = set_up(model, engine, FACTS[0], options), set_up(model, engine, of, SetupOptions(samples=3))
    assert fact.start == own.start
    assert torch.equal(fact.clean, own.clean) and torch.equal(fact.corrupted, own.corrupted)
    assert (fact.prompt.answer_id, fact.prompt.other_id) == (own.prompt.answer_id, own.prompt.other_id)
    assert roles_of([fact.prompt]) == roles_of([own.prompt])
    assert fact.corrupted_ids == own.corrupted_ids


@pytest.mark.parametrize("noise", [None, 2.0])
def test_states_give_what_their_texts_give(model: LoadedModel, noise: float | None) -> None:
    given = {"corrupted": None, "noise": noise, "noise_at": "country"} if noise else {}
    texts = contrast(positions={"country": 3}, **given)
    with torch.no_grad(), pooled_engine(Resumable, model) as engine:
        by_text = set_up(model, engine, texts, SetupOptions(samples=2))
        states: dict[str, Any] = {"clean": by_text.clean, **({} if noise else {"corrupted": by_text.whole})}
        ids = by_text.prompt.answer_id, by_text.prompt.other_id
        by_state = set_up(
            model,
            engine,
            wb.Contrast(**states, answer=ids[0], wrong=ids[1], positions={"country": 3}, noise=noise),
            SetupOptions(samples=2),
        )
    assert torch.equal(by_text.clean, by_state.clean) and torch.allclose(by_text.corrupted, by_state.corrupted)
    assert by_state.corrupted_ids is None


def test_sets_of_answers_are_measured_as_any_of_them() -> None:
    model = loaded(tiny_llama(tied=False))
    logits = torch.randn(2, model.shape.d_vocab, generator=torch.Generator().manual_seed(1))
    given = contrast(answer=[" Paris", " Madrid"], wrong=[" Rome", " Berlin", " Tokyo"])
    with torch.no_grad(), pooled_engine(Resumable, model) as engine:
        likely = set_up(model, engine, given, SetupOptions(metric="probability"))
        odds = set_up(model, engine, given, SetupOptions())
    p = logits.softmax(-1)
    right, wrong = p[:, list(likely.prompt.answers)].sum(-1), p[:, list(likely.prompt.others)].sum(-1)
    assert torch.allclose(likely.measure(logits), right)
    assert torch.allclose(odds.measure(logits), right.log() - wrong.log(), atol=1e-6)
