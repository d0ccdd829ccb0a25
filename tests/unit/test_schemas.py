"""Facts from files: this project's own format and the schemas of public data sets, on small files written here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.mistyped import mistyped
from workbench.facts.datasets import read_facts, recognise
from workbench.facts.known import load_facts

FRANCE = {
    "subject": "France",
    "prompt": "The capital of France is",
    "question": "What is the capital of France?",
    "answer": "Paris",
    "target": "Rome",
}
SPAIN = {
    "id": "es",
    "subject": "Spain",
    "relation": "capital",
    "prompt": "The capital of Spain is",
    "question": "What is the capital of Spain?",
    "answer": "Madrid",
    "answer_aliases": ["Madrid city"],
    "target": "Berlin",
    "paraphrases": ["Spain's capital?"],
    "heldout": ["Which city is the capital of Spain?"],
    "split": "test",
    "role": "control",
}
COUNTERFACT = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English", "id": "Q1860"},
        "target_true": {"str": "French", "id": "Q150"},
        "subject": "Danielle Darrieux",
    },
    "paraphrase_prompts": ["Shayna does this. Danielle Darrieux, a native ", "Danielle Darrieux spoke the language"],
    "neighborhood_prompts": ["Melchior de Vogüé is a native speaker of"],
    "generation_prompts": [],
}
KNOWN_1000 = [
    {
        "known_id": 0,
        "subject": "Vinson Massif",
        "attribute": "Antarctica",
        "template": "{} is located in the continent",
        "prediction": " of Antarctica.",
        "prompt": "Vinson Massif is located in the continent of",
        "relation_id": "P30",
    },
    {
        "known_id": 1,
        "subject": "Beats Music",
        "attribute": "Apple",
        "prompt": "Beats Music is owned by",
        "relation_id": "P127",
    },
    {
        "known_id": 2,
        "subject": "Kenya",
        "attribute": "Africa",
        "prompt": "Kenya is in the continent of ",
        "relation_id": "P30",
    },
]
ZSRE = {
    "subject": "Watts Humphrey",
    "src": "What university did Watts Humphrey attend?",
    "pred": "Trinity College",
    "rephrase": "What university did Watts Humphrey take part in?",
    "alt": "University of Michigan",
    "answers": ["Illinois Institute of Technology", "IIT"],
    "loc": "nq question: who played desmond doss father in hacksaw ridge",
    "loc_ans": "Hugo Weaving",
}
KNOWEDIT = {
    "subject": "Epaspidoceras",
    "prompt": "Which family does Epaspidoceras belong to?",
    "target_new": "Noctuidae",
    "ground_truth": [["Aspidoceratidae"]],
    "rephrase_prompt": "What family are Epaspidoceras?",
    "portability": {},
    "locality": {},
}


def jsonl(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return path


def test_json_lines(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "mine.jsonl", FRANCE, SPAIN)
    path.write_text(path.read_text() + "\n  \n")  # empty lines do not count
    facts = load_facts(path)
    assert facts.ids == ("france", "es")
    assert facts.name == "mine.jsonl"
    spain = facts["es"]
    assert spain.answers == ("Madrid", "Madrid city")
    assert spain.heldout == ("Which city is the capital of Spain?",)
    assert (spain.split, spain.role) == ("test", "control")


def test_json_list(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text("\ufeff" + json.dumps([FRANCE, SPAIN]), encoding="utf-8")
    assert read_facts(path).ids == ("france", "es")
    path.write_text(json.dumps({"facts": [FRANCE]}))
    with pytest.raises(ValueError, match=r"must hold a JSON list of records, got dict"):
        read_facts(path)


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "subject,prompt,question,answer,target,answer_aliases,heldout,case_sensitive,relation\n"
        'France,The capital of France is,"What, then, is the capital of France?",Paris,Rome,,,,\n'
        "potassium,The symbol of potassium is,Symbol of potassium?,K,P,K+ | Kalium,Which symbol has potassium?,yes,x\n"
    )
    facts = read_facts(path)
    france, potassium = facts
    assert france.question == "What, then, is the capital of France?"
    assert france.answer_aliases == ()
    assert not france.case_sensitive
    assert potassium.answer_aliases == ("K+", "Kalium")
    assert potassium.heldout == ("Which symbol has potassium?",)
    assert potassium.case_sensitive
    assert potassium.relation == "x"


def test_a_line_break_inside_a_csv_cell_stays(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "subject,prompt,question,answer,target\n"
        'France,The capital of France is,"Think first.\nWhat is the capital of France?",Paris,Rome\n'
    )
    assert read_facts(path)[0].question == "Think first.\nWhat is the capital of France?"


@pytest.mark.parametrize("separator", ["\u2028", "\u0085"])
def test_a_unicode_line_separator_inside_a_json_line_stays(separator: str, tmp_path: Path) -> None:
    """JSON allows U+2028 and U+0085 unescaped; only a newline ends a record."""
    record = {**FRANCE, "question": f"Think.{separator}What is the capital of France?"}
    assert read_facts(jsonl(tmp_path / "mine.jsonl", record))[0].question == record["question"]


def test_counterfact(tmp_path: Path) -> None:
    (fact,) = read_facts(jsonl(tmp_path / "counterfact.jsonl", COUNTERFACT))
    assert fact.id == "counterfact-7"
    assert fact.subject == "Danielle Darrieux"
    assert fact.prompt == "The mother tongue of Danielle Darrieux is"
    assert fact.question == "Complete the sentence: The mother tongue of Danielle Darrieux is"
    assert (fact.answer, fact.target) == ("French", "English")
    assert fact.relation == "P103"
    assert fact.cloze_paraphrases == (
        "Shayna does this. Danielle Darrieux, a native",
        "Danielle Darrieux spoke the language",
    )
    assert fact.heldout == ()


def test_known_1000(tmp_path: Path) -> None:
    path = tmp_path / "known_1000.json"
    path.write_text(json.dumps(KNOWN_1000))
    vinson, beats, kenya = read_facts(path)
    assert vinson.id == "known-0"
    assert vinson.answer == "Antarctica"
    assert vinson.target == "Africa"  # the next other attribute of the same relation
    assert kenya.target == "Antarctica"  # and round again
    assert kenya.prompt == "Kenya is in the continent of"
    assert beats.target in ("Antarctica", "Africa")  # alone in its relation
    path.write_text(json.dumps(KNOWN_1000[:1]))
    with pytest.raises(ValueError, match=r"record 1.*no other attribute in the file"):
        read_facts(path)


def test_zsre(tmp_path: Path) -> None:
    (fact,) = read_facts(jsonl(tmp_path / "zsre.jsonl", ZSRE))
    assert fact.subject == "Watts Humphrey"
    assert fact.question == "What university did Watts Humphrey attend?"
    assert fact.prompt == "Question: What university did Watts Humphrey attend? Answer:"
    assert fact.answers == ("Illinois Institute of Technology", "IIT")
    assert fact.target == "University of Michigan"
    assert fact.heldout == ("What university did Watts Humphrey take part in?",)


def test_knowedit(tmp_path: Path) -> None:
    path = tmp_path / "knowedit.json"
    path.write_text(json.dumps([KNOWEDIT]))
    (fact,) = read_facts(path)
    assert fact.question == "Which family does Epaspidoceras belong to?"
    assert fact.answer == "Aspidoceratidae"
    assert fact.target == "Noctuidae"
    assert fact.heldout == ("What family are Epaspidoceras?",)


@pytest.mark.parametrize(
    ("record", "schema"),
    [
        (FRANCE, "workbench"),
        (COUNTERFACT, "counterfact"),
        (KNOWN_1000[0], "known_1000"),
        (ZSRE, "zsre"),
        (KNOWEDIT, "zsre"),
    ],
)
def test_schemas_are_recognised(record: dict[str, Any], schema: str) -> None:
    assert recognise(record) == schema


def test_an_unknown_schema_shows_the_fields(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No known schema has the fields \['a', 'b'\]. A fact needs subject, prompt"):
        read_facts(jsonl(tmp_path / "x.jsonl", {"a": 1, "b": 2}))
    with pytest.raises(ValueError, match=r"schema must be one of .*got 'rome'"):
        read_facts(jsonl(tmp_path / "x.jsonl", FRANCE), schema=mistyped("rome"))


def test_broken_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(FRANCE) + "\n\n{broken\n")
    with pytest.raises(ValueError, match=r"x.jsonl, line 3: not valid JSON"):
        read_facts(path)


def test_broken_json_file_names_the_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[\n{"subject": }\n]')
    with pytest.raises(ValueError, match=r"x\.json.*line 2"):
        read_facts(path)


def test_an_invalid_record_is_named_or_skipped(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", FRANCE, {**FRANCE, "subject": "Spain"}, SPAIN)
    with pytest.raises(ValueError, match=r"x.jsonl, record 2 \(workbench\): The subject 'Spain'.*on_error='skip'"):
        read_facts(path)
    with pytest.warns(UserWarning, match=r"Skipped: .*record 2"):
        facts = read_facts(path, on_error="skip")
    assert facts.ids == ("france", "es")
    with pytest.raises(ValueError, match=r"on_error must be 'raise' or 'skip'"):
        read_facts(path, on_error=mistyped("ignore"))


def without(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k != key}


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (COUNTERFACT, {"requested_rewrite": without(COUNTERFACT["requested_rewrite"], "target_new")}, "target_new"),
        (ZSRE, without(ZSRE, "subject"), "missing field 'subject'"),
        (ZSRE, {**ZSRE, "answers": [], "pred": ""}, "Fact.answer is empty"),
        (FRANCE, without(FRANCE, "answer"), r"missing: \['answer'\]"),
        (FRANCE, {**FRANCE, "colour": "red"}, "Unknown field"),
        (FRANCE, ["a", "list"], ""),
        (FRANCE, "a text", ""),
    ],
)
def test_a_later_record_that_does_not_fit(good: Any, bad: Any, reason: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", good, bad, {**good, "case_id": 8})
    with pytest.raises(ValueError, match=rf"record 2.*{reason}"):
        read_facts(path)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (ZSRE, {**ZSRE, "subject": None}),
        (ZSRE, {**ZSRE, "answers": [None]}),
        (KNOWN_1000[0], {**KNOWN_1000[1], "prompt": None}),
        (COUNTERFACT, {"requested_rewrite": {**COUNTERFACT["requested_rewrite"], "subject": 3}}),
    ],
)
def test_null_where_a_text_is_wanted_is_an_invalid_record(good: Any, bad: Any, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", good, bad, *KNOWN_1000[2:] if "attribute" in good else ())
    with pytest.raises(ValueError, match=r"record 2"):
        read_facts(path)
    with pytest.warns(UserWarning, match=r"record 2"):
        assert len(read_facts(path, on_error="skip")) >= 1


def test_repeated_ids_get_a_number(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", FRANCE, {**FRANCE, "target": "Madrid"}, {**FRANCE, "target": "Berlin"})
    facts = read_facts(path)
    assert facts.ids == ("france", "france-2", "france-3")
    assert [f.target for f in facts] == ["Rome", "Madrid", "Berlin"]


def test_a_number_that_is_taken_already(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", {**FRANCE, "id": "a"}, {**FRANCE, "id": "a"}, {**FRANCE, "id": "a-2"})
    assert len(set(read_facts(path).ids)) == 3


def test_files_that_are_not_there_empty_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none.jsonl"):
        read_facts(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"has no records"):
        read_facts(tmp_path / "empty.jsonl")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(ValueError, match=r"from .jsonl, .json or .csv files, got 'x.txt'"):
        read_facts(tmp_path / "x.txt")
