"""FactChooser: the list and its marks, how a fact is read, and the script."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from ipywidgets import Widget

import workbench as wb
from tests.helpers.choosers import PERU, WRITTEN, lines, press_enter, read, tiny, write
from tests.helpers.panels import EVIL, control, descendants, shown
from tests.helpers.pictures import data_of
from tests.helpers.reader import harmless
from tests.helpers.tiny_facts import capital, capitals
from tests.helpers.wire import click, enter, shown_after
from workbench.facts.known import known_facts
from workbench.language.prompts import AnswerNotSaid, traced_prompt
from workbench.language.template import chat_text
from workbench.plots.style import short_number, visible
from workbench.types import Fact, FactSet
from workbench.widgets.facts.chooser import FactChooser
from workbench.widgets.facts.views import COLUMNS, line


@pytest.fixture
def chooser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FactChooser:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    known_facts(tiny(), [*capitals(), PERU], progress=False)
    return FactChooser(tiny(), [*capitals(), PERU])


def listed(chooser: FactChooser) -> list[Any]:
    return [value for _, value in control(chooser, "Facts").options]


def test_marks_are_words_from_what_is_on_record(chooser: FactChooser) -> None:
    shown_lines = lines(chooser)
    assert shown_lines["france-capital"] == ["France", "Paris", "Rome", "✓ chat + raw"]
    assert shown_lines["peru-capital"][3] == "✗ not known"
    assert control(chooser, "Ask the model").layout.display == "none"


def test_what_was_not_asked_is_marked_so_until_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    chooser = FactChooser(tiny(), capitals()[:3])
    assert [line[3] for line in lines(chooser).values()] == ["? not asked"] * 3
    read(chooser)
    click(control(chooser, "ask now"))
    read(chooser)
    assert [line[3] for line in lines(chooser).values()] == ["✓ chat + raw", *["? not asked"] * 2]
    assert "✓ known: chat + raw" in shown(chooser) and control(chooser, "ask now").layout.display == "none"
    click(control(chooser, "Ask the model"))
    read(chooser)
    assert [line[3] for line in lines(chooser).values()] == ["✓ chat + raw"] * 3
    assert control(chooser, "Ask the model").layout.display == "none"


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


def test_enter_in_search_takes_the_first_hit(chooser: FactChooser, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    chooser.on_fact(lambda fact: told.append(fact.id))
    enter(control(chooser, "Search"), value="rome what")
    press_enter(control(chooser, "Search"))
    assert told == [] and chooser.fact.id == "france-capital", "the first one is chosen already"
    enter(control(chooser, "Search"), value="spain")
    assert chooser.fact.id == "spain-capital", "letters that come after the Enter that followed them"
    monkeypatch.setattr("workbench.widgets.facts.enter.LATE", 0.0)
    enter(control(chooser, "Search"), value="japan")
    assert told == ["spain-capital"], "nobody pressed Enter"
    press_enter(control(chooser, "Search"))
    assert told == ["spain-capital", "japan-capital"] and control(chooser, "Facts").value == "japan-capital"
    assert "The capital of Japan is Tokyo" in shown(chooser)
    enter(control(chooser, "Search"), value="no such")
    press_enter(control(chooser, "Search"))
    assert chooser.fact.id == "japan-capital"


def test_of_twenty_thousand_facts_the_browser_gets_some_hundred_lines() -> None:
    base = capital("France", "Paris", "Rome")
    many = FactSet(replace(base, id=f"f{i}", answer_aliases=(f"alias {i}",)) for i in range(20_000))
    chooser = FactChooser(tiny(), many)
    sizes: list[int] = []

    def hear(_: Any, sent: dict[str, Any], buffers: Any = None) -> None:
        sizes.append(len(json.dumps(sent)))

    with mock.patch.object(Widget, "_send", hear):
        enter(control(chooser, "Search"), value="france")
        chooser.fact = "f19999"
    assert sum(sizes) < 200_000, "for two lists and all that is shown of a fact"
    assert len(listed(chooser)) == 200 and control(chooser, "Facts").value == "f19999"
    assert "and 19,800 more: type to narrow" in shown(chooser)
    enter(control(chooser, "Search"), value="")
    chooser.fact = "f10000"
    assert {"f9950", "f10050"} <= set(listed(chooser)), "the chosen one stands among its neighbours"
    press_enter(control(chooser, "Search"))
    assert chooser.fact.id == "f10000", "nothing was searched"
    enter(control(chooser, "Search"), value="f1234")
    assert listed(chooser) == ["f1234", *(f"f1234{i}" for i in range(10))]


def test_a_line_keeps_its_columns_whatever_the_script() -> None:
    narrow, wide = line("شمس", "ab"), line("東京" * 20, "ab")
    assert narrow.count("\u2068") == narrow.count("\u2069") == 2
    width = [sum(2 if unicodedata.east_asian_width(c) in "WF" else c not in "\u2068\u2069" for c in text) for text in
             (narrow, wide)]  # fmt: skip
    assert width[0] == width[1] == COLUMNS[0][1] + 1 + 2 and "…" in wide


def test_the_preview_is_what_the_model_reads(chooser: FactChooser) -> None:
    read(chooser)
    prompt = traced_prompt(tiny(), chooser.fact)
    assert chooser.prompt == prompt
    html = shown(chooser)
    strip = html[html.index("wb-tokens") :]
    assert len(re.findall("<li[ >]", strip)) == len(prompt.tokens) + 1 + 2, "two chips of the template"
    own_tokens = len(tiny().token_ids(chooser.fact.question))
    before, after = (int(n) for n in re.findall(r"<summary>template \((\d+)\)</summary>", html))
    assert before + own_tokens + after == len(tiny().token_ids(chat_text(tiny(), chooser.fact.question)))
    assert "wb-traced" in html and "wb-subject" in html
    logits = tiny().hf(torch.tensor([prompt.token_ids])).logits[0, -1]
    best = logits.softmax(-1).topk(5)
    bars = re.search(r'aria-label="(Next token[^"]*)"', html)
    assert bars is not None
    for token, p in zip(best.indices.tolist(), best.values.tolist(), strict=True):
        assert visible(tiny().tokenizer.decode([token])) in html
        assert short_number(p, share=True) in harmless(bars[1]).said


def test_a_form_is_chosen_for_preview_and_script(chooser: FactChooser) -> None:
    told: list[Any] = []
    chooser.on_fact(lambda fact: told.append((fact.id, chooser.form)))
    read(chooser)
    switch = control(chooser, "Prompt as")
    assert chooser.form is None and switch.value == "chat", "the first that works"
    assert "form=" not in chooser.code
    enter(switch, index=1)
    read(chooser)
    assert (chooser.form, switch.value, told) == ("cloze", "cloze", [("france-capital", "cloze")])
    assert chooser.prompt == traced_prompt(tiny(), chooser.fact, form="cloze")
    assert "form='cloze'" in chooser.code
    chooser.fact = "spain-capital"
    read(chooser)
    assert chooser.prompt is not None and chooser.prompt.form == "cloze", "it stays with the next fact"
    chooser.form = None
    read(chooser)
    assert chooser.prompt is not None and chooser.prompt.form == "chat"
    assert told[1:] == [("spain-capital", "cloze"), ("spain-capital", None)]
    with pytest.raises(ValueError, match="form must be one of"):
        chooser.form = "song"  # pyright: ignore[reportAttributeAccessIssue]
    assert shown_after(switch, index=7) == {"index": 0} and len(told) == 3


def test_a_fact_the_model_does_not_know_shows_what_it_says(chooser: FactChooser) -> None:
    chooser.fact = "peru-capital"
    assert chooser.job is not None
    with pytest.raises(ValueError, match="does not contain 'Lima'"):
        chooser.job.wait(60)
    assert isinstance(chooser.error, AnswerNotSaid) and set(chooser.error.texts) == {"chat", "cloze"}
    assert "The model does not say “Lima” here" in chooser.message and "Choose a fact with ✓" in chooser.message
    for text in chooser.error.texts.values():
        assert visible(text.strip(), 120) in chooser.message
    assert 'role="alert"' in shown(chooser) and "No token is traced" in shown(chooser)
    assert "Next token after this prompt" in shown(chooser)


def test_the_button_that_goes_on_is_there_for_who_listens(chooser: FactChooser) -> None:
    went: list[Any] = []
    read(chooser)
    button = control(chooser, "Where does it live?")
    assert button.layout.display == "none"
    chooser.on_go(lambda one, where: went.append((one, where)))
    assert button.layout.display is None
    click(button)
    assert went == [(chooser, "picker")]
    assert re.search(r"wb-hint\">(?:under|about) \d", shown(chooser)), "how long it takes"


@pytest.mark.parametrize("written", [False, True])
def test_the_whole_code_gives_the_same_fact_and_prompt(
    chooser: FactChooser, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if written:
        write(chooser, **WRITTEN)
    else:
        enter(control(chooser, "Facts"), index=2)
    prompt = read(chooser)
    import workbench

    monkeypatch.setattr(workbench, "load_model", lambda *_: tiny())
    names: dict[str, Any] = {}
    exec(chooser.code, names)
    assert names["fact"] == chooser.fact
    assert names["prompt"] == prompt == chooser.prompt
    assert names.get("partner") == chooser.partner and (chooser.partner is not None) == written
    assert chooser.code.count("import") == 1, "public names only"


def test_texts_are_shown_not_run(chooser: FactChooser) -> None:
    write(chooser, subject=EVIL, prompt=f"The capital of {EVIL} is", answer="Paris", target="Rome")
    assert chooser.job is not None
    with pytest.raises(ValueError, match="does not contain"):
        chooser.job.wait(60)
    assert EVIL not in shown(chooser)
    assert shown(chooser).count("&lt;img") >= 3


def test_an_error_of_a_callback_is_shown(chooser: FactChooser) -> None:
    def fail(fact: Fact) -> None:
        raise KeyError("broken")

    chooser.on_fact(fail)
    chooser.fact = "spain-capital"
    assert isinstance(chooser.error, KeyError)
    assert "broken" in chooser.message and "broken" in shown(chooser)


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
    peru, italy = PERU, capitals()["italy-capital"]
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
    known_facts(tiny(), [*capitals(), PERU], progress=False)
    assert FactChooser(tiny(), [PERU, *capitals()]).fact is PERU


def test_it_shows_where_widgets_are_not_drawn(chooser: FactChooser) -> None:
    bundle = chooser._repr_mimebundle_()
    assert bundle["text/plain"] == "FactChooser(france-capital: Paris -> Rome, 6 facts)"
    assert bundle["image/png"]


def test_a_snapshot_is_the_picture_beside_the_panel(chooser: FactChooser) -> None:
    first = data_of(chooser.snapshot())
    assert first == base64.b64decode(chooser._repr_mimebundle_()["image/png"])
    chooser.fact = "spain-capital"
    assert chooser.snapshot().data != first


def test_no_part_takes_a_name_by_which_the_browser_knows_it(chooser: FactChooser) -> None:
    for widget in descendants(chooser):
        state = widget.get_state(["_model_name", "_view_name"])
        assert state["_model_name"].endswith("Model") and state["_view_name"].endswith("View"), type(widget)


def test_the_list_begins_with_the_relation_of_the_first_fact_and_stays_there() -> None:
    chooser = FactChooser(tiny())
    first = listed(chooser)[0]
    assert chooser.fact.id == "france-capital" and first == wb.load_facts().filter(relation="country-capital").ids[0]
    chooser.fact = listed(chooser)[-1]
    assert listed(chooser)[0] == first


def test_the_first_hit_is_the_fact_whose_subject_is_searched() -> None:
    chooser = FactChooser(tiny())
    enter(control(chooser, "Search"), value="japan")
    assert chooser.fact.id == "france-capital", "typing chooses nothing"
    hits = listed(chooser)
    assert len(hits) > 5 and {wb.load_facts()[hit].subject for hit in hits[:2]} == {"Japan"}
    assert any(wb.load_facts()[hit].subject != "Japan" for hit in hits)
