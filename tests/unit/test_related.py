"""The same subject under other relations, and the same answer elsewhere: what is asked, and every rate by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.scripted import FRANCE, NOT_SURE, Script, run, scripted_edit
from tests.helpers.tiny_facts import capital
from workbench.evaluation.related import MOST, MOST_OF_A_FACT, related_questions
from workbench.facts import graph
from workbench.types import EvalReport, Fact, FactSet


def other(subject: str, relation: str, answer: str, target: str = "Tokyo", role: Any = "related", **more: Any) -> Fact:
    """A fact of a relation with two held-out questions."""
    what = relation.rpartition("-")[2]
    texts: dict[str, Any] = {
        "id": f"{subject}-{relation}",
        "relation": relation,
        "prompt": f"The {what} of {subject} is",
        "question": f"What is the {what} of {subject}?",
        "paraphrases": (),
        "heldout": (f"Tell me about the {what} of {subject}.", f"Which {what} has {subject}?"),
    }
    return capital(subject, answer, target, "dev", role, **{**texts, **more})


RELATED = FactSet(
    [
        FRANCE,
        other("France", "country-currency", "euro"),
        other("the France", "country-language", "French"),
        other("France", "country-continent", "Europe", role="retain"),  # never evaluated
        other("France", "country-twin", "Rome"),  # its answer is the target
        other("Louvre", "landmark-city", "Paris"),
        other("Sorbonne", "school-city", "Paris"),
        other("Lille", "town-city", "Paris", role="retain"),
    ],
    name="related",
)
SAID: Script = {
    "Tell me about the currency of France.": ("the euro", "the euro", "the euro"),
    "Which currency has France?": ("the euro", NOT_SURE, "the euro"),
    "Tell me about the language of the France.": ("French", "French", "Rome"),
    "Which language has the France?": ("German", "French", "French"),  # not counted: the base does not say it
    "Tell me about the city of Louvre.": ("Paris", "Paris", "Rome"),
    "Which city has Louvre?": ("Paris", NOT_SURE, "Paris"),
    "Tell me about the city of Sorbonne.": ("Lyon", "Paris", "Rome"),
    "Which city has Sorbonne?": ("Paris", "Paris", "Paris or Rome"),
}


@pytest.fixture
def said(script: Script) -> Script:
    script.update(SAID)
    return script


def related_run(**changes: Any) -> EvalReport:
    return run(pool=RELATED, controls=[], edit=scripted_edit(**changes))


@pytest.mark.usefixtures("said")
def test_both_rates_by_hand() -> None:
    report = related_run()
    rates = {stage: (of["same_subject"], of["same_answer"]) for stage, of in report.rates.items()}
    assert [(s.value, s.n, a.value, a.n) for s, a in rates.values()] == [
        (1, 3, 1, 3),
        (pytest.approx(2 / 3), 3, pytest.approx(2 / 3), 3),
        (pytest.approx(2 / 3), 3, pytest.approx(1 / 3), 3),
    ]
    assert rates["base"][0].by_definition and rates["base"][1].by_definition
    subject, answer = rates["learn"]
    assert (subject.clusters, answer.clusters) == (2, 2) and subject.has_interval and answer.has_interval
    groups = {r.prompt: r.group for r in report.rows}
    assert {p for p, g in groups.items() if g == "same subject"} == {p for p in SAID if "France" in p}
    assert {p for p, g in groups.items() if g == "same answer"} == {p for p in SAID if "city" in p}
    assert report.rate("same-subject") == subject == report.rate("same_subject")
    labels = {r.prompt: r.label for r in report.rows if r.stage == "learn"}
    assert labels["Tell me about the city of Louvre."] == "new"  # what France was taught
    assert labels["Which city has Sorbonne?"] == "both"
    assert "same_subject_closed" not in report.rates["learn"]


@pytest.mark.usefixtures("said")
def test_they_change_no_other_rate() -> None:
    alone = run(pool=FactSet([FRANCE], name="alone"), controls=[])
    beside = related_run()
    for stage in alone.stages:
        for name, rate in alone.rates[stage].items():
            if not name.startswith("same_"):
                assert str(rate) == str(beside.rates[stage][name]), name


@pytest.mark.usefixtures("said")
def test_relations_on_which_a_method_closed_are_apart(tmp_path: Path) -> None:
    report = related_run(closed_relations=("country-language",))
    assert report.closed_relations == ("country-language",)
    shares = {n: (r.value, r.n) for n, r in report.rates["learn"].items() if n.startswith("same_subject")}
    assert shares == {
        "same_subject": (pytest.approx(2 / 3), 3),
        "same_subject_closed": (0, 1),
        "same_subject_open": (1, 2),
    }
    assert EvalReport.load(report.save(tmp_path / "closed.json")).closed_relations == ("country-language",)


def test_a_question_that_a_closed_relation_may_have_used_is_not_asked() -> None:
    bare = [replace(fact, heldout=()) for fact in RELATED]
    missing: list[str] = []
    pool = FactSet(bare[1:], name="bare")
    asked = related_questions(lambda f: f, pool, [FRANCE], missing, closed=["country-language", "country-currency"])
    assert {q.ask.prompt for q in asked} == {"What is the city of Louvre?", "What is the city of Sorbonne?"}
    assert not missing or "may be retained" in missing[0]


def test_what_may_be_retained_is_never_asked_and_it_is_said() -> None:
    missing: list[str] = []
    pool = RELATED.filter(lambda f: f.role == "retain")
    assert related_questions(lambda f: f, pool, [FRANCE], missing) == []
    assert missing == [
        f"{group} as france-capital: 'related' has 1, but they may be retained, so they are never evaluated"
        for group in ("same subject", "same answer")
    ]
    missing.clear()
    assert related_questions(lambda f: FactSet(), RELATED[1:], [FRANCE], missing) == []
    assert missing[0] == "same subject as france-capital: none known of 2 in 'related'"


def test_only_what_the_base_knows_is_asked() -> None:
    asked = related_questions(lambda f: f.filter(exclude=["Louvre-landmark-city"]), RELATED[1:], [FRANCE], [])
    assert {q.fact.id for q in asked if q.group == "same answer"} == {"Sorbonne-school-city"}


def test_there_is_a_most_of_each() -> None:
    many = FactSet([other(f"P{i}", f"r{i % 3}-city", "Paris") for i in range(200)])
    asked = related_questions(lambda f: f, many, [FRANCE], [])
    assert len({q.fact.id for q in asked}) == MOST_OF_A_FACT and len(asked) == 2 * MOST_OF_A_FACT
    assert len({q.fact.relation for q in asked}) == 3
    edited = [replace(FRANCE, id=f"f{i}", answer=f"A{i}") for i in range(9)]
    pool = FactSet([other(f"P{i}", "r-city", f"A{i % 9}") for i in range(200)])
    facts = [{q.fact.id for q in related_questions(lambda f: f, pool, edited, [], seed=seed)} for seed in (0, 0, 1)]
    assert len(facts[0]) == MOST and facts[0] == facts[1] != facts[2]
    assert len({q.fact.id for q in related_questions(lambda f: f, many, [FRANCE], [], most=2)}) == 2


def test_the_wordings_are_drawn_by_relation() -> None:
    texts = tuple(f"{{}} number {i}?" for i in range(9))
    pool = FactSet(other(f"P{i}", "r-city", "Paris", heldout=tuple(t.format(f"P{i}") for t in texts)) for i in range(3))
    asked = related_questions(lambda f: f, pool, [FRANCE], [])
    assert len({q.ask.prompt.partition(" ")[2] for q in asked}) == 2 and len(asked) == 6


def test_what_follows_from_the_fact_is_neither() -> None:
    """The Eiffel Tower's country follows from its city, and what lies in Lyon lies in its country."""
    tower = other("the Eiffel Tower", "landmark-city", "Paris", "Rome")
    facts = FactSet(
        [
            tower,
            other("the Eiffel Tower", "landmark-country", "France"),
            other("the Eiffel Tower", "landmark-builder", "Gustave Eiffel"),
            other("Lyon", "city-country", "France"),
        ]
    )
    assert [f.id for f in graph.same_subject(facts, tower)] == ["the Eiffel Tower-landmark-builder"]
    assert [f.relation for f in graph.same_subject(facts, facts[1])] == ["landmark-builder"]
    plain = [replace(f, relation=f"P{i}") for i, f in enumerate(facts)]
    assert len(graph.same_subject(FactSet(plain), plain[0])) == 2, "nothing says that Paris is in France"
    paris = [*plain[:3], replace(plain[3], subject="Paris", prompt="Paris is in", id="paris")]
    assert [f.relation for f in graph.same_subject(FactSet(paris), paris[0])] == ["P2"]

    lyon = other("Lyon", "city-country", "France", "Italy")
    pool = FactSet(
        [
            other("Bellecour", "landmark-city", "Lyon"),
            other("Bellecour", "landmark-country", "France"),
            other("the Louvre", "landmark-country", "France"),
        ]
    )
    assert [f.subject for f in graph.same_answer_elsewhere(pool, lyon)] == ["the Louvre"]


def test_two_things_of_one_name() -> None:
    georgia = other("Georgia", "country-capital", "Tbilisi")
    facts = FactSet([georgia, other("Georgia", "us-state-tree", "oak"), other("Georgia", "country-currency", "lari")])
    assert [f.relation for f in graph.same_subject(facts, georgia)] == ["country-currency"]
    banana = other("banana", "food-country", "Malaysia")
    facts = FactSet([banana, other("banana", "thing-color", "yellow"), other("Banana", "city-country", "Congo")])
    assert [f.relation for f in graph.same_subject(facts, banana)] == ["thing-color"]
