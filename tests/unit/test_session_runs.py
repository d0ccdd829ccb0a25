"""Runs in sessions, and the folder that is written part by part: nothing is lost, and nothing is written twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, edit_of, knowing, some_gates
from tests.unit.test_session import edit, found, heads, report, session, tiny
from workbench.files import atomic
from workbench.files.runs import load_run
from workbench.files.session import Session, load_session
from workbench.files.session_folder import Owner, SessionFolder, SessionTaken, free_name
from workbench.types import Run, Selection

FRANCE, SPAIN = capitals()[0], capitals()[2]
NO_EDIT: dict[str, Any] = dict.fromkeys(("edit", "report", "control_report", "probes"))


def run(n: int = 1, **changes: Any) -> Run:
    """The n-th run, of an edit of its own."""
    fact = changes.pop("fact", FRANCE)
    given: dict[str, Any] = {
        "id": f"{n:03d}-{fact.id}",
        "name": f"Try {n} <b>",
        "edit": edit_of(tiny(), some_gates(tiny(), (1, "post"), seed=n), fact=fact),
        "selection": Selection("L1H5 L0MLP"),
        "report": replace(report(), missing=(f"of run {n}",)),
        "code": "edit = ...\n",
        "when": "2026-12-01T09:30:00.000+00:00",
        "seconds": 1.5,
    }
    return Run(**{**given, **changes})


def with_runs(*runs: Run, **other: Any) -> Session:
    return session(**{**NO_EDIT, "runs": runs, **other})


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What is in a folder: by path the file's number and content."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.read_bytes()) for p in found}


# Runs


def test_a_run_is_read_as_it_was_saved(tmp_path: Path) -> None:
    whole = run(
        maps={"heads": heads()}, control_report=report(), probes=found(edit_id=None), ended="failed", report=None
    )
    folder = with_runs(whole, run(2)).save(tmp_path / "one")
    first, second = load_session(folder).runs
    for name in ("id", "name", "code", "when", "seconds", "ended"):
        assert getattr(first, name) == getattr(whole, name)
    assert first.edit.id == whole.edit.id and list(first.selection) == list(whole.selection)
    assert torch.equal(first.maps["heads"].values, heads().values) and first.report is None
    assert first.control_report is not None and first.control_report.rows == report().rows
    assert first.probes is not None and str(first.probes.to_dict()) == str(found(edit_id=None).to_dict())
    assert second.report is not None and second.report.missing == ("of run 2",) and second.probes is None
    assert first.fact == FRANCE and first.facts == (FRANCE,) and first.recipe == whole.edit.recipe


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": "../up"}, "folder's name"),
        ({"id": ""}, "folder's name"),
        ({"name": " "}, "1 to 120 characters"),
        ({"name": "x" * 121}, "1 to 120 characters"),
        ({"ended": "soon"}, "ended must be one of"),
        ({"report": replace(report(), edit_id="2" * 64)}, "The evaluation is of the edit 2222"),
        ({"maps": {"a/b": heads()}}, "cannot be files of that name"),
    ],
)
def test_what_no_run_may_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run(**changes)


def test_a_session_shows_one_of_its_runs(tmp_path: Path) -> None:
    runs = run(1), run(2, fact=SPAIN, maps={"heads": heads()})
    both = with_runs(*runs, shown=runs[1].id)
    assert both.edit is runs[1].edit and both.report is runs[1].report
    folder = both.save(tmp_path / "one")
    read = load_session(folder)
    assert read.shown == runs[1].id and read.edit is read.run(runs[1].id).edit and not (folder / "edit").exists()
    first = read.at(runs[0].id)
    assert (first.fact, first.shown, first.edit) == (FRANCE, runs[0].id, read.runs[0].edit)
    assert first.maps == {} and list(first.selection) == list(runs[0].selection) and first.runs == read.runs
    with pytest.raises(KeyError, match="There is no run 'x'"):
        read.at("x")
    with pytest.raises(ValueError, match="its edit is another"):
        with_runs(*runs, shown=runs[1].id, edit=edit())
    with pytest.raises(ValueError, match="Two runs of the session are called"):
        with_runs(runs[0], runs[0])


def test_runs_of_another_model_are_refused() -> None:
    stranger = knowing(tiny_llama(1, tied=False), capitals())
    with pytest.raises(ValueError, match=r"but the runs .* are not"):
        with_runs(run(1), run(2, edit=edit_of(stranger, some_gates(stranger, (1, "post"))), report=None))


@pytest.mark.parametrize("how", ["gone", "short", "version", "renamed", "another edit", "another model"])
def test_a_damaged_run_is_left_out_and_said(tmp_path: Path, how: str) -> None:
    folder = with_runs(run(1), run(2), shown="002-france-capital").save(tmp_path / "one")
    bad = folder / "runs/002-france-capital"
    if how == "gone":
        shutil.rmtree(bad)
    elif how == "short":
        (bad / "report.json").write_bytes((bad / "report.json").read_bytes()[:-9])
    elif how == "version":
        text = (bad / "run.json").read_text()
        (bad / "run.json").write_text(text.replace('"schema_version": 1', '"schema_version": 9'))
    elif how == "renamed":
        bad.rename(folder / "runs/003-france-capital")
    else:
        model = tiny() if how == "another edit" else knowing(tiny_llama(1, tied=False), capitals())
        edit_of(model, some_gates(model, (0, "z"))).save(bad / "edit")
    with pytest.warns(UserWarning, match="is left out"):
        read = load_session(folder)
    assert [one.id for one in read.runs] == ["001-france-capital"] and read.shown is None and read.edit is None
    assert read.damaged and all("00" in words for words in read.damaged)


# The folder that is written part by part


def test_a_run_is_written_once(tmp_path: Path) -> None:
    folder = SessionFolder.create(tmp_path / "one", with_runs(run(1), shown=None))
    before = files(folder.path)
    read = load_session(folder.path)
    runs, kept = (*read.runs, run(2)), SessionFolder(folder.path, read)
    kept.write(with_runs(*runs, shown=runs[1].id))
    after = files(folder.path)
    first = {name: at for name, at in before.items() if name.startswith("runs/")}
    assert first and first.items() <= after.items(), "the same files, not written again"
    again = load_session(folder.path)
    assert [one.id for one in again.runs] == [runs[0].id, runs[1].id] and again.shown == runs[1].id
    maps = [name for name in after if name.startswith("maps")]
    kept.write(with_runs(*runs, shown=runs[1].id))
    assert [name for name in files(folder.path) if name.startswith("maps")] == maps, "maps that are there stay"
    kept.write(with_runs(*runs, maps={}))
    assert load_session(folder.path).maps == {} and len(list(folder.path.glob("maps*"))) == 1


def test_names_probes_and_deletions_are_written(tmp_path: Path) -> None:
    runs = [run(1), run(2)]
    folder = SessionFolder.create(tmp_path / "one", with_runs(*runs))
    weights = files(folder.path)["runs/001-france-capital/edit/tensors.safetensors"]
    runs[0] = replace(runs[0], name="Best", probes=found(edit_id=None))
    folder.write(with_runs(*runs))
    read = load_session(folder.path)
    assert read.runs[0].name == "Best" and read.runs[0].probes is not None
    assert files(folder.path)["runs/001-france-capital/edit/tensors.safetensors"] == weights
    folder.write(with_runs(runs[1]))
    assert [one.id for one in load_session(folder.path).runs] == [runs[1].id]
    assert [p.name for p in (folder.path / "runs").iterdir()] == [runs[1].id]
    folder.write(with_runs(*runs))
    assert [one.name for one in load_session(folder.path).runs] == ["Best", "Try 2 <b>"], "brought back"


def test_an_older_session_becomes_one_with_runs(tmp_path: Path) -> None:
    path = session().save(tmp_path / "one")
    kept = SessionFolder(path, load_session(path))
    with pytest.raises(ValueError, match="takes runs only"):
        kept.write(session())
    assert load_session(path).edit is not None
    kept.write(with_runs(run(1), shown="001-france-capital"))
    assert sorted(p.name for p in path.iterdir() if not p.name.startswith("maps")) == [
        "owner.json", "runs", "session.json",
    ]  # fmt: skip
    assert load_session(path).report is not None


def test_a_run_that_could_not_be_listed_any_more_is_there(tmp_path: Path) -> None:
    path = with_runs(run(1)).save(tmp_path / "one")
    other = with_runs(run(1), run(2)).save(tmp_path / "two")
    shutil.copytree(other / "runs/002-france-capital", path / "runs/002-france-capital")
    assert [one.id for one in load_session(path).runs] == ["001-france-capital", "002-france-capital"]


# Two kernels


def test_whoever_opens_last_writes_and_the_other_finds_out(tmp_path: Path) -> None:
    first = SessionFolder.create(tmp_path / "one", with_runs(run(1)))
    read = load_session(first.path)
    second = SessionFolder(first.path, read)
    assert not second.taken and not first.taken, "opening alone takes nothing"
    second.write(with_runs(*read.runs, run(2)))
    before = files(first.path)
    assert "Another notebook writes to the session" in first.taken
    with pytest.raises(SessionTaken, match="since 2"):
        first.write(with_runs(run(1), run(3)))
    assert files(first.path) == before
    second.write(with_runs(*read.runs))


def test_a_kernel_that_still_runs_keeps_its_folder(tmp_path: Path) -> None:
    path = SessionFolder.create(tmp_path / "one", with_runs(run(1))).path
    owner = Owner(**json.loads((path / "owner.json").read_text()))
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (path / "owner.json").write_text(json.dumps({**vars(owner), "pid": process.pid}))
        read = load_session(path)
        other = SessionFolder(path, read)
        assert "Another notebook writes" in other.taken
        with pytest.raises(SessionTaken):
            other.write(with_runs(run(1)))
    finally:
        process.communicate(b"\n")
    assert not other.taken, "it has ended, so that its folder is free"
    other.write(with_runs(*read.runs))
    (path / "owner.json").write_text("nobody")
    assert "has replaced" in other.taken


def test_one_run_of_two_kernels_is_not_written_over(tmp_path: Path) -> None:
    first = SessionFolder.create(tmp_path / "one", with_runs(run(1)))
    second = SessionFolder(first.path, load_session(first.path))
    first.write(with_runs(run(1), run(2)))
    with pytest.raises(SessionTaken, match="wrote a run '002"):
        second.write(with_runs(*second._runs.values(), run(2)))
    assert load_run(first.path / "runs/002-france-capital").name == "Try 2 <b>"


def test_free_names(tmp_path: Path) -> None:
    assert free_name(tmp_path / "one") == tmp_path / "one"
    (tmp_path / "one").mkdir()
    (tmp_path / "one-2").write_text("mine")
    (tmp_path / "one-3").symlink_to("nowhere")
    assert free_name(tmp_path / "one") == tmp_path / "one-4"
    with pytest.raises(FileExistsError):
        SessionFolder.create(tmp_path / "one-2", with_runs(run(1)))


# A kernel that dies


def die_at(n: int, write: Callable[[], object]) -> bool:
    """Write in a process of its own that is killed at the n-th time that something is renamed. Whether it was."""
    child = os.fork()
    if child == 0:  # no test framework in here: it ends without a word
        calls, real = [0], os.replace

        def replace_or_die(*given: Any) -> None:
            calls[0] += 1
            if calls[0] == n:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*given)

        try:
            atomic.os.replace = replace_or_die
            write()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_at_any_moment_the_session_is_the_one_before_or_the_one_after(tmp_path: Path) -> None:
    start = SessionFolder.create(tmp_path / "start", with_runs(run(1), shown="001-france-capital")).path
    before, deaths, path = load_session(start), 0, start
    for n in range(1, 40):
        path = tmp_path / f"{n}"
        shutil.copytree(start, path)
        (path / "owner.json").unlink()  # this process is not the one that writes
        kept = SessionFolder(path, before)
        renamed = replace(before.runs[0], name="Other", probes=found(edit_id=None))
        after = with_runs(renamed, run(2), maps={"mlps": heads()}, shown="002-france-capital")
        if not die_at(n, lambda kept=kept, after=after: kept.write(after)):
            break
        deaths += 1
        read = load_session(path)
        assert not read.damaged and read.runs[0].edit.id == before.runs[0].edit.id
        assert [one.id for one in read.runs] in (["001-france-capital"], ["001-france-capital", "002-france-capital"])
        assert (read.shown, list(read.maps)) in [("001-france-capital", ["heads"]), ("002-france-capital", ["mlps"])]
        again = SessionFolder(path, read)
        again.write(read)  # and it can be gone on with
        assert not list(path.glob(".*.tmp")) and not load_session(path).damaged
    assert deaths > 5 and load_session(path).runs[1].name == "Try 2 <b>"


def test_a_folder_that_cannot_be_written_or_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SessionFolder.create(tmp_path / "one", with_runs(run(1)))
    before = files(folder.path)

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError("Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("workbench.files.atomic.open", refuse, raising=False)
        with pytest.raises(PermissionError):
            folder.write(with_runs(run(1), run(2)))
    assert files(folder.path) == before
    folder.write(with_runs(run(1), run(2)))
    assert len(load_session(folder.path).runs) == 2
    shutil.rmtree(folder.path)
    with pytest.raises(FileNotFoundError, match="not there any more"):
        folder.write(with_runs(run(1)))
