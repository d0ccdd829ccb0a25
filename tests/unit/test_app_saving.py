"""The workbench saves by itself: each run once, where it says, and never over what is not its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.benches import bench, executed, run, said
from tests.helpers.panels import FACTS, FRANCE, SPAIN, control, shown, tiny
from tests.helpers.small_fits import same
from tests.helpers.tiny_facts import edit_of, some_gates
from tests.helpers.wire import click, enter
from tests.unit.test_app_runs import two_runs
from tests.unit.test_session import report as some_report
from workbench.files.session import load_session
from workbench.files.session_folder import SessionFolder
from workbench.widgets.app import Workbench
from workbench.widgets.shared import snapshot


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_each_run_is_saved_as_it_ends_and_where_is_said() -> None:
    one = bench("heads")
    assert "Each run will be saved in" in shown(one._line) and not Path("my-session").exists()
    run(one)
    assert f"1 run saved in {Path('my-session').resolve()}" in shown(one._line)
    read = load_session("my-session")
    assert read.shown == one.runs[0].id and read.edit is not None and same(read.edit, one.runs[0].edit)
    assert torch.equal(read.maps["heads"].values, one.maps["heads"].values) and read.selection == one.selection
    first = {p: p.stat().st_mtime_ns for p in Path("my-session/runs").rglob("*")}
    enter(control(one.editor, "seed"), value=5)
    run(one)
    assert len(load_session("my-session").runs) == 2
    assert all(p.stat().st_mtime_ns == at for p, at in first.items() if p.is_file()), "written once"


def test_it_never_writes_over_a_session_that_is_not_its_own() -> None:
    first = bench()
    run(first)
    Path("my-session-2").write_text("mine")
    before = {p: p.read_bytes() for p in Path("my-session").rglob("*") if p.is_file()}
    second = bench()
    run(second)
    assert {p: p.read_bytes() for p in Path("my-session").rglob("*") if p.is_file()} == before
    assert len(load_session("my-session-3").runs) == 1 and "my-session-3" in shown(second._line)
    click(control(second, "Save"))  # the field still says my-session
    assert "my-session holds another session" in said(second) and len(load_session("my-session-4").runs) == 1
    assert control(second, "Folder").value == "my-session-4" and Path("my-session-2").read_text() == "mine"


def test_switched_off_nothing_is_written_until_save() -> None:
    one = bench()
    enter(control(one, "Save each run as it ends"), value=False)
    run(one)
    assert not Path("my-session").exists() and "1 run of 1 run not saved" in shown(one._line)
    bench("heads").save_session("other")
    with pytest.raises(RuntimeError, match="1 of 1 runs are not saved"):
        one.open_session("other")
    assert len(one.runs) == 1
    enter(control(one, "Save each run as it ends"), value=True)
    assert len(load_session("my-session").runs) == 1
    one.open_session("other")
    assert one.runs == ()
    assert Workbench(tiny(), FACTS, autosave=False)._kept.keeper.on is False
    elsewhere = Workbench(tiny(), FACTS, autosave="deep/er")
    assert elsewhere._kept.keeper.folder == Path("deep/er").absolute()


def test_what_cannot_be_saved_is_kept_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench()

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError("Permission denied: read-only")

    with monkeypatch.context() as patch:
        patch.setattr("workbench.files.atomic.open", refuse, raising=False)
        run(one)
        assert "read-only" in said(one) and "has ended" in said(one) and len(one.runs) == 1
        assert one.editor.error is None and "1 run of 1 run not saved" in shown(one._line)
    enter(control(one.editor, "seed"), value=5)
    run(one)
    assert len(load_session("my-session").runs) == 2, "the one before too"


def test_two_notebooks_on_one_session_lose_nothing() -> None:
    first = bench()
    run(first)
    second = Workbench(tiny(), FACTS)
    second.open_session("my-session")
    second.editor.recipe = first.editor.recipe
    second.selection = "L0MLP"
    run(second)  # takes the folder
    assert len(load_session("my-session").runs) == 2
    first.selection = "L2MLP"
    run(first)
    assert "Another notebook writes to the session" in said(first) and "my-session-2" in said(first)
    assert [str(r.selection) for r in load_session("my-session").runs] == ["L1H4 L1MLP", "L0MLP"]
    assert [str(r.selection) for r in load_session("my-session-2").runs] == ["L1H4 L1MLP", "L2MLP"]
    first.rename_run(first.runs[0], "Mine")
    assert load_session("my-session-2").runs[0].name == "Mine", "it goes on there"


def test_a_damaged_run_is_said_and_the_rest_opens() -> None:
    two_runs()
    shutil.rmtree("my-session/runs/001-france-capital/edit")
    new = Workbench(tiny(), FACTS)
    enter(control(new, "Folder"), value="my-session")
    with pytest.warns(UserWarning, match="left out"):
        click(control(new, "Open"))
    assert new.error is None and "Opened spain-capital" in said(new) and "left out" in said(new)
    assert [r.fact for r in new.runs] == [SPAIN] and new.edit is not None
    new.editor.recipe = bench().editor.recipe
    run(new)
    assert Path("my-session/runs/001-france-capital/report.json").exists(), "it is left as it is"


def test_a_session_with_an_edit_of_its_own_becomes_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    edit = edit_of(tiny(), some_gates(tiny(), (1, "post")), fact=FRANCE)
    session = wb.Session(
        fact=FRANCE, fingerprint=tiny().fingerprint, model_name="tiny", edit=edit, report=some_report()
    )
    session.save("older")
    one = Workbench(tiny(), FACTS, fact="spain-capital")
    one.open_session("older")
    assert [r.id for r in one.runs] == ["001-france-capital"] and one.run is one.runs[0]
    names = executed(one.code, monkeypatch)
    assert names["edit"].id == edit.id and "session.edit, session.report" in one.code
    assert not Path("older/runs/001-france-capital").exists(), "looking changes nothing"
    one.rename_run(one.runs[0], "Old one")
    assert load_session("older").runs[0].name == "Old one" and not Path("older/edit").exists()
    one.open_run(one.runs[0])
    assert executed(one.code, monkeypatch)["edit"].id == edit.id and ".at('001-france-capital')" in one.code


def pages(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).glob("*.html"))


def test_export_writes_what_is_on_screen_into_the_sessions_folder_and_says_where() -> None:
    one = bench("heads")
    click(control(one, "Export"))
    first = Path("my-session/france-capital-1.html")
    assert f"Exported to {first.resolve()}" in said(one) and one.error is None
    run(one)
    assert one.export_html() == Path("my-session/france-capital-2.html").resolve(), "and none is written over"
    page = first.with_name("france-capital-2.html").read_text()
    assert one.snapshot().html in page and "What it says to held-out questions" in page
    assert "<script" not in page and first.read_text() != page
    read = load_session("my-session")
    assert read.shown == one.runs[0].id and pages("my-session") == ["france-capital-1.html", "france-capital-2.html"]
    click(control(one, "Save"))
    one.delete_run(one.runs[0])
    assert len(pages("my-session")) == 2, "what is saved later leaves them"


def test_a_session_with_pages_is_nobody_elses_to_write() -> None:
    one = bench("heads")
    one.export_html()
    other = bench()
    other.fact = "spain-capital"
    click(control(other, "Save"))
    assert "my-session holds another session" in said(other) and pages("my-session") == ["france-capital-1.html"]
    assert other.export_html() == Path("my-session-2/spain-capital-1.html").resolve()


@pytest.mark.parametrize("broken", ["save", "page"])
def test_what_cannot_be_exported_is_said(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench("heads")

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", "my-session")

    with monkeypatch.context() as patch:
        patch.setattr(*((SessionFolder, "create") if broken == "save" else (snapshot, "write_bytes")), refuse)
        click(control(one, "Export"))
    assert isinstance(one.error, PermissionError) and "my-session" in said(one) and "Exported" not in said(one)
    assert pages("my-session") == []
    click(control(one, "Export"))
    assert one.error is None and f"Exported to {tmp_path / 'my-session'}" in said(one)


def test_export_goes_on_where_the_folder_is_gone_or_taken() -> None:
    one = bench("heads")
    one.export_html()
    shutil.rmtree("my-session")
    assert one.export_html() == Path("my-session/france-capital-1.html").resolve()
    other = Workbench(tiny(), FACTS)
    other.open_session("my-session")
    other.save_session("my-session")
    where = one.export_html()
    assert where == Path("my-session-2/france-capital-1.html").resolve() and load_session(where.parent).fact == FRANCE
