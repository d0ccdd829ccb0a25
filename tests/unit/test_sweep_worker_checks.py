"""What a worker of a sweep checks before it computes, and what becomes of a task that never came back."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers import sweeping
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, knowing
from workbench.sweeps import worker
from workbench.sweeps.distribute import _outcome
from workbench.sweeps.model_source import source_of
from workbench.sweeps.sending import packed
from workbench.sweeps.worker import Item, Job, WorkerFailed, make_job, run_item

FACTS = capitals()
ITEM = Item(FACTS[0].id, "", FACTS[0])


@pytest.fixture
def model() -> wb.LoadedModel:
    return knowing(tiny_llama(tied=False), FACTS)


@pytest.fixture
def job(model: wb.LoadedModel, tmp_path: Path) -> Iterator[Job]:
    work = (sweeping.heads, {"pool": FACTS}, source_of(model, tmp_path))
    yield make_job(packed, work, model.fingerprint, None)
    worker._loaded.clear()


def test_a_worker_loads_the_model_once(job: Job, model: wb.LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_item(job, packed(ITEM)).content is not None
    first = worker._loaded[job.model_key]
    assert first is not model and first.fingerprint == model.fingerprint
    assert run_item(job, packed(ITEM)).content is not None
    assert worker._loaded == {job.model_key: first}


def test_another_model_in_the_same_place_is_refused(job: Job) -> None:
    with pytest.raises(WorkerFailed, match=r"has the fingerprint .*, and the sweep's has 000000.*: it is another one"):
        run_item(replace(job, fingerprint="0" * 64), packed(ITEM))


def test_other_code_is_refused(job: Job) -> None:
    elsewhere = replace(job, home=("elsewhere", 1), code={**job.code, "torch": "0.1"})
    with pytest.raises(WorkerFailed, match=r"computes with other code \(torch .* there, 0.1 here\)"):
        run_item(elsewhere, packed(ITEM))


def test_a_function_whose_module_is_not_there_is_refused(job: Job) -> None:
    missing = replace(job, work=b"cno_module_of_this_name\nf\n.")
    with pytest.raises(WorkerFailed, match=r"cannot read the function and its options .*PYTHONPATH"):
        run_item(missing, packed(ITEM))


def test_errors_of_workers_survive_the_way_back() -> None:
    assert str(pickle.loads(pickle.dumps(WorkerFailed("why")))) == "why"


class KilledWorker(Exception):
    """Of the name that Dask's has."""


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (BrokenExecutor("gone"), RuntimeError, "A worker process died"),
        (WorkerFailed("no model"), WorkerFailed, "no model"),
        (ModuleNotFoundError("workbench"), WorkerFailed, "needs the environment of this process"),
        (KilledWorker("three times"), None, ""),
        (None, RuntimeError, "gave up a task"),
    ],
)
def test_what_becomes_of_a_task(error: Any, raised: Any, words: str) -> None:
    future: Future[Any] = Future()
    if error is None:
        future.cancel()
    else:
        future.set_exception(error)
    if raised is None:
        failed = _outcome(future, ITEM)
        assert (failed.id, failed.error, failed.message) == (ITEM.id, "KilledWorker", "three times")
        return
    with pytest.raises(raised, match=words):
        _outcome(future, ITEM)
