"""Edits of every kind of delta, one after the other, saved and loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import workbench as wb
from tests.helpers.deltas import IDS, Case, assert_near, edit_with, gates, logits_of, low_rank, model_of
from workbench.types import DenseDelta, EditStage


def test_saved_and_loaded_it_is_the_same(case: Case, tmp_path: Path) -> None:
    edit = edit_with(case.model, case.delta, case.make(case.model, 4))
    back = wb.load_edit(edit.save(tmp_path / "edit"))
    assert back.id == edit.id and [s.delta.digest() for s in back.stages] == [s.delta.digest() for s in edit.stages]
    assert torch.equal(logits_of(case.model, back), logits_of(case.model, edit))
    assert back.delta().words() == edit.delta().words() and back.delta().lowest_layer == edit.delta().lowest_layer


def test_an_edit_after_an_edit_is_one_edit(case: Case, tmp_path: Path) -> None:
    """Stacked, joined with ``then``, given as a list, saved and loaded: all the same model."""
    first, second = (
        edit_with(case.model, case.delta, gates(case.model, 2)),
        edit_with(case.model, case.make(case.model, 6)),
    )
    both = first.then(second)
    assert both.stage_names == ("unlearn", "learn", "unlearn 2") and both.modules is not None
    stacked = logits_of(case.model, first, second)
    assert_near(logits_of(case.model, both), stacked)
    with wb.applied(case.model, [first, second]) as edited, torch.no_grad():
        assert torch.equal(edited.hf(IDS).logits, stacked)
        assert [a.edit for a in edited.applied] == [first, second]
    assert wb.load_edit(both.save(tmp_path / "both")).id == both.id


def test_edits_of_two_bases_do_not_follow_each_other() -> None:
    model, other = model_of("llama, tied"), model_of("llama, untied")
    with pytest.raises(ValueError, match="Only edits of one base, or one made on top of the other, follow each other"):
        edit_with(model, gates(model, 0)).then(edit_with(other, gates(other, 0)))
    with pytest.raises(ValueError, match="at least one edit"), wb.applied(model, []):
        pass


@pytest.mark.parametrize("litter", [".ipynb_checkpoints", ".DS_Store"])
def test_what_jupyterlab_and_the_finder_leave_is_no_obstacle(litter: str, tmp_path: Path) -> None:
    model = model_of("llama, tied")
    edit = edit_with(model, gates(model, 0))
    for write in (edit.save, edit.to_peft, lambda path: wb.merge(model, edit, path)):
        folder = Path(write(tmp_path / "saved"))
        if litter.startswith(".ipynb"):
            (folder / litter).mkdir()
            (folder / litter / "edit-checkpoint.json").write_text("{}")
        else:
            (folder / litter).write_bytes(b"\0")
        assert Path(write(folder)) == folder
        (folder / "mine.txt").write_text("somebody's own")
        with pytest.raises(FileExistsError, match="holds something else"):
            write(folder)
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def test_one_delta_twice_is_saved_twice(tmp_path: Path) -> None:
    model = model_of("llama, tied")
    edit = edit_with(model, low_rank(model, 0).then(gates(model, 1)))
    twice = edit.then(edit)
    assert wb.load_edit(twice.save(tmp_path / "twice")).id == twice.id


def test_names_of_stages_that_a_file_cannot_tell_apart(tmp_path: Path) -> None:
    model = model_of("llama, tied")
    edit = edit_with(model, gates(model, 0))
    stages = (EditStage("a", DenseDelta({"b.c": torch.ones(2)})), EditStage("a.b", DenseDelta({"c": torch.ones(3)})))
    edit.save(tmp_path / "e")
    with pytest.raises(ValueError, match="could not tell them apart"):
        replace(edit, stages=stages).save(tmp_path / "e")
    assert wb.load_edit(tmp_path / "e").id == edit.id, "what was there is as it was"
