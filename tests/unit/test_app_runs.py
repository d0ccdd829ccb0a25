"""Runs in the workbench: nothing that was run is lost by what is chosen, opened, saved or written elsewhere."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ipywidgets.embed import dependency_state

import workbench as wb
from tests.helpers.benches import bench, executed, go_to, in_tab, run, saved
from tests.helpers.choosers import WRITTEN, field, read, write
from tests.helpers.panels import EVIL, FACTS, FRANCE, SPAIN, Held, control, descendants, shown, tiny, until
from tests.helpers.small_fits import same
from tests.helpers.wire import click, enter
from workbench.files.session import load_session
from workbench.plots.style import short_number
from workbench.types import Fact, Run, Selection
from workbench.widgets.app import Workbench
from workbench.widgets.edit import job as edit_job
from workbench.widgets.runs.run_list import RunList
from workbench.widgets.runs.words import compared
from workbench.widgets.shared.measure import Measure


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def run_list(one: Workbench) -> RunList:
    return next(w for w in descendants(one) if isinstance(w, RunList))


def two_runs(*, probes: bool = False) -> Workbench:
    """One of France with maps (and probes), then one of Spain, which is on screen."""
    one = bench("heads")
    run(one)
    if probes:
        assert one.probing is not None
        one.probing.probes = ("strength",)
        one.probing.run().wait(60)
    one.fact = "spain-capital"
    one.selection = "L2MLP"
    run(one)
    return one


# What is kept


def test_a_run_outlives_the_choice_of_another_fact() -> None:
    one = two_runs(probes=True)
    france, spain = one.runs
    assert (france.fact, spain.fact, one.run) == (FRANCE, SPAIN, spain) and one.edit is spain.edit
    assert (france.name, france.ended) == ("France: Paris → Rome", "done") and (france.seconds or 0) > 0
    assert list(france.selection) == list(Selection("L1H4 L1MLP")) and list(france.maps) == ["heads"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", france.when)
    assert "wb.rewrite(" in france.code and france.report is not None
    enter(control(one.chooser, "Facts"), index=FACTS.ids.index("france-capital"))
    assert one.run is france or one.run is one.runs[0]
    assert one.edit is one.editor.edit is france.edit and one.report is one.editor.report
    assert one.comparison is not None and one.comparison.edit is france.edit
    assert one.probing is not None and one.probing.report is one.probes and one.probes is not None
    assert one.maps["heads"] is france.maps["heads"], "and nothing is computed again"
    assert one.selection == Selection("L2MLP"), "what is picked stays, where a fact was chosen"
    assert "Evaluation" in shown(one.editor) and "<svg" in shown(one.editor)
    one.fact = "italy-capital"
    assert one.run is None and one.edit is one.report is one.probes is None and len(one.runs) == 2
    assert one.editor.edit is None and "Run an edit first" in shown(in_tab(one, "comparison"))
    one.fact = "spain-capital"
    assert one.run is spain


def test_a_click_opens_a_run_with_everything_in_it() -> None:
    one = two_runs(probes=True)
    rows = run_list(one)
    lines = control(rows, "Runs")
    assert [value for _, value in lines.options] == [r.id for r in one.runs] and lines.value == one.runs[1].id
    assert "France: Paris → Rome" in lines.options[0][0] and "2 components, picked" in lines.options[0][0]
    enter(lines, index=0)
    france = one.runs[0]
    assert one.error is None and one.run is france
    assert one.fact == one.chooser.fact == one.picker.fact == one.editor.fact == FRANCE
    assert list(one.selection) == list(Selection("L1H4 L1MLP")) and one.editor.edit is france.edit
    assert one.editor.report is france.report and one.probing is not None
    assert one.probing.report is france.probes and one.probing.probes == ("strength",)
    assert control(one, "Run 1 of 2").tooltip
    with pytest.raises(KeyError, match="There is no run 'no'"):
        one.open_run("no")


def test_a_reopened_fact_of_ones_own_keeps_its_swap_subject() -> None:
    one = bench()
    write(one.chooser, **WRITTEN, swap="Italy")
    read(one.chooser)
    partner = one.picker.partner
    assert partner is not None and (partner.subject, partner.answer) == ("Italy", "Rome") == _swap(one)
    one.picker.compute("heads").wait(60)
    run(one)
    heads, code = one.maps["heads"], one.picker.shown_code()
    one.fact = "spain-capital"
    assert one.picker.partner != partner
    one.open_run(one.runs[0].id)
    assert one.picker.partner == one.chooser.partner == partner and _swap(one) == ("Italy", "Rome")
    assert "swap with Italy" in shown(one.picker) and one.maps["heads"] is heads
    assert one.picker.shown_code() == code, "the script gives the same numbers"
    result = one.picker.ablation.run("swap").wait(60)
    assert (
        result.clean == pytest.approx(heads.clean, abs=1e-4)
        and result.prompt.other_token == heads.prompts[0].other_token
    )
    read(one.chooser)
    assert one.maps["heads"] is heads, "nothing is computed again"


def _swap(one: Workbench) -> tuple[str, str]:
    """The subject to swap with and its answer, in the form."""
    return field(one.chooser, "swap").value, field(one.chooser, "swap_answer").value


def test_probes_join_the_run_that_they_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    one = two_runs()
    assert one.probing is not None and one.probes is None
    one.probing.probes = ("strength",)
    report = one.probing.run().wait(60)
    assert one.runs[1].probes is report and one.runs[0].probes is None
    broken_off = replace(report, partial="Cancelled.")
    one._kept.history.probed(broken_off)
    assert one.probes is report, "what was broken off does not take its place"
    assert load_session("my-session").runs[1].probes is not None


def test_a_run_whose_evaluation_was_cancelled_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench()
    real = edit_job.StoppableAnswers.replies

    def replies(self: Any, *given: Any, **options: Any) -> Any:
        one.editor.cancel()
        return real(self, *given, **options)

    monkeypatch.setattr(edit_job.StoppableAnswers, "replies", replies)
    click(control(one.editor, "Run"))
    until(lambda: one.editor.job is not None and one.editor.job.settled)
    (only,) = one.runs
    assert only.ended == "cancelled" and only.report is None and one.edit is only.edit
    assert "not evaluated: cancelled" in control(run_list(one), "Runs").options[0][0]
    assert load_session("my-session").runs[0].ended == "cancelled"


def test_a_reopened_run_gives_its_numbers_in_a_fresh_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    one = two_runs(probes=True)
    one.open_run(one.runs[0])
    assert one.comparison is not None
    one.comparison.strength = 0.35
    names = executed(one.code, monkeypatch)
    assert "load_session" not in one.code, "this kernel made it"
    assert one.edit is not None and same(names["edit"], one.edit) and names["selection"] == one.selection
    assert one.report is not None and names["report"].rows == one.report.rows
    assert torch.equal(names["heads"].values, one.maps["heads"].values)
    assert one.probes is not None and names["probes"].curves == one.probes.curves
    assert dict(names["probabilities"]) == one.comparison.probabilities
    assert same(executed(one.editor.code, monkeypatch)["edit"], one.edit)

    new = Workbench(tiny(), FACTS)
    new.open_session("my-session")
    assert new.run is not None and new.run.fact == SPAIN
    new.open_run(new.runs[0])
    assert ".at('001-france-capital')" in new.code and "rewrite" not in new.code and "attribute" not in new.code
    new.open_run(new.runs[1])
    new.fact = "france-capital"  # chosen in the list of facts, not of runs: what was picked last stays
    names = executed(new.code, monkeypatch)
    assert same(names["edit"], one.runs[0].edit) and names["selection"] == Selection("L2MLP")
    assert names["probes"].curves == one.probes.curves and torch.equal(names["heads"].values, one.maps["heads"].values)


def test_runs_are_named_deleted_and_brought_back() -> None:
    one = two_runs()
    rows = run_list(one)
    enter(control(rows, "Name"), value="  My \n best ")
    assert one.runs[1].name == "My best" and "My best" in control(rows, "Runs").options[1][0]
    assert load_session("my-session").runs[1].name == "My best"
    enter(control(rows, "Name"), value=" ")
    assert "1 to 120 characters" in str(one.error) and control(rows, "Name").value == "My best"
    click(control(rows, "Delete run"))
    assert one.error is None and [r.fact for r in one.runs] == [FRANCE]
    assert one.run is None and one.edit is None and one.editor.edit is None and one.comparison is None
    assert [r.fact for r in load_session("my-session").runs] == [FRANCE]
    click(control(rows, "Undo delete"))
    assert [r.name for r in one.runs] == ["France: Paris → Rome", "My best"] and one.run is one.runs[1]
    assert one.edit is one.editor.edit is one.runs[1].edit and len(load_session("my-session").runs) == 2
    one.delete_run(one.runs[0].id)
    assert one.run is one.runs[0] and one.runs[0].name == "My best", "another one's deletion leaves the screen"
    run(one)
    assert [r.id for r in one.runs] == ["002-spain-capital", "003-spain-capital"], "no id is given twice"


def test_two_runs_are_compared() -> None:
    one = two_runs()
    rows = run_list(one)
    first, second = one.runs
    enter(control(rows, "Beside"), index=1)
    assert rows.compared == (second, first)
    table = shown(rows)
    assert first.report is not None and second.report is not None
    for of in (first.report, second.report):
        assert all(str(of.rates["learn"][name]) in table for name in of.rates["learn"])
    for words in ("France: Paris → Rome", "<td>56 gates</td><td>64 gates</td>", "quick, 3 + 4 steps", "picked"):
        assert words in table
    rows.compare("")
    assert rows.compared is None and "<table" not in shown(rows)
    bare = replace(first, report=None, ended="failed", name=EVIL)
    assert "not evaluated: failed" in compared(bare, second, tiny()) and "<img" not in compared(bare, second, tiny())


def test_while_an_edit_runs_the_tabs_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench()
    run(one)
    one.fact = "italy-capital"
    go_to(one, "comparison")
    held = Held(monkeypatch)
    click(control(one.editor, "Run"))
    until(lambda: held.calls)
    words = f"Edit running: {one.editor.status}"
    assert one.editor.status and words in shown(in_tab(one, "comparison")) and words in shown(one._line)
    click(control(in_tab(one, "comparison"), "Go to 3 Edit"))
    assert one.tab == "editor"
    click(control(one.editor, "Cancel"))
    until(lambda: one.editor.job is not None and one.editor.job.settled)
    assert "Run an edit first" in shown(in_tab(one, "comparison")) and "Edit running" not in shown(one._line)
    enter(control(run_list(one), "Runs"), index=0)
    assert one.error is None and one.run is one.runs[0]


# The rest


def test_the_properties_and_their_hint() -> None:
    one = bench("heads")
    run(one)
    assert one.fact == FRANCE and one.selection is one.picker.selection and one.maps == one.picker.maps
    assert one.edit is one.editor.edit and one.report is one.editor.report and one.probes is None
    one.fact, one.selection = SPAIN, "L2MLP"
    assert one.chooser.fact == SPAIN and one.picker.selection == Selection("L2MLP")
    for name in ("fact", "selection", "maps", "runs", "edit", "report", "probes"):
        assert f"app.{name}" in shown(one._line) and hasattr(one, name)


def test_arguments_in_the_wrong_order() -> None:
    wrong: Any = FACTS
    with pytest.raises(TypeError, match=r"takes a model .* first, got FactSet\. They are in the wrong order"):
        Workbench(wrong, tiny())  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="first, got str"):
        Workbench("model")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"facts must be a FactSet, got list: write wb\.FactSet"):
        Workbench(tiny(), [FRANCE])  # pyright: ignore[reportArgumentType]


def test_the_line_on_top_says_what_all_tabs_are_about() -> None:
    one = saved()
    line = one._line
    assert line is not None
    words = shown(line)
    assert "tiny" in words and "France" in words and "Paris → Rome" in words
    assert {"Run 1 of 1", "Session", "Code", "Save"} <= set(one.controls)
    for name, label in (("runs", "Run 1 of 1"), ("session", "Session"), ("code", "Code")):
        enter(control(one, label), value=True)
        assert line.unfolded == name
    enter(control(one, "Code"), value=False)
    assert line.unfolded is None
    evil = Fact(subject=EVIL, prompt=f"{EVIL} is", question="?", answer="Paris", target="Rome", id="evil")
    line.about(evil, (), None)
    editor = SimpleNamespace(fact=evil, subject=EVIL, status=EVIL, phases="", job=None)
    line.running(editor, on_screen=False)
    assert "<img" not in shown(line) and shown(line).count(html.escape(EVIL)) == 3


def many(n: int) -> Path:
    """A session of n runs on disk, with the texts of a real evaluation."""
    one = bench("heads")
    run(one)
    (first,) = one.runs
    runs = tuple(replace(first, id=f"{i:03d}-france-capital", name=f"Run {i}") for i in range(1, n + 1))
    given: Any = {"fact": FRANCE, "fingerprint": tiny().fingerprint, "model_name": "tiny", "maps": first.maps}
    return wb.Session(**given, runs=runs, shown=runs[-1].id).save(f"of-{n}")


def state_bytes(one: Workbench) -> int:
    """What a notebook would hold of a workbench."""
    return len(json.dumps(dependency_state(one)))


def test_thirty_runs_are_as_light_as_one() -> None:
    sizes, messages = {}, {}
    for n in (1, 30):
        one = Workbench(tiny(), FACTS)
        one.open_session(many(n))
        until(lambda one=one: "Traced token" in shown(one.chooser))  # read in the background, which sends as well
        assert len(one.runs) == n
        sizes[n] = state_bytes(one)
        sent: list[Any] = []
        for widget in [one, *descendants(one)]:
            widget._send = lambda *given, sent=sent, **_: sent.append(given)
        one.selection = "L0H2"
        messages[n] = len(sent)
    assert messages[1] == messages[30], "a click sends nothing of the runs"
    assert sizes[30] - sizes[1] < 30 * 1000 and sizes[30] < 5_000_000


def test_runs_are_not_equal_by_chance() -> None:
    one = bench()
    run(one)
    (only,) = one.runs
    assert isinstance(only, Run) and only != replace(only) and "France" in repr(only)


def test_a_pinned_component_stands_beside_what_it_does_for_other_facts() -> None:
    one = two_runs()
    france, _ = one.runs
    one.picker.pinned = "L1H4"
    value = float(france.maps["heads"].values[1, 4])
    assert f"Heads, for France</th><td>{short_number(value)}</td>" in shown(one.picker)
    assert "for Spain" not in shown(one.picker), "which is the one that is shown"
    one.fact = "france-capital"
    assert "for France" not in shown(one.picker)
    one.fact = "spain-capital"
    one.picker.measure = Measure("probability", one.picker.measure.corruption)
    assert "for France" not in shown(one.picker), "numbers of another measure say nothing beside these"


def test_one_probe_panel_gives_each_run_its_own_probes() -> None:
    one = two_runs()
    france, spain = (run.id for run in one.runs)
    panel = one.probing
    assert panel is not None
    for id in (spain, france):
        one.open_run(id)
        assert one.probing is panel and panel.edit is one.edit and panel.report is None
        panel.probes = ("strength",)
        panel.run().wait(60)
    for run_ in one.runs:
        assert run_.probes is not None and run_.probes.edit_id == run_.edit.id
        one.open_run(run_.id)
        assert one.probing is panel and panel.report is run_.probes
