"""Items on an executor: handed out some ahead, kept as they come back, and what it means when they do not."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from typing import Any

from workbench.sweeps.run import Run
from workbench.sweeps.sending import DIED, MAKE_ANEW, workers_of
from workbench.sweeps.worker import Item, Outcome, WorkerFailed, describe_model
from workbench.types.cancelling import Cancelled

LEAST_AHEAD = 16
"""So many items are handed to an executor before the first is done, so that one that grows with its work begins to."""
AHEAD = 4
"""So many for each worker."""
LOOK = 0.5
"""Seconds after which a flag is looked at again."""


def first_worker(run: Run, executor: Executor, job: Any) -> dict[str, Any]:
    """What a worker says of the model, once one has loaded it."""
    future = _submitted(executor, describe_model, job)
    try:
        while not wait([future], timeout=LOOK).done:
            run.check()
        return _result(future)
    finally:
        future.cancel()


def distribute(run: Run, executor: Executor, task: Callable[[Item], tuple[Any, ...]]) -> None:
    """Do what is pending on an executor, some items ahead of what is done."""
    waiting, running = deque(run.pending), dict[Future[Any], Item]()
    try:
        while waiting or running:
            ahead = max(LEAST_AHEAD, AHEAD * (workers_of(executor) or 0))
            while waiting and len(running) < ahead:
                item = waiting.popleft()
                running[_submitted(executor, *task(item))] = item
            for future in wait(running, timeout=LOOK, return_when=FIRST_COMPLETED).done:
                run.keep(_outcome(future, running.pop(future)))
            run.show()
            run.check()
    except (KeyboardInterrupt, Cancelled):
        for future, item in running.items():  # done by now, though not looked at yet
            if future.done() and not future.cancelled() and future.exception() is None:
                run.keep(_outcome(future, item))
        raise
    finally:
        for future in running:
            future.cancel()


def _submitted(executor: Executor, *task: Any) -> Future[Any]:
    try:
        return executor.submit(*task)
    except BrokenExecutor as error:
        raise RuntimeError(DIED) from error
    except Exception as error:  # of Dask, whatever a closed client raises
        raise RuntimeError(f"The executor takes no more work ({error}). {MAKE_ANEW}") from error


def _outcome(future: Future[Any], item: Item) -> Outcome:
    """What became of an item; an error of a scheduler that speaks of this item alone is the item's."""
    if not future.cancelled():
        error = future.exception()
        if type(error).__name__ == "KilledWorker":  # Dask: it ended several workers
            return Outcome(item.id, error="KilledWorker", message=str(error))
    return _result(future)


def _result(future: Future[Any]) -> Any:
    """A future's result.

    Raises:
        RuntimeError: A process died, or the scheduler is gone.
        WorkerFailed: As the worker said it.
    """
    if future.cancelled():
        raise RuntimeError(f"The executor gave up a task: it was shut down, or its scheduler is gone. {MAKE_ANEW}")
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenExecutor):
        raise RuntimeError(DIED) from error
    if isinstance(error, (WorkerFailed, Cancelled, KeyboardInterrupt)):
        raise error
    raise WorkerFailed(
        f"A worker cannot do its part ({type(error).__name__}: {error}). It needs the environment of this process. "
        f"{MAKE_ANEW}"
    ) from error


def threads_of(executor: Executor) -> int | None:
    """Threads of torch for each process of a pool on this machine: its cores divided. Dask's workers have their own."""
    workers = workers_of(executor)
    if not isinstance(executor, ProcessPoolExecutor) or not workers:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)
