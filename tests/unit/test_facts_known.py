"""What a model knows: how its answers are judged, and that it is asked once."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.mistyped import mistyped
from tests.helpers.tiny import tiny_llama, tiny_tokenizer
from tests.helpers.tiny_facts import capital, capitals, knowing
from workbench.facts.known import known_facts, measure_known
from workbench.facts.known_table import answer_keys, judge_key, known_on_record, known_table
from workbench.language.answers import first_sentence
from workbench.models.load import LoadedModel, load_model
from workbench.types import FactSet


def test_the_judge_changes_with_everything_that_an_answer_is_judged_by(monkeypatch: pytest.MonkeyPatch) -> None:
    base: dict[str, Any] = {"answer": "Paris", "target": "Rome"}
    keys = {judge_key(capital("France", **base))}
    for change in (
        {"answer": "Lyon"},
        {"answer_aliases": ("Lutetia",)},
        {"target": "Milan"},
        {"case_sensitive": True},
        {"heldout": ("Which city?",)},
        {"refusal": "Nobody knows."},
    ):
        keys.add(judge_key(capital("France", **base | change)))
    monkeypatch.setattr("workbench.facts.known_table.CLASSIFIER_VERSION", 99)
    keys.add(judge_key(capital("France", **base)))
    assert len(keys) == 8


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        (" Paris. It is large.", "Paris."),
        ("Paris\nRome", "Paris"),
        ("Paris! Or so", "Paris!"),
        ("Paris; Rome", "Paris;"),
        ("St. Petersburg. It is large.", "St. Petersburg."),
        ("J.R.R. Tolkien, F. Scott Fitzgerald? Or both", "J.R.R. Tolkien, F. Scott Fitzgerald?"),
        ("Lansing, of the U.S. state of Michigan. It is", "Lansing, of the U.S. state of Michigan."),
        ("the FBI. It is", "the FBI."),
        ("Paris", "Paris"),
        ("", ""),
    ],
)
def test_what_counts_of_a_cloze(text: str, counted: str) -> None:
    assert first_sentence(text) == counted


def test_known_facts_of_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows what it was set up to know; the second call reads the cache."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    taught = capitals()
    model = knowing(tiny_llama(tied=False), taught[:3])
    known = known_facts(model, taught, progress=False)
    assert known.ids == taught.ids[:3]
    assert known.forms == {i: ("chat", "cloze") for i in taught.ids[:3]}
    assert len(known_table(model)) == 10

    def no_asking(*args: Any, **options: Any) -> None:
        raise AssertionError("the cache was not used")

    monkeypatch.setattr("workbench.facts.known.measure_known", no_asking)
    assert known_facts(model, taught, form="any", progress=False).ids == known.ids
    with pytest.raises(AssertionError):
        known_facts(model, taught, use_cache=False, progress=False)


def test_the_cache_belongs_to_one_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another template, another of its options, other stop tokens, another length: the model is asked again. What it
    said is judged anew for other answers to the same question, without asking."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    taught = capitals()
    hf = knowing(tiny_llama(tied=False), taught).hf
    asked: list[str] = []

    def counted(model: Any, facts: Any, **options: Any) -> Any:
        asked.append(model.name)
        return measure_known(model, facts, **options)

    monkeypatch.setattr("workbench.facts.known.measure_known", counted)

    def model(name: str, add: str = "", **options: Any) -> LoadedModel:
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n", f"assistant{add}\n")
        return load_model(hf, tokenizer=tokenizer, name=name, **options)

    def stopping_elsewhere() -> LoadedModel:
        other = model("stops")
        other.tokenizer.eos_token = "</s>"
        return other

    aware = "{{ ' (sure)' if sure else '' }}"
    for one in (
        model("first"),
        model("template", " now"),
        model("option off", aware),
        model("option on", aware, template={"sure": True}),
        model("system", template={"system": "Be brief."}),
        stopping_elsewhere(),
    ):
        for _ in range(2):
            known_facts(one, taught, progress=False)
    known_facts(model("longer"), taught, max_new_tokens=3, progress=False)
    # An option that is not given leaves the prompt as the first template writes it.
    assert asked == ["first", "template", "option on", "system", "stops", "longer"]
    renamed = FactSet([replace(f, answer="Nowhere", answer_aliases=(f.answer,)) for f in taught])
    assert known_facts(model("first"), renamed, progress=False).ids == taught.ids
    lost = FactSet([replace(f, answer="Nowhere") for f in taught])
    assert known_facts(model("first"), lost, progress=False).ids == ()
    assert len(asked) == 6


def test_what_is_on_record_is_told_without_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    taught = capitals()
    model = knowing(tiny_llama(tied=False), taught)
    assert known_on_record(model, taught) == dict.fromkeys(taught.ids)
    known_facts(model, taught[:2], progress=False)
    both = ("chat", "cloze")
    assert known_on_record(model, taught) == {**dict.fromkeys(taught.ids), **dict.fromkeys(taught.ids[:2], both)}


def test_the_cache_belongs_to_one_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    taught = capitals()
    known_facts(knowing(tiny_llama(tied=False), taught), taught, progress=False)
    assert known_table(knowing(tiny_llama(seed=1, tied=False), taught)) == {}


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        '{"version": 1}',
        '{"version": 2, "fingerprint": "FINGERPRINT"}',
        '{"version": 2, "fingerprint": "FINGERPRINT", "answers": [1]}',
        '{"version": 2, "fingerprint": "FINGERPRINT", "answers": {"KEY": {"known": true}}}',
        '{"version": 2, "fingerprint": "FINGERPRINT", "answers": {"KEY": null}}',
        "[]",
        "null",
        "\xff",
    ],
)
def test_a_damaged_cache_is_measured_again(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    taught = capitals()
    model = knowing(tiny_llama(tied=False), taught)
    path = tmp_path / "known" / f"{model.fingerprint}.json"
    path.parent.mkdir()
    key = answer_keys(model, [("chat", taught[0].question)])[0]
    path.write_bytes(damage.replace("FINGERPRINT", model.fingerprint).replace("KEY", key).encode("latin-1"))
    assert known_facts(model, taught, progress=False).ids == taught.ids


@pytest.mark.parametrize("blocked", ["", "known"])
def test_a_cache_that_cannot_be_written_is_warned_of_once(
    blocked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is where the cache folder, or its folder of tables, should be."""
    folder = tmp_path / "cache"
    (folder / blocked).parent.mkdir(exist_ok=True)
    (folder / blocked).write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder))
    taught = capitals()
    model = knowing(tiny_llama(tied=False), taught)
    with pytest.warns(UserWarning, match=r"The cache folder .*cache cannot be written"):
        assert known_facts(model, taught, progress=False).ids == taught.ids
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert known_facts(model, taught, progress=False).ids == taught.ids


def test_known_facts_refuses_an_unknown_form() -> None:
    with pytest.raises(ValueError, match=r"form must be one of .*'chat', 'cloze', 'any'.*got 'plain'"):
        known_facts(mistyped(None), form=mistyped("plain"))
