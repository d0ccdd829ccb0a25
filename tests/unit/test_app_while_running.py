"""Another fact, or another run, is chosen while an edit runs: it changes what is shown, and the edit goes on."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.benches import bench, go_to, in_tab, run, said
from tests.helpers.panels import FACTS, FRANCE, QUICK, SPAIN, Held, control, shown, tiny, until
from tests.helpers.small_fits import same
from tests.helpers.wire import click, enter
from tests.unit.test_app_runs import run_list
from workbench.editing.methods import ia3
from workbench.editing.rewrite import rewrite
from workbench.editing.selector import default_selection
from workbench.files.session import load_session
from workbench.types import Selection
from workbench.widgets.app import Workbench
from workbench.widgets.edit import train_choice
from workbench.widgets.edit.panel import EditPanel


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def begun(monkeypatch: pytest.MonkeyPatch, *, fits: bool = True) -> tuple[Workbench, Held, EditPanel]:
    """An edit of France that waits to be let go; its maps and picks were there before."""
    one, held = bench("heads"), Held(monkeypatch, fits=fits)
    click(control(one.editor, "Run"))
    until(lambda: held.calls)
    return one, held, one.editor


def ended(panel: EditPanel) -> None:
    until(lambda: panel.job is not None and panel.job.settled)


def choose(one: Workbench, id: str) -> None:
    enter(control(one.chooser, "Facts"), index=FACTS.ids.index(id))


def line(one: Workbench) -> Any:
    assert one._line is not None
    return one._line


def seen(widget: Any) -> bool:
    return widget.layout.display != "none"


def test_the_edit_becomes_a_run_of_its_own_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    one, held, running = begun(monkeypatch)
    heads = one.maps["heads"]
    choose(one, "spain-capital")
    assert one.fact == one.chooser.fact == one.picker.fact == one.editor.fact == SPAIN and one.error is None
    assert one.editor is not running and running.busy and running.fact == FRANCE
    one.selection = "L2MLP"
    held.go.set()
    ended(running)
    (only,) = one.runs
    assert (only.fact, only.ended, list(only.selection)) == (FRANCE, "done", list(Selection("L1H4 L1MLP")))
    assert only.maps["heads"] is heads and only.report is not None, "the circuit is that of its own fact"
    expected = rewrite(tiny(), FRANCE, Selection("L1H4 L1MLP"), recipe=QUICK, pool=FACTS, progress=False)
    assert same(only.edit, expected), "bit for bit what a script makes"
    assert one.run is None and one.edit is None and one.comparison is None and one.fact == SPAIN
    assert "The edit of France has ended: it is in the list of runs." in said(one)
    assert [r.fact for r in load_session("my-session").runs] == [FRANCE] and load_session("my-session").fact == SPAIN
    choose(one, "france-capital")
    assert one.run is only and one.editor.edit is only.edit and one.maps["heads"] is heads
    assert one.comparison is not None and one.comparison.edit is only.edit


def test_the_line_on_top_says_what_runs_whatever_is_on_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _held, running = begun(monkeypatch, fits=False)
    top = line(one)
    assert seen(top._running) and not seen(top.back_button), "it is on screen"
    for id, subject in (("spain-capital", "Spain"), ("italy-capital", "Italy")):
        choose(one, id)
        words = shown(top)
        assert f"<b>{subject}</b>" in words and "<b>France</b>: Paris → Rome" in words
        assert f"Edit running: {running.status}" in words and "wb-step-now" in words
        go_to(one, "comparison")
        assert f"Edit running: France, {running.status}" in shown(in_tab(one, "comparison"))
    assert seen(top.back_button) and not top.cancel_button.disabled
    click(top.cancel_button)
    ended(running)
    assert running.job is not None and running.job.state == "cancelled" and one.runs == ()
    assert not seen(top._running) and "Edit running" not in shown(top)
    assert "Run an edit first" in shown(in_tab(one, "comparison"))


def test_a_second_edit_waits_with_the_reason_beside_its_button(monkeypatch: pytest.MonkeyPatch) -> None:
    one, held, running = begun(monkeypatch)
    choose(one, "spain-capital")
    second = one.editor
    assert control(second, "Run").disabled and "An edit of France is running" in shown(second)
    with pytest.raises(RuntimeError, match="An edit of France is running"):
        second.run().wait(10)
    assert held.calls == 1 and second.edit is None and "An edit of France is running" in second.message
    held.go.set()
    ended(running)
    assert not control(second, "Run").disabled and "An edit of France" not in second.problem
    click(control(second, "Run"))
    ended(second)
    assert [r.fact for r in one.runs] == [FRANCE, SPAIN] and one.run is one.runs[1]
    choose(one, "italy-capital")
    assert one.editor in (running, second), "no third panel"


def test_the_second_panel_has_the_settings_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    one, held, running = begun(monkeypatch)
    choose(one, "spain-capital")
    assert one.editor.recipe == running.recipe == QUICK and one.editor.selection == running.selection
    held.go.set()
    ended(running)


def test_the_way_back_to_the_edit_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    one, held, running = begun(monkeypatch)
    heads = one.maps["heads"]
    for way in (lambda: choose(one, "france-capital"), lambda: click(line(one).back_button)):
        choose(one, "spain-capital")
        assert "heads" not in one.maps or one.maps["heads"] is not heads
        way()
        assert one.fact == one.chooser.fact == one.picker.fact == FRANCE and one.editor is running
        assert one.maps["heads"] is heads and not seen(line(one).back_button)
    assert one.tab == "editor"
    held.go.set()
    ended(running)
    assert one.run is one.runs[0] and one.comparison is not None, "it is on screen, so its run is"


def test_a_run_is_opened_while_another_edit_of_its_fact_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench("heads")
    run(one)
    (first,), before = one.runs, one.editor
    held = Held(monkeypatch, fits=True)
    click(control(one.editor, "Run"))
    until(lambda: held.calls)
    assert one.editor.edit is first.edit, "what is shown stays until there is something new"
    choose(one, "spain-capital")
    choose(one, "france-capital")
    assert one.editor is before and one.run is first and one.comparison is not None
    enter(control(run_list(one), "Runs"), index=0)
    choose(one, "spain-capital")
    one.open_run(first)
    assert one.editor is not before and one.editor.edit is first.edit and one.error is None
    assert control(one.editor, "Run").disabled and "one runs at a time" in shown(one.editor)
    with pytest.raises(RuntimeError, match="An edit is running"):
        one.open_session("my-session")
    held.go.set()
    ended(before)
    assert one.run is first and [r.fact for r in one.runs] == [FRANCE, FRANCE]
    assert one.comparison is not None and one.comparison.edit is first.edit, "the screen stays as it was"


def test_a_failed_edit_of_another_fact_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    one, held, running = begun(monkeypatch, fits=False)

    def broken(*given: Any, **options: Any) -> None:
        raise OSError("The disk is full.")

    held.then = broken
    choose(one, "spain-capital")
    held.go.set()
    ended(running)
    assert one.runs == () and "The edit of France failed" in said(one) and "The disk is full." in said(one)


# What stays when another fact is chosen


def test_picks_that_stay_are_said_to_be_of_another_fact() -> None:
    one = bench("heads")
    run(one)
    bar = one.picker.bar
    assert bar.elsewhere.disabled
    choose(one, "spain-capital")
    assert bar.elsewhere.description == "picked for France ×" and seen(bar.elsewhere)
    one.selection = "L2MLP"
    run(one)
    one.open_run(one.runs[0])
    assert not seen(bar.elsewhere), "they were opened with their fact"
    choose(one, "spain-capital")
    assert bar.elsewhere.description == "picked for France ×"
    click(bar.elsewhere)
    assert len(one.selection) == 0
    other = Workbench(tiny(), FACTS)
    other.open_session("my-session")
    assert len(other.selection) and not seen(other.picker.bar.elsewhere)


def test_train_shows_what_the_run_on_screen_has_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = inspect.unwrap(default_selection).__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "k", 12)
    monkeypatch.setattr(ia3, "MORE_NEURONS", 0)
    monkeypatch.setattr(train_choice, "NEURONS", 12)
    one = bench()
    menu = control(one.editor, "Train")
    enter(menu, index=[value for _, value in menu.options].index("default"))
    run(one)
    menu.value = "picked"
    run(one)
    by_default, picked = one.runs
    assert (by_default.picked, picked.picked) == (False, True)
    for run_, choice in ((by_default, "default"), (picked, "picked"), (by_default, "default")):
        one.open_run(run_)
        assert menu.value == choice and "was " not in one.editor.run_words, "and nothing is marked as changed"
    one.save_session("kept")
    other = Workbench(tiny(), FACTS)
    other.open_session("kept")
    assert control(other.editor, "Train").value == "default"
