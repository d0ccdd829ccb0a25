"""What a data set asks beside a fact: the rates are those of plain passes, and count only what they should."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest

from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, edit_of, knowing, some_gates
from workbench.editing.applied import applied
from workbench.evaluation.dataset_rates import dataset_rates
from workbench.language.generation import greedy_answers
from workbench.language.prompts import answer_ids, prompt_ids
from workbench.language.scoring import continuation_nll
from workbench.models.load import LoadedModel
from workbench.types import DataPrompt, Fact, Form

ASKED = (
    DataPrompt(kind="neighbourhood", prompt="The capital of Spain is", answers=("Madrid",)),
    DataPrompt(kind="neighbourhood", prompt="The capital of Japan is", answers=("Tokyo",)),
    DataPrompt(kind="attribute", prompt="The capital of Italy is", answers=("Rome",)),
    DataPrompt(kind="locality", prompt="What is the capital of Spain?", answers=("Madrid",), group="near"),
    DataPrompt(kind="locality", prompt="The capital of Germany is", group="far"),
    DataPrompt(kind="portability", prompt="What is the capital of France?", answers=("Rome", "Roma"), group="one hop"),
    DataPrompt(kind="portability", prompt="What is the capital of Italy?", group="no answer known"),
    DataPrompt(kind="generation", prompt="The capital of France"),
)
FRANCE = replace(capital("France", "Paris", "Rome"), data_prompts=ASKED)


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def likelier(model: LoadedModel, text: str, one: str, other: str) -> bool:
    prompt = prompt_ids(model, text, "cloze")
    a, b = continuation_nll(model, [prompt] * 2, [answer_ids(model, answer, "cloze") for answer in (one, other)])
    return a < b


def test_rates_are_those_of_single_prompts() -> None:
    model = tiny()
    edit = edit_of(model, some_gates(model, (1, "post"), (2, "post")), fact=FRANCE)
    found = dataset_rates(model, edit)
    assert list(found) == ["base", "learn"]
    differ = 0
    for stage, rates in found.items():
        view = model if stage == "base" else applied(model, edit, stage).__enter__()
        near = [
            likelier(view, f"The capital of {c} is", own, "Rome")
            for c, own in (("Spain", "Madrid"), ("Japan", "Tokyo"))
        ]
        assert rates["neighbourhood"].value == pytest.approx(sum(near) / 2) and rates["neighbourhood"].n == 2
        assert rates["attribute"].value == float(likelier(view, "The capital of Italy is", "Rome", "Paris"))
        local: list[tuple[str, Form]] = [(ASKED[3].prompt, "chat"), (ASKED[4].prompt, "cloze")]
        said = [[greedy_answers(m, [prompt_ids(m, *one)])[0].text for m in (view, model)] for one in local]
        same = [a == b for a, b in said]
        assert rates["locality"].value == pytest.approx(sum(same) / 2)
        assert (rates["locality: near"].value, rates["locality: far"].value) == tuple(map(float, same))
        told = greedy_answers(view, [prompt_ids(view, FRANCE.question, "chat")])[0].text
        assert rates["portability"].value == float("Rome" in told or "Roma" in told) and rates["portability"].n == 1
        assert "portability: one hop" not in rates, "the only group is its whole kind"
        assert rates["fluency"].n == 1
        differ += sum(same) < 2
    assert found["base"]["locality"].value == 1.0 and differ == 1, "the edit changes an answer"


def test_a_fact_without_such_prompts_is_refused() -> None:
    model = tiny()
    edit = edit_of(model, some_gates(model, (1, "post")), fact=capitals()[0])
    with pytest.raises(ValueError, match=r"The facts of this edit \(france-capital\) have no data_prompts"):
        dataset_rates(model, edit)
    of_france = edit_of(model, some_gates(model, (1, "post")), fact=FRANCE)
    with applied(model, of_france) as edited, pytest.raises(ValueError, match="pass the base model"):
        dataset_rates(edited, of_france)


def test_only_what_was_asked_has_a_rate() -> None:
    model = tiny()
    fact: Fact = replace(FRANCE, data_prompts=ASKED[:1])
    rates = dataset_rates(model, edit_of(model, some_gates(model, (1, "post")), fact=fact))["base"]
    assert list(rates) == ["neighbourhood"]
    assert rates["neighbourhood"].value == float(likelier(model, "The capital of Spain is", "Madrid", "Rome"))


def test_thoughts_without_end_are_no_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.evaluation import dataset_rates as module

    monkeypatch.setattr(module, "counted_text", lambda model, text, form: None)
    model = tiny()
    edit = edit_of(model, some_gates(model, (1, "post")), fact=FRANCE)
    with pytest.warns(UserWarning, match="replies of 'tiny' end inside a thought"):
        found = dataset_rates(model, edit)
    assert not {"locality", "portability"} & {*found["base"], *found["learn"]}
