"""A pair of prompts in the chooser and in the Workbench: what is read, what is said, and what is kept."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.choosers import WRITTEN
from tests.helpers.doc_pages import DOCS, unwrapped
from tests.helpers.panels import FACTS, FRANCE, QUICK, SPAIN, control, shown, tiny, until
from tests.helpers.wire import click, enter
from workbench.files.contrasts import contrast_fields, contrast_from
from workbench.files.session import load_session
from workbench.widgets import app as app_module
from workbench.widgets.app_tabs import TABS
from workbench.widgets.facts import chooser as chooser_module
from workbench.widgets.facts import pair as pair_module
from workbench.widgets.facts.chooser import FactChooser
from workbench.widgets.facts.pair import PromptPair, after
from workbench.widgets.facts.pair_reading import aligned, fact_draft, read_pair

POOL = wb.FactSet(FACTS, name="capitals")
ROOT = Path(__file__).parents[2]
TEXTS = {"clean": "The capital of France is", "corrupted": "The capital of Spain is"}
CIRCUIT = "embedding -> L0V0, L0MLP -> L1MLP"


def contrast(**other: Any) -> wb.Contrast:
    return wb.Contrast(**{**TEXTS, "answer": " Paris", "wrong": " Madrid", **other})


def write(pair: PromptPair, **texts: str) -> None:
    for name, text in texts.items():
        pair.form.fields[name].value = text


def chooser() -> FactChooser:
    return FactChooser(tiny(), POOL, value=FRANCE)


def test_a_pair_is_used_and_read_with_the_metric_of_both_runs() -> None:
    one, heard = chooser(), list[Any]()
    one.on_contrast(heard.append)
    write(one.pair, **TEXTS, answer="Paris", wrong=" Madrid")
    one.pair.use()
    assert one.contrast == contrast() and heard == [contrast()] and one._mode.index == 2
    assert one.pair.job is not None
    reading = one.pair.job.wait()
    edges = wb.attribute(tiny(), contrast(), metric="logit_diff", progress=False)
    assert (reading.clean, reading.corrupted) == pytest.approx((edges.clean, edges.corrupted), abs=1e-4)
    assert reading.after_clean[0].token == " Paris" and reading.after_corrupted[0].token == " Madrid"
    assert reading.warning == ""
    until(lambda: "after the clean prompt," in shown(one.pair.preview))
    said = shown(one.pair.preview)
    assert said.count("wb-subject") == 1 and "wb-traced" in said
    assert "contrast = wb.Contrast(" in one.code
    one.fact = FRANCE
    assert one.contrast is None and one._mode.index == 0


def test_whole_answers_are_read_as_a_whole() -> None:
    long = contrast(answer=" Paris and Rome", wrong=" Madrid")
    reading = read_pair(tiny(), long)
    effects = wb.attribute(tiny(), long, metric="logit_diff", progress=False)
    assert (reading.clean, reading.corrupted) == pytest.approx((effects.clean, effects.corrupted), abs=1e-3)
    assert reading.prompt.whole_answers and reading.metric == "log odds of the answers"


def test_a_metric_that_does_not_tell_the_runs_apart_is_said_with_both_numbers() -> None:
    backwards = read_pair(tiny(), contrast(clean=TEXTS["corrupted"], corrupted=TEXTS["clean"]))
    assert "lower after the clean prompt" in backwards.warning and f"{backwards.clean:.3g}" in backwards.warning
    same = replace(backwards, clean=1.0, corrupted=0.999)
    assert "hardly tells the two prompts apart: 1 after" in same.warning and "0.999" in same.warning
    assert "prefers the wrong answer" in replace(backwards, clean=-1.0, corrupted=-5.0).warning


@pytest.mark.parametrize(
    ("texts", "field", "words"),
    [
        ({"wrong": ""}, "wrong", "Write the wrong answer."),
        ({"corrupted": TEXTS["clean"]}, "corrupted", "equal"),
        ({"corrupted": "The capital of Spain and Italy is"}, "corrupted", "as many"),
        ({"wrong": "Paris"}, "wrong", "no difference to measure"),
    ],
)
def test_what_does_not_fit_is_said_at_its_field_and_nothing_is_used(
    texts: dict[str, str], field: str, words: str
) -> None:
    one = chooser()
    write(one.pair, **{**TEXTS, "answer": "Paris", "wrong": "Madrid", **texts})
    one.pair.use()
    assert one.contrast is None and words in one.pair.form._notes[field].value
    assert [name for name, note in one.pair.form._notes.items() if note.value] == [field]


def test_two_prompts_are_laid_beside_each_other() -> None:
    longer = aligned(tiny(), "The capital of France is", "The capital is", "cloze")
    assert longer.counts[0] - longer.counts[1] == 2 and not longer.fits
    assert longer.pairs[2:4] == ((" of", None), (" France", None)) and longer.same == (True, True, False, False, True)
    chat = aligned(tiny(), TEXTS["clean"], TEXTS["corrupted"], "chat")
    inside = [pair[0] for pair in chat.pairs][chat.own.start : chat.own.stop]
    assert "".join(map(str, inside)).strip() == TEXTS["clean"] and chat.own.start > 0


@pytest.mark.parametrize(
    ("prompt", "answer", "want"),
    [("to", "Mary", " Mary"), ("17", "45", "45"), ("to", " Mary", " Mary"), ("is:", "Mary", " Mary"), ("(", "a", "a")],
)
def test_a_space_is_added_before_a_word(prompt: str, answer: str, want: str) -> None:
    assert after(prompt, answer) == want


def test_the_page_and_the_form_say_what_is_there() -> None:
    page = unwrapped((DOCS / "how-to/a-pair-of-prompts.md").read_text(encoding="utf-8"))
    for name in (*wb.FactChooser(tiny())._mode.options, chooser()._mode.options[0]):
        assert f"*{name}*" in page
    graph = wb.CircuitGraph(tiny(), FRANCE, pool=POOL, compute=False)
    assert f"Tick the box below it, *{graph.recovery.live.description}*" in page
    assert "White space at the ends of both prompts is removed" in page
    assert "White space at the ends of both prompts is removed" in shown(chooser().pair.form)
    notebook = (ROOT / "notebooks/03_click_a_circuit.ipynb").read_text(encoding="utf-8")
    words = {6: "six", 7: "seven", 8: "eight"}[sum(not tab.within for tab in TABS)]
    assert f"in {words} tabs" in notebook


def test_contrasts_are_written_and_read_whole() -> None:
    states = torch.randn(5, tiny().shape.d_model)
    for one in (
        contrast(positions={"country": 3, "end": "is"}, form="chat", id="one"),
        contrast(answer=(" Paris", 7), wrong=(5,)),
        wb.Contrast(clean=(1, 2, 3), noise=2.5, noise_at=(1,), answer=4),
        wb.Contrast(clean=states, corrupted=states + 1, answer=4),
    ):
        assert contrast_from(contrast_fields(one)) == one


def bench() -> wb.Workbench:
    return wb.Workbench(tiny(), POOL, fact=FRANCE, autosave=False)


def test_the_circuit_is_about_the_pair_and_the_edit_says_what_it_needs(tmp_path: Path) -> None:
    app = bench()
    app.selection = "L1H3"
    app.contrast = contrast()
    assert app.picker.fact == contrast() == app.graph.contrast and app.fact == FRANCE and str(app.selection) == "L1H3"
    assert "Workbench(the-capital-of-france-is" in repr(app)
    assert app.editor.problem == "An edit needs a fact." and control(app.editor, "Run").disabled
    assert "pair of prompts" in shown(app.editor.no_fact)
    click(control(app.editor, "Write it as a fact"))
    assert app.tab == "chooser" and app.contrast is None
    texts = app.chooser._own.form.texts
    assert (texts["subject"], texts["target"], texts["swap"]) == ("France", "Madrid", "Spain")
    assert app.picker.fact == FRANCE and app.editor.problem == "" and str(app.selection) == "L1H3"
    app.contrast = contrast()
    app.fact = SPAIN
    assert app.contrast is None and app.graph.contrast == SPAIN == app.picker.fact


def with_a_run() -> wb.Workbench:
    app = bench()
    app.editor.recipe = QUICK
    app.selection = "L1H3"
    app.editor.run().wait(60)
    until(lambda: app.run is not None)
    return app


def test_the_mode_and_the_draft_stay_where_the_last_fact_has_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    app = with_a_run()
    app.contrast = contrast()
    assert app.run is None
    enter(app.chooser._mode, index=1)
    assert app.chooser._mode.index == 1 and app.contrast is None and app.run is app.runs[0]
    write_own = app.chooser._own.form.fields["subject"]
    write_own.value = "Peru"
    enter(app.chooser._mode, index=2)
    assert app.contrast == contrast() == app.picker.fact
    enter(app.chooser._mode, index=1)
    assert app.chooser._mode.index == 1 and write_own.value == "Peru", "what was written stays"
    app.chooser.contrast = contrast()
    click(control(app.editor, "Write it as a fact"))
    texts = app.chooser._own.form.texts
    assert (texts["subject"], texts["target"], texts["swap"]) == ("France", "Madrid", "Spain")
    assert app.tab == "chooser" and app.chooser._mode.index == 1 and app.contrast is None
    assert app.picker.fact == FRANCE == app.fact and app.run is app.runs[0]
    app.open_run(app.runs[0])
    assert app.chooser._mode.index == 0 and app.chooser._own.form.texts["subject"] == "", (
        "an opened run leaves no draft"
    )


def test_a_partner_that_is_found_late_leaves_the_pair_on_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    app, go = bench(), threading.Event()
    find = app.chooser._own.partner

    def held(*given: Any) -> Any:
        assert go.wait(20)
        return find(*given)

    monkeypatch.setattr(app.chooser._own, "partner", held)
    for name, text in {**WRITTEN, "swap": "Spain", "swap_answer": "Madrid"}.items():
        app.chooser._own.form.fields[name].value = text
    app.chooser._use()
    assert app.fact.target == "Madrid" and app.chooser.partner is None
    heard: list[Any] = []
    app.chooser.on_fact(heard.append)
    app.contrast = contrast()
    job = app.chooser.job
    go.set()
    assert job is not None and job.wait(20) is not None
    until(lambda: job.settled)
    assert app.chooser.partner is not None and heard == []
    assert app.contrast == contrast() == app.chooser.contrast == app.picker.fact == app.graph.contrast
    enter(app.chooser._mode, index=1)
    assert app.contrast is None and app.picker.partner == app.chooser.partner, "the fact has it when it is shown again"


@pytest.mark.parametrize(
    "texts",
    [
        {"answer": "Paris"},
        {"clean": f"{TEXTS['clean']} ", "corrupted": f"{TEXTS['corrupted']} "},
        {"clean": f"So:\n{TEXTS['clean']}", "corrupted": f"So:\n{TEXTS['corrupted']}"},
        {"answer": " Paris "},
    ],
)
def test_a_pair_that_the_form_would_change_is_described(texts: dict[str, str]) -> None:
    app = bench()
    app.contrast = contrast(**texts)
    pair = app.chooser.pair
    said = shown(pair.preview)
    assert "the form would read it otherwise" in said and "Reading both prompts" not in said
    assert pair._go.layout.display != "none" and pair._back.layout.display == "none"
    write(pair, clean="Another prompt")
    assert "about another pair" in shown(pair.preview) and pair._go.layout.display == "none"
    click(pair._back)
    assert "the form would read it otherwise" in shown(pair.preview) and pair.form.texts["clean"] == ""
    pair.use()
    assert app.contrast == contrast(**texts) == app.picker.fact, "an empty form is no other pair"


def test_the_form_keeps_what_it_has_no_field_for() -> None:
    app = bench()
    given = contrast(id="mine", positions={"country": 3})
    app.contrast = given
    pair = app.chooser.pair
    assert pair.job is not None
    pair.job.wait(20)
    until(lambda: "after the clean prompt," in shown(pair.preview))
    app.picker.compute("mlps").wait(60)
    maps = app.maps
    for _ in range(2):
        click(control(pair.form, "Use this pair"))
        assert app.contrast is not None and app.contrast.id == "mine" and app.contrast.positions == given.positions
        assert app.maps == maps and list(maps) == ["mlps"]
        write(pair, wrong="Rome")
        write(pair, wrong=" Madrid ")  # what is read from the field is the same
    write(pair, wrong="Rome")
    click(control(pair.form, "Use this pair"))
    assert app.contrast == contrast(wrong=" Rome") and app.maps == {}


def test_what_is_typed_and_undone_while_the_pair_is_read_is_the_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    go, fails = threading.Event(), [False]

    def held(*given: Any) -> Any:
        assert go.wait(20)
        if fails[0]:
            raise ValueError("This is not read.")
        return read_pair(*given)

    monkeypatch.setattr(pair_module, "read_pair", held)
    one = chooser()
    one.contrast = contrast()
    for typed in ("Rome", " Madrid"):
        write(one.pair, wrong=typed)
        said = shown(one.pair.preview)
        undone = typed == " Madrid"
        assert ("about this pair" in said) == ("Reading both prompts" in said) == undone
        assert ("about another pair" in said) != undone
    write(one.pair, wrong="Rome")
    go.set()
    assert one.pair.job is not None
    one.pair.job.wait(20)
    until(lambda: one.pair.job is not None and one.pair.job.settled)
    assert "about another pair" in shown(one.pair.preview)
    write(one.pair, wrong="Madrid")
    assert "after the clean prompt," in shown(one.pair.preview)
    fails[0] = True
    one.contrast = contrast(wrong=" Rome")
    until(lambda: one.pair.job is not None and one.pair.job.settled)
    write(one.pair, wrong="Madrid")
    assert "not read" not in shown(one.pair.preview)
    write(one.pair, wrong="Rome")
    assert "This is not read." in shown(one.pair.preview) and "about this pair" in shown(one.pair.preview)


def test_what_names_the_screen_names_the_pair_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cards: list[list[str]] = []
    for module in (app_module, chooser_module):
        monkeypatch.setattr(module, "text_card_png", lambda title, lines: cards.append([title, *lines]) or b"")
    app = bench()
    app.contrast = contrast()
    for panel in (app, app.chooser):
        panel._picture()
    assert [card[:3] for card in cards] == [
        [title, TEXTS["clean"], "' Paris', not ' Madrid'"] for title in ("Workbench", "FactChooser")
    ]
    app.fact = FRANCE
    app._picture()
    assert cards[-1][1:3] == [FRANCE.question, "Paris → Rome"]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    app.contrast = contrast()
    assert app.export_html().name == "the-capital-of-france-is-1.html"
    other = bench()
    click(control(other, "Open"))
    assert other.error is None and "Opened the-capital-of-france-is: 0 maps" in shown(other)


def test_a_reopened_session_has_the_pair_the_maps_and_the_circuit(tmp_path: Path) -> None:
    app = bench()
    app.contrast = contrast(id="mine")
    app.tab, app.circuit_tab.shown = "picker", "graph"
    app.graph.wait()
    app.picker.compute("heads").wait()
    app.circuit = CIRCUIT
    assert str(app.selection) == "L0MLP L1MLP"
    folder = app.save_session(tmp_path / "kept")
    assert load_session(folder).contrast == contrast(id="mine")
    other = bench()
    other.open_session(folder)
    assert other.contrast == contrast(id="mine") == other.picker.fact == other.graph.contrast
    assert other.circuit == wb.Circuit(CIRCUIT) and other.graph.edges is None
    assert torch.equal(other.maps["heads"].values, app.maps["heads"].values)
    other.tab, other.circuit_tab.shown = "picker", "graph"
    other.graph.wait()
    assert other.circuit == wb.Circuit(CIRCUIT) and str(other.selection) == "L0MLP L1MLP"
    assert set(map(str, other.circuit)) <= set(other.graph.view.selected)


def test_the_code_of_a_pair_makes_its_maps_and_edges_again() -> None:
    app = bench()
    app.contrast = contrast()
    app.tab, app.circuit_tab.shown = "picker", "graph"
    app.graph.wait()
    app.picker.compute("mlps").wait()
    held: dict[str, Any] = {"wb": wb, "model": tiny()}
    exec("contrast = " + app.code.partition("contrast = ")[2], held)
    assert app.graph.edges is not None
    assert torch.equal(held["edges"].values.nan_to_num(), app.graph.edges.values.nan_to_num())
    assert torch.equal(held["mlps"].values, app.maps["mlps"].values)


def test_an_edit_panel_works_from_the_nodes_of_a_circuit_and_refuses_a_contrast() -> None:
    panel = wb.EditPanel(tiny(), FRANCE, wb.Circuit(CIRCUIT), pool=POOL)
    assert panel.selection == wb.Circuit(CIRCUIT).selection and panel.problem == ""
    graph = wb.CircuitGraph(tiny(), FRANCE, pool=POOL, compute=False)
    heard: list[str] = []
    graph.on_go(lambda _, where: heard.append(where))
    followed = wb.EditPanel(tiny(), FRANCE, graph, pool=POOL)
    graph.selection = "L1H3 L2MLP"
    assert followed.selection == wb.Selection("L1H3 L2MLP")
    click(control(graph, "Edit these"))
    assert heard == ["editor"]
    given: Any = contrast()
    for bad in (given, [given]):
        with pytest.raises(TypeError, match="needs a fact, and a Contrast is none"):
            wb.EditPanel(tiny(), bad)


def test_a_draft_says_what_the_pair_says() -> None:
    draft = fact_draft(tiny(), contrast())
    assert draft["prompt"] == TEXTS["clean"] and draft["answer"] == "Paris" and draft["swap_answer"] == "Madrid"
    assert fact_draft(tiny(), wb.Contrast(clean=(1, 2), corrupted=(1, 3), answer=4)) == {}
