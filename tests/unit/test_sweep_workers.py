"""Sweeps on worker processes: the same results as in this process, on a pool and on Dask, also when a worker dies."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers import sweeping
from tests.helpers.tiny import random_edit, tiny_llama
from tests.helpers.tiny_facts import capitals, knowing
from workbench.sweeps.worker import WorkerFailed

FACTS = capitals()


@pytest.fixture(scope="module")
def model() -> wb.LoadedModel:
    return knowing(tiny_llama(tied=False), FACTS)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.fixture
def serial(model: wb.LoadedModel, tmp_path: Path) -> wb.SweepResults:
    return wb.sweep(sweeping.heads, FACTS, out=tmp_path / "serial", model=model, pool=FACTS, progress=False)


def assert_same(left: wb.SweepResults, right: wb.SweepResults) -> None:
    """All results are equal to the bit."""
    assert set(left) == set(right) == set(FACTS.ids)
    for id in left:
        assert torch.equal(left[id].values, right[id].values), id
        assert left[id].clean == right[id].clean, id


def test_a_pool_of_processes_gives_what_this_process_gives(
    model: wb.LoadedModel, pool: ProcessPoolExecutor, serial: wb.SweepResults, tmp_path: Path
) -> None:
    out = tmp_path / "pool"
    results = wb.sweep(sweeping.heads, FACTS, out=out, executor=pool, model=model, pool=FACTS, progress=False)
    assert_same(serial, results)
    assert not (out / "model").exists(), "what the model was shipped in goes with the run"
    workers = {results.details(id)["worker"] for id in results}
    assert workers.isdisjoint(serial.details(id)["worker"] for id in serial)


def test_threads_are_divided_and_random_draws_depend_on_the_item(
    model: wb.LoadedModel, pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    from workbench.sweeps.distribute import threads_of

    run = {"executor": pool, "model": model, "progress": False}
    seen = wb.sweep(sweeping.threads, FACTS, out=tmp_path / "threads", **run).to_frame()
    assert set(seen.threads) == {threads_of(pool)}
    drawn = wb.sweep(sweeping.drawn, FACTS, out=tmp_path / "drawn", **run)
    here = wb.sweep(sweeping.drawn, [*FACTS][::-1], out=tmp_path / "here", model=model, progress=False)
    assert dict(drawn) == dict(here) and len(set(drawn.values())) == len(FACTS)


def test_a_function_that_no_module_names_is_sent_as_it_is(
    model: wb.LoadedModel, pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    pytest.importorskip("cloudpickle")
    added = 3
    results = wb.sweep(
        lambda model, fact, *, times: times * len(fact.answer) + added,
        FACTS,
        out=tmp_path,
        executor=pool,
        model=model,
        times=2,
        progress=False,
    )
    assert dict(results) == {fact.id: 2 * len(fact.answer) + 3 for fact in FACTS}


def test_a_folder_is_loaded_by_each_worker_and_an_edit_comes_along(
    model: wb.LoadedModel, pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    folder = wb.export_base(tmp_path / "base", model)
    named = wb.sweep(
        sweeping.heads, FACTS[:1], out=tmp_path / "a", executor=pool, model=folder, pool=FACTS, progress=False
    )
    assert named.model["fingerprint"] == model.fingerprint
    with wb.applied(wb.load_model(folder), random_edit(model)) as edited:
        direct = sweeping.heads(edited, FACTS[0], pool=FACTS)
        swept = wb.sweep(
            sweeping.heads, FACTS[:1], out=tmp_path / "b", executor=pool, model=edited, pool=FACTS, progress=False
        )
        assert swept.model["fingerprint"] == edited.fingerprint
    assert torch.equal(swept[FACTS[0].id].values, direct.values)
    assert not torch.equal(swept[FACTS[0].id].values, named[FACTS[0].id].values)


def test_a_worker_without_the_model_ends_the_sweep_with_what_it_needs(
    pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorkerFailed, match=r"cannot load the model .*empty.* Every worker needs it"):
        wb.sweep(sweeping.drawn, FACTS, out=tmp_path / "a", executor=pool, model=tmp_path / "empty", progress=False)


def test_a_pool_whose_process_dies_loses_nothing(
    model: wb.LoadedModel, serial: wb.SweepResults, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"pool": FACTS, "flag": tmp_path / "flag", "at": FACTS[2].id}
    out = tmp_path / "pool"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as broken:
        with pytest.raises(RuntimeError, match="A worker process died"):
            wb.sweep(
                sweeping.heads_after_a_death, FACTS, out=out, executor=broken, model=model, progress=False, **options
            )
        with pytest.raises(RuntimeError, match="This pool is broken"):
            wb.sweep(
                sweeping.heads_after_a_death, FACTS, out=out, executor=broken, model=model, progress=False, **options
            )
    before = wb.load_sweep(out)
    assert set(before) == set(FACTS.ids[:2])
    after = wb.sweep(sweeping.heads_after_a_death, FACTS, out=out, model=model, progress=False, **options)
    assert_same(serial, after)


@pytest.mark.cluster
def test_dask_goes_on_when_one_of_two_workers_is_killed(
    model: wb.LoadedModel, serial: wb.SweepResults, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        results = wb.sweep(
            sweeping.heads_after_a_death,
            FACTS,
            out=tmp_path / "dask",
            executor=client.get_executor(),
            model=model,
            pool=FACTS,
            flag=tmp_path / "flag",
            at=FACTS[2].id,
            progress=False,
        )
        more = {"executor": client.get_executor(), "model": model, "progress": False}
        with pytest.raises(RuntimeError, match=r"gave up a task|takes no more work"):  # the scheduler goes away
            wb.sweep(
                sweeping.threads, FACTS, out=tmp_path / "gone", on_item=lambda *_: cluster.close(timeout=5), **more
            )
    gone = set(wb.load_sweep(tmp_path / "gone"))
    assert gone and gone < set(FACTS.ids), "what was finished stays"
    assert (tmp_path / "flag").exists(), "a worker was killed"
    assert not results.failed
    assert_same(serial, results)
