"""A saved edit comes back exactly, a damaged one is refused, and a failed save leaves the old one alone."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.stored import FULL, damaged, fail_at, refused, same
from tests.helpers.tiny import loaded, random_edit, tiny_llama
from workbench.files import atomic, checked_json
from workbench.files.edits import EDIT_FILE, TENSORS_FILE, load_edit, save_edit
from workbench.types import Edit, GateDelta, Step

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def edit() -> Edit:
    made = random_edit(loaded(tiny_llama()))
    history = (*made.history, Step("learn", 1, math.nan, -0.0, None, 1e-320, math.inf, 7.1))
    provenance = {**made.provenance, "nested": {"x": [1, 2.5, None, True, "é\n\u2028", math.inf]}}
    return replace(made, history=history, provenance=provenance)


def rewrite_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def test_an_edit_comes_back_exactly(edit: Edit, tmp_path: Path) -> None:
    path = edit.save(tmp_path / "deep" / "edit")
    assert path == tmp_path / "deep" / "edit"
    assert {p.name for p in path.iterdir()} == {EDIT_FILE, TENSORS_FILE}
    again = load_edit(path)
    assert same(edit, again)
    assert again.id == edit.id
    again.save(tmp_path / "again")
    assert all((path / n).read_bytes() == (tmp_path / "again" / n).read_bytes() for n in (EDIT_FILE, TENSORS_FILE))
    assert "NaN" not in (path / EDIT_FILE).read_text(encoding="utf-8")
    assert same(edit, load_edit(str(path)))


def test_special_gates_come_back_to_the_bit(edit: Edit, tmp_path: Path) -> None:
    gate = torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-45, -1.5])
    stages = (replace(edit.stages[0], delta=GateDelta({(3, "z"): gate})), replace(edit.stages[1], delta=GateDelta({})))
    odd = replace(edit, stages=stages)
    assert same(odd, load_edit(odd.save(tmp_path / "e")))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(provenance=st.dictionaries(st.text(), JSON, max_size=3))
def test_any_provenance_comes_back(edit: Edit, tmp_path: Path, provenance: dict[str, Any]) -> None:
    one = replace(edit, provenance=provenance)
    assert same(one, load_edit(one.save(tmp_path / "e")))


def test_tuples_in_the_provenance_become_lists_and_objects_are_refused(edit: Edit, tmp_path: Path) -> None:
    one = replace(edit, provenance={"a": (1, (2, 3))})
    assert load_edit(one.save(tmp_path / "e")).provenance == {"a": [1, [2, 3]]}
    with pytest.raises(ValueError, match=r"provenance\.a\[1\] is PosixPath.*Make it text"):
        replace(edit, provenance={"a": [1, Path("x")]}).save(tmp_path / "f")
    with pytest.raises(ValueError, match="text keys"):
        replace(edit, provenance={"a": {1: 2}}).save(tmp_path / "f")
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_save_edit_is_what_save_calls(edit: Edit, tmp_path: Path) -> None:
    one, two = save_edit(edit, tmp_path / "one"), edit.save(tmp_path / "two")
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}


def test_saving_again_replaces_an_edit_and_nothing_else(edit: Edit, tmp_path: Path) -> None:
    path = edit.save(tmp_path / "e")
    other = replace(edit, selector="other")
    assert load_edit(other.save(path)).selector == "other"
    (path / TENSORS_FILE).unlink()
    assert load_edit(edit.save(path)).selector == "given", "a damaged edit may be replaced"
    (path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="something else"):
        edit.save(path)
    assert (path / "notes.txt").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    assert load_edit(edit.save(foreign)).id == edit.id, "an empty folder is free"
    shutil.rmtree(foreign)
    foreign.mkdir()
    (foreign / EDIT_FILE).write_text('{"kind": "video-edit"}')
    with pytest.raises(FileExistsError, match="something else"):
        edit.save(foreign)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        edit.save(tmp_path / "file")
    assert {p.name for p in tmp_path.iterdir()} == {"e", "foreign", "file"}


def test_a_link_to_a_folder_stays_a_link(edit: Edit, tmp_path: Path) -> None:
    edit.save(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    replace(edit, selector="new").save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert load_edit(tmp_path / "real").selector == "new"


def test_files_are_readable_like_others(edit: Edit, tmp_path: Path) -> None:
    os.umask(old := os.umask(0o022))
    path = edit.save(tmp_path / "e")
    assert path.stat().st_mode & 0o777 == 0o777 & ~old
    assert (path / EDIT_FILE).stat().st_mode & 0o777 == 0o666 & ~old


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no json": (lambda p: (p / EDIT_FILE).unlink(), "has no edit.json"),
    "no gates": (lambda p: (p / TENSORS_FILE).unlink(), "has no tensors.safetensors"),
    "json cut": (lambda p: os.truncate(p / EDIT_FILE, 900), "edit.json is damaged or cut short"),
    "json empty": (lambda p: (p / EDIT_FILE).write_bytes(b""), "edit.json is damaged or cut short"),
    "json binary": (lambda p: (p / EDIT_FILE).write_bytes(b"\xff\xfe\x00"), "edit.json is damaged or cut short"),
    "json list": (lambda p: (p / EDIT_FILE).write_text("[]"), "not a workbench-edit"),
    "another kind": (
        lambda p: rewrite_json(p / EDIT_FILE, kind="workbench-report"),
        "not a workbench-edit: it is a workbench-report",
    ),
    "another version": (
        lambda p: rewrite_json(p / EDIT_FILE, schema_version=5),
        "schema version 5, but this version of circuit-workbench reads version 4 and older ones",
    ),
    "edited by hand": (lambda p: rewrite_json(p / EDIT_FILE, base_name="x"), "damaged or edited"),
    "a field more": (lambda p: rewrite_json(p / EDIT_FILE, more=1), "damaged or edited"),
    "gates cut": (
        lambda p: os.truncate(p / TENSORS_FILE, 300),
        r"tensors.safetensors \(300 bytes\) is damaged, cut short",
    ),
    "gates of another edit": (
        lambda p: (p / TENSORS_FILE).write_bytes(safetensors.torch.save({"a": torch.ones(1)})),
        "of another edit",
    ),
}


@pytest.mark.parametrize("name", DAMAGE, ids=lambda name: name.replace(" ", "-"))
def test_a_damaged_edit_is_refused(edit: Edit, tmp_path: Path, name: str) -> None:
    path = edit.save(tmp_path / "e")
    damage, message = DAMAGE[name]
    damage(path)
    with pytest.raises(ValueError, match=message) as caught:
        load_edit(path)
    assert str(path) in str(caught.value)


def test_other_folders_are_refused(edit: Edit, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_edit(tmp_path / "missing")
    with pytest.raises(ValueError, match="PEFT adapter: load it with"):
        load_edit(edit.to_peft(tmp_path / "adapter"))


def test_a_sealed_edit_that_makes_no_sense_is_one_clear_error(edit: Edit, tmp_path: Path) -> None:
    path = edit.save(tmp_path / "e")
    document = json.loads((path / EDIT_FILE).read_text(encoding="utf-8"))
    fields = {k: v for k, v in document.items() if k not in ("kind", "schema_version", "sha256")}
    for changes, message in (
        ({"stages": [{"name": "learn", "delta": {"kind": "gates", "keys": [[9, "z"]]}}]}, "it lacks '9.z'"),
        ({"stages": [{"name": "learn", "delta": {"kind": "sparse"}}]}, "this one is 'sparse'"),
        ({"method": "sorcery"}, "the method 'sorcery' is not known here"),
        ({"recipe": {"speed": 1}}, "Unknown recipe setting"),
        ({"history": [{"x": 1}]}, "unexpected keyword"),
        ({"id": "0" * 64}, "its numbers make the edit"),
    ):
        (path / EDIT_FILE).write_bytes(checked_json.dump(checked_json.wrap("workbench-edit", {**fields, **changes})))
        with pytest.raises(ValueError, match=message):
            load_edit(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_or_missing_byte_never_gives_another_edit(edit: Edit, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "e"
    if not path.exists():
        edit.save(path)
    file = path / data.draw(st.sampled_from([EDIT_FILE, TENSORS_FILE]))
    whole = file.read_bytes()
    try:
        file.write_bytes(damaged(whole, data))
        assert refused(load_edit, path) or same(load_edit(path), edit)  # the same: white space between values, say
    finally:
        file.write_bytes(whole)


# A full disk and an interrupt


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full-disk", "interrupt"])
@pytest.mark.parametrize("call", ["open", "fsync", "replace-1", "replace-2", "replace-3", "replace-4", "mkdir"])
def test_a_failed_save_keeps_the_old_edit(
    edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    """The four renames of a save: each of its two files, the old folder out of the way, the new one to its place."""
    path = edit.save(tmp_path / "e")
    with monkeypatch.context() as patch:
        fail_at(patch, call, error)
        with pytest.raises(type(error)):
            replace(edit, selector="new").save(path)
    assert same(load_edit(path), edit)
    assert [p.name for p in tmp_path.iterdir()] == ["e"]
    replace(edit, selector="new").save(path)
    assert load_edit(path).selector == "new"


@pytest.mark.parametrize("call", ["open", "fsync", "replace-1", "replace-2", "replace-3", "mkdir"])
def test_a_failed_first_save_leaves_nothing(
    edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, call, FULL)
        with pytest.raises(OSError, match="No space"):
            edit.save(tmp_path / "e")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_after_the_first_rename_puts_the_old_folder_back(
    edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = edit.save(tmp_path / "e")
    real = os.replace

    def interrupted(source: Any, target: Any) -> None:
        real(source, target)
        if Path(source) == path:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            replace(edit, selector="new").save(path)
    assert same(load_edit(path), edit)
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_the_old_folder_is_kept_even_when_it_cannot_be_put_back(
    edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = edit.save(tmp_path / "e")
    with monkeypatch.context() as patch:
        fail_at(patch, "replace-4", FULL)
        fail_at(patch, "rename", FULL)
        with pytest.raises(OSError, match="No space"):
            replace(edit, selector="new").save(path)
    (kept,) = tmp_path.iterdir()
    assert same(load_edit(kept), edit)


def test_another_process_may_finish_first(tmp_path: Path) -> None:
    def both_write() -> None:
        with atomic.new_folder(tmp_path / "x", lambda _: False) as folder:
            (folder / "a").write_text("mine")
            (tmp_path / "x").mkdir()
            (tmp_path / "x" / "a").write_text("theirs")

    with pytest.raises(FileExistsError, match="something else"):
        both_write()
    assert (tmp_path / "x" / "a").read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_very_long_name_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120)
    assert atomic.write_bytes(path, b"x").read_bytes() == b"x"
