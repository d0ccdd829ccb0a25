"""Sweep: one function over many items, in this process or on any executor, kept one file an item as they come."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from workbench.files.folder_lock import folder_lock
from workbench.models.load import LoadedModel
from workbench.pace import Pace
from workbench.sweeps.code_version import code_version
from workbench.sweeps.described import call_of, described, function_path
from workbench.sweeps.descriptions import call_digest
from workbench.sweeps.distribute import distribute, first_worker, threads_of
from workbench.sweeps.folder import SweepFolder, check_same
from workbench.sweeps.items import check_takes, checked_options, items_of, own_options, takes
from workbench.sweeps.model_source import ModelSource, given_source, remove_shipped, source_of
from workbench.sweeps.results import SweepResults
from workbench.sweeps.run import OnItem, Run
from workbench.sweeps.sending import check_executor, packed
from workbench.sweeps.worker import Item, Stamp, check_not_inside, compute, described_model, make_job, run_item
from workbench.types.cancelling import CancelFlag, Cancelled
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def sweep(
    function: Callable[..., Any],
    facts_or_contrasts: Any,
    *,
    out: str | Path,
    executor: Executor | None = None,
    model: LoadedModel | str | Path | None = None,
    progress: bool = True,
    cancel: CancelFlag | None = None,
    on_item: OnItem | None = None,
    other_code: bool = False,
    **options: Any,
) -> SweepResults:
    """Apply a function to many facts, contrasts or edits, with each result on disk as soon as it is there.

    Call it again with the same folder after an interruption, an error or for more items: what is finished is not
    computed again, and what failed is tried again. An item that fails does not stop the others.

    Args:
        function: ``function(model, item, **options)``: one of this package (``wb.causal_trace``, ``wb.attribute``,
            ``wb.rewrite``, ``wb.evaluate``, ``wb.compare``; ``wb.probe`` over edits) or your own. It returns a result
            of this package, numbers, text, tensors, or lists, tuples and dictionaries of these.
        facts_or_contrasts: What it goes over. Ids are those of facts, contrasts and edits; of anything else pass a
            mapping of ids to items.
        out: The folder for results: a new one, or one of the same sweep. One program at a time writes to it.
        executor: Any of ``concurrent.futures``: None computes in this process; a pool of new processes
            (``multiprocessing.get_context("spawn")``); or many machines by Dask (``client.get_executor()``, the extra
            ``scale``). Workers write nothing, and a worker computes one item at a time. It is not shut down.
        model: None for the bundled one; a folder, file or hub id, which each worker loads once; or a loaded model. Of
            that workers load the files that it came from; one made in memory goes through a folder in ``out`` that all
            workers must see. Edits that it carries come along. Its fingerprint is checked in every worker.
        progress: Say on stderr how far it is, how many failed, and how long the rest takes. (The function's own bar is
            off.)
        cancel: A flag that is looked at between items; in this process it is passed on to a function that takes one.
        on_item: Called with the id of each item that is done, and whether it succeeded.
        other_code: Go on in a folder whose items were computed by other versions of the code.
        options: For the function; each item gets a copy of its own. They, its source and code, the model's fingerprint
            and its tokenizer are what makes a sweep the same.

    Returns:
        The results in the folder, of all calls so far; ``wb.load_sweep(out)`` gives them again.

    Raises:
        TypeError: A function, an option or an item that cannot be sent to a worker (the message says how it could), an
            option that the function does not take, an iterator, which one item would use up, or a result that no file
            keeps.
        ValueError: No items, two of one id, a pool of forked processes, or a folder of another sweep, of other settings
            or another model (``OtherSweep``).
        FileExistsError: The folder holds something else, or a file is in its place.
        FolderInUse: Another sweep writes to the folder now.
        WorkerFailed: A worker lacks the model, a module or the version of the code.
        RuntimeError: The executor is shut down, a process of its pool died (the message names the items that it may
            have had in hand; the next call takes them last), the function changed the model, or a function that is
            swept sweeps on workers of the same process.
        OSError: A full disk, or a folder that cannot be written.
        Cancelled: The flag was set.

    Whatever ends it, what is finished stays, and the next call goes on after it. What a function draws at random
    without a seed depends on the item's id alone. Results do not depend on the executor, beyond rounding where
    torch has another number of threads: as many as a worker was given (Dask's ``nthreads``; of a pool, the cores
    divided among its processes).

    Example:
        >>> results = wb.sweep(wb.causal_trace, facts[:2], out="traces", model=model, pool=facts, progress=False)
        >>> results
        Sweep('traces', workbench.tracing.causal:causal_trace, 2 of 2 items)
        >>> results["france-capital"].title, results.mean().n
        ('residual stream (noise)', 2)
    """
    items = items_of(facts_or_contrasts)
    given = checked_options(function, options)
    check_takes(function, items)
    if executor is not None:
        check_executor(executor)
        check_not_inside(executor)
        if not isinstance(executor, ThreadPoolExecutor):
            packed((function, given))  # an error now, before there is a folder
    settings = {**call_of(function, given), "code": code_version()}
    folder = SweepFolder(out)
    folder.begin()
    with folder_lock(folder.path, "A sweep"):
        before = folder.settings()
        if before is not None:  # before a model is loaded for nothing
            check_same(before, {**settings, "model": before["model"]}, folder.path, other_code=other_code)
        finished = folder.finished(items, before)
        deaths = {id: one.deaths for id, one in folder.failures(i.id for i in items).items()}
        left = sorted((i for i in items if i.id not in finished), key=lambda i: deaths.get(i.id, 0))
        run = Run(
            folder,
            left,
            _pace(function, items, finished, progress),
            on_item,
            cancel,
            kept=len(finished),
            deaths=deaths,
        )
        try:
            if run.pace is None:
                _work(run, function, given, model, executor, settings, items, before)
            else:
                with run.pace:
                    _work(run, function, given, model, executor, settings, items, before)
        except (KeyboardInterrupt, Cancelled) as error:
            error.add_note(
                f"{run.done} items of this call are kept in {folder.path}; the same call goes on after them."
            )
            raise
        finally:
            remove_shipped(folder.path)
    return SweepResults(folder.path)


def _pace(function: Any, items: Sequence[Item], finished: set[str], progress: bool) -> Pace | None:
    left = len(items) - len(finished)
    if not progress or not left:
        return None
    name = function_path(function).rpartition(":")[2]
    words = {"model": "Loading the model", "items": f"{name}, {left} items"}
    return Pace({"model": 0.0, "items": float(left)}, words)


def _work(
    run: Run,
    function: Any,
    options: Mapping[str, Any],
    model: LoadedModel | str | Path | None,
    executor: Executor | None,
    settings: Mapping[str, Any],
    items: Sequence[Item],
    before: Mapping[str, Any] | None,
) -> None:
    """Load the model where it computes, write what the sweep is of, and do what is pending."""
    run.check()
    run.begin("model")
    if executor is None or isinstance(executor, ThreadPoolExecutor):
        loaded = model if isinstance(model, LoadedModel) else given_source(model).load()
        said = described_model(loaded)
        _write_settings(run.folder, settings, said, items, before)
        run.begin("items")
        _in_process(run, function, loaded, options, executor, Stamp.of({**settings, "model": said}))
        return
    source = source_of(model, run.folder.path) if isinstance(model, LoadedModel) else given_source(model)
    work: tuple[Any, Mapping[str, Any], ModelSource] = (function, options, source)
    threads = threads_of(executor)
    if isinstance(model, LoadedModel):
        said = described_model(model)
    elif run.pending:
        said = first_worker(run, executor, make_job(packed, work, None, threads))
    else:
        said = before["model"] if before is not None else {}
    _write_settings(run.folder, settings, said, items, before)
    run.begin("items")
    job = make_job(packed, work, said.get("fingerprint"), threads, call_digest({**settings, "model": said}))
    distribute(run, executor, lambda item: (run_item, job, packed(item)))


def _write_settings(
    folder: SweepFolder,
    settings: Mapping[str, Any],
    model: Mapping[str, Any],
    items: Sequence[Item],
    before: Mapping[str, Any] | None,
) -> None:
    """Check that the model is the folder's, and write the settings with all items of all calls."""
    if before is not None:
        check_same(before, {**settings, "model": model}, folder.path, other_code=True)
    entries = {one["id"]: one for one in (before or {}).get("items", ())}
    entries |= {i.id: {"id": i.id, "digest": i.digest, "item": described(i.value, i.id)} for i in items}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    created = now if before is None else before["created"]
    new = {**settings, "model": dict(model), "items": list(entries.values()), "created": created}
    if new != before:
        folder.write_settings(new)


def _in_process(
    run: Run,
    function: Any,
    model: LoadedModel,
    options: Mapping[str, Any],
    threads: Executor | None,
    stamp: Stamp,
) -> None:
    flag = {"cancel": run.cancel} if run.cancel is not None and takes(function, "cancel") else {}

    def task(item: Item) -> tuple[Any, Mapping[str, Any], Stamp]:
        return item, {**flag, **own_options(options)}, stamp

    if threads is not None:
        distribute(run, threads, lambda item: (compute, function, model, *task(item)))
        return
    for item in run.pending:
        run.check()
        run.keep(compute(function, model, *task(item)))
