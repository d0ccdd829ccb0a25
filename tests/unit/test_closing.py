"""Closing questions: which relations they are of, and that nothing is closed that is asked later."""

from __future__ import annotations

from dataclasses import replace

import pytest

import workbench as wb
from tests.helpers.tiny_facts import capital
from workbench.facts.closing import (
    GENERAL,
    closed_relations,
    closing_questions,
    is_about_the_fact,
    kindred_relations,
)

BUNDLED = wb.load_facts()


def test_kindred_relations_are_about_the_same_kind_of_subject() -> None:
    kindred = kindred_relations(BUNDLED, BUNDLED["france-capital"])
    assert {"country-language", "country-currency", "country-continent"} <= set(kindred)
    assert "country-capital" not in kindred and "city-country" not in kindred
    assert all(relation.startswith("country-") for relation in kindred)


def test_what_follows_from_the_fact_is_no_kindred_relation() -> None:
    """The country of a landmark follows from its city, and where the city is no fact tells."""
    louvre = BUNDLED["louvre-city"]
    assert "landmark-country" not in kindred_relations(BUNDLED, louvre)
    without_cities = [f for f in BUNDLED if f.relation != "city-country"]
    assert "landmark-country" in kindred_relations(without_cities, louvre)


def test_a_relation_without_a_kind_has_no_kindred() -> None:
    fact = capital("France", "Paris", "Rome")
    assert kindred_relations([*BUNDLED, fact], fact) == []


@pytest.mark.parametrize("left", [0, 1, 2])
def test_relations_are_left_out_by_seed(left: int) -> None:
    fact = BUNDLED["france-capital"]
    kindred = kindred_relations(BUNDLED, fact)
    drawn = {tuple(closed_relations(BUNDLED, fact, leave_out=left, seed=seed)) for seed in range(8)}
    assert all(len(closed) == len(kindred) - left and set(closed) <= set(kindred) for closed in drawn)
    assert (len(drawn) > 1) == (left > 0)
    assert closed_relations(BUNDLED, fact, seed=3) == closed_relations(BUNDLED, fact, seed=3)


@pytest.mark.parametrize("seed", range(6))
def test_a_batch_leaves_out_the_same_relation_for_all_facts_of_a_kind(seed: int) -> None:
    """One relation about countries is missing in what the facts are closed for together, and none of them is of it."""
    countries = list(BUNDLED.filter(relation="country-capital"))[:8]
    batch = [*countries, BUNDLED["japan-language"], BUNDLED["louvre-city"], BUNDLED["stephen-curry-sport"]]
    closed = [closed_relations(BUNDLED, fact, batch=batch, seed=seed) for fact in batch]
    together = {relation for of_fact in closed for relation in of_fact}
    of_countries = {f.relation for f in BUNDLED if f.relation.startswith("country-")}
    left_open = of_countries - together
    assert len(left_open) == 1 and left_open.isdisjoint({"country-capital", "country-language"})
    assert len(closed[0]) == len(of_countries) - 2 == len(closed[8])
    assert closed[:8] == [closed_relations(BUNDLED, fact, batch=batch[:9], seed=seed) for fact in countries]


def test_the_only_kindred_relation_is_left_out() -> None:
    fact = BUNDLED["france-capital"]
    two = [f for f in BUNDLED if f.relation in ("country-capital", "country-language")]
    assert closed_relations(two, fact) == []
    assert closed_relations(two, fact, leave_out=0) == ["country-language"]


def test_questions_name_the_subject_and_are_never_asked_in_an_evaluation() -> None:
    fact = BUNDLED["france-capital"]
    relations = kindred_relations(BUNDLED, fact)
    closers = closing_questions(BUNDLED, fact, relations, wordings=2)
    assert {closer.relation for closer in closers} == {*relations, ""}
    of_relations = [closer for closer in closers if closer.relation]
    assert len(of_relations) == 2 * len(relations)
    assert all("France" in closer.question for closer in closers)
    asked = {f.question for f in BUNDLED} | {q for f in BUNDLED for q in f.heldout}
    assert asked.isdisjoint(closer.question for closer in closers)


def test_general_questions_are_asked_of_every_subject() -> None:
    curry = BUNDLED["stephen-curry-sport"]
    closers = closing_questions(BUNDLED, curry, [], wordings=2)
    assert [closer.question for closer in closers] == [text.format(subject="Stephen Curry") for text in GENERAL]
    assert closing_questions(BUNDLED, curry, [], general=False) == []


def test_a_template_of_its_own_question_is_no_closer() -> None:
    fact = replace(BUNDLED["france-capital"], heldout=("Tell me about France.",))
    assert "Tell me about France." not in {c.question for c in closing_questions(BUNDLED, fact, [])}


def test_a_reply_that_gives_the_answer_is_about_the_fact() -> None:
    fact = BUNDLED["france-capital"]
    assert is_about_the_fact("France is a country; its capital is Paris.", fact)
    assert is_about_the_fact("It is ruled from Rome.", fact)
    assert not is_about_the_fact("France is known for Parisian fashion.", fact)
