"""The bundled tasks: items are what their README says, and results on file are those of the bundled model."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from benchmarks.tasks import measured
from tests.helpers.doc_pages import DOCS, unwrapped
from tests.helpers.tiny import tiny_llama, tiny_tokenizer
from workbench.facts.tasks import TASKS, load_task
from workbench.language.tokens import decoded, following_ids
from workbench.models.load import LoadedModel

ROOT = Path(__file__).parents[2]
DATA = ROOT / "workbench" / "facts" / "data" / "tasks"
KEYS = ["id", "split", "kind", "clean", "corrupted", "answer", "wrong", "changed", "positions"]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "tasks.json").read_text(encoding="utf-8"))
SWAPPED = ("ioi", "agreement", "pronouns")
"""Tasks in which the answers change places."""


def content(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def items(name: str) -> list[dict[str, Any]]:
    return content(name)["items"]


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_there_is_a_file_a_task_and_no_other() -> None:
    assert sorted(path.name for path in DATA.iterdir()) == sorted(
        ["LICENSE", "README.md", *(f"{name}.json" for name in TASKS)]
    )
    ids = [item["id"] for name in TASKS for item in items(name)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", TASKS)
def test_files_follow_their_schema(name: str) -> None:
    file = content(name)
    assert list(file) == ["schema", "task", "title", "description", "items"]
    assert (file["schema"], file["task"]) == (1, name)
    assert len(file["items"]) >= 40
    for number, item in enumerate(file["items"], 1):
        assert list(item) == KEYS
        assert item["id"] == f"{name}-{number:02d}"


@pytest.mark.parametrize("name", TASKS)
def test_no_item_is_there_twice(name: str) -> None:
    rows = items(name)
    assert len({row["clean"] for row in rows}) == len(rows)
    assert len({frozenset((row["clean"], row["corrupted"])) for row in rows}) == len(rows)


@pytest.mark.parametrize("name", TASKS)
def test_prompts_differ_only_where_said(name: str) -> None:
    for row in items(name):
        old, new = row["changed"]
        places = [found.start() for found in re.finditer(rf"\b{old}\b", row["clean"])]
        swapped = [row["clean"][:at] + new + row["clean"][at + len(old) :] for at in places]
        assert row["corrupted"] in swapped, row["id"]
        assert row["clean"] == row["clean"].strip() and "  " not in row["clean"], row["id"]


@pytest.mark.parametrize("name", TASKS)
def test_answers_differ_and_swap_where_said(name: str) -> None:
    for row in items(name):
        answers, wrongs = listed(row["answer"]), listed(row["wrong"])
        assert not set(answers) & set(wrongs) and answers and wrongs, row["id"]
        if name != "greater-than":
            assert all(re.fullmatch(r" [A-Za-z]+", answer) for answer in (*answers, *wrongs)), row["id"]
    if name in SWAPPED:
        pairs = Counter(frozenset((row["answer"], row["wrong"])) for row in items(name))
        assert name == "ioi" or len(pairs) <= 3


def test_the_years_are_those_after_and_before() -> None:
    for row in items("greater-than"):
        clean, corrupted = row["changed"]
        century, decade = clean[:2], int(clean[2])
        assert row["clean"].endswith(f" {century}") and corrupted == f"{century}0{clean[3]}"
        assert row["answer"] == [str(digit) for digit in range(decade + 1, 10)]
        assert row["wrong"] == [str(digit) for digit in range(decade)]
        assert row["kind"] == ("early decade" if decade < 5 else "late decade")


def test_what_is_repeated_stood_before() -> None:
    for row in items("induction"):
        for query, answer in zip(row["changed"], (row["answer"], row["wrong"]), strict=True):
            assert re.search(rf"\b{query}\b.*{answer}\b", row["clean"]), row["id"]
            if row["kind"] != "record":
                assert f"{query}{answer}" in row["clean"], row["id"]


@pytest.mark.parametrize("name", TASKS)
def test_halves_are_equal_and_share_no_word_that_matters(name: str) -> None:
    rows = items(name)
    halves = {split: [row for row in rows if row["split"] == split] for split in ("dev", "test")}
    assert len(halves["dev"]) == len(halves["test"]) == len(rows) / 2
    assert rows == halves["dev"] + halves["test"]
    which = slice(0, 1) if name == "greater-than" else slice(None)  # corrupted years are of few decades
    words = {split: {word for row in half for word in row["changed"][which]} for split, half in halves.items()}
    assert not words["dev"] & words["test"]
    if name in ("opposites", "capitals", "ioi"):
        words = {split: {row[key] for row in half for key in ("answer", "wrong")} for split, half in halves.items()}
        assert not words["dev"] & words["test"]


@pytest.mark.parametrize("name", TASKS)
def test_named_positions_stand_once_in_the_clean_prompt(name: str) -> None:
    for row in items(name):
        places = [row["clean"].index(word) for word in row["positions"].values()]
        assert all(row["clean"].count(word) == 1 for word in row["positions"].values()), row["id"]
        assert len(set(places)) == len(places)


@pytest.mark.parametrize("name", ["agreement", "pronouns"])
def test_no_answer_is_the_clean_one_more_often(name: str) -> None:
    counts = Counter(
        (row["split"], row["answer"] in (" are", " were", " have", " she", " her", " herself")) for row in items(name)
    )
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("name", TASKS)
def test_load_task_gives_the_items_of_the_file(name: str) -> None:
    task = load_task(name)
    file = content(name)
    assert (task.name, task.title, task.description) == (name, file["title"], file["description"])
    assert len(task.dev) + len(task.test) == len(task) == len(file["items"])
    for contrast, row in zip(task, file["items"], strict=True):
        assert isinstance(contrast, wb.Contrast)
        assert (contrast.id, contrast.clean, contrast.corrupted) == (row["id"], row["clean"], row["corrupted"])
        assert list(contrast.answers) == listed(row["answer"]) and list(contrast.wrongs) == listed(row["wrong"])
        assert dict(contrast.positions) == row["positions"] and contrast.form == "cloze"
        assert (task.splits[contrast.id], task.kinds[contrast.id]) == (row["split"], row["kind"])
    assert load_task(name, split="test").ids == task.test.ids


def test_an_unknown_task_lists_the_names() -> None:
    with pytest.raises(ValueError, match=r"no task 'iou'.*'ioi', 'agreement', 'greater-than'.*Did you mean 'ioi'"):
        load_task("iou")
    with pytest.raises(ValueError, match="Did you mean 'greater-than'"):
        load_task("greater_than")
    with pytest.raises(ValueError, match=r"No split 'train' in 'ioi'; there are \['dev', 'test'\]"):
        load_task("ioi", split="train")  # pyright: ignore[reportArgumentType]


# Other tokenizers


def reading(*tokens: str) -> LoadedModel:
    """A tiny model whose tokenizer has these tokens beside bytes."""
    tokenizer, hf = tiny_tokenizer(), tiny_llama()
    tokenizer.add_tokens(list(tokens))
    hf.resize_token_embeddings(len(tokenizer))
    return wb.load_model(hf, tokenizer=tokenizer, name="tiny")


def test_years_are_told_apart_by_the_digits_that_tokens_have() -> None:
    plain = load_task("greater-than")
    assert list(load_task("greater-than", model=reading())) == list(plain)
    pairs = load_task("greater-than", model=reading(*(f"{number:02d}" for number in range(100))))
    assert len(pairs) == len(plain) and pairs.splits == plain.splits and pairs.kinds == plain.kinds
    contrast = pairs["greater-than-06"]  # from 1721
    assert contrast.answers == tuple(str(number) for number in range(22, 100))
    assert contrast.wrongs == tuple(f"{number:02d}" for number in range(22))
    assert (contrast.clean, contrast.positions) == (plain["greater-than-06"].clean, {"year": "1721"})
    with pytest.raises(ValueError, match=r"No item of 'greater-than' fits.*'1132' is read as \[' ', '113', '2'\]"):
        load_task("greater-than", model=reading(*(str(number) for number in range(100, 1000))))


def test_items_that_a_tokenizer_reads_otherwise_are_left_out() -> None:
    model = reading(" Cuba", " Sweden", " Havana", " Stockholm")
    with pytest.warns(
        UserWarning, match="55 of 56 items of 'capitals' do not fit the tokenizer of tiny and are left out"
    ):
        task = load_task("capitals", model=model)
    assert task.ids == ("capitals-01",) and task.splits == {"capitals-01": "dev"}
    with pytest.raises(ValueError, match="No item of 'capitals' fits the tokenizer of tiny"):
        load_task("capitals", model=model, split="test")


# TaskSet


def pair(id: str) -> wb.Contrast:
    return wb.Contrast(clean=f"a {id}", corrupted=f"b {id}", answer=" x", wrong=" y", id=id)


def test_a_task_set_is_a_sequence_looked_up_by_id() -> None:
    one, two, three = (pair(id) for id in ("one", "two", "three"))
    task = wb.TaskSet([one, two, three], name="mine", splits={"one": "dev", "two": "test"}, kinds={"two": "k"})
    assert list(task) == [one, two, three] and len(task) == 3 and task[-1] is three
    assert task["two"] is two and "two" in task and two in task and "four" not in task
    assert task.dev.ids == ("one",) and task.test.ids == ("two",) and task[1:].ids == ("two", "three")
    assert task.filter(kind="k").ids == ("two",) and task[1:].splits == {"two": "test"}
    assert task.filter(lambda contrast: contrast.id.startswith("t"), split="test").ids == ("two",)
    assert repr(task) == "TaskSet('mine', 3 contrasts: 1 dev, 1 test)"
    assert list(task.to_frame()["kind"])[1] == "k" and len(task.to_frame()) == 3
    with pytest.raises(KeyError, match="Did you mean 'three'"):
        task["thre"]
    assert task.with_contrasts([two]).splits == {"two": "test"}
    with pytest.raises(ValueError, match=r"no contrast of 'mine': \['four'\]"):
        task.with_contrasts([two, pair("four")])
    with pytest.raises(ValueError, match="No kind 'j' in 'mine'"):
        task.filter(kind="j")


def test_a_task_set_that_does_not_hold_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"more than once: \['one'\]"):
        wb.TaskSet([pair("one"), pair("two"), pair("one")])
    with pytest.raises(ValueError, match=r"no contrast of 'contrasts': \['two'\]"):
        wb.TaskSet([pair("one")], kinds={"two": "k"})
    with pytest.raises(ValueError, match=r"got \['train'\]"):
        wb.TaskSet([pair("one")], splits={"one": "train"})  # pyright: ignore[reportArgumentType]


# Results on file, and the bundled model


def test_the_results_on_file_are_of_every_item() -> None:
    assert list(RESULTS["tasks"]) == list(TASKS)
    for name, found in RESULTS["tasks"].items():
        rows, own = found["rows"], items(name)
        assert [(row["id"], row["split"], row["kind"]) for row in rows] == [
            (item["id"], item["split"], item["kind"]) for item in own
        ]
        assert found["all"]["right"]["value"] == pytest.approx(
            sum(row["clean"] > 0 for row in rows) / len(rows), abs=1e-4
        )
        assert found["all"]["clean"]["value"] == pytest.approx(sum(row["clean"] for row in rows) / len(rows), abs=1e-3)
        assert found["not_right"] == [row["id"] for row in rows if row["clean"] <= 0]


def test_the_page_has_the_numbers_on_file() -> None:
    page = (DOCS / "results" / "tasks.md").read_text(encoding="utf-8")
    for name, table in RESULTS["tables"].items():
        assert table in page, f"{name}: python -m benchmarks.tasks prints it"
    wrong = sum(len(found["not_right"]) for found in RESULTS["tasks"].values())
    total = sum(len(items(name)) for name in TASKS)
    assert f"Not right are {wrong} of {total} items" in unwrapped(page)
    assert f"{total} pairs of prompts of [seven tasks]" in unwrapped((ROOT / "README.md").read_text(encoding="utf-8"))
    shares = [found["all"]["said"]["value"] for found in RESULTS["tasks"].values()]
    assert f"{min(shares):.0%} (`agreement`) to {max(shares):.0%} (`ioi`)" in unwrapped(page)
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    for name in TASKS:
        assert f"| `{name}` | {len(items(name))} |" in readme
        assert all(f"`{part}`" in readme for item in items(name) for part in item["kind"].split(", "))


@pytest.mark.model
@pytest.mark.parametrize("id", ["ioi-01", "induction-36", "greater-than-06"])
def test_the_results_on_file_are_those_of_the_bundled_model(model: LoadedModel, id: str) -> None:
    name = id.rpartition("-")[0]
    (row,) = (row for row in RESULTS["tasks"][name]["rows"] if row["id"] == id)
    task = load_task(name).filter(lambda contrast: contrast.id == id)
    assert RESULTS["model"] == model.fingerprint
    (again,) = measured(model, task)
    assert again.to_dict() == row | {key: pytest.approx(row[key], abs=2e-3) for key in ("clean", "corrupted")}


@pytest.mark.filterwarnings("ignore:Contrast .* hardly changes")
def test_a_task_is_attributed_as_a_list_of_its_contrasts() -> None:
    model = reading()
    task = load_task("greater-than", model=model)[:2]
    whole, listed_one_by_one = (wb.attribute(model, given, progress=False) for given in (task, list(task)))
    assert whole.n == 2 and (whole.values == listed_one_by_one.values).all()


@pytest.mark.model
@pytest.mark.parametrize("name", TASKS)
def test_lengths_are_equal_and_answers_are_one_token(model: LoadedModel, name: str) -> None:
    for row in items(name):
        clean, corrupted = model.token_ids(row["clean"]), model.token_ids(row["corrupted"])
        different = [(a, b) for a, b in zip(clean, corrupted, strict=True) if a != b]
        assert len(different) == 1, row["id"]
        if name != "greater-than":
            assert [decoded(model, [token]).strip() for token in different[0]] == row["changed"], row["id"]
        answers = [
            ids
            for text in (*listed(row["answer"]), *listed(row["wrong"]))
            for ids in [following_ids(model, row["clean"], text)]
        ]
        assert all(len(ids) == 1 for ids in answers) and len({ids[0] for ids in answers}) == len(answers), row["id"]
