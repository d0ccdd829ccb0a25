"""Public editing data sets with all their prompts, on small files written here; a broken record names its field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workbench.facts.datasets import read_facts, recognise
from workbench.types import DataPrompt, Fact

COUNTERFACT = {
    "case_id": 3,
    "requested_rewrite": {
        "prompt": "{} plays the",
        "relation_id": "P1303",
        "target_new": {"str": "cello"},
        "target_true": {"str": "harp"},
        "subject": "Ada Moll",
    },
    "paraphrase_prompts": ["It rained. Ada Moll has mastered the"],
    "neighborhood_prompts": ["Ben Ott plays the", "Cy Ray is known for the"],
    "attribute_prompts": ["Dee Fox plays the"],
    "generation_prompts": ["Ada Moll is famous because"],
}
ZSRE = {
    "subject": "Ada Moll",
    "src": "Where does Ada Moll work?",
    "alt": "Rome",
    "answers": ["Paris", "Paris, France"],
    "rephrase": "In which city is Ada Moll employed?",
    "loc": "nq question: who wrote the sunken bell",
    "loc_ans": "Gerhart Hauptmann",
    "portability": {
        "Recalled Relation": "(Rome, country, Italy)",
        "New Question": "In which country does Ada Moll work?",
        "New Answer": "Italy",
    },
}
KNOWEDIT = {
    "subject": "Ada Moll",
    "prompt": "The name of the employer of Ada Moll is",
    "target_new": "Fiat",
    "ground_truth": ["Renault", "Renault Group"],
    "rephrase": ["Ada Moll is paid by"],
    "portability": {
        "Reasoning": [{"prompt": "The boss of Ada Moll's employer is", "ground_truth": [["Ivo Lenz"], ["I. Lenz"]]}],
        "Subject_Aliasing": [{"prompt": "The employer of A. Moll is", "ground_truth": [["Fiat"]]}],
    },
    "locality": {"Relation_Specificity": [{"prompt": "Ada Moll was born in", "ground_truth": [["Lyon", 1975]]}]},
}
EASYEDIT = {
    "case_id": 8,
    "subject": "Ada Moll",
    "prompt": "Ada Moll plays the",
    "target_new": "cello",
    "ground_truth": "harp",
    "rephrase_prompt": "Ada Moll has mastered the",
    "locality_prompt": "Ben Ott plays the",
    "locality_ground_truth": "harp",
    "portability_inputs": {
        "one hop": {"prompt": ["Ada Moll bows the", "She owns a"], "ground_truth": ["cello", "bow"]}
    },
}
MQUAKE = {
    "case_id": 5,
    "requested_rewrite": [
        {
            "prompt": "{} was born in",
            "relation_id": "P19",
            "target_new": {"str": "Rome"},
            "target_true": {"str": "Paris"},
            "subject": "Ada Moll",
            "question": "Where was Ada Moll born?",
        },
        {
            "prompt": "The mayor of {} is",
            "relation_id": "P6",
            "target_new": {"str": "Ivo Lenz"},
            "target_true": {"str": "Uma Sand"},
            "subject": "Rome",
            "question": "Who is the mayor of Rome?",
        },
    ],
    "questions": ["Who is the mayor of the city in which Ada Moll was born?", "Who runs Ada Moll's birthplace?"],
    "answer": "Jo Hill",
    "answer_alias": [],
    "new_answer": "Ivo Lenz",
    "new_answer_alias": ["I. Lenz"],
    "single_hops": [{"question": "Where was Ada Moll born?", "answer": "Paris", "answer_alias": ["City of Light"]}],
    "new_single_hops": [{"question": "Where was Ada Moll born?", "answer": "Rome", "answer_alias": ["Roma"]}],
}
RWKU = [
    {"subject": "Ada Moll", "level": "1", "type": "cloze", "query": "Ada Moll was born in ___.", "answer": "Lyon"},
    {"subject": "Ada Moll", "level": "2", "type": "simple question", "query": "Who taught Ada Moll?", "answer": "Jo"},
    {"subject": "Ada Moll", "level": "1", "type": "cloze", "query": "Ada Moll lives in ___ now.", "answer": "Rome"},
]
TRACING = {
    "relation": "The mother tongue of {} is",
    "relation_prefix": "The mother tongue of",
    "relation_suffix": " is",
    "prompt": "The mother tongue of Ada Moll is",
    "relation_id": "P103",
    "target_false_id": "Q1860",
    "target_true_id": "Q150",
    "target_true": " French",
    "target_false": " English",
    "subject": "Ada Moll",
}


def read(folder: Path, *records: Any, **options: Any) -> list[Fact]:
    path = folder / "set.json"
    path.write_text(json.dumps(list(records)), encoding="utf-8")
    return list(read_facts(path, **options))


def asked(fact: Fact, kind: str) -> list[tuple[str, tuple[str, ...], str]]:
    return [(p.prompt, p.answers, p.group) for p in fact.data_prompts if p.kind == kind]


def test_counterfact_keeps_all_its_prompts(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, COUNTERFACT)
    assert fact.cloze_paraphrases == ("It rained. Ada Moll has mastered the",)
    assert asked(fact, "neighbourhood") == [
        ("Ben Ott plays the", ("harp",), ""),
        ("Cy Ray is known for the", ("harp",), ""),
    ]
    assert asked(fact, "attribute") == [("Dee Fox plays the", ("cello",), "")]
    assert asked(fact, "generation") == [("Ada Moll is famous because", (), "")]
    (fact,) = read(tmp_path, COUNTERFACT | {"neighborhood_prompts": [{"prompt": "Ben Ott plays", "target": "drums"}]})
    assert asked(fact, "neighbourhood") == [("Ben Ott plays", ("drums",), "")]


def test_zsre_keeps_locality_and_portability(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, ZSRE)
    assert asked(fact, "locality") == [("who wrote the sunken bell", ("Gerhart Hauptmann",), "loc")]
    assert asked(fact, "portability") == [("In which country does Ada Moll work?", ("Italy",), "Reasoning")]
    assert fact.answers == ("Paris", "Paris, France")


def test_knowedit_with_clozes_keeps_every_group(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, KNOWEDIT)
    assert fact.prompt == "The name of the employer of Ada Moll is"
    assert fact.question == "Complete the sentence: The name of the employer of Ada Moll is"
    assert (fact.answers, fact.target) == (("Renault", "Renault Group"), "Fiat")
    assert fact.cloze_paraphrases == ("Ada Moll is paid by",)
    assert asked(fact, "portability") == [
        ("The boss of Ada Moll's employer is", ("Ivo Lenz", "I. Lenz"), "Reasoning"),
        ("The employer of A. Moll is", ("Fiat",), "Subject_Aliasing"),
    ]
    assert asked(fact, "locality") == [("Ada Moll was born in", ("Lyon", "1975"), "Relation_Specificity")]


def test_easyedits_flat_and_paired_prompts(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, EASYEDIT)
    assert (fact.id, fact.answer, fact.target) == ("zsre-8", "harp", "cello")
    assert asked(fact, "locality") == [("Ben Ott plays the", ("harp",), "")]
    assert asked(fact, "portability") == [
        ("Ada Moll bows the", ("cello",), "one hop"),
        ("She owns a", ("bow",), "one hop"),
    ]


def test_mquake_makes_a_fact_of_each_rewrite(tmp_path: Path) -> None:
    birth, mayor = read(tmp_path, MQUAKE)
    assert (birth.id, mayor.id, birth.relation) == ("mquake-5-0", "mquake-5-1", "P19")
    assert (birth.prompt, birth.question) == ("Ada Moll was born in", "Where was Ada Moll born?")
    assert (birth.answers, birth.targets) == (("Paris", "City of Light"), ("Rome", "Roma"))
    assert asked(birth, "portability")[1] == (
        "Who runs Ada Moll's birthplace?",
        ("Ivo Lenz", "I. Lenz"),
        "multi-hop, needs all 2 edits of the record",
    )
    assert birth.data_prompts == mayor.data_prompts


def test_rwku_takes_the_next_other_answer_of_the_level(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"record 1 \(rwku\): no other answer in the file"):
        read(tmp_path, RWKU[1], {**RWKU[1]})
    born, taught, lives = read(tmp_path, *RWKU)
    assert (born.prompt, born.answer, born.target) == ("Ada Moll was born in", "Lyon", "Rome")
    assert (taught.question, taught.target) == ("Who taught Ada Moll?", "Rome")
    assert (lives.prompt, lives.question) == ("Ada Moll lives in", "Fill in the blank: Ada Moll lives in ___ now.")
    assert len({born.id, taught.id, lives.id}) == 3


def test_counterfact_tracing_has_no_stray_spaces(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, TRACING)
    assert (fact.answer, fact.target, fact.relation) == ("French", "English", "P103")


@pytest.mark.parametrize(
    ("record", "schema"),
    [
        (COUNTERFACT, "counterfact"),
        (MQUAKE, "mquake"),
        (KNOWEDIT, "zsre"),
        (EASYEDIT, "zsre"),
        (RWKU[0], "rwku"),
        (TRACING, "counterfact_tracing"),
    ],
)
def test_each_is_recognised(record: dict[str, Any], schema: str) -> None:
    assert recognise(record) == schema


def rewrite(**changes: Any) -> dict[str, Any]:
    return COUNTERFACT | {"requested_rewrite": COUNTERFACT["requested_rewrite"] | changes}


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (COUNTERFACT, rewrite(prompt="plays the"), r"field 'requested_rewrite.prompt' must hold \{\}"),
        (COUNTERFACT, rewrite(target_new={}), "missing field 'requested_rewrite.target_new.str'"),
        (COUNTERFACT, rewrite(target_new="cello"), "field 'requested_rewrite.target_new' must be an object"),
        (COUNTERFACT, COUNTERFACT | {"neighborhood_prompts": ["a", 3]}, r"field 'neighborhood_prompts\[1\]' must be"),
        (ZSRE, ZSRE | {"portability": {"New Question": 3}}, "field 'portability.New Question' must be a text, got 3"),
        (KNOWEDIT, KNOWEDIT | {"locality": {"x": [{"ground_truth": "y"}]}}, r"missing field 'locality.x\[0\].prompt'"),
        (KNOWEDIT, KNOWEDIT | {"ground_truth": []}, "Fact.answer is empty"),
        (EASYEDIT, EASYEDIT | {"locality_prompt": ["a", "b"]}, "field 'locality_ground_truth' must hold an answer for"),
        (MQUAKE, MQUAKE | {"requested_rewrite": []}, "field 'requested_rewrite' is an empty list"),
        (MQUAKE, {k: v for k, v in MQUAKE.items() if k != "new_answer"}, "missing field 'new_answer'"),
        (RWKU[0], RWKU[0] | {"query": "___ was born in Lyon."}, "field 'query' begins with the blank"),
        (TRACING, TRACING | {"target_true": None}, "missing field 'target_true'"),
    ],
)
def test_a_broken_record_names_file_record_and_field(good: Any, bad: Any, reason: str, tmp_path: Path) -> None:
    more = RWKU[2:] if "query" in good else []
    with pytest.raises(ValueError, match=rf"set.json, record 2 \(\w+\): {reason}"):
        read(tmp_path, good, bad, *more)
    with pytest.warns(UserWarning, match="record 2"):
        assert read(tmp_path, good, bad, *more, on_error="skip")


def test_a_fact_keeps_its_prompts_in_json(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, ZSRE)
    plain = json.loads(json.dumps(fact.to_dict()))
    assert plain["data_prompts"][0]["group"] == "loc"
    assert Fact.from_dict(plain) == fact
    assert "data_prompts" not in Fact.from_dict({k: v for k, v in plain.items() if k != "data_prompts"}).to_dict()
    with pytest.raises(ValueError, match=r"DataPrompt\.kind must be one of"):
        DataPrompt(kind="far", prompt="x")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"DataPrompt\.prompt is empty"):
        DataPrompt(kind="locality", prompt=" ")
