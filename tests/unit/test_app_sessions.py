"""Sessions of the workbench: what is saved and opened again is the same, and what cannot be is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.benches import bench, executed, go_to, run, said, saved
from tests.helpers.panels import FACTS, FRANCE, QUICK, SPAIN, Held, control, descendants, shown, tiny, until
from tests.helpers.small_fits import same
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import knowing
from tests.helpers.wire import click, enter
from workbench.editing.applied import applied
from workbench.evaluation.probabilities import answer_probabilities
from workbench.files.session import load_session
from workbench.types import Selection
from workbench.widgets import app_sessions
from workbench.widgets.app import Workbench


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_no_session_is_opened_while_an_edit_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    held, one = Held(monkeypatch), bench()
    click(control(one.editor, "Run"))
    until(lambda: held.calls)
    one.save_session("now")
    with pytest.raises(RuntimeError, match="An edit is running"):
        one.open_session("now")
    held.go.set()


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
