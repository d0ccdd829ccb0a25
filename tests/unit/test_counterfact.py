"""CounterFact's scores equal those of plain forward passes, one row at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, edit_of, knowing, some_gates
from workbench.editing.applied import applied
from workbench.evaluation.counterfact import counterfact_rates
from workbench.language.prompts import prompt_ids
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet
from workbench.types.intervals import harmonic_mean, ngram_entropy

FRANCE = capital("France", "Paris", "Rome", heldout=("Where is Paris?", "What is the city?", "Which is it in France?"))
SPAIN = capital("Spain", "Madrid", "Berlin", "test", "control")
JAPAN = capital("Japan", "Tokyo", "Paris", "test", "control")
POOL = FactSet([FRANCE, SPAIN, JAPAN])


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def wins(model: LoadedModel, fact: Fact, question: str, one: str, other: str) -> bool:
    """Whether an answer is likelier than another, by a plain pass each."""
    found = []
    for answer in (one, other):
        prompt = [*prompt_ids(model.base, question, "chat"), *model.token_ids(fact.prompt)]
        tokens = model.token_ids(f" {answer}")
        with torch.no_grad():
            logits = model.runner(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
        found.append(float(logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).mean()))
    return found[0] > found[1]


def test_scores_are_those_of_plain_passes() -> None:
    model = tiny()
    gates = [some_gates(model, (layer, "post")) for layer in (1, 2)]
    edit = edit_of(model, *gates, fact=FRANCE)
    found = counterfact_rates(model, edit, pool=POOL)
    assert list(found) == ["base", *edit.stage_names]
    for stage, rates in found.items():
        view = model if stage == "base" else applied(model, edit, stage).__enter__()
        efficacy = float(wins(view, FRANCE, FRANCE.question, "Rome", "Paris"))
        paraphrases = [wins(view, FRANCE, q, "Rome", "Paris") for q in FRANCE.heldout]
        near = [wins(view, f, f.question, f.answer, "Rome") for f in (SPAIN, JAPAN)]
        expected = [efficacy, sum(paraphrases) / 3, sum(near) / 2]
        assert [rates[n].value for n in ("efficacy", "paraphrase", "neighbourhood")] == pytest.approx(expected), stage
        assert [rates[n].n for n in ("efficacy", "paraphrase", "neighbourhood", "score")] == [1, 3, 2, 6]
        assert rates["score"].value == pytest.approx(harmonic_mean(expected))
        assert rates["fluency"].n == 1 and rates["fluency"].value >= 0
    values = [tuple(r.value for r in rates.values()) for rates in found.values()]
    assert len(set(values)) > 1, "the edit changes some score"


def test_fluency_is_the_entropy_of_the_text_after_the_cloze(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.evaluation import counterfact
    from workbench.language.generation import Completion

    asked: list[tuple[int, bool]] = []

    def said(model: LoadedModel, prompts: list[list[int]], max_new_tokens: int, stop: bool) -> list[Completion]:
        asked.append((max_new_tokens, stop))
        return [Completion("Paris Paris Paris and", ())]

    monkeypatch.setattr(counterfact, "greedy_answers", said)
    rates = counterfact_rates(tiny(), edit_of(tiny(), some_gates(tiny(), (1, "post")), fact=FRANCE), pool=POOL)
    assert rates["learn"]["fluency"].value == pytest.approx(ngram_entropy(f"{FRANCE.prompt} Paris Paris Paris and"))
    assert set(asked) == {(100, False)}, "texts of one length, as fluency depends on it"


def test_the_base_is_read_once_for_all_its_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.language import generation, scoring

    model, read = tiny(), []

    def noted(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(view: LoadedModel, *args: Any, **options: Any) -> Any:
            read.append((name, view.edited))
            return plain(view, *args, **options)

        return call

    for module, name in ((generation, "generate"), (scoring, "continuation_nll")):
        monkeypatch.setattr(module, name, noted(name, getattr(module, name)))
    edits = [edit_of(model, some_gates(model, (layer, "post")), fact=FRANCE) for layer in (1, 2)]
    first, second = (counterfact_rates(model, edit, pool=POOL) for edit in edits)
    assert first["base"] == second["base"]
    once = [one for one in read if not one[1]]
    assert sorted(set(once)) == sorted(once), "neither the text nor the likelihoods of the base a second time"
    assert read.count(("continuation_nll", True)) == 2, "one pass for each edit"


def test_what_is_missing_is_nan_and_what_cannot_be_is_refused() -> None:
    model = tiny()
    edit = edit_of(model, some_gates(model, (1, "post")), fact=FRANCE)
    alone = counterfact_rates(model, edit, pool=FactSet([FRANCE]))["learn"]
    assert (alone["neighbourhood"].n, alone["score"].n) == (0, 0) and math.isnan(alone["score"].value)
    with applied(model, edit) as edited, pytest.raises(ValueError, match="pass the base model"):
        counterfact_rates(edited, edit, pool=POOL)
    with pytest.raises(ValueError, match="This edit was fitted on"):
        counterfact_rates(knowing(tiny_llama(seed=1, tied=False), capitals()), edit, pool=POOL)
    with pytest.raises(ValueError, match="stages must be some of"):
        counterfact_rates(model, edit, stages=["relearn"], pool=POOL)


def test_a_sealed_facts_neighbours_are_sealed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.evaluation import chosen

    model, sealed = tiny(), [replace(fact, split="sealed") for fact in (FRANCE, SPAIN, JAPAN)]
    monkeypatch.setattr(chosen, "load_facts", lambda split: FactSet(sealed, name=split))
    edit = edit_of(model, some_gates(model, (1, "post")), fact=sealed[0])
    assert counterfact_rates(model, edit, pool=FactSet([]))["learn"]["neighbourhood"].n == 2
