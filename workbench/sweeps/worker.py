"""What a worker does: load the model once, apply a function to an item, and give back the bytes of the item's file.

Only the process that runs the sweep writes to its folder, so workers need no disk in common with it.
"""

from __future__ import annotations

import os
import pickle
import random
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from workbench.files.checked_json import sha256
from workbench.files.item_file import item_bytes
from workbench.files.result_values import NotKept
from workbench.models.load import LoadedModel
from workbench.models.provenance import provenance
from workbench.sweeps.code_version import code_version
from workbench.sweeps.descriptions import call_digest
from workbench.sweeps.model_source import ModelSource
from workbench.sweeps.tokenizer_digest import tokenizer_digest
from workbench.types.cancelling import Cancelled

_loaded: dict[str, LoadedModel] = {}
"""The model of this worker, by the checksum of its source: one at most."""
_one_at_a_time = threading.RLock()
"""A model computes for one item at a time, however many threads a worker has: so memory is that of one, and hooks of
two functions never meet."""
computing: ContextVar[bool] = ContextVar("computing", default=False)
"""Whether this thread computes an item, and so holds the model."""


class WorkerFailed(RuntimeError):
    """A worker cannot do its part of a sweep; what is finished is kept."""


@dataclass(frozen=True)
class Job:
    """What is the same for all items of a sweep.

    Args:
        work: The pickled function and options, and the source of the model.
        model_key: The checksum of the source.
        fingerprint: What the model must have; None where it is not known yet.
        code: The code version of the process that runs the sweep.
        threads: Of torch in a worker process; None leaves them.
        home: The process that runs the sweep, in which threads are never changed.
        call: The checksum of function, options and model.
        run: Another one for each run, so that a scheduler never takes a task for one of an earlier run.
    """

    work: bytes
    model_key: str
    fingerprint: str | None
    code: Mapping[str, str]
    threads: int | None
    home: tuple[str, int]
    call: str = ""
    run: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Outcome:
    """What became of an item.

    Args:
        id: The item's.
        content: The bytes of its file; None where it failed.
        error, message, traceback: Of what it failed with.
        never_kept: Whether it failed because the result cannot be kept.
        spoiled: Whether the model is no longer what it was, so that no other item can be computed with it; without an
            ``error`` it was so before the item was begun.
        deaths: How many processes ended while they had the item in hand.
        seconds: It took.
    """

    id: str
    content: bytes | None = None
    error: str = ""
    message: str = ""
    traceback: str = ""
    never_kept: bool = False
    spoiled: bool = False
    deaths: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Stamp:
    """What the file of each item says of its sweep.

    Args:
        call: The checksum of function, options and model.
        fingerprint: The model's, when the sweep began; None where that is not on record.
    """

    call: str
    fingerprint: str | None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Stamp:
        """That of a sweep's settings, as ``sweep.json`` holds them."""
        return cls(call_digest(settings), settings["model"].get("fingerprint"))


@dataclass(frozen=True)
class Item:
    """An item with its name and the checksum of what it is."""

    id: str
    digest: str
    value: Any = field(repr=False)


def home() -> tuple[str, int]:
    """This machine and process."""
    return socket.gethostname(), os.getpid()


def make_job(
    pack: Callable[[Any], bytes],
    work: tuple[Any, Mapping[str, Any], ModelSource],
    fingerprint: str | None,
    threads: int | None,
    call: str = "",
) -> Job:
    """A job of a function, its options and a model's source, pickled by ``pack``."""
    key = sha256(pickle.dumps(work[2], protocol=4))
    return Job(pack(work), key, fingerprint, code_version(), threads, home(), call)


def describe_model(job: Job) -> dict[str, Any]:
    """Load a job's model in a worker, and say what it is: the provenance of whatever is computed with it."""
    with _one_at_a_time:
        _, _, model = _prepared(job)
        return described_model(model)


def described_model(model: LoadedModel) -> dict[str, Any]:
    """Name, fingerprint, template, dtype and edits of a model, and the checksum of its tokenizer."""
    said = {k: v for k, v in provenance(model).items() if k not in ("settings", "versions", "created")}
    return {**said, "tokenizer": tokenizer_digest(model)}


def run_item(job: Job, item: bytes) -> Outcome:
    """Apply a job's function to a pickled item in a worker.

    Raises:
        WorkerFailed: The worker lacks the model, a module, or the right version of the code.
    """
    with _one_at_a_time:
        function, options, model = _prepared(job)
        stamp = Stamp(job.call, model.fingerprint)
        outcome = compute(function, model, _unpickled(item, "the item"), options, stamp)
        if outcome.spoiled:
            _loaded.clear()  # the next item loads it again
        return replace(outcome, spoiled=False)


def compute(function: Any, model: LoadedModel, item: Item, options: Mapping[str, Any], stamp: Stamp) -> Outcome:
    """Apply a function to an item. An error of it is what becomes of the item, and so is a model that it has changed.

    Raises:
        Cancelled: The function was cancelled.
    """
    began = time.perf_counter()
    with _one_at_a_time, _computing():
        before = _version(model)
        if model.fingerprint != stamp.fingerprint:
            return Outcome(item.id, message=f"the model was changed before {item.id!r} was begun.", spoiled=True)
        try:
            with _random_draws_of(item):
                result = function(model, item.value, **options)
            seconds = time.perf_counter() - began
            fields = {"id": item.id, "digest": item.digest, "call": stamp.call, "fingerprint": stamp.fingerprint}
            fields |= {"seconds": seconds, "code": code_version(), "worker": "{}:{}".format(*home())}
            outcome = Outcome(item.id, item_bytes(result, fields), seconds=seconds)
        except (Cancelled, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # whatever it is (SystemExit too), the other items go on
            outcome = Outcome(
                item.id,
                error=type(error).__name__,
                message=said(error),
                traceback=traceback.format_exc(),
                never_kept=isinstance(error, NotKept),
                seconds=time.perf_counter() - began,
            )
        return _spoiled(outcome) if _is_changed(model, before, stamp) else outcome


@contextmanager
def _computing() -> Generator[None]:
    token = computing.set(True)
    try:
        yield
    finally:
        computing.reset(token)


def said(error: BaseException) -> str:
    """What an error says, whatever its own class makes of that."""
    try:
        return str(error)
    except Exception:  # of the error's own class
        return f"(a {type(error).__name__} that cannot be written as text)"


def _version(model: LoadedModel) -> Any:
    """The model's version; None where it was changed after it was loaded in what is more than values."""
    try:
        return model.version
    except ValueError:
        return None


def _is_changed(model: LoadedModel, before: Any, stamp: Stamp) -> bool:
    """Whether a model is another one than when its sweep began. One whose weights were changed and changed back is the
    same; of a view with edits it cannot be said which weights it had."""
    after = _version(model)
    return model.fingerprint != stamp.fingerprint or (after != before and (model.edited or after is None))


def _spoiled(outcome: Outcome) -> Outcome:
    """An item whose function changed the model, whatever it returned."""
    message = (
        f"the model was changed while {outcome.id!r} was computed, and a sweep is of one model: let the function "
        "change a copy, or use an edit (wb.applied)."
    )
    if outcome.error:
        message += f" (It raised {outcome.error}: {outcome.message})"
    return replace(outcome, content=None, error="ModelChanged", message=message, never_kept=False, spoiled=True)


def check_not_inside(executor: Executor) -> None:
    """Raise where a sweep could never end: one with workers in this process, within a function that is swept itself.

    Raises:
        RuntimeError: It is so.
    """
    if computing.get() and not isinstance(executor, ProcessPoolExecutor):
        raise RuntimeError(
            "A function that is swept sweeps itself, with an executor whose workers would wait for the model that the "
            "function holds: leave executor out there, so that its items are computed in the same thread."
        )


@contextmanager
def _random_draws_of(item: Item) -> Generator[None]:
    """Let what a function draws without a seed depend on the item alone, not on what was drawn before it."""
    seed = int(sha256(item.id.encode("utf-8", "surrogatepass"))[:8], 16)
    ours, theirs = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)


def _prepared(job: Job) -> tuple[Any, Mapping[str, Any], LoadedModel]:
    """Function, options and model of a job, in this worker."""
    host, process = home()
    if (host, process) != job.home:
        _check_code(job, host)
        threads = _threads_of_dask() or job.threads
        if threads and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
    function, options, source = _unpickled(job.work, "the function and its options")
    model = _loaded.get(job.model_key)
    if model is None or job.fingerprint not in (None, model.fingerprint):  # other files lie there by now
        model = _load(source, host)
        _loaded.clear()  # the one of another sweep
        _loaded[job.model_key] = model
    if job.fingerprint is not None and model.fingerprint != job.fingerprint:
        raise WorkerFailed(
            f"On the worker {host} {source.words} has the fingerprint {model.fingerprint[:16]}, and the sweep's has "
            f"{job.fingerprint[:16]}: it is another one. Give every worker the same files."
        )
    return function, options, model


def _load(source: ModelSource, host: str) -> LoadedModel:
    try:
        return source.load()
    except (OSError, ValueError, ImportError) as error:
        raise WorkerFailed(
            f"The worker on {host} cannot load {source.words}: {error} Every worker needs it: install it there, or "
            "name a folder that all of them see."
        ) from error


def _check_code(job: Job, host: str) -> None:
    here = code_version()
    if here != dict(job.code):
        differs = [f"{k} {here.get(k)} there, {v} here" for k, v in job.code.items() if here.get(k) != v]
        raise WorkerFailed(
            f"The worker on {host} computes with other code ({'; '.join(differs)}). Give every worker the environment "
            "of this process."
        )


def _unpickled(content: bytes, what: str) -> Any:
    try:
        return pickle.loads(content)
    except Exception as error:  # whatever the module of a function raises when it is imported
        raise WorkerFailed(
            f"The worker on {socket.gethostname()} cannot read {what} ({type(error).__name__}: {error}). What is used "
            "must be in a module that workers can import: put it into a file or package that is on their PYTHONPATH."
        ) from error


def _threads_of_dask() -> int | None:
    """How many threads a Dask worker was given, in a task of Dask."""
    distributed: Any = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        return int(distributed.get_worker().state.nthreads)
    except (ValueError, AttributeError):
        return None
