"""What an item can do to the others of its sweep: to their options, their model, their process and their folder."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from tests.helpers import sweeping
from tests.helpers.panels import shown
from tests.helpers.sweeping import Counting, run
from tests.helpers.tiny import random_edit, tiny_llama
from tests.helpers.tiny_facts import capitals, knowing
from workbench.sweeps.items import own_options

FACTS = capitals()
IDS = list(FACTS.ids)
LENGTHS = {fact.id: len(fact.answer) for fact in FACTS}


@pytest.fixture
def model() -> wb.LoadedModel:
    return knowing(tiny_llama(tied=False), FACTS)


def new_pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with new_pool() as executor:
        yield executor


class Dying(Executor):
    """An executor that computes when it is asked to, and whose process dies at some items."""

    _max_workers = 2

    def __init__(self, *deadly: str) -> None:
        self.deadly, self.begun, self.futures = deadly, list[str](), list[Future[Any]]()

    def submit(self, fn: Any, /, *args: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.futures.append(future)
        item = args[2]
        self.begun.append(item.id)
        if item.id in self.deadly:
            future.set_exception(BrokenProcessPool("gone"))
        else:
            future.set_result(fn(*args))
        return future


def swept_on(executor: Any, run_of: Any, items: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sweep with an executor in the place of threads, so that nothing is pickled."""
    monkeypatch.setattr("workbench.sweeps.sweep.ThreadPoolExecutor", Dying)
    monkeypatch.setattr("workbench.sweeps.sweep.check_executor", lambda _: None)
    return run_of(executor=executor, items=items)


# Options


def test_each_item_gets_options_of_its_own(model: wb.LoadedModel, pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    given: dict[str, Any] = {"left": [1, 2, 3], "noise": np.random.default_rng(0)}
    here = run(sweeping.taken, tmp_path / "here", model, **given)
    with ThreadPoolExecutor(2) as threads:
        aside = run(sweeping.taken, tmp_path / "threads", model, executor=threads, **given)
    away = run(sweeping.taken, tmp_path / "pool", model, executor=pool, **given)
    assert dict(here) == dict(aside) == dict(away) and len({tuple(value) for value in here.values()}) == 1
    assert given["left"] == [1, 2, 3], "what was passed is as it was"
    assert list(run(sweeping.taken, tmp_path / "here", model, **given)) == IDS


def test_models_edits_and_facts_are_not_copied(model: wb.LoadedModel) -> None:
    class Whole:
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("no copy")

    edit, whole = random_edit(model), Whole()
    holder = SimpleNamespace(of=[model])
    options = {"pool": FACTS, "models": [model], "edits": {"a": edit}, "whole": whole, "numbers": [1], "in": holder}
    copied = own_options(options)
    assert copied["pool"] is FACTS and copied["models"][0] is model and copied["edits"]["a"] is edit
    assert copied["whole"] is whole and copied["in"] is not holder and copied["in"].of[0] is model
    assert copied["numbers"] == [1] and copied["numbers"] is not options["numbers"]


# The model


def test_an_item_that_changes_the_model_ends_the_sweep(model: wb.LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=f"ended at the item '{IDS[2]}': the model was changed while .*load the model"
    ):
        run(sweeping.spoils, tmp_path, model, at=IDS[2])
    results = wb.load_sweep(tmp_path)
    assert list(results) == IDS[:2] and results.failed[IDS[2]].error == "ModelChanged"
    assert {results.details(id)["fingerprint"] for id in results} == {results.model["fingerprint"]}
    with pytest.raises(ValueError, match="another model"):
        run(sweeping.spoils, tmp_path, model, at=IDS[2])


def test_threads_keep_nothing_of_a_changed_model(model: wb.LoadedModel, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads, pytest.raises(RuntimeError, match=f"ended at the item '{IDS[2]}'"):
        run(sweeping.spoils, tmp_path, model, executor=threads, at=IDS[2])
    results = wb.load_sweep(tmp_path)
    assert list(results) == IDS[:2] and [*results.failed] == IDS[2:3]


def test_a_worker_loads_a_changed_model_again(model: wb.LoadedModel, pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    results = run(sweeping.spoils, tmp_path, model, executor=pool, at=IDS[2])
    assert [*results.failed] == [IDS[2]] and results.failed[IDS[2]].error == "ModelChanged"
    assert {results.details(id)["fingerprint"] for id in results} == {model.fingerprint}


def test_a_model_that_is_changed_back_is_the_same(model: wb.LoadedModel, tmp_path: Path) -> None:
    def for_a_moment(model: wb.LoadedModel, fact: wb.Fact) -> int:
        weight = model.hf.lm_head.weight
        before = weight.clone()
        with torch.no_grad():
            weight.mul_(2)
            weight.copy_(before)
        return 1

    assert list(run(for_a_moment, tmp_path, model)) == IDS


def test_an_edited_model_stays_the_same_while_it_is_read(model: wb.LoadedModel, tmp_path: Path) -> None:
    with wb.applied(model, random_edit(model)) as edited:
        assert list(run(wb.attribute, tmp_path, edited, FACTS[:2], pool=FACTS)) == IDS[:2]


# Errors


class Mute(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize("error", [SystemExit(3), Mute(), BaseException("odd"), ValueError("half \ud800")])
def test_whatever_an_item_raises_is_its_own(error: BaseException, model: wb.LoadedModel, tmp_path: Path) -> None:
    def raises(model: wb.LoadedModel, fact: wb.Fact) -> int:
        if fact.id == IDS[1]:
            raise error
        return 1

    results = run(raises, tmp_path, model)
    assert list(results) == [IDS[0], *IDS[2:]]
    assert results.failed[IDS[1]].error == type(error).__name__ and str(results.failed[IDS[1]])


def test_a_function_that_ends_its_program_ends_no_worker(
    model: wb.LoadedModel, pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    results = run(sweeping.leaves, tmp_path, model, executor=pool, at=IDS[1])
    assert results.failed[IDS[1]].error == "SystemExit" and len(results) == len(IDS) - 1


# Processes


def test_what_is_finished_when_a_pool_breaks_is_kept(
    model: wb.LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = Dying(IDS[0], IDS[2])

    def run_of(executor: Any, items: Any) -> Any:
        return run(Counting(), tmp_path, model, items, executor=executor)

    with pytest.raises(RuntimeError, match=f"A worker process died.*in hand: {IDS[0]}, {IDS[2]}. They count as failed"):
        swept_on(dying, run_of, FACTS, monkeypatch)
    results = wb.load_sweep(tmp_path)
    assert set(results) == {IDS[1], *IDS[3:]} and set(results.failed) == {IDS[0], IDS[2]}
    assert results.failed[IDS[0]].error == "WorkerDied" and results.failed[IDS[0]].deaths == 1


def test_an_error_of_a_callback_keeps_what_workers_have_finished(model: wb.LoadedModel, tmp_path: Path) -> None:
    def tell(id: str, good: bool) -> None:
        raise ArithmeticError("of the callback")

    with ThreadPoolExecutor(1) as threads, pytest.raises(ArithmeticError):
        run(Counting(), tmp_path / "a", model, executor=threads, on_item=tell)
    assert 1 <= len(wb.load_sweep(tmp_path / "a")) <= len(IDS)


def test_an_item_that_kills_its_process_holds_no_other_up(model: wb.LoadedModel, tmp_path: Path) -> None:
    with new_pool() as pool, pytest.raises(RuntimeError, match=f"may have had in hand: {IDS[0]}. They count as failed"):
        run(sweeping.number_or_death, tmp_path, model, executor=pool, at=IDS[0])
    assert len(wb.load_sweep(tmp_path)) == 0
    with new_pool() as pool:
        results = run(sweeping.number_or_death, tmp_path, model, executor=pool, at=IDS[0])
    assert dict(results) == {id: LENGTHS[id] for id in IDS[1:]}
    assert results.failed[IDS[0]].error == "WorkerDied" and results.failed[IDS[0]].deaths == 2


def test_an_item_that_died_before_comes_last_and_alone(
    model: wb.LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_of(executor: Any, items: Any) -> Any:
        return run(Counting(), tmp_path, model, items, executor=executor)

    with pytest.raises(RuntimeError):
        swept_on(Dying(IDS[0]), run_of, FACTS[:1], monkeypatch)
    again = Dying(IDS[0])
    results = swept_on(again, run_of, FACTS, monkeypatch)
    assert again.begun == [*IDS[1:], IDS[0]] and list(results) == IDS[1:]
    assert results.failed[IDS[0]].deaths == 2, "it was alone, so it is the cause, and the sweep is at its end"
    assert swept_on(Dying(), run_of, FACTS, monkeypatch).failed == {}


# Sweeps in sweeps


def test_a_sweep_in_a_swept_function_with_threads_is_refused(model: wb.LoadedModel, tmp_path: Path) -> None:
    def inner(model: wb.LoadedModel, fact: wb.Fact, *, threads: bool) -> int:
        with ThreadPoolExecutor(1) as executor:
            given = executor if threads else None
            return len(run(sweeping.drawn, tmp_path / fact.id, model, FACTS[:2], executor=given))

    failed = run(inner, tmp_path / "a", model, FACTS[:2], threads=True).failed
    assert "leave executor out" in failed[IDS[0]].message and len(failed) == 2
    assert run(inner, tmp_path / "b", model, FACTS[:2], threads=False)[IDS[0]] == 2


# The folder


def test_a_relative_folder_stays_where_it_was(
    model: wb.LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wb.export_base("base", model)

    def moves(model: wb.LoadedModel, fact: wb.Fact) -> int:
        os.makedirs(fact.id, exist_ok=True)
        os.chdir(fact.id)
        return 1

    panel = wb.SweepPanel(moves, FACTS, out="panel", model="base")
    results = run(moves, Path("out"), model)
    assert (
        list(results) == IDS and results.path == tmp_path / "out" and len(list((tmp_path / "out").rglob("*.zip"))) == 5
    )
    assert "out='panel', model='base'" in panel.code and "'panel'" in repr(panel)
    assert list(panel.run().wait(60)) == IDS and len(list((tmp_path / "panel").rglob("*.zip"))) == 5
    os.chdir(tmp_path)
    assert repr(results).startswith("Sweep('out', ")


def test_a_damaged_file_of_a_failure_is_a_failure_of_unknown_reason(model: wb.LoadedModel, tmp_path: Path) -> None:
    counting = Counting(bad=IDS[1])
    results = run(counting, tmp_path, model)
    (path,) = (tmp_path / "failed").glob("*.json")
    path.write_bytes(path.read_bytes()[:20])
    assert results.failed[IDS[1]].error == "unreadable" and "1 failed" in repr(results) and results.pending == []
    with pytest.raises(KeyError, match="what it failed with cannot be read"):
        results[IDS[1]]
    assert "unreadable" in shown(wb.SweepPanel(counting, FACTS, out=tmp_path, model=model))
    assert run(Counting(), tmp_path, model).failed == {}
