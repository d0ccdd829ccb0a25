"""FactChooser: the list and its marks, a fact of one's own, and the traced text."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.panels import control, descendants, own, shown
from tests.helpers.pictures import data_of
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, knowing
from tests.helpers.wire import click, enter, shown_after
from workbench.facts.known import known_facts
from workbench.language.prompts import chat_text, traced_prompt
from workbench.models.load import LoadedModel
from workbench.plots.style import visible
from workbench.types import Fact, FactSet
from workbench.widgets.facts.chooser import FactChooser
from workbench.widgets.facts.form import FIELDS, FactForm, default_question
from workbench.widgets.shared import markup

EVIL = "<img src=x onerror=alert(1)>"


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


@pytest.fixture
def chooser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FactChooser:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    unknown = capital("Peru", "Lima", "Rome")
    known_facts(tiny(), [*capitals(), unknown], progress=False)
    return FactChooser(tiny(), [*capitals(), unknown])


def form(chooser: FactChooser) -> FactForm:
    """Where a fact of one's own is written."""
    return next(w for w in descendants(chooser) if isinstance(w, FactForm))


def write(chooser: FactChooser, **texts: str) -> None:
    fields = [w for w in descendants(form(chooser)) if hasattr(w, "description")]
    for name, (label, _) in FIELDS.items():
        (field,) = (w for w in fields if w.description == label)
        enter(field, value=texts.get(name, ""))
    click(control(chooser, "Use this fact"))


def listed(chooser: FactChooser) -> list[Any]:
    return [value for _, value in control(chooser, "Facts").options]


def test_marks_are_words_from_what_is_on_record(chooser: FactChooser) -> None:
    marks = {value: label for label, value in control(chooser, "Facts").options}
    assert "[✓ known: chat + cloze]" in marks["france-capital"]
    assert "[✗ not known]" in marks["peru-capital"]
    assert control(chooser, "Ask the model").layout.display == "none"


def test_what_was_not_asked_is_marked_so_until_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    chooser = FactChooser(tiny(), capitals()[:2])
    assert all("[? not asked]" in label for label, _ in control(chooser, "Facts").options)
    click(control(chooser, "Ask the model"))
    assert chooser.job is not None
    chooser.job.wait(60)
    assert all("[✓ known: chat + cloze]" in label for label, _ in control(chooser, "Facts").options)


def test_search_relation_and_known_only(chooser: FactChooser) -> None:
    before = chooser.fact
    enter(control(chooser, "Search"), value="ROME what")
    assert listed(chooser) == ["france-capital", "italy-capital", "peru-capital"]
    enter(control(chooser, "Known only"), value=True)
    assert listed(chooser) == ["france-capital", "italy-capital"]
    enter(control(chooser, "Search"), value="no such")
    assert listed(chooser) == []
    assert chooser.fact is before
    assert "No fact matches" in shown(chooser)


def test_a_click_in_the_list_chooses_and_tells(chooser: FactChooser) -> None:
    told: list[Fact] = []
    chooser.on_fact(told.append)
    enter(control(chooser, "Facts"), index=2)
    assert [f.id for f in told] == ["spain-capital"]
    enter(control(chooser, "Search"), value="italy")  # filtering chooses nothing
    assert len(told) == 1
    chooser.fact = "japan-capital"
    assert [f.id for f in told] == ["spain-capital", "japan-capital"]
    assert control(chooser, "Facts").value == "japan-capital", "the filters are cleared where they would hide it"
    chooser.fact = "japan-capital"
    assert len(told) == 2


@pytest.mark.parametrize("bad", [99, -1, "first", [1], 0.5, True, pytest.param(10**400, id="huge")])
@pytest.mark.parametrize("name", ["Facts", "Relation"])
def test_a_line_that_is_none_changes_nothing_and_the_browser_shows_pythons(
    chooser: FactChooser, name: str, bad: Any
) -> None:
    told: list[Fact] = []
    menu = chooser.controls[name]
    enter(menu, index=1)
    chooser.on_fact(told.append)
    before = chooser.fact, menu.value, listed(chooser)
    assert shown_after(menu, index=bad) == {"index": 1}
    assert (menu.index, (chooser.fact, menu.value, listed(chooser)), told) == (1, before, [])
    assert shown_after(menu, index=0) == {"index": 0}


def test_a_click_that_was_sent_before_the_list_was_filtered_chooses_nothing(chooser: FactChooser) -> None:
    before = chooser.fact
    enter(control(chooser, "Search"), value="ROME what")
    assert shown_after(control(chooser, "Facts"), index=5) == {"index": control(chooser, "Facts").index}
    assert chooser.fact is before


@pytest.mark.parametrize("name", ["Search", "Known only"])
@pytest.mark.parametrize("bad", [None, [1], {"a": 1}])
def test_nonsense_in_a_filter_changes_nothing(chooser: FactChooser, name: str, bad: Any) -> None:
    before = control(chooser, name).value, listed(chooser)
    enter(control(chooser, name), value=bad)
    assert (control(chooser, name).value, listed(chooser)) == before


def test_the_traced_text_is_traced_prompts(chooser: FactChooser) -> None:
    assert chooser.job is not None
    chooser.job.wait(60)
    assert chooser.prompt is not None and chooser.prompt == traced_prompt(tiny(), chooser.fact)
    html = own(chooser)
    assert html.count("<li") == len(chooser.prompt.tokens) + 1
    assert "wb-traced" in html
    assert "wb-subject" in html


def test_a_fact_the_model_does_not_know_shows_what_it_says(chooser: FactChooser) -> None:
    chooser.fact = "peru-capital"
    assert chooser.job is not None
    with pytest.raises(ValueError, match="does not contain 'Lima'"):
        chooser.job.wait(60)
    assert "does not contain" in str(chooser.error) and "does not contain" in chooser.message
    assert 'role="alert"' in own(chooser)


def test_a_fact_that_cannot_be_traced_shows_its_tokens_without_a_traced_mark(chooser: FactChooser) -> None:
    write(chooser, subject="Peru", prompt="The capital of Peru is", answer="Lima", target="Rome")
    assert chooser.job is not None
    with pytest.raises(ValueError, match="does not contain 'Lima'"):
        chooser.job.wait(60)
    assert chooser.fact.answer == "Lima" and chooser.prompt is None
    html = own(chooser)
    assert "wb-traced" not in html and "Dashed frame" not in html
    assert "No token is traced" in html
    strips = re.findall(r'<ul class="wb-tokens".*?</ul>', html)
    texts = [chat_text(tiny(), chooser.fact.question), "The capital of Peru is"]
    for strip, text in zip(strips, texts, strict=True):
        ids = tiny().token_ids(text)
        split = re.findall(r"<li(?: class=\"([^\"]*)\")? title=[^>]*>(.*?)</li>", strip)
        decoded = [tiny().tokenizer.decode([token]) for token in ids]
        assert [label for _, label in split] == [markup.text(visible(token)) for token in decoded]
        subject = [token for (mark, _), token in zip(split, decoded, strict=True) if mark == "wb-subject"]
        assert "".join(subject).strip() == "Peru"


def test_a_written_fact_without_a_question(chooser: FactChooser) -> None:
    write(chooser, subject="France", prompt="The capital of France is", answer="Paris", target="Madrid")
    assert chooser.error is None
    assert chooser.fact.question == default_question("The capital of France is")
    assert chooser.fact.target == "Madrid"
    assert control(chooser, "Facts").value is None


@pytest.mark.parametrize("written", [False, True])
def test_the_whole_code_gives_the_same_fact_and_prompt(
    chooser: FactChooser, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if written:
        write(chooser, subject="France", prompt="The capital of France is", answer="Paris", target="Madrid")
    else:
        enter(control(chooser, "Facts"), index=2)
    assert chooser.job is not None
    prompt = chooser.job.wait(60)
    import workbench

    monkeypatch.setattr(workbench, "load_model", lambda *_: tiny())
    names: dict[str, Any] = {}
    exec(chooser.code, names)
    assert names["fact"] == chooser.fact
    assert names["prompt"] == prompt == chooser.prompt
    assert chooser.code.count("import") == 1, "public names only"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"subject": "Spain"}, "is not in the prompt"),
        ({"answer": " "}, "Fact.answer is empty"),
        ({"target": "Paris"}, "Answer and target are both"),
        ({"target": "Paris Rome"}, "start with the same token"),
        ({"prompt": "The capital of France is "}, "a space at either end"),
    ],
)
def test_what_is_wrong_with_a_written_fact_is_said(chooser: FactChooser, texts: dict[str, str], message: str) -> None:
    before = chooser.fact
    good = {"subject": "France", "prompt": "The capital of France is", "answer": "Paris", "target": "Rome"}
    write(chooser, **{**good, **texts})
    assert message in str(chooser.error) and message in chooser.message
    assert 'role="alert"' in own(chooser)
    assert chooser.fact is before


def test_an_id_that_is_taken_gets_another(chooser: FactChooser) -> None:
    texts = {"subject": "France", "prompt": "The capital of France is", "answer": "Paris", "target": "Tokyo"}
    write(chooser, **texts, relation="capital")
    assert chooser.fact.id == "france-capital-new"


def test_texts_are_shown_not_run(chooser: FactChooser) -> None:
    write(chooser, subject=EVIL, prompt=f"The capital of {EVIL} is", answer="Paris", target="Rome")
    assert chooser.job is not None
    with pytest.raises(ValueError, match="does not contain"):
        chooser.job.wait(60)
    assert EVIL not in shown(chooser)
    assert own(chooser).count("&lt;img") >= 3


def test_an_error_of_a_callback_is_shown(chooser: FactChooser) -> None:
    def fail(fact: Fact) -> None:
        raise KeyError("broken")

    chooser.on_fact(fail)
    chooser.fact = "spain-capital"
    assert isinstance(chooser.error, KeyError)
    assert "broken" in chooser.message and "broken" in own(chooser)


def test_wrong_values() -> None:
    with pytest.raises(KeyError, match="france-capitol"):
        FactChooser(tiny(), capitals(), value="france-capitol")
    with pytest.raises(ValueError, match="at least one fact"):
        FactChooser(tiny(), [])


def test_the_first_of_the_bundled_facts_is_france(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    germany, france = capitals()["germany-capital"], capitals()["france-capital"]
    bundled = FactSet([germany, france], name="bundled")
    monkeypatch.setattr("workbench.facts.known._bundled_facts", lambda: bundled)
    for facts in (None, bundled):
        assert FactChooser(tiny(), facts).fact is france, "nothing on record"
    known_facts(tiny(), bundled, progress=False)
    assert FactChooser(tiny()).fact is france
    assert FactChooser(tiny(), value="germany-capital").fact is germany
    assert FactChooser(tiny(), [germany, france]).fact is germany, "facts of one's own are in one's own order"


def test_a_model_that_does_not_know_france_begins_with_a_fact_that_it_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    peru, italy = capital("Peru", "Lima", "Rome"), capitals()["italy-capital"]
    wrong = replace(capitals()["france-capital"], answer="Lyon", answer_aliases=())
    bundled = FactSet([peru, wrong, italy], name="bundled")
    monkeypatch.setattr("workbench.facts.known._bundled_facts", lambda: bundled)
    known_facts(tiny(), bundled, progress=False)
    assert FactChooser(tiny()).fact is italy
    known = FactSet([peru, wrong], name="bundled")
    monkeypatch.setattr("workbench.facts.known._bundled_facts", lambda: known)
    assert FactChooser(tiny()).fact is wrong, "none is known"


def test_the_first_of_ones_own_facts_is_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    unknown = capital("Peru", "Lima", "Rome")
    known_facts(tiny(), [*capitals(), unknown], progress=False)
    assert FactChooser(tiny(), [unknown, *capitals()]).fact is unknown


def test_it_shows_where_widgets_are_not_drawn(chooser: FactChooser) -> None:
    bundle = chooser._repr_mimebundle_()
    assert bundle["text/plain"] == "FactChooser(france-capital: Paris -> Rome, 6 facts)"
    assert bundle["image/png"]


def test_a_snapshot_is_the_picture_beside_the_panel(chooser: FactChooser) -> None:
    first = data_of(chooser.snapshot())
    assert first == base64.b64decode(chooser._repr_mimebundle_()["image/png"])
    chooser.fact = "spain-capital"
    assert chooser.snapshot().data != first
