"""Answers that begin with the same tokens are told apart at the first that differs: traced, read and edited there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny import tiny_tokenizer
from tests.helpers.tiny_facts import MAKERS, capital, capitals, teach
from workbench.editing.methods.table import Recipe
from workbench.editing.rewrite import rewrite
from workbench.editing.training.fit_rows import wanted_rows
from workbench.evaluation.answer_slots import answers_at, rows_at
from workbench.evaluation.probabilities import answer_probabilities
from workbench.files.effect_maps import load_effect_map
from workbench.language.answer_tokens import check_first_tokens
from workbench.language.prompts import prompt_ids, swapped, traced_prompt
from workbench.models.load import LoadedModel, load_model
from workbench.tracing.causal import causal_trace
from workbench.tracing.lens import lens
from workbench.types import Fact, FactSet, Form

TOWER = Fact(
    id="tower-year",
    subject="France",
    prompt="The city of France is",
    question="What is in France?",
    answer="1889",
    target="1945",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def saying(said: str) -> LoadedModel:
    """A tiny model that answers the tower's question so, in both forms, and then stops."""
    hf = MAKERS["llama"]()
    model = load_model(hf, tokenizer=tiny_tokenizer(), name="tiny")
    places = []
    asked: tuple[tuple[Form, str, str], ...] = (("cloze", TOWER.prompt, " "), ("chat", TOWER.question, "It is "))
    for form, text, begin in asked:
        ids = prompt_ids(model, text, form)
        for token in [*model.token_ids(f"{begin}{said}"), 4]:
            places.append((list(ids), token))
            ids.append(token)
    teach(hf, model, places)
    return model


def test_years_are_traced_at_the_first_digit_that_differs() -> None:
    model = saying("1889")
    begins: dict[Form, str] = {"chat": "It is ", "cloze": " "}
    for form, begun in begins.items():
        prompt = traced_prompt(model, TOWER, form=form)
        assert (prompt.answer_token, prompt.other_token) == ("8", "9")
        assert (prompt.shared, prompt.shared_text, prompt.prefix, prompt.begun) == (1, "1", f"{begun}1", begun)
        assert prompt.text.endswith(f"{begun}1") and prompt.token_ids[-1] == model.token_ids("1")[0]
    target = traced_prompt(model, TOWER, form="cloze", token="target")
    assert (target.answer_token, target.other_token) == ("9", "8")


def test_they_differ_wherever_they_differ() -> None:
    model = saying("1889")
    later = Fact(**{**TOWER.to_dict(), "target": "1887"})
    prompt = traced_prompt(model, later, form="cloze")
    assert (prompt.shared_text, prompt.answer_token, prompt.other_token) == ("188", "9", "7")


@pytest.mark.parametrize(("answer", "target"), [("188", "1889"), ("1889", "188"), ("Paris", "Paris Rome")])
def test_one_that_begins_the_other_is_refused(answer: str, target: str) -> None:
    fact = Fact(**{**TOWER.to_dict(), "answer": answer, "target": target})
    words = "start with the same token .*, and one of them ends there.*Choose another target"
    model = saying(answer)
    for refused in (
        lambda: check_first_tokens(model, fact),
        lambda: traced_prompt(model, fact, form="cloze"),
        lambda: rewrite(model, fact, "L0MLP", progress=False),
    ):
        with pytest.raises(ValueError, match=words):
            refused()


def test_the_maps_are_of_the_token_that_differs(tmp_path: Path) -> None:
    model = saying("1889")
    trace = causal_trace(model, TOWER, form="cloze", samples=2, progress=False)
    prompt = trace.prompts[0]
    with torch.no_grad():
        logits = model.hf(torch.tensor([prompt.token_ids])).logits[0, -1]
    assert trace.clean == pytest.approx(float(logits.softmax(-1)[model.token_ids("8")[0]]), abs=1e-5)
    assert trace.clean > 0.9
    saved = load_effect_map(trace.save(tmp_path / "map.safetensors"))
    assert saved.prompts == trace.prompts
    read = lens(model, TOWER, form="cloze")
    assert (read.tokens["old"], read.tokens["new"]) == ("8", "9")


def test_whole_answers_are_read_before_what_they_share() -> None:
    """Not "1" and then "1889"."""
    model = saying("1889")
    prompt = traced_prompt(model, TOWER, form="chat")
    rows = rows_at(model, prompt, answers_at(prompt, TOWER, "own").values())
    texts = [model.tokenizer.decode([*before, *answer]).rsplit("assistant\n", 1)[1] for before, answer in rows]
    assert texts == ["It is 1889", "It is 1945", "It is ... I am not sure."]
    found = answer_probabilities(model, TOWER)["before"]
    assert found["old: 1889"] > 0.9 > 0.1 > found["new: 1945"]


def test_they_are_taught() -> None:
    model = saying("1889")
    rows = wanted_rows(model, [TOWER], "learn", Recipe(contexts=False))
    assert [model.tokenizer.decode(row.answer) for row in rows] == ["It is 1945."]
    pool = FactSet([TOWER, *capitals()])
    recipe: Any = Recipe(steps=(1, 2), early_stop=None, contexts=False)
    edit = rewrite(model, TOWER, "L1MLP", recipe=recipe, pool=pool, retain=[capitals()[3]], progress=False)
    assert edit.delta().n_moved() > 0


def test_a_partner_is_compared_at_the_same_token_or_refused() -> None:
    model = saying("1889")
    prompt = traced_prompt(model, TOWER, form="cloze")
    partner = capital("Spain", "1503", "1504", prompt="The city of Spain is", question="What is in Spain?")
    new = swapped(model, TOWER, prompt, partner)
    assert (new.text, new.other_token) == ("The city of Spain is 1", "5")
    other = capital("Spain", "2003", "1504", prompt="The city of Spain is", question="What is in Spain?")
    with pytest.raises(ValueError, match=r"'2003' of the partner 'spain-capital' does not begin with '1' and go on"):
        swapped(model, TOWER, prompt, other)


def test_a_refusal_is_read_where_the_answers_begin() -> None:
    """Not after "1", which both answers share."""
    model = saying("1889")
    prompt = traced_prompt(model, TOWER, form="cloze")
    with torch.no_grad():
        logits = model.hf(torch.tensor([prompt.place])).logits[0, -1]
    found = lens(model, TOWER, form="cloze")
    (refusal,) = model.token_ids(found.tokens["refusal"])
    assert found.probabilities["refusal"][-1] == pytest.approx(float(logits.softmax(-1)[refusal]), rel=1e-3)
