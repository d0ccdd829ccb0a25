"""Items on an executor: handed out some ahead, kept as they come back, and what it means when they do not."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
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
DEATHS = 2
"""After so many deaths of processes an item is taken to be their cause, if it was the only one in hand."""


class PoolDied(RuntimeError):
    """A process of a pool died, and the pool with it."""


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
    """Do what is pending on an executor, some items ahead of what is done. Items that were in hand when a process died
    are the last, and one at a time, so that one that ends its process takes no other with it.

    Raises:
        PoolDied: A process died; the message names the items that it may have had in hand.
    """
    waiting, running = deque(run.pending), dict[Future[Any], Item]()
    try:
        while waiting or running:
            ahead = max(LEAST_AHEAD, AHEAD * (workers_of(executor) or 0))
            while waiting and len(running) < (1 if run.deaths.get(waiting[0].id) else ahead):
                item = waiting.popleft()
                running[_submitted(executor, *task(item))] = item
            done = wait(running, timeout=LOOK, return_when=FIRST_COMPLETED).done
            for future in [one for one in running if one in done]:  # in the order in which they were begun
                outcome = _outcome(future, running[future])
                del running[future]
                run.keep(outcome)
            run.show()
            run.check()
    except PoolDied as error:
        _keep_finished(run, running)
        in_hand = [*running.values()][: workers_of(executor)]
        _keep_deaths(run, in_hand)
        if waiting or len(running) != 1 or any(run.deaths.get(item.id, 0) < DEATHS - 1 for item in in_hand):
            raise PoolDied(_with_names(str(error), in_hand)) from error.__cause__
    except BaseException:
        _keep_finished(run, running)
        raise
    finally:
        for future in running:
            future.cancel()


def _keep_finished(run: Run, running: dict[Future[Any], Item]) -> None:
    """Keep what is done by now, though not looked at yet, and take it from what is running."""
    for future, item in [*running.items()]:
        if future.done() and not future.cancelled() and future.exception() is None:
            del running[future]
            with suppress(Exception):  # the error that ends the sweep is the one to be told
                run.keep(_outcome(future, item))


def _keep_deaths(run: Run, items: Sequence[Item]) -> None:
    """Keep of each item that its process may have died of it."""
    for item in items:
        deaths = run.deaths.get(item.id, 0) + 1
        message = f"a process ended while it had this item in hand, {deaths} times so far; it may be the cause"
        with suppress(Exception):  # as above
            run.keep(Outcome(item.id, error="WorkerDied", message=message, deaths=deaths))


def _with_names(message: str, items: Sequence[Item]) -> str:
    """What a dead process says, with the items that it may have had in hand."""
    if not items:
        return message
    ids = ", ".join(item.id for item in items[:5]) + ", ..." * (len(items) > 5)
    return f"{message} It may have had in hand: {ids}. They count as failed, and are the last that the next call takes."


def _submitted(executor: Executor, *task: Any) -> Future[Any]:
    try:
        return executor.submit(*task)
    except BrokenExecutor as error:
        raise _broken(error) from error
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
        raise _broken(error) from error
    if isinstance(error, (WorkerFailed, Cancelled, KeyboardInterrupt)):
        raise error
    raise WorkerFailed(
        f"A worker cannot do its part ({type(error).__name__}: {error}). It needs the environment of this process. "
        f"{MAKE_ANEW}"
    ) from error


def _broken(error: BrokenExecutor) -> RuntimeError:
    """What to raise where an executor is broken: threads do not die of an item."""
    return PoolDied(DIED) if isinstance(error, BrokenProcessPool) else RuntimeError(DIED)


def threads_of(executor: Executor) -> int | None:
    """Threads of torch for each process of a pool on this machine: its cores divided. Dask's workers have their own."""
    workers = workers_of(executor)
    if not isinstance(executor, ProcessPoolExecutor) or not workers:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)
