"""What is saved comes back exactly, what is damaged is refused, and a failed save leaves the old file alone."""

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

from tests.tiny import loaded, random_edit, tiny_llama
from workbench import atomic, sealed
from workbench.sealed import seal
from workbench.store import (
    EDIT_FILE,
    GATES_FILE,
    load_edit,
    load_effect_map,
    load_report,
    report_from_dict,
    report_to_dict,
    save_edit,
)
from workbench.types import (
    AnswerRow,
    Edit,
    EffectMap,
    EvalReport,
    GateDelta,
    Rate,
    Selection,
    Step,
    TextRow,
    TracedPrompt,
)

FULL = OSError(28, "No space left on device")
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


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, NaN equal to NaN, and of the same types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a.hex() == b.hex()
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, Selection):
        return list(a) == list(b)
    if isinstance(a, GateDelta):
        return same(dict(a.gates), dict(b.gates))
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, f), getattr(b, f)) for f in a.__dataclass_fields__)
    return a == b


def rewrite_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


# Edits


def test_an_edit_comes_back_exactly(edit: Edit, tmp_path: Path) -> None:
    path = edit.save(tmp_path / "deep" / "edit")
    assert path == tmp_path / "deep" / "edit"
    assert {p.name for p in path.iterdir()} == {EDIT_FILE, GATES_FILE}
    again = load_edit(path)
    assert same(edit, again)
    assert again.id == edit.id
    again.save(tmp_path / "again")
    assert all((path / n).read_bytes() == (tmp_path / "again" / n).read_bytes() for n in (EDIT_FILE, GATES_FILE))
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


def test_saving_again_replaces_an_edit_and_nothing_else(edit: Edit, tmp_path: Path) -> None:
    path = edit.save(tmp_path / "e")
    other = replace(edit, selector="other")
    assert load_edit(other.save(path)).selector == "other"
    (path / GATES_FILE).unlink()
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
    "no gates": (lambda p: (p / GATES_FILE).unlink(), "has no gates.safetensors"),
    "json cut": (lambda p: os.truncate(p / EDIT_FILE, 900), "edit.json is damaged or cut short"),
    "json empty": (lambda p: (p / EDIT_FILE).write_bytes(b""), "edit.json is damaged or cut short"),
    "json binary": (lambda p: (p / EDIT_FILE).write_bytes(b"\xff\xfe\x00"), "edit.json is damaged or cut short"),
    "json list": (lambda p: (p / EDIT_FILE).write_text("[]"), "not a workbench-edit"),
    "another kind": (
        lambda p: rewrite_json(p / EDIT_FILE, kind="workbench-report"),
        "not a workbench-edit: it is a workbench-report",
    ),
    "another version": (
        lambda p: rewrite_json(p / EDIT_FILE, schema_version=2),
        "schema version 2, but this version of circuit-workbench reads version 1",
    ),
    "edited by hand": (lambda p: rewrite_json(p / EDIT_FILE, base_name="x"), "damaged or edited"),
    "a field more": (lambda p: rewrite_json(p / EDIT_FILE, more=1), "damaged or edited"),
    "gates cut": (lambda p: os.truncate(p / GATES_FILE, 300), r"gates.safetensors \(300 bytes\) is damaged, cut short"),
    "gates of another edit": (
        lambda p: (p / GATES_FILE).write_bytes(safetensors.torch.save({"a": torch.ones(1)})),
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
        ({"stages": [{"name": "learn", "gates": [[9, "z"]]}]}, "it lacks 'learn.9.z'"),
        ({"recipe": {"speed": 1}}, "Unknown recipe setting"),
        ({"history": [{"x": 1}]}, "unexpected keyword"),
        ({"id": "0" * 64}, "its gates make the edit"),
    ):
        (path / EDIT_FILE).write_bytes(sealed.dump(sealed.seal("workbench-edit", {**fields, **changes})))
        with pytest.raises(ValueError, match=message):
            load_edit(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_or_missing_byte_never_gives_another_edit(edit: Edit, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "e"
    if not path.exists():
        edit.save(path)
    file = path / data.draw(st.sampled_from([EDIT_FILE, GATES_FILE]))
    whole = file.read_bytes()
    try:
        file.write_bytes(damaged(whole, data))
        assert refused(load_edit, path) or same(load_edit(path), edit)  # the same: white space between values, say
    finally:
        file.write_bytes(whole)


def refused(load: Callable[[Path], Any], path: Path) -> bool:
    """Whether a file is refused with a ValueError that names it."""
    try:
        load(path)
    except ValueError as error:
        return str(path) in str(error)
    return False


def damaged(whole: bytes, data: st.DataObject) -> bytes:
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        return whole[:at]
    return whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]


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


def fail_at(patch: pytest.MonkeyPatch, call: str, error: BaseException) -> None:
    """Make the n-th call of a function that the atomic writes use raise."""
    name, _, number = call.partition("-")
    left = [int(number or 1)]
    owner: Any = {"open": atomic, "mkdir": Path}.get(name, os)
    real = open if name == "open" else getattr(owner, name)

    def failing(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise error
        return real(*args, **kwargs)

    patch.setattr(owner, name, failing, raising=False)


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


# Effect maps

PROMPT = TracedPrompt(
    fact_id="köln",
    form="chat",
    text="<|im_start|>Köln\n",
    prefix="",
    token_ids=(1, 2, 3),
    tokens=("<|im_start|>", "K", "ö"),
    subject=(1, 2),
    answer_id=7,
    answer_token=" Paris",
    partner="rom",
)


def effect_map(**changes: Any) -> EffectMap:
    values = torch.tensor([[0.1, math.nan, -0.0], [1e-40, math.inf, 3.0]])
    fields: dict[str, Any] = {
        "values": values,
        "axes": ("layer", "position"),
        "labels": {"layer": ("L0", "L1"), "position": ("a", "b", "ö")},
        "unit": "resid",
        "metric": "probability",
        "method": "noise",
        "clean": 1 / 3,
        "corrupted": math.nan,
        "stderr": values.abs() / 7,
        "n": 5,
        "per_fact": torch.stack([values, values.T.reshape(2, 3)]),
        "prompts": (PROMPT, replace(PROMPT, other_id=9, other_token=" Rome", partner_text="x")),
        "provenance": {"settings": {"window": None, "sigma": math.inf}},
    }
    return EffectMap(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stderr": None, "per_fact": None, "corrupted": None, "prompts": (), "provenance": {}},
        {"values": torch.zeros(3, 2).T},
        {
            "values": torch.zeros(2, 0),
            "labels": {"layer": ("a", "b"), "position": ()},
            "stderr": None,
            "per_fact": None,
        },
    ],
    ids=["all", "least", "transposed", "empty"],
)
def test_an_effect_map_comes_back_exactly(changes: dict[str, Any], tmp_path: Path) -> None:
    effects = effect_map(**changes)
    path = effects.save(tmp_path / "deep" / "map.safetensors")
    assert [p.name for p in path.parent.iterdir()] == ["map.safetensors"]
    assert same(EffectMap.load(path), effects)


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    per_fact = torch.randn(4, 2, 3)
    effects = effect_map(values=per_fact[1], per_fact=per_fact)
    assert same(load_effect_map(effects.save(tmp_path / "m")), effects)


def test_other_files_are_not_effect_maps(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with pytest.raises(FileNotFoundError):
        load_effect_map(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="damaged or cut short"):
        load_effect_map(path)
    path.write_bytes(safetensors.torch.save({"values": torch.ones(2)}))
    with pytest.raises(ValueError, match="says nothing of this package"):
        load_effect_map(path)
    header = json.dumps({"kind": "workbench-effect-map", "schema_version": 7})
    path.write_bytes(safetensors.torch.save({"values": torch.ones(2)}, metadata={"workbench": header}))
    with pytest.raises(ValueError, match=r"schema version 7.*reads version 1"):
        load_effect_map(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_effect_map_never_gives_other_numbers(tmp_path: Path, data: st.DataObject) -> None:
    effects = effect_map()
    path = effects.save(tmp_path / "m")
    path.write_bytes(damaged(path.read_bytes(), data))
    assert refused(load_effect_map, path) or same(load_effect_map(path), effects)


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full-disk", "interrupt"])
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_failed_save_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    effects, made = effect_map(), report()
    paths = [effects.save(tmp_path / "m"), made.save(tmp_path / "r")]
    for save in (lambda: effect_map(n=6).save(paths[0]), lambda: report(facts=()).save(paths[1])):
        with monkeypatch.context() as patch:
            fail_at(patch, call, error)
            with pytest.raises(type(error)):
                save()
    assert same(load_effect_map(paths[0]), effects)
    assert same(load_report(paths[1]), made)
    assert {p.name for p in tmp_path.iterdir()} == {"m", "r"}


# Reports


def report(**changes: Any) -> EvalReport:
    row = AnswerRow(
        fact_id="a",
        relation="r",
        group="heldout",
        stage="base",
        form="chat",
        prompt="P?",
        text="é\ud800\n",
        label="old",
        nll=0.1,
    )
    fields: dict[str, Any] = {
        "rows": (
            row,
            replace(row, stage="learn", nll=math.nan, kl=math.nan),
            replace(row, nll=math.inf, kl=-math.inf),
            replace(row, kl=0.25),
        ),
        "rates": {
            "learn": {
                "new": Rate(0.5, 4, 0.25, 1 / 3, "wilson"),
                "old": Rate(math.nan, 0, math.nan, math.nan, "wilson", 0),
            },
            "base": {},
        },
        "texts": (TextRow(stage="base", sentence="Ordinary é.", n_tokens=3, nll=1 / 3),) * 2
        + (TextRow(stage="learn", sentence="", n_tokens=1, nll=math.nan),),
        "missing": ("neighbours",),
        "facts": ("a",),
        "stages": ("base", "learn"),
        "provenance": {"seed": 0, "x": [math.nan]},
    }
    return EvalReport(**{**fields, **changes})


def test_a_report_comes_back_exactly(tmp_path: Path) -> None:
    made = report()
    path = made.save(tmp_path / "deep" / "r.json")
    assert same(EvalReport.load(path), made)
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]
    assert same(report_from_dict(json.loads(json.dumps(made.to_dict()))), made)


def test_a_report_as_json_is_strict_and_says_null_for_nan() -> None:
    data = report_to_dict(report())
    json.dumps(data, allow_nan=False)
    assert data["schema_version"] == 1
    assert data["rates"]["learn"]["old"]["value"] is None
    assert [r["kl"] for r in data["rows"]] == [None, "nan", "-inf", 0.25]
    assert [r["nll"] for r in data["rows"]] == [0.1, None, "inf", 0.1]


def test_a_report_from_before_there_was_collateral_is_read() -> None:
    fields = {k: v for k, v in report_to_dict(report(texts=())).items() if k not in ("texts", "sha256")}
    fields = {k: v for k, v in fields.items() if k not in ("kind", "schema_version")}
    assert same(report_from_dict(seal("workbench-report", fields)), report(texts=()))


def test_a_damaged_report_is_refused(tmp_path: Path) -> None:
    path = report().save(tmp_path / "r.json")
    text = path.read_bytes()
    for content, message in (
        (text.replace(b'"n": 4', b'"n": 5'), "fails its own checksum"),
        (text[:-9], "damaged or cut short"),
        (text.replace(b'"schema_version": 1', b'"schema_version": 0'), "schema version 0"),
        (text.replace(b"workbench-report", b"workbench-edit"), "it is a workbench-edit"),
        (b"{}", "not a workbench-report"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            load_report(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError):
        load_report(tmp_path / "missing")


def test_save_edit_is_what_save_calls(edit: Edit, tmp_path: Path) -> None:
    one, two = save_edit(edit, tmp_path / "one"), edit.save(tmp_path / "two")
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}
