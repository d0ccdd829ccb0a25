"""The workbench through the messages a browser sends: all tabs are about one fact, and one script repeats it all."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench
from tests.helpers.benches import NAMES, bench, executed, go_to, in_tab, run, said, saved, script_block, tabs
from tests.helpers.panels import EVIL, FACTS, SPAIN, Held, control, shown, tiny, until
from tests.helpers.pictures import data_of
from tests.helpers.small_fits import same
from tests.helpers.tiny_facts import capital
from tests.helpers.wire import click, enter
from workbench.editing.applied import applied
from workbench.tracing.attribution import attribute
from workbench.types import Fact, Selection
from workbench.types.cancelling import Cancelled
from workbench.widgets import app as module
from workbench.widgets.app import Workbench
from workbench.widgets.app_tabs import TABS, PanelTab
from workbench.widgets.edit import job as edit_job
from workbench.widgets.shared.panel import Panel


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


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
