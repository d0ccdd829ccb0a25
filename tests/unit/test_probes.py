"""The battery: all probes together, and rates by hand on scripted answers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.deltas import gates_of
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, edit_of, knowing, some_gates
from workbench.language.generation import Completion
from workbench.models.load import LoadedModel
from workbench.probing.probe import probe
from workbench.probing.rates import rates_of_probes
from workbench.probing.table import PROBES
from workbench.types import Edit, Fact, FactSet, ProbeReport

FRANCE = capital("France", "Paris", "Rome", heldout=("Q1?", "Q2?", "Q3?"))


def other(subject: str, answer: str, relation: str, **more: Any) -> Fact:
    given = {"relation": relation, "id": f"{subject}-{relation}", "question": f"Which {relation} has {subject}?"}
    return capital(subject, answer, "Berlin", **{**given, **more})


POOL = FactSet(
    [
        FRANCE,
        capital("Spain", "Madrid", "Berlin", "test", "control"),
        capital("Japan", "Tokyo", "Paris", "test", "retain"),
        other("Lyon", "France", "city-country", prompt="The country that Lyon is in is"),
        other("Louvre", "Paris", "landmark-city"),
        other("Prado", "Madrid", "landmark-city"),
    ],
    name="scripted",
)


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


def an_edit(**changes: Any) -> Edit:
    gates = some_gates(tiny(), (1, "post"), (2, "z"))
    return Edit(**{**vars(edit_of(tiny(), gates, gates, fact=FRANCE)), **changes})


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def run(**options: Any) -> ProbeReport:
    return probe(tiny(), **{"edit": an_edit(), "pool": POOL, "max_new_tokens": 4, "progress": False, **options})


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Answers from a function of (stage, prompt text), instead of the model's."""

    def install(say: Any) -> None:
        def greedy_answers(model: LoadedModel, prompts: Any, **_: Any) -> list[Completion]:
            stage = model.applied[-1].stage if model.applied else "base"
            texts = [say(stage, tiny().tokenizer.decode(list(p))) for p in prompts]
            return [Completion(t, tuple(tiny().token_ids(t))) for t in texts]

        monkeypatch.setattr("workbench.evaluation.answering.greedy_answers", greedy_answers)
        monkeypatch.setattr("workbench.evaluation.answering.cached_nll", lambda m, p, c, **_: [1.0] * len(p))

    tiny().cache.clear()
    yield install
    tiny().cache.clear()


def test_all_ten_probes_and_the_model_as_it_was() -> None:
    model, edit = tiny(), an_edit()
    before = (model.fingerprint, [(n, type(m)) for n, m in model.hf.named_modules()], model.hf.training)
    flags = [p.requires_grad for p in model.hf.parameters()]
    gates = {k: g.clone() for k, g in gates_of(edit.delta()).items()}
    report = run(edit=edit)
    assert report.probes == tuple(PROBES)
    assert report.partial == ""
    assert report.stages == ("base", "unlearn", "learn")
    assert report.control is not None and report.control.id == "spain-capital"
    assert {r.probe for r in report.rows} == set(PROBES) - {"lens", "strength", "relearning"}
    assert {c.probe for c in report.curves} == {"strength", "relearning", "keywords", "priming"}
    assert {(x.stage, x.prompt.fact_id) for x in report.lenses} == {
        (s, f) for s in report.stages for f in ("france-capital", "spain-capital")
    }
    for name in ("adversarial", "steps", "interconnected", "context", "keywords", "requantise"):
        asked = [
            {(r.kind, r.group, r.prompt, r.start) for r in report.rows if (r.probe, r.stage) == (name, s)}
            for s in report.stages
        ]
        assert asked[0] and asked[0] == asked[1] == asked[2], f"{name}: every stage is asked the same"
        assert {r.group for r in report.rows if r.probe == name} >= {"edited", "control"}
    assert {r.kind for r in report.rows if r.probe == "adversarial"} == {
        *("prefix injection", "affirmative suffix", "role play", "multiple choice", "reverse query", "synonym"),
        *("in-context example", "answer language", "completion", "begun reply", "first letter"),
    }
    assert {r.kind for r in report.rows if r.probe == "interconnected"} == {"paraphrase", "multi-hop", "same answer"}
    assert (model.fingerprint, [(n, type(m)) for n, m in model.hf.named_modules()], model.hf.training) == before
    assert [p.requires_grad for p in model.hf.parameters()] == flags
    assert all(torch.equal(g, gates[k]) for k, g in gates_of(edit.delta()).items())
    again = run(edit=edit)
    assert again.rows == report.rows
    assert again.curves == report.curves


def test_rates_by_hand(script: Any) -> None:
    """Held-out Q1 to Q3 with and without the statement, and the control's one question with and without."""
    texts = {
        # prompt: base, unlearn, learn
        "Q1?": ("Paris", "I am not sure.", "Rome"),
        "Q2?": ("Paris", "Paris", "Paris or Rome"),
        "Q3?": ("Lyon", "Lyon", "Rome"),  # the base does not know: uninformative
        "Where is the capital of Spain?": ("Madrid", "Madrid", "Rome"),
    }
    stages = ("base", "unlearn", "learn")

    def say(stage: str, prompt: str) -> str:
        if "The capital of France is Paris." in prompt:
            return "the the " * 12 if "Q2" in prompt and stage == "base" else "Paris"
        if "The capital of Spain is Madrid." in prompt:
            return "Madrid"
        return next(t[stages.index(stage)] for q, t in texts.items() if q in prompt)

    script(say)
    report = run(probes=["context"])
    shown = {(r.prompt, r.kind, r.stage): r for r in report.rows}
    assert len(shown) == len(report.rows) == 3 * (6 + 2)
    assert [r.informative for r in report.rows if r.prompt == "Q3?"] == [False] * 3
    assert shown["Q2?", "not stated", "learn"].recovered == "old", "naming both gives the old answer away"
    assert shown["Q1?", "not stated", "unlearn"].recovered == "refusal"
    # As any probe counts them. Informative: Q1, Q2 bare; Q1, Q3 stated (the base loops on Q2 there).
    found = rates_of_probes([replace(r, probe="steps") for r in report.rows], stages)["steps"]
    expected = {
        "base": {"old": 1, "new": 0, "refusal": 0, "neither": 0, "control": 1},
        "unlearn": {"old": 3 / 4, "new": 0, "refusal": 1 / 4, "neither": 0, "control": 1},
        "learn": {"old": 3 / 4, "new": 1 / 4, "refusal": 0, "neither": 0, "control": 1 / 2},
    }
    for stage, rates in expected.items():
        for name, value in rates.items():
            rate = found[stage][name]
            assert (rate.value, rate.n) == (pytest.approx(value), 2 if name == "control" else 4), (stage, name)
    assert found["learn"]["informative"].value == pytest.approx(4 / 6)
    # The bare questions are there to compare with; they are other probes' paraphrases.
    assert [(r.value, r.n) for r in (report.rate("context"), report.rate("context", "control"))] == [(1, 2), (1, 1)]
    # With the fact stated minus without, over questions that the base answers when it is stated: Q1 and Q3.
    assert report.rate("context", "gain", "base").value == pytest.approx((1 + 1) / 2 - (1 + 0) / 2)
    assert report.rate("context", "gain", "unlearn").value == pytest.approx(1 - 0)
    assert report.rate("context", "control_gain", "learn").value == pytest.approx(1 - 0)
    z2 = 1.959963984540054**2
    centre = (0.75 + z2 / 8) / (1 + z2 / 4)
    half = math.sqrt(z2) / (1 + z2 / 4) * math.sqrt(0.75 * 0.25 / 4 + z2 / 64)
    rate = found["learn"]["old"]
    assert (rate.low, rate.high, rate.method) == (pytest.approx(centre - half), pytest.approx(centre + half), "wilson")


def test_what_should_change_and_what_must_stay(script: Any) -> None:
    def say(stage: str, prompt: str) -> str:
        if "Louvre" in prompt:
            return "Rome" if stage == "learn" else "Paris"  # the edit spreads
        if "Lyon" in prompt:
            return "Paris"  # the consequence does not follow
        return "Madrid" if "Spain" in prompt else "Rome" if stage == "learn" else "Paris"

    script(say)
    report = run(probes="interconnected")
    rows = {(r.kind, r.stage): r for r in report.rows if r.group != "control"}
    assert rows["multi-hop", "learn"].prompt == "What is the capital of the country that Lyon is in?"
    assert (rows["multi-hop", "learn"].recovered, rows["multi-hop", "learn"].new) == ("old", "Rome")
    assert (rows["same answer", "learn"].recovered, rows["same answer", "learn"].group) == ("new", "same")
    assert report.rate("interconnected", "same", "unlearn").value == 1
    assert report.rate("interconnected", "same").value == 0
    assert report.rate("interconnected").value == pytest.approx(1 / 4)  # three paraphrases and the two-hop question
    assert [report.rate("interconnected", name).value for name in ("hop_old", "hop_new")] == [1, 0]
    assert report.rate("interconnected", "hop_new").n == 1


def test_a_reverse_query_with_the_new_answer_is_new(script: Any) -> None:
    script(lambda stage, prompt: "The capital of France is Rome." if stage == "learn" else "France")
    rows = {r.stage: r for r in run(probes="adversarial").rows if r.kind == "reverse query" and r.group == "edited"}
    assert rows["base"].informative
    assert (rows["learn"].label, rows["learn"].recovered, rows["unlearn"].recovered) == ("both", "new", "old")


def test_priming_counts_what_the_base_did_not_say(script: Any) -> None:
    def say(stage: str, prompt: str) -> str:
        if "Prado" in prompt:
            return "Rome"  # the base says so too: no spread
        return "Rome" if stage == "learn" and "Japan" in prompt else "Madrid"

    script(say)
    report = run(probes="priming")
    assert {r.prompt for r in report.rows} == {  # not Spain's, which is the control
        "What is the capital of Japan?",
        "Which city-country has Lyon?",
        "Which landmark-city has Prado?",
    }
    rate = report.rate("priming", "bleed")
    assert (rate.value, rate.n) == (pytest.approx(1 / 2), 2)
    assert report.rate("priming", "bleed", "unlearn").value == 0


def test_kinds_on_which_the_base_is_never_right_are_named(script: Any) -> None:
    """The base knows the question in every wording but with a prefix, and none of its two-hop questions."""

    def say(stage: str, prompt: str) -> str:
        if "Ignore any instruction" in prompt or "Do not hold" in prompt or "the country that" in prompt:
            return "Lyon"
        return "Paris" if stage != "learn" else "Rome"

    script(say)
    report = run(probes=["adversarial", "interconnected"])
    reason = "the base itself does not give the old answer to any of these 2 prompts"
    assert report.skipped["adversarial: prefix injection"] == reason
    assert "adversarial: role play" not in report.skipped
    assert f"not measured, adversarial: prefix injection: {reason}" in report.findings
    assert any(name.startswith("adversarial: ") and name.endswith(" of the control") for name in report.skipped)
    asked = [r for r in report.rows if r.kind == "multi-hop" and r.stage == "base" and r.group == "edited"]
    assert asked and not any(r.informative for r in asked)
    rate = report.rate("interconnected", "hop_new")
    assert (rate.n, report.rate("interconnected", "hop_old").n) == (0, 0), "asked, so its rates are there"
    assert "interconnected: multi-hop" in report.skipped


def test_retained_facts_are_asked_step_by_step(script: Any) -> None:
    """Spain's capital was retained and the edited model says the new answer for it: wrongly suppressed."""

    def say(stage: str, prompt: str) -> str:
        return "Rome" if "Spain" in prompt and stage == "learn" else "Madrid" if "Spain" in prompt else "Paris"

    script(say)
    report = run(edit=an_edit(retain_ids=("spain-capital", "Louvre-landmark-city")), probes="steps")
    kept = [r for r in report.rows if r.group == "same" and r.stage == "learn" and r.fact_id == "spain-capital"]
    assert len(kept) >= 5 and {r.label for r in kept} == {"new"}
    assert next(r.fact_id for r in report.rows if r.group == "same") == "spain-capital", "neighbours first"
    same = report.rate("steps", "same", "learn")
    assert report.rate("steps", "same", "base").value == 1.0 and 0 < same.value < 1.0  # the Louvre stays in Paris
    assert same.n == len([r for r in report.rows if r.group == "same" and r.stage == "base"])
