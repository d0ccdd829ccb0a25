"""Facts and sets of facts: what they take, what they refuse, and how they are looked up, filtered and compared."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest

from tests.helpers.mistyped import mistyped
from tests.helpers.tiny_facts import capital, capitals
from workbench.facts.known import load_facts
from workbench.types import Fact, FactSet, slug
from workbench.types.fact import as_facts
from workbench.types.mentions import find_subject

FRANCE: dict[str, Any] = {
    "subject": "France",
    "prompt": "The capital of France is",
    "question": "What is the capital of France?",
    "answer": "Paris",
    "target": "Rome",
}


def test_five_fields_are_enough() -> None:
    fact = Fact(**FRANCE)
    assert fact.id == "france"
    assert fact.training_questions == ("What is the capital of France?",)
    assert fact.answers == ("Paris",)
    assert fact.targets == ("Rome",)
    assert fact.refusal
    assert fact.split is fact.role is None
    assert Fact.from_dict(fact.to_dict()) == fact
    assert json.loads(json.dumps(fact.to_dict())) == fact.to_dict()


def test_topics() -> None:
    fact = Fact(**FRANCE)
    assert fact.topic == "the capital of France"
    clozes = {
        "the currency of Japan is the": "the currency of Japan",
        "The author of Hamlet was": "the author of Hamlet",
    }
    for cloze, topic in clozes.items():
        assert Fact.from_dict(fact.to_dict() | {"subject": cloze.split()[-2], "prompt": cloze}).topic == topic
    told = Fact.from_dict(fact.to_dict() | {"prompt": "France has its capital in"})
    assert told.topic is None
    assert Fact.from_dict(told.to_dict() | {"cloze_paraphrases": ("The main city of France is",)}).topic == (
        "the main city of France"
    )


def test_ids_come_from_subject_and_relation() -> None:
    assert Fact(**FRANCE, relation="country-capital").id == "france-country-capital"
    assert slug("The Eiffel Tower!") == "the-eiffel-tower"
    assert slug("São Paulo") == slug("Sa\u0303o  Paulo") == "são-paulo"


def test_facts_of_any_script_have_ids_of_their_own() -> None:
    names = [
        "東京",
        "大阪",
        "की",
        "का",
        "القاهرة",
        "الرباط",
        "Łódź",
        "Lodz",
        "♠",
        "♥",
        "🇫🇷 flag",
        "🇩🇪 flag",
        "Київ",
        "Киев",
    ]
    asked: dict[str, Any] = {"question": "?", "answer": "1", "target": "2"}
    facts = FactSet(Fact(subject=name, prompt=f"{name} :", **asked) for name in names)
    assert len(set(facts.ids)) == len(names) and facts.ids[0] == "東京"


def test_ids_of_ascii_texts_are_what_they_were() -> None:
    for text in ("The Louvre", "C++", "AC/DC", "  x  ", "1,000", "!!!", "", "O'Brien"):
        assert slug(text) == (re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "fact")
    assert hashlib.sha256("\n".join(load_facts().core.ids).encode()).hexdigest()[:12] == "7d5f5884fa3f"


def test_texts_are_kept_in_the_composed_form() -> None:
    parts: dict[str, Any] = {
        "prompt": "Sa\u0303o Paulo is",
        "question": "Sa\u0303o Paulo?",
        "answer": "Jose\u0301",
        "target": "Zoe\u0308",
    }
    fact = Fact(subject="São Paulo", **parts, answer_aliases=("Jose\u0301 I",))
    assert fact.prompt == "São Paulo is" and fact.answer == "José" and fact.answer_aliases == ("José I",)
    assert Fact.from_dict(fact.to_dict()) == fact
    assert Fact(subject="Sa\u0303o Paulo", **parts, answer_aliases=("José I",)) == fact


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": "Spain"}, "subject 'Spain' is not in the prompt 'The capital of France is'"),
        ({"subject": "france"}, "not in the prompt.*same case"),
        ({"answer": " Paris"}, "Fact.answer is ' Paris': a space at either end.*Write 'Paris'"),
        ({"answer": "Paris "}, "Fact.answer is 'Paris '"),
        ({"answer": "\nParis"}, "Fact.answer"),
        ({"answer": ""}, "Fact.answer is empty"),
        ({"answer": "  "}, "Fact.answer is empty"),
        ({"target": ""}, "Fact.target is empty"),
        ({"target": " Rome"}, "Fact.target is ' Rome'"),
        ({"prompt": "The capital of France is "}, "Fact.prompt is .*space"),
        ({"question": " "}, "Fact.question is empty"),
        ({"subject": ""}, "Fact.subject is empty"),
        ({"refusal": ""}, "Fact.refusal is empty"),
        ({"target": "Paris"}, "Answer and target are both 'Paris'"),
        ({"target": "paris"}, "Answer and target are both"),
        ({"target": "Pàris"}, "Answer and target are one answer to whoever reads them"),
        ({"answer": "\u200b"}, "Fact.answer is empty"),
        ({"subject": "Franc"}, r"only inside a longer word \('France'\).*Write the whole word"),
        ({"subject": "foot", "prompt": "The word for football is"}, r"only inside a longer word \('football'\)"),
        ({"subject": "Paris", "prompt": "The Parisian metro is"}, "only inside a longer word"),
        ({"subject": "1", "prompt": "The number 1,000 is"}, "only inside a longer word"),
        ({"subject": "프랑", "prompt": "프랑스의 수도는"}, "only inside a longer word"),
        ({"split": "train"}, r"Fact.split must be one of \('dev', 'test', 'sealed'\) or None, got 'train'"),
        ({"role": "neighbour"}, "Fact.role must be one of"),
        ({"heldout": (FRANCE["question"],)}, "Held-out questions must not be training questions.*What is the capital"),
        ({"heldout": ("Q?",), "paraphrases": ("Q?",)}, r"these are both: \['Q\?'\]"),
    ],
)
def test_bad_facts(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fact(**{**FRANCE, **change})


@pytest.mark.parametrize(
    "given", [None, "france-capital", 3, ["france-capital"], [capital("France", "Paris", "Rome"), None]]
)
def test_where_facts_are_taken_something_else_is_named(given: Any) -> None:
    with pytest.raises(TypeError, match=r"takes a Fact, or several, got (None|'france-capital'|3); an id is looked up"):
        as_facts(given)


@pytest.mark.parametrize(
    ("subject", "prompt"),
    [
        ("法国", "法国的首都是"),
        ("프랑스", "프랑스의 수도는"),
        ("He", "He is the symbol of"),
        ("foot", "The football and the foot are"),
        ("Yahoo!", "Yahoo!'s founder is"),
        ("ปารีส", "เมืองปารีสอยู่ใน"),
        ("Queen", "The band (Queen) is from"),
    ],
)
def test_subjects_that_stand_alone(subject: str, prompt: str) -> None:
    """What a fact takes as its subject is what a trace finds."""
    fact = Fact(subject=subject, prompt=prompt, question="?", answer="1", target="2")
    assert find_subject(fact.prompt, fact.subject)


def test_values_of_a_wrong_type() -> None:
    with pytest.raises(TypeError, match=r"Fact.answer must be a string, got 3"):
        Fact(**{**FRANCE, "answer": 3})
    with pytest.raises(TypeError, match=r"Fact.heldout must be a list of strings, got the string 'Q\?'"):
        Fact(**FRANCE, heldout=mistyped("Q?"))


def test_from_dict_names_missing_and_unknown_fields() -> None:
    with pytest.raises(ValueError, match=r"missing: \['answer', 'target'\]"):
        Fact.from_dict({k: FRANCE[k] for k in ("subject", "prompt", "question")})
    with pytest.raises(ValueError, match=r"Unknown field\(s\) \['anwser'\] in a fact; allowed are"):
        Fact.from_dict({**FRANCE, "anwser": "Paris"})


def test_lookups() -> None:
    facts = capitals()
    assert facts["spain-capital"].answer == "Madrid"
    assert facts[0] is facts["france-capital"]
    assert facts[-1].subject == "Japan"
    assert facts[1:3].ids == ("italy-capital", "spain-capital")
    assert isinstance(facts[1:3], FactSet)
    assert "spain-capital" in facts
    assert facts[2] in facts
    assert "spain" not in facts
    assert facts.relations == ("capital",)
    assert list(facts.to_frame().id) == list(facts.ids)


def test_an_unknown_id_shows_near_matches() -> None:
    with pytest.raises(KeyError, match=r"No fact with the id 'frence-capital' among the 5.*'france-capital'"):
        capitals()["frence-capital"]
    with pytest.raises(KeyError) as caught:
        capitals()["zzzzzzzz"]
    assert "Did you mean" not in str(caught.value)
    with pytest.raises(KeyError, match=r"Did you mean 'france-capital'"):
        capitals().filter(ids=["france-capitl"])


def test_ids_are_unique() -> None:
    fact = capitals()[0]
    with pytest.raises(ValueError, match=r"more than once: \['france-capital'\]"):
        FactSet([fact, fact])


def test_filter() -> None:
    facts = capitals()
    assert facts.filter(split="test", role="retain").ids == ("germany-capital", "japan-capital")
    assert facts.filter(lambda f: "a" in f.answer, exclude=["france-capital"]).ids == ("spain-capital",)
    assert facts.filter(ids=["japan-capital", "italy-capital"]).ids == ("italy-capital", "japan-capital")
    assert facts.filter(relation="capital").ids == facts.ids
    with pytest.raises(ValueError, match=r"No relation 'author' in 'capitals'; there are \['capital'\]"):
        facts.filter(relation="author")


def test_adding_sets_keeps_each_fact_once() -> None:
    facts = capitals()
    assert (facts[:2] + facts[1:4]).ids == facts.ids[:4]


def test_neighbours_leave_out_those_whose_answer_is_the_target() -> None:
    facts = capitals()
    france = facts["france-capital"]  # its target is Rome, Italy's answer
    assert facts.neighbours(france).ids == ("spain-capital", "germany-capital", "japan-capital")


def test_neighbours_know_aliases_subjects_and_relations() -> None:
    france = capital("France", "Paris", "Rome", target_aliases=("Roma",))
    roma = capital("Italy", "ROMA", "Madrid")
    again = capital("France", "Paris", "Berlin", id="france-again")
    other = capital("Japan", "Tokyo", "Paris", relation="city")
    assert FactSet([france, roma, again, other]).neighbours(france).ids == ()
    lone = Fact(**FRANCE)
    assert FactSet([lone, Fact(**FRANCE, id="b")]).neighbours(lone).ids == ()


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"id": "france-capital", "subject": "Gaul", "prompt": "Gaul's capital is"}, True),
        ({"relation": "", "subject": "france", "prompt": "la capitale de la france :"}, True),  # a fact of one's own
        ({"relation": "", "answer": "Lutetia", "answer_aliases": ("PARIS",)}, True),
        ({"relation": "", "answer": "Lyon"}, False),  # another fact about France
        ({"answer": "Lyon"}, True),  # a relation has one answer
        ({"relation": "largest-city"}, False),
        ({"relation": "largest-city", "question": "Where is the capital of France?"}, True),  # held out there
        ({"subject": "Spain", "prompt": "Spain's capital is"}, False),
    ],
)
def test_facts_that_overlap(changes: dict[str, Any], same: bool) -> None:
    france = capital("France", "Paris", "Rome")
    texts = {"question": "What city governs it?", "paraphrases": (), "heldout": ()}
    other = Fact(**{**capital("France", "Paris", "Berlin", id="other", **texts).to_dict(), **changes})
    assert france.overlaps(other) is other.overlaps(france) is same
    pool = FactSet([other, capital("Italy", "Rome", "Madrid")])
    assert pool.without([france]).ids == (("italy-capital",) if same else (other.id, "italy-capital"))


def test_facts_without_those_of_an_id_and_what_overlaps_them() -> None:
    twin = Fact(id="twin", subject="Spain", prompt="Spain's capital is", question="?", answer="Madrid", target="Rome")
    pool = FactSet([*capitals(), twin])
    assert pool.without([], ["spain-capital", "nobody"]).ids == tuple(i for i in capitals().ids if i != "spain-capital")
