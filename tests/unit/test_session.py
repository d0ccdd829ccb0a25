"""Sessions: what is read equals what was saved to the bit, folders appear whole, and what is wrong is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.deltas import same_gates
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, edit_of, knowing, some_gates
from tests.unit.test_probe_report import report as probes
from workbench.files import session as module
from workbench.files.checked_json import dump, wrap
from workbench.files.session import Session, load_session
from workbench.models.load import LoadedModel
from workbench.tracing.attribution import attribute
from workbench.types import AnswerRow, Edit, EffectMap, EvalReport, ProbeReport, Rate, Selection


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


@lru_cache
def heads() -> EffectMap:
    return attribute(tiny(), capitals()[0], "head", pool=capitals(), progress=False)


def edit() -> Edit:
    return edit_of(tiny(), some_gates(tiny(), (1, "post")), some_gates(tiny(), (0, "z"), seed=1))


def report() -> EvalReport:
    row = AnswerRow(
        fact_id="france-capital", relation="capital", group="heldout", stage="base", form="chat", prompt="Where?",
        text="Rome \ud800 é", label="new", nll=0.1 + 0.2,
    )  # fmt: skip
    rates = {"base": {"new": Rate(1 / 3, 3, 0.1, 0.9, "wilson")}}
    return EvalReport(rows=(row,), rates=rates, missing=("no neighbours",), facts=("france-capital",), stages=("base",))


def found(**changes: Any) -> ProbeReport:
    """Probes of the edit that never finished."""
    given = {"fact": capitals()[0], "base_fingerprint": tiny().fingerprint, "edit_id": edit().id}
    return probes(**{**given, **changes})


NO_EDIT: dict[str, Any] = {"edit": None, "report": None, "control_report": None, "probes": None}


def session(**other: Any) -> Session:
    given: dict[str, Any] = {
        "fact": capitals()[0],
        "fingerprint": tiny().fingerprint,
        "model_name": "tiny",
        "selection": Selection("L1H5 L0MLP L2N7"),
        "maps": {"heads": heads()},
        "edit": edit(),
        "report": report(),
        "control_report": replace(report(), missing=("of a random selection",)),
        "probes": found(),
    }
    return Session(**{**given, **other})


def test_what_is_read_is_what_was_saved_to_the_bit(tmp_path: Path) -> None:
    saved = session()
    read = load_session(saved.save(tmp_path / "one"))
    assert (read.fact, read.fingerprint, read.model_name) == (saved.fact, saved.fingerprint, "tiny")
    assert list(read.selection) == list(saved.selection), "in the order of the picks"
    assert list(read.maps) == ["heads"] and torch.equal(read.maps["heads"].values, heads().values)
    assert read.maps["heads"].prompts == heads().prompts and read.maps["heads"].clean == heads().clean
    assert read.edit is not None and saved.edit is not None
    for mine, theirs in zip(saved.edit.stages, read.edit.stages, strict=True):
        assert same_gates(mine.delta, theirs.delta)
    assert read.report is not None and saved.report is not None
    for part in ("rows", "rates", "missing", "facts", "stages"):
        assert getattr(read.report, part) == getattr(saved.report, part)
    assert read.control_report is not None and read.control_report.missing == ("of a random selection",)
    assert read.control_report.rows == saved.report.rows
    assert read.probes is not None and saved.probes is not None
    assert str(read.probes.to_dict()) == str(saved.probes.to_dict()) and read.probes.partial


def test_a_session_from_before_there_were_probes_is_read(tmp_path: Path) -> None:
    folder = session(control_report=None, probes=None).save(tmp_path / "one")
    document = json.loads((folder / "session.json").read_text())
    later = ("kind", "schema_version", "sha256", "control_report", "probes", "runs", "shown", "maps_folder")
    fields = {k: v for k, v in document.items() if k not in later}
    (folder / "session.json").write_bytes(dump({**wrap("workbench-session", fields), "schema_version": 1}))
    read = load_session(folder)
    assert read.edit is not None and read.report is not None and read.control_report is None and read.probes is None


def test_probes_and_a_random_control_belong_to_the_edit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no edit, but the random control and the probes of one"):
        session(edit=None)
    with pytest.raises(
        ValueError, match=f"The probes are of the edit {'1' * 16}, and the session's is {edit().id[:16]}"
    ):
        session(probes=found(edit_id="1" * 64))
    with pytest.raises(ValueError, match=f"The evaluation is of the edit {'2' * 16}"):
        session(report=replace(report(), edit_id="2" * 64))
    with pytest.raises(ValueError, match="but the probes is of another"):
        session(probes=found(base_fingerprint="0" * 64))
    folder = session().save(tmp_path / "one")
    found(edit_id="1" * 64).save(folder / "probes.json")  # put there by hand
    with pytest.raises(ValueError, match=r"one cannot be read: The probes are of the edit 1111"):
        load_session(folder)


def test_a_session_may_hold_no_more_than_a_fact(tmp_path: Path) -> None:
    small = session(selection=Selection(), maps={}, **NO_EDIT)
    assert load_session(small.save(tmp_path / "small")) == small


def test_a_session_that_is_there_is_replaced_whole(tmp_path: Path) -> None:
    session().save(tmp_path / "one")
    session(maps={}, **NO_EDIT).save(tmp_path / "one")
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["maps", "runs", "session.json"]
    assert load_session(tmp_path / "one").edit is None and [p.name for p in tmp_path.iterdir()] == ["one"]


def test_a_failed_save_leaves_the_old_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session().save(tmp_path / "one")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "save_report", full)
    with pytest.raises(OSError, match="No space"):
        session(selection=Selection()).save(tmp_path / "one")
    with pytest.raises(OSError, match="No space"):
        session().save(tmp_path / "two")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before, "nothing half written"


@pytest.mark.parametrize("name", ["notes.txt", "session.json"])
def test_what_is_no_session_of_ours_is_never_replaced(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text('{"my": "own"}')
    with pytest.raises(FileExistsError, match="something else"):
        session().save(folder)
    shutil.rmtree(folder)
    session().save(folder)
    (folder / "thoughts.md").write_text("written beside the session")
    with pytest.raises(FileExistsError, match="something else"):
        session().save(folder)
    assert (folder / "thoughts.md").read_text() == "written beside the session"


def test_a_folder_that_is_no_session(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*Session\.save"):
        load_session(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"not a saved session: it has no session\.json"):
        load_session(tmp_path)
    edit().save(tmp_path / "edit")
    with pytest.raises(ValueError, match="not a saved session"):
        load_session(tmp_path / "edit")
    (tmp_path / "session.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a workbench-session"):
        load_session(tmp_path)


AGAIN_WORDS = "Take it from a copy"


def damage(file: Path, how: str) -> None:
    content = file.read_bytes()
    if how == "gone":
        file.unlink()
    elif how == "short":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])


@pytest.mark.parametrize("how", ["gone", "short", "flipped"])
@pytest.mark.parametrize(
    "part",
    [
        *("session.json", "maps/heads.safetensors", "edit/edit.json", "edit/tensors.safetensors", "report.json"),
        *("control_report.json", "probes.json"),
    ],
)
def test_a_damaged_or_incomplete_session_is_refused_with_its_name(tmp_path: Path, part: str, how: str) -> None:
    folder = session().save(tmp_path / "one")
    damage(folder / part, how)
    with pytest.raises(ValueError, match=rf"one.*({AGAIN_WORDS})|damaged|cut short"):
        load_session(folder)


def test_another_schema_version_says_so(tmp_path: Path) -> None:
    folder = session().save(tmp_path / "one")
    document = json.loads((folder / "session.json").read_text())
    (folder / "session.json").write_text(json.dumps({**document, "schema_version": 99}))
    with pytest.raises(ValueError, match=r"schema version 99.*reads version 3 and older"):
        load_session(folder)


def test_parts_of_another_model_are_refused(tmp_path: Path) -> None:
    other = "0" * 64
    with pytest.raises(ValueError, match="the map 'heads', the edit, the probes is of another"):
        session(fingerprint=other)
    with pytest.raises(ValueError, match="the edit is of another"):
        session(fingerprint=other, maps={}, probes=None)
    folder = session().save(tmp_path / "one")
    stranger = knowing(tiny_llama(1, tied=False), capitals())
    shutil.rmtree(folder / "edit")
    edit_of(stranger, some_gates(stranger, (1, "post"))).save(folder / "edit")  # put there by hand
    with pytest.raises(ValueError, match=r"one cannot be read: .*the edit is of another"):
        load_session(folder)


@pytest.mark.parametrize("name", ["../heads", "a/b", "", "."])
def test_names_of_maps_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be files of that name"):
        session(maps={name: heads()})
    folder = session().save(tmp_path / "one")
    document = json.loads((folder / "session.json").read_text())
    fields = {k: v for k, v in document.items() if k not in ("kind", "schema_version", "sha256")}
    (folder / "session.json").write_bytes(dump(wrap("workbench-session", {**fields, "maps": [name]})))
    with pytest.raises(ValueError, match=r"one.*(incomplete|cannot be)"):
        load_session(folder)
