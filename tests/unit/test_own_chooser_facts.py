"""FactChooser: a fact of one's own with its subject to swap with, what does not fit at its field; another target."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.choosers import PERU, WRITTEN, field, fill, form, notes, own_fact, press_enter, read, tiny, write
from tests.helpers.panels import control, own, shown
from tests.helpers.reader import harmless
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, teach, tokenizer_from_files
from tests.helpers.wire import click, enter
from workbench.facts.known import known_facts
from workbench.language.prompts import prompt_ids, swapped
from workbench.models.load import LoadedModel, load_model
from workbench.tracing.causal import causal_trace
from workbench.types import Fact, Form
from workbench.widgets.facts.chooser import FactChooser
from workbench.widgets.facts.form import FIELDS, default_question

ASKED = {**WRITTEN, "question": "What is the capital of France?"}


@pytest.fixture
def chooser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FactChooser:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    known_facts(tiny(), [*capitals(), PERU], progress=False)
    return FactChooser(tiny(), [*capitals(), PERU])


def test_a_written_fact_without_a_question(chooser: FactChooser) -> None:
    write(chooser, **WRITTEN)
    assert chooser.error is None
    assert chooser.fact.question == default_question("The capital of France is")
    assert chooser.fact.target == "Madrid" and control(chooser, "Facts").value is None
    assert "The capital of France is Paris" in shown(chooser) and "? not asked" in shown(chooser)


def test_enter_in_any_field_uses_the_fact(chooser: FactChooser) -> None:
    for name in FIELDS:
        chooser.fact = "italy-capital"
        fill(chooser, **{one: ASKED.get(one, "") for one in FIELDS})
        press_enter(field(chooser, name))
        assert (chooser.fact.subject, chooser.fact.target) == ("France", "Madrid"), name


def test_spaces_at_the_ends_are_no_part_of_a_fact(chooser: FactChooser) -> None:
    write(chooser, **{name: f" {text} " for name, text in ASKED.items()})
    assert chooser.error is None and chooser.fact.prompt == "The capital of France is"


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"subject": "Spain"}, {"Subject": "does not hold the subject letter by letter"}),
        ({"answer": " "}, {"Answer": "The answer is empty"}),
        ({"target": "paris"}, {"Target": "are the same"}),
        ({"target": "Paris Rome"}, {"Target": "begin with the same token “·Paris”"}),
        ({"swap": "Papua New Guinea"}, {"Swap with": "another number of tokens"}),
        (
            {"subject": "", "answer": "", "prompt": "", "target": ""},
            {"Subject": "empty", "Prompt": "empty", "Answer": "empty", "Target": "empty"},
        ),
        ({"subject": "Spain", "target": "Paris Rome"}, {"Subject": "letter by letter", "Target": "same token"}),
    ],
)
def test_all_that_does_not_fit_is_said_at_its_field(
    chooser: FactChooser, texts: dict[str, str], words: dict[str, str]
) -> None:
    before = chooser.fact
    write(chooser, **{**ASKED, **texts})
    said = notes(chooser)
    assert said.keys() == words.keys() and all(words[label] in said[label] for label in words)
    assert isinstance(chooser.error, ValueError) and all(text in chooser.message for text in said.values())
    assert chooser.fact is before
    assert field(chooser, "prompt").value == {**ASKED, **texts}["prompt"], "nothing that was written is lost"
    first = next(iter(words))
    name = next(name for name, (label, _) in FIELDS.items() if label == first)
    enter(field(chooser, name), value="x")
    assert first not in notes(chooser), "it is being mended"
    write(chooser, **{**ASKED, "swap": ""})
    assert notes(chooser) == {} and chooser.error is None and chooser.fact.subject == "France"


def test_a_subject_to_swap_with_is_suggested_and_its_answer_is_what_the_model_says(chooser: FactChooser) -> None:
    told: list[Fact | None] = []
    chooser.on_fact(lambda _: told.append(chooser.partner))
    fill(chooser, **{name: text for name, text in ASKED.items() if name != "target"})
    assert field(chooser, "swap").value == "Italy", "the first of the pool with as many tokens"
    fill(chooser, target="Madrid")
    click(control(chooser, "Use this fact"))
    prompt = read(chooser)
    partner = chooser.partner
    assert partner is not None and told == [None, partner], "first the fact, then who takes its place"
    assert (partner.subject, partner.answer, partner.prompt) == ("Italy", "Rome", "The capital of Italy is")
    assert field(chooser, "swap_answer").value == "Rome"
    assert swapped(tiny(), chooser.fact, prompt, partner).other_token.strip() == "Rome"  # pyright: ignore
    trace = causal_trace(tiny(), chooser.fact, corruption="swap", partner=partner, progress=False)
    assert trace.prompts[0].partner_text is not None and "Italy" in trace.prompts[0].partner_text
    chooser.form = "cloze"
    read(chooser)
    assert chooser.partner == partner and told == [None, partner, None, partner], "found again in the other form"
    chooser.fact = "spain-capital"
    assert chooser.partner is None and field(chooser, "subject").value == "France", "the draft stays"


def test_a_subject_of_ones_own_stays_and_one_that_was_taken_away_too(chooser: FactChooser) -> None:
    fill(chooser, **ASKED)
    fill(chooser, swap="Japan", swap_answer="Berlin")
    fill(chooser, relation="capital")
    assert field(chooser, "swap").value == "Japan"
    click(control(chooser, "Use this fact"))
    read(chooser)
    assert chooser.partner is not None and (chooser.partner.subject, chooser.partner.answer) == ("Japan", "Berlin")
    fill(chooser, swap="", swap_answer="")
    click(control(chooser, "Use this fact"))
    read(chooser)
    assert chooser.partner is None and field(chooser, "swap").value == ""


@pytest.mark.parametrize(("answer", "label"), [("Paris Rome", "Its answer"), ("", "Swap with")])
def test_an_answer_that_cannot_be_told_apart_is_said_at_its_field(
    chooser: FactChooser, answer: str, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.widgets.facts.partner.said_after", lambda *_: ["Paris"])
    fill(chooser, **ASKED)
    fill(chooser, swap="Japan", swap_answer=answer)
    click(control(chooser, "Use this fact"))
    read(chooser)
    assert chooser.fact.subject == "France" and chooser.partner is None and notes(chooser).keys() == {label}


def test_where_a_suggested_subject_has_the_same_answer_the_next_one_is_taken(
    chooser: FactChooser, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["Paris", "Madrid", "Berlin", "Tokyo"]
    monkeypatch.setattr("workbench.widgets.facts.partner.said_after", lambda _, texts: said[: len(texts)])
    write(chooser, **ASKED)
    read(chooser)
    assert chooser.partner is not None and (chooser.partner.subject, chooser.partner.answer) == ("Spain", "Madrid")
    assert field(chooser, "swap").value == "Spain" and notes(chooser) == {}


def saying(prompt: list[int], words: tuple[str, ...]) -> LoadedModel:
    """A model that goes on with these tokens after a prompt (token ids) and then ends."""
    hf = tiny_llama(tied=False)
    model = load_model(hf, tokenizer=tokenizer_from_files(), name="saying")
    said = [token for word in words for token in model.token_ids(word)]
    assert len(said) == len(words)
    texts = [([*prompt, *said[:i]], token) for i, token in enumerate([*said, model.tokenizer.eos_token_id])]
    teach(hf, model, texts)
    return model


@pytest.mark.parametrize(
    ("prompt", "words", "form", "flagged"),
    [
        ("The capital of France", (" is", " Paris"), "cloze", "before it the model itself says “is”"),
        ("The capital of France is", (" Paris",), "cloze", ""),
        ("The city Paris of France is", ("The", " city", " Paris"), "chat", "writes your prompt once more"),
        ("The capital of France is", ("The", " city", " Paris"), "chat", ""),
    ],
)
def test_a_traced_place_that_is_not_where_one_thinks_is_flagged(
    prompt: str, words: tuple[str, ...], form: Form, flagged: str
) -> None:
    asked = default_question(prompt) if form == "chat" else prompt
    chooser = FactChooser(saying(prompt_ids(tiny(), asked, form), words), capitals())
    write(chooser, subject="France", prompt=prompt, answer="Paris", target="Rome")
    chooser.form = form
    assert read(chooser).answer_token == " Paris"
    alerts = re.findall(r'<div class="wb-alert wb-alert-info".*?</div>', shown(chooser))
    assert [flagged in harmless(alert).said for alert in alerts] == [True] * bool(flagged)


def test_an_id_that_is_taken_gets_another(chooser: FactChooser) -> None:
    write(chooser, **{**WRITTEN, "target": "Tokyo"}, relation="capital")
    assert chooser.fact.id == "france-capital-new"


def test_a_fact_from_python_fills_the_form_and_keeps_what_it_has_no_field_for(chooser: FactChooser) -> None:
    fact = own_fact(answer_aliases=("Lutetia",), heldout=("Which city?",))
    chooser.fact = fact
    assert form(chooser).fact.prompt == fact.prompt and chooser.partner is None
    click(control(chooser, "Use this fact"))
    read(chooser)
    assert chooser.fact is fact


def test_after_open_the_form_holds_the_fact_or_is_empty(chooser: FactChooser) -> None:
    fill(chooser, subject="John", prompt="When Mary")
    chooser.show(capitals()["spain-capital"])
    assert chooser.fact.id == "spain-capital" and form(chooser).texts["subject"] == form(chooser).texts["prompt"] == ""
    fill(chooser, subject="John")
    chooser.show(own_fact())
    assert form(chooser).texts["subject"] == "France" and chooser.fact == own_fact()
    fill(chooser, subject="John")
    chooser.show(chooser.fact)
    assert form(chooser).texts["subject"] == "France"


# Another target


def test_the_target_of_a_listed_fact_is_changed_in_place(chooser: FactChooser, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Fact] = []
    chooser.on_fact(told.append)
    click(control(chooser, "change"))
    new = control(chooser, "New target")
    assert new.value == "Rome"
    enter(new, value="Berlin")
    press_enter(new)
    france = capitals()["france-capital"]
    assert chooser.fact == replace(france, id="france-capital-to-berlin", target="Berlin", target_aliases=())
    assert [f.target for f in told] == ["Berlin"] and "Edit target: <b><bdi>Berlin" in shown(chooser)
    assert control(chooser, "Facts").value == "france-capital", "its line"
    assert "target='Berlin'" in chooser.code and form(chooser).texts["subject"] == ""
    monkeypatch.setattr("workbench.widgets.facts.enter.LATE", 0.0)
    click(control(chooser, "change"))
    enter(new, value="Rome")
    click(control(chooser, "Use target"))
    assert chooser.fact == france, "back to the listed one"


@pytest.mark.parametrize(("text", "words"), [("", "empty"), ("paris", "same"), ("Paris Rome", "same token")])
def test_a_target_that_does_not_fit_changes_nothing(chooser: FactChooser, text: str, words: str) -> None:
    before = chooser.fact
    click(control(chooser, "change"))
    enter(control(chooser, "New target"), value=text)
    click(control(chooser, "Use target"))
    assert chooser.fact is before and words in shown(chooser)
    assert control(chooser, "New target").value == text


def test_targets_of_other_scripts_have_ids_of_their_own(chooser: FactChooser) -> None:
    ids: list[str] = []
    for text in ("Рим", "روما"):
        click(control(chooser, "change"))
        enter(control(chooser, "New target"), value=text)
        click(control(chooser, "Use target"))
        ids.append(chooser.fact.id)
    assert len(set(ids)) == 2 and own(chooser)


def test_an_answer_that_is_only_named_later_is_taken_from_the_pool(
    chooser: FactChooser, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["the old", "the city of Madrid", "the", "the"]
    monkeypatch.setattr("workbench.widgets.facts.partner.said_after", lambda _, texts: said[: len(texts)])
    write(chooser, **ASKED)
    read(chooser)
    assert chooser.partner is not None and (chooser.partner.subject, chooser.partner.answer) == ("Spain", "Madrid")


def test_another_form_before_the_partner_is_found_loses_no_partner(chooser: FactChooser) -> None:
    fill(chooser, **ASKED, swap="Italy")
    with chooser._reading_lock:  # nothing is found as long as it is held
        press_enter(field(chooser, "subject"))
        assert chooser.partner is None
        chooser.form = "cloze"
    read(chooser)
    assert chooser.partner is not None and chooser.partner.subject == "Italy" and chooser.form == "cloze"
