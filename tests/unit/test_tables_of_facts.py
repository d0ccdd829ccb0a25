"""Tables of facts as spreadsheets write them, and JSON under any name: read right, or refused with the line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from workbench.facts.datasets import read_facts
from workbench.types import Fact
from workbench.types.fact_source import FactSource

HEADER = "subject,prompt,question,answer,target"
FRANCE = "France,The capital of France is,What is the capital of France?,Paris,Rome"
RECORD = dict(zip(HEADER.split(","), FRANCE.split(","), strict=True))


def written(folder: Path, text: str, encoding: str = "utf-8", name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (f"{HEADER}\n{FRANCE}\n".replace(",", ";"), "utf-8-sig"),
        (f"{HEADER}\n{FRANCE}\n".replace(",", "\t"), "utf-8"),
        (f"{HEADER}\n{FRANCE}\n".replace(",", "\t"), "utf-16"),
        (f"{HEADER}\n{FRANCE}\n", "utf-16-le"),
        (f"{HEADER.title()}\n{FRANCE}\n", "utf-8"),
        (f"{HEADER}\n{FRANCE}\n".replace(",", ", "), "utf-8"),
        (f"{HEADER}\r\n{FRANCE}\r\n,,,,\r\n\r\n,,,,,,\r\n", "utf-8"),
        (f"sep=;\r\n{HEADER}\r\n{FRANCE}\r\n".replace(",", ";"), "utf-8"),
        (f'"subject", "prompt","question","answer","target"\n{FRANCE}\n', "utf-8"),
        (f"{HEADER},Relation\n{FRANCE},capital\n", "utf-8"),
        (f"\n{HEADER}\n{FRANCE}\n", "utf-8"),
    ],
)
@pytest.mark.parametrize("name", ["mine.csv", "mine.tsv", "mine.txt"])
def test_what_spreadsheets_write(text: str, encoding: str, name: str, tmp_path: Path) -> None:
    (fact,) = read_facts(written(tmp_path, text, encoding, name))
    assert {key: fact.to_dict()[key] for key in RECORD} == RECORD
    assert fact.relation in ("", "capital")


def test_windows_1252_is_read_and_said(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}\n{FRANCE}\n".replace("Rome", "Orléans"), "cp1252")
    with pytest.warns(UserWarning, match=r"mine.csv is not UTF-8; it was read as Windows-1252"):
        assert read_facts(path)[0].target == "Orléans"
    path.write_bytes(b"subject,prompt\n\x81\x8d,\n")
    with pytest.raises(ValueError, match=r"mine.csv is no text in UTF-8, UTF-16 or Windows-1252"):
        read_facts(path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("Washington,The capital Washington, D.C. lies in,In which country?,United States,Canada", "has 6 cells, the"),
        ("Peru,The capital of Peru is,Which?,Lima", "has 4 cells, the header 5; fill the row up"),
    ],
)
def test_surplus_and_missing_cells_are_refused_with_the_line(row: str, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}\n{FRANCE}\n\n{row}\n")
    with pytest.raises(ValueError, match=rf"mine.csv, line 4, record 2 \(workbench\): {reason}.*on_error='skip'"):
        read_facts(path)
    with pytest.warns(UserWarning, match="line 4"):
        assert read_facts(path, on_error="skip").ids == ("france",)


def test_a_quoted_comma_and_a_line_break_keep_the_line(tmp_path: Path) -> None:
    quoted = 'Washington,"The capital, Washington,\nlies in",Where?,America,Canada'
    path = written(tmp_path, f"{HEADER}\n{quoted}\n{FRANCE}\nPeru,x\n")
    with pytest.raises(ValueError, match="line 5, record 3"):
        read_facts(path)
    path = written(tmp_path, f"{HEADER}\n{quoted}\n{FRANCE}\n")
    assert read_facts(path)[0].prompt == "The capital, Washington,\nlies in"


def test_other_columns_are_left_out_and_named(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER},notes,\n{FRANCE},ok,\n")
    with pytest.warns(UserWarning, match=r"the column\(s\) \['notes'\] are left out"):
        assert read_facts(path).ids == ("france",)
    path = written(tmp_path, f"{HEADER},\n{FRANCE},lost\n")
    with pytest.raises(ValueError, match=r"line 2.*has 6 cells, the header 5"):
        read_facts(path)
    path = written(tmp_path, f"{HEADER},answer\n{FRANCE},Lyon\n")
    with pytest.raises(ValueError, match=r"the header has the column\(s\) \['answer'\] more than once"):
        read_facts(path)


@pytest.mark.parametrize("name", ["mine.json", "mine.jsonl", "mine.ndjson", "mine.txt", "mine"])
def test_json_lines_and_lists_under_any_name(name: str, tmp_path: Path) -> None:
    other = RECORD | {"subject": "Peru", "prompt": "The capital of Peru is", "answer": "Lima"}
    lines = "".join(json.dumps(record) + "\r\n" for record in (RECORD, other))
    assert read_facts(written(tmp_path, lines, name=name)).ids == ("france", "peru")
    assert read_facts(written(tmp_path, json.dumps([RECORD, other]), name=name)).ids == ("france", "peru")


def test_one_object_and_a_table_by_columns(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(RECORD), name="one.json")
    assert read_facts(path).ids == ("france",)
    path = written(tmp_path, json.dumps({key: {"0": value} for key, value in RECORD.items()}), name="frame.json")
    with pytest.raises(ValueError, match=r"must hold a JSON list of records, got dict. Write it with orient='records'"):
        read_facts(path)
    lines = f"{json.dumps(RECORD)}\n{{broken\n"
    with pytest.raises(ValueError, match=r"x.json, line 2: not valid JSON"):
        read_facts(written(tmp_path, lines, name="x.json"))


@pytest.mark.parametrize(("given", "text"), [(1889, "1889"), (1889.0, "1889"), (3.5, "3.5"), ("1889", "1889")])
def test_numbers_as_answers(given: Any, text: str, tmp_path: Path) -> None:
    record = RECORD | {"answer": given, "target": 1945, "answer_aliases": [given, "then"], "relation": None}
    (fact,) = read_facts(written(tmp_path, json.dumps([record]), name="years.json"))
    assert (fact.answer, fact.target, fact.answers[-1], fact.relation) == (text, "1945", "then", "")


@pytest.mark.parametrize("wrong", [True, float("nan"), [1], {"str": "x"}])
def test_what_is_no_answer(wrong: Any, tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps([RECORD, RECORD | {"answer": wrong}]), name="x.json")
    with pytest.raises(ValueError, match=r"x.json, record 2 \(workbench\): .*answer"):
        read_facts(path)


def test_a_file_says_how_it_is_read_again(tmp_path: Path) -> None:
    facts = read_facts(written(tmp_path, f"{HEADER}\n{FRANCE}\n"), on_error="skip")
    assert facts.source == FactSource(str(tmp_path / "mine.csv"), 1, None, "skip")
    assert (
        facts.source is not None
        and facts.source.code == f"wb.load_facts({str(tmp_path / 'mine.csv')!r}, on_error='skip')"
    )
    assert (facts + facts).source == facts.source
    assert facts[:1].source == facts.filter(ids=["france"]).source == facts.source


def test_numbers_as_ids_and_relations_are_texts(tmp_path: Path) -> None:
    given = [RECORD | {"id": n, "relation": 36} for n in (3, 0)]
    facts = read_facts(written(tmp_path, json.dumps(given), name="numbered.json"))
    assert facts.ids == ("3", "0") and facts["0"] is facts[1] and facts[0].relation == "36"
    for wrong in ({"id": 3}, {"relation": 36}, {"case_sensitive": "false"}):
        with pytest.raises(TypeError, match=rf"Fact\.{next(iter(wrong))} must be"):
            Fact(**{**RECORD, **wrong})


@pytest.mark.parametrize(
    ("cell", "aliases"),
    [
        ("Lutetia|City of Light", ("Lutetia", "City of Light")),
        ("['Lutetia', 'City of Light']", ("Lutetia", "City of Light")),
        ('["Lutetia", "City of Light"]', ("Lutetia", "City of Light")),
        ("[]", ()),
        ("[75, 'Lutetia']", ("75", "Lutetia")),
        (repr(["L'Hay", "La Ville"]), ("L'Hay", "La Ville")),
        ("[Lutetia|Paname", ("[Lutetia", "Paname")),
    ],
)
def test_cells_that_hold_lists(cell: str, aliases: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[*HEADER.split(","), "answer_aliases"], [*FRANCE.split(","), cell]])
    assert read_facts(path)[0].answer_aliases == aliases


@pytest.mark.parametrize("cell", ["['a' 'b']", "[a, b]", "['a', ['b']", "[__import__('os')]"])
def test_a_list_that_cannot_be_read_is_refused(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[*HEADER.split(","), "heldout"], [*FRANCE.split(","), cell]])
    with pytest.raises(ValueError, match=r"line 2.*the cell of 'heldout' looks like a list and cannot be"):
        read_facts(path)


def test_what_pandas_writes(tmp_path: Path) -> None:
    record = RECORD | {"answer": 1889, "target": "1900", "answer_aliases": ["in 1889", "89"]}
    other = RECORD | {"id": "other", "answer_aliases": ["Lutetia"]}
    path = tmp_path / "frame.csv"
    pd.DataFrame([record, other]).to_csv(path)
    facts = read_facts(path)
    assert [fact.answer for fact in facts] == ["1889", "Paris"]
    assert [fact.answer_aliases for fact in facts] == [("in 1889", "89"), ("Lutetia",)]


def test_whole_numbers_beside_empty_cells(tmp_path: Path) -> None:
    frame = pd.DataFrame([RECORD | {"answer_aliases": 75}, RECORD | {"id": "other"}])
    path = tmp_path / "frame.csv"
    frame.to_csv(path, index=False)
    assert "75.0" in path.read_text()
    with pytest.warns(UserWarning, match=r"the column 'answer_aliases' has empty cells.*'75.0' as '75'"):
        assert [fact.answer_aliases for fact in read_facts(path)] == [("75",), ()]
    path = written(tmp_path, f"{HEADER}\n{FRANCE}\nPython,Python's version is,Which version is Python's?,3.0,2.0\n")
    assert read_facts(path)[1].answer == "3.0"


@pytest.mark.parametrize(("cell", "value"), [("TRUE", True), ("no", False), ("0", False), ("", False)])
def test_yes_and_no(cell: str, value: bool, tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER},case_sensitive\n{FRANCE},{cell}\n")
    assert read_facts(path)[0].case_sensitive is value


@pytest.mark.parametrize("cell", ["y", "ja", "2", "on"])
def test_neither_yes_nor_no_is_refused(cell: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER},case_sensitive\n{FRANCE},{cell}\n")
    with pytest.raises(ValueError, match=r"line 2.*the cell of 'case_sensitive' must be one of \['1', 'true', 'yes'"):
        read_facts(path)
