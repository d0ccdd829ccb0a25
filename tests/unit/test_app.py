"""The workbench through the messages a browser sends: all tabs are about one fact, and one script repeats it all."""

from __future__ import annotations

import base64
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ipywidgets import HTML, Tab

import workbench
from tests.helpers.panels import EVIL, FACTS, FRANCE, QUICK, SPAIN, Held, control, descendants, shown, tiny, until
from tests.helpers.pictures import data_of
from tests.helpers.small_fits import same
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, knowing
from tests.helpers.wire import click, enter
from workbench.editing.applied import applied
from workbench.evaluation.probabilities import answer_probabilities
from workbench.files.session import load_session
from workbench.tracing.attribution import attribute
from workbench.types import Fact, Selection
from workbench.types.cancelling import Cancelled
from workbench.widgets import app as module
from workbench.widgets import app_sessions
from workbench.widgets.app import Workbench
from workbench.widgets.app_tabs import TABS, PanelTab
from workbench.widgets.edit import job as edit_job
from workbench.widgets.picker.maps import MapName
from workbench.widgets.shared.code_block import CodeBlock
from workbench.widgets.shared.panel import Panel

NAMES = [tab.name for tab in TABS if not tab.within]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def bench(*maps: MapName, selection: str = "L1H4 L1MLP") -> Workbench:
    """A workbench that shows these maps, with a quick recipe."""
    one = Workbench(tiny(), FACTS, fact="france-capital")
    one.editor.recipe = QUICK
    if maps:
        one.picker.compute(*maps).wait(60)
    one.picker.selection = selection
    return one


def tabs(one: Workbench) -> Any:
    """The row of tabs."""
    return next(w for w in descendants(one) if isinstance(w, Tab))


def in_tab(one: Workbench, name: str) -> Any:
    """What a tab shows."""
    return tabs(one).children[NAMES.index(name)]


def script_block(one: Workbench) -> CodeBlock:
    """The fold of the whole script."""
    return next(w for w in descendants(one) if isinstance(w, CodeBlock) and w.summary == "Whole script")


def go_to(one: Workbench, name: str) -> None:
    enter(tabs(one), selected_index=NAMES.index(name))


def run(one: Workbench) -> None:
    click(control(one.editor, "Run"))
    assert one.editor.job is not None
    one.editor.job.wait(60)


def said(one: Workbench) -> str:
    """The alert between the line on top and the tabs."""
    return next(area.value for area in one.children if isinstance(area, HTML))


# One fact in all tabs


def test_choosing_a_fact_changes_every_tab() -> None:
    one = bench("heads")
    run(one)
    assert one.comparison is not None and in_tab(one, "comparison") is one.comparison
    enter(control(one.chooser, "Facts"), index=FACTS.ids.index("spain-capital"))
    assert one.chooser.fact == one.picker.fact == one.editor.fact == SPAIN
    assert one.picker.maps == {} and one.editor.edit is None
    assert one.comparison is None and "Run an edit first" in shown(in_tab(one, "comparison"))
    assert list(one.picker.selection) == list(Selection("L1H4 L1MLP")), "what is picked stays"
    assert repr(one) == "Workbench(spain-capital, 5 facts)"


def test_maps_are_computed_when_somebody_looks() -> None:
    one = bench()
    assert one.picker.job is None
    go_to(one, "editor")
    assert one.picker.job is None
    go_to(one, "picker")
    job = one.picker.job
    assert job is not None
    job.wait(120)
    assert set(one.picker.maps) >= {"heads", "mlps", "resid"}
    go_to(one, "chooser")
    go_to(one, "picker")
    assert one.picker.job is job, "and not again"
    one.chooser.fact = "spain-capital"
    again = one.picker.job
    assert again is not None and again is not job, "another fact, with the maps in sight"
    again.wait(120)
    assert torch.equal(
        one.picker.maps["heads"].values,
        attribute(
            tiny(), SPAIN, "head", method="patching", corruption="swap", normalise=True, pool=FACTS, progress=False
        ).values,
    )


def test_no_session_is_opened_while_an_edit_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    held, one = Held(monkeypatch), bench()
    click(control(one.editor, "Run"))
    until(lambda: held.calls)
    one.save_session("now")
    with pytest.raises(RuntimeError, match="An edit is running"):
        one.open_session("now")
    held.go.set()


def test_the_last_tab_follows_the_last_edit() -> None:
    one = bench()
    go_to(one, "comparison")
    assert "Run an edit first" in shown(in_tab(one, "comparison"))
    run(one)
    view = one.comparison
    assert view is not None and view.edit is one.editor.edit and "has ended" in said(one)
    enter(control(one.editor, "seed"), value=5)
    run(one)
    assert one.comparison is view and view.edit is one.editor.edit


def test_the_probe_tab_has_a_panel_for_the_last_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench()
    go_to(one, "probing")
    assert "Run an edit first" in shown(in_tab(one, "probing"))
    run(one)
    panel = one.probing
    assert panel is not None and in_tab(one, "probing") is panel and "wb.probe" not in one.code
    panel.probes = ("strength",)
    report = panel.run().wait(60)
    names = executed(one.code, monkeypatch)
    assert one.editor.report is not None
    assert names["probes"].curves == report.curves and names["report"].rows == one.editor.report.rows
    enter(control(one.editor, "seed"), value=5)
    run(one)
    assert one.probing is panel and in_tab(one, "probing") is panel, "one panel for all edits"
    assert panel.edit is one.edit and panel.report is None and "wb.probe" not in one.code
    enter(control(one.chooser, "Facts"), index=FACTS.ids.index("spain-capital"))
    assert one.probing is None and "Run an edit first" in shown(in_tab(one, "probing"))


def test_a_row_of_the_table_is_a_tab_with_its_part_of_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    class Notes(Panel):
        """A panel of one's own."""

        def __init__(self, fact: Fact) -> None:
            super().__init__()
            self.fact, self.opened = fact, ""
            self._lay_out(self._alert)

        def _picture(self) -> bytes:
            return b""

    row = PanelTab(
        name="notes",
        picture="notes",
        title="6 Notes",
        make=lambda given: Notes(given.fact),
        open=lambda notes, opened: setattr(notes, "opened", opened.folder),
        comment="Notes",
        lines=lambda notes, script: f"about = {notes.fact.id!r}\n",
    )
    monkeypatch.setattr(module, "TABS", (*TABS, row))
    one = bench("heads")
    assert list(one.panels) == ["chooser", "picker", "graph", "editor", "sweeping", "notes"]
    assert tabs(one).titles[-1] == "6 Notes" and tabs(one).children[-1] is one.panels["notes"]
    one.tab = "notes"
    assert tabs(one).selected_index == len(NAMES) and one.tab == "notes"
    one.chooser.fact = "spain-capital"
    assert one.panels["notes"].fact == SPAIN
    assert one.code.endswith("\n# Notes\nabout = 'spain-capital'\n")
    one.open_session(one.save_session("mine"))
    assert one.panels["notes"].opened.endswith("mine")
    with pytest.raises(ValueError, match="There is no tab 'sixth'"):
        one.tab = "sixth"


# The script


def executed(code: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(workbench, "load_model", lambda *_: tiny())
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_one_script_repeats_everything_that_was_clicked(monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench("heads", "mlps")
    one.picker.top("heads", 2)
    run(one)
    assert one.comparison is not None
    one.comparison.strength = 0.35
    one.comparison.site = "mlp"
    one.comparison.compare().wait(60)
    asked = one.comparison.ask("What is the capital of Spain?")
    assert asked is not None
    asked.wait(60)
    code = one.code
    assert [code.count(part) for part in ("load_model(", "import ", "fact = ", "selection = ", "edit = ")] == [1] * 5
    names = executed(code, monkeypatch)
    for name in ("heads", "mlps"):
        assert torch.equal(names[name].values, one.picker.maps[name].values)
    assert names["selection"] == one.picker.selection
    assert one.editor.edit is not None and same(names["edit"], one.editor.edit)
    assert one.editor.report is not None and names["report"].rows == one.editor.report.rows
    assert one.comparison.result is not None
    assert torch.equal(names["maps"].difference.values, one.comparison.result.difference.values)
    assert dict(names["probabilities"]) == one.comparison.probabilities
    assert names["answers"][0][0] == "Madrid"


def test_the_script_has_only_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench("heads")
    assert "rewrite" not in one.code and "applied" not in one.code
    assert executed(one.code, monkeypatch)["selection"] == one.picker.selection
    run(one)
    assert "compare_maps" not in one.code, "nobody asked for these maps"
    one.picker.selection = "L0MLP"  # after the edit, which was of another selection
    names = executed(one.code, monkeypatch)
    assert one.editor.edit is not None and same(names["edit"], one.editor.edit)
    assert names["edit"].selection == Selection("L1H4 L1MLP")


def test_the_button_shows_the_script_and_it_follows_what_is_clicked(monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench("heads")
    button, block = control(one, "Code"), script_block(one)
    assert block.source == "" and block.layout.display == "none"
    enter(button, value=True)
    assert block.opened and block.layout.display is None and block.source == one.code
    one.picker.selection = "L0MLP"
    assert "selection = wb.Selection('L0MLP')" in block.source
    run(one)
    assert one.comparison is not None and "wb.rewrite" in block.source
    one.comparison.strength = 0.35
    assert "strength=0.35" in block.source
    one.chooser.fact = "spain-capital"
    assert block.source == one.code and "spain-capital" in block.source and "rewrite" not in block.source
    enter(button, value=False)
    assert not block.opened and block.source == "", "what is closed is not sent"
    with monkeypatch.context() as patch:
        patch.setattr(module, "workbench_code", lambda *_: pytest.fail("nobody sees it"))
        one.picker.selection = "L1MLP"


# Sessions


def saved(folder: str = "mine") -> Workbench:
    one = bench("heads")
    run(one)
    enter(control(one, "Folder"), value=folder)
    click(control(one, "Save"))
    assert one.error is None and f"Saved in {Path(folder).resolve()}" in said(one)
    return one


@pytest.mark.parametrize(("button", "where"), [("Save", "save_session"), ("Open", "open_session")])
def test_any_error_of_saving_and_opening_is_shown(button: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise KeyError("no such part")

    one = bench()
    with monkeypatch.context() as patch:
        patch.setattr(one, where, fail)
        click(control(one, button))
    assert isinstance(one.error, KeyError)
    assert "KeyError" not in said(one) and "no such part" in said(one) and 'role="alert"' in said(one)
    click(control(one, "Save"))
    assert one.error is None and "Saved in" in said(one)


def test_an_error_of_the_script_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise KeyError("no such part")

    one = bench()
    with monkeypatch.context() as patch:
        patch.setattr(module, "workbench_code", fail)
        enter(control(one, "Code"), value=True)
    assert isinstance(one.error, KeyError) and "no such part" in said(one)
    assert "no such part" in script_block(one).source
    one.picker.selection = "L0MLP"
    assert one.error is None and said(one) == "" and script_block(one).source == one.code


@pytest.mark.parametrize("tab", ["chooser", "picker"])
def test_saved_and_opened_is_the_same(tab: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = saved(), Workbench(tiny(), FACTS, fact="spain-capital")
    if tab == "picker":
        monkeypatch.setattr(new.picker, "compute", lambda *_: pytest.fail("the maps are in the session"))
        new.picker.show(SPAIN, {"heads": old.picker.maps["heads"]})
    go_to(new, tab)
    enter(control(new, "Folder"), value="mine")
    click(control(new, "Open"))
    assert new.error is None and "Opened france-capital: 1 maps, 2 picked, its edit." in said(new)
    assert new.chooser.fact == new.picker.fact == new.editor.fact == FRANCE
    assert new.picker.selection == old.picker.selection
    assert torch.equal(new.picker.maps["heads"].values, old.picker.maps["heads"].values)
    assert new.editor.edit is not None and old.editor.edit is not None and same(new.editor.edit, old.editor.edit)
    assert new.editor.report is not None and old.editor.report is not None
    assert new.editor.report.rows == old.editor.report.rows and new.editor.recipe == QUICK
    assert "Evaluation" in shown(new.editor) and "<svg" in shown(new.editor)
    assert new.comparison is not None and old.comparison is not None
    assert new.comparison.probabilities == old.comparison.probabilities


def test_after_opening_the_script_reads_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = saved(), Workbench(tiny(), FACTS, fact="spain-capital")
    new.open_session("mine")
    assert new.comparison is not None
    new.comparison.strength = 0.5
    assert "rewrite" not in new.code and "attribute" not in new.code
    names = executed(new.code, monkeypatch)
    assert old.editor.edit is not None and same(names["edit"], old.editor.edit)
    assert torch.equal(names["heads"].values, old.picker.maps["heads"].values)
    with applied(tiny(), old.editor.edit, "learn", 0.5) as edited:
        assert dict(names["probabilities"]) == dict(answer_probabilities(edited, FRANCE)["before"])
    assert same(executed(new.editor.code, monkeypatch)["edit"], old.editor.edit)
    assert same(executed(new.comparison.code, monkeypatch)["edit"], old.editor.edit)
    run(new)
    assert "rewrite" in new.code, "a new run is a new edit"
    new.chooser.fact = "spain-capital"
    assert "session" not in new.code


def test_probes_and_the_random_control_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    old = bench(selection="L1N3 L2N5")
    old.editor.random_control = True
    run(old)
    assert old.probing is not None
    old.probing.probes = ("strength", "context")
    report = old.probing.run().wait(60)
    old.save_session("mine")
    new = Workbench(tiny(), FACTS, fact="spain-capital")
    enter(control(new, "Folder"), value="mine")
    click(control(new, "Open"))
    assert new.error is None and "its edit, random control, probes." in said(new)
    assert new.editor.control_report is not None and old.editor.control_report is not None
    assert new.editor.control_report.rows == old.editor.control_report.rows and new.editor.random_control
    assert "random control, after learn" in shown(new.editor)
    panel = new.probing
    assert panel is not None and panel.report is not None and panel.job is None
    assert panel.report.rows == report.rows and panel.report.curves == report.curves
    assert panel.probes == ("context", "strength") and shown(panel).count("old answer recovered") > 0
    texts = [w for w in descendants(panel) if getattr(w, "description", None) == "Texts"]
    assert sum(not button.disabled for button in texts) == 2, "its texts and curves can be read"
    names = executed(new.code, monkeypatch)
    assert "wb.probe(" not in new.code and "rewrite" not in new.code
    assert names["probes"].rows == report.rows
    assert names["control_report"].rows == old.editor.control_report.rows
    assert executed(panel.code, monkeypatch)["probes"].curves == report.curves
    new.save_session("again")
    assert load_session("again").probes is not None
    enter(control(panel, "back into context"), value=False)
    assert "probes = run.probes" in panel.code, "what is in sight"
    assert panel.run().wait(60).curves == report.curves and "wb.probe(" in panel.code
    saved("other").open_session("other")
    assert load_session("other").probes is None


def test_probes_of_another_edit_are_not_shown() -> None:
    one = bench()
    run(one)
    assert one.probing is not None
    one.probing.probes = ("strength",)
    report = one.probing.run().wait(60)
    enter(control(one.editor, "seed"), value=5)
    run(one)
    with pytest.raises(ValueError, match="this panel is for the edit"):
        one.probing.show(report)
    assert one.probing.report is None


def test_an_edit_whose_evaluation_was_cancelled_reaches_the_other_tabs(monkeypatch: pytest.MonkeyPatch) -> None:
    began, go = threading.Event(), threading.Event()
    real = edit_job.StoppableAnswers.replies

    def replies(self: Any, *given: Any) -> Any:
        began.set()
        assert go.wait(60)
        return real(self, *given)

    monkeypatch.setattr(edit_job.StoppableAnswers, "replies", replies)
    one = bench()
    click(control(one.editor, "Run"))
    assert began.wait(60) and one.comparison is None
    click(control(one.editor, "Cancel"))
    go.set()
    assert one.editor.job is not None
    with pytest.raises(Cancelled, match="during the evaluation"):
        one.editor.job.wait(60)
    edit = one.editor.edit
    assert edit is not None and one.editor.report is None and one.editor.error is None
    assert one.comparison is not None and one.comparison.edit is edit
    assert (in_tab(one, "comparison"), in_tab(one, "probing")) == (one.comparison, one.probing)
    assert "has ended, but its evaluation was cancelled" in said(one)
    assert "Not evaluated: the evaluation was cancelled." in shown(one.editor)
    assert same(executed(one.code, monkeypatch)["edit"], edit)
    one.save_session("unevaluated")
    one.open_session("unevaluated")
    assert one.editor.edit is not None and same(one.editor.edit, edit) and one.editor.report is None


def test_a_cancelled_fit_leaves_no_edit_in_the_other_tabs(monkeypatch: pytest.MonkeyPatch) -> None:
    held, one = Held(monkeypatch), bench()
    click(control(one.editor, "Run"))
    until(lambda: held.calls)
    click(control(one.editor, "Cancel"))
    until(lambda: not one.editor.running)
    assert one.comparison is None and one.probing is None and "has ended" not in said(one)


def test_a_session_without_an_edit_empties_the_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    bench("heads", selection="L2MLP").save_session("plain")
    one = saved()
    one.open_session("plain")
    assert one.editor.edit is None and one.comparison is None and "<svg" not in shown(one.editor)
    assert one.picker.selection == Selection("L2MLP")


def state(one: Workbench) -> tuple[Any, ...]:
    edit, report = one.editor.edit, one.editor.report
    return (one.chooser.fact, one.picker.fact, one.editor.fact, one.picker.selection, dict(one.picker.maps), edit,
            report, one.comparison, one.code)  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("  ", "Give the folder a name"),
        ("nowhere", "There is no folder"),
        (".", "not a saved session"),
        ("stranger", "Load that model"),
        ("damaged", "damaged"),
        ("version", "schema version"),
        ("file", "There is no folder"),
    ],
)
def test_what_cannot_be_opened_is_said_and_changes_nothing(folder: str, words: str) -> None:
    one = saved()
    Path("file").write_text("x")
    for copy in ("damaged", "version"):
        one.save_session(copy)
    (maps,) = Path("damaged").glob("maps*/heads.safetensors")
    maps.write_bytes(maps.read_bytes()[:-8])
    document = Path("version/session.json")
    document.write_text(document.read_text().replace('"schema_version": 3', '"schema_version": 7'))
    stranger = knowing(tiny_llama(1, tied=False), FACTS)
    Workbench(stranger, FACTS, fact="spain-capital").save_session("stranger")
    before = state(one)
    enter(control(one, "Folder"), value=folder)
    click(control(one, "Open"))
    assert words in str(one.error) and 'role="alert"' in said(one) and state(one) == before
    with pytest.raises((ValueError, OSError), match=words):
        one.open_session(folder)
    enter(control(one, "Folder"), value="mine")
    click(control(one, "Open"))
    assert one.error is None and 'role="alert"' not in said(one)


@pytest.mark.parametrize(("folder", "words"), [("", "Give the folder a name"), ("file", "is a file"), ("own", "else")])
def test_what_cannot_be_saved_is_said(folder: str, words: str) -> None:
    one = bench("heads")
    Path("file").write_text("x")
    Path("own").mkdir()
    Path("own/thesis.md").write_text("x")
    enter(control(one, "Folder"), value=folder)
    click(control(one, "Save"))
    assert words in str(one.error) and 'role="alert"' in said(one)
    assert Path("own/thesis.md").read_text() == Path("file").read_text() == "x"


def test_a_selection_that_the_model_lacks_is_refused_before_anything_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = saved()
    session = replace(load_session("mine"), selection=Selection("L99MLP"))
    before = state(one)
    monkeypatch.setattr(app_sessions, "load_session", lambda _: session)
    with pytest.raises(ValueError, match="L99MLP"):
        one.open_session("mine")
    assert state(one) == before


# The rest


def test_wrong_arguments() -> None:
    one = saved()
    assert one.editor.edit is not None
    with applied(tiny(), one.editor.edit) as edited, pytest.raises(ValueError, match=r"model\.base"):
        Workbench(edited, FACTS)
    with pytest.raises(KeyError):
        Workbench(tiny(), FACTS, fact="no-such-fact")
    with pytest.raises(ValueError, match="at least one fact"):
        Workbench(tiny(), workbench.FactSet())


def test_the_model_is_not_changed() -> None:
    before = tiny().fingerprint
    saved()
    assert tiny().fingerprint == before


def test_texts_are_shown_not_run() -> None:
    evil = capital("France", f"Paris {EVIL}", EVIL, id="evil")
    one = Workbench(tiny(), workbench.FactSet([evil, *FACTS]), fact="evil")
    enter(control(one, "Folder"), value=f"{EVIL}\0")
    click(control(one, "Open"))
    assert one.error is not None and "&lt;img" in shown(one)


def test_it_shows_where_widgets_are_not_drawn() -> None:
    one = bench()
    card = one._repr_mimebundle_()
    assert (
        card["text/plain"] == "Workbench(france-capital, 5 facts)"
        and "application/vnd.jupyter.widget-view+json" in card
    )
    one.picker.compute("heads").wait(60)
    assert one._repr_mimebundle_()["image/png"] != card["image/png"]


def test_a_snapshot_is_the_picture_beside_the_panel() -> None:
    one = bench()
    card = data_of(one.snapshot())
    assert card == base64.b64decode(one._repr_mimebundle_()["image/png"])
    one.picker.compute("heads").wait(60)
    assert one.snapshot().data == one.picker.snapshot().data == one.picker.heads.to_png()
