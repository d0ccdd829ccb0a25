"""How a function, its options and items get to workers: pickled here, once, with an error that says what to do."""

from __future__ import annotations

import importlib.util
import pickle
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

EXTRA = "pip install dask distributed cloudpickle"
"""What the extra ``scale`` brings; functions of notebooks are sent by cloudpickle."""


def packed(value: Any) -> bytes:
    """A value as bytes that ``pickle.loads`` reads in another process: by reference where its module can be imported
    there, else, with cloudpickle, by what it is.

    Raises:
        TypeError: It cannot be sent; the message says how it could.
    """
    try:
        content = pickle.dumps(value)
        if b"__main__" not in content:
            return content
        reason = "it is defined in a notebook or script (__main__), which workers do not have"
    except Exception as error:  # whatever an object's own pickling raises
        reason = f"{type(error).__name__}: {error}"
    if importlib.util.find_spec("cloudpickle") is not None:
        import cloudpickle

        try:
            return cloudpickle.dumps(value)
        except Exception as error:  # as above
            reason = f"{type(error).__name__}: {error}"
    raise TypeError(
        f"The function, its options or an item cannot be sent to a worker ({reason}). Put the function into a file "
        "beside the notebook, import it from there, and pass what it needs as options: numbers, text, facts, "
        f"selections, recipes, edits. ({EXTRA} sends functions of notebooks too, but no open files, locks or models.)"
    )


def check_executor(executor: Any) -> None:
    """Raise an error where an executor is none that a sweep can use.

    Raises:
        TypeError: It is no executor.
        ValueError: A pool of forked processes, in which torch may hang.
        RuntimeError: It is shut down, or broken.
    """
    if not (isinstance(executor, Executor) or callable(getattr(executor, "submit", None))):
        raise TypeError(
            f"executor must be None or an executor of concurrent.futures, got {type(executor).__name__}. Of a Dask "
            "client it is client.get_executor()."
        )
    if type(executor).__module__.startswith("distributed") and not isinstance(executor, Executor):
        raise TypeError("A Dask client is passed as an executor: sweep(..., executor=client.get_executor()).")
    if getattr(executor, "_broken", False):
        raise RuntimeError(f"This pool is broken: one of its processes died. {MAKE_ANEW}")
    if getattr(executor, "_shutdown", False) or getattr(executor, "_shutdown_thread", False):
        raise RuntimeError(SHUT_DOWN)
    context = getattr(executor, "_mp_context", None)
    if isinstance(executor, ProcessPoolExecutor) and context is not None and context.get_start_method() == "fork":
        raise ValueError(
            "This pool forks its processes, and torch may hang in them. Make it with new processes: "
            'ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")).'
        )


MAKE_ANEW = "Make a new one, and call sweep again with the same folder: it goes on after the items that are finished."
SHUT_DOWN = f"The executor is shut down. {MAKE_ANEW}"
DIED = (
    "A worker process died: it was killed, perhaps for its memory, or it could not begin (a script that makes a pool "
    f'needs its code under `if __name__ == "__main__":`). {MAKE_ANEW}'
)


def workers_of(executor: Any) -> int | None:
    """How many workers an executor has now; None where it does not say."""
    client = getattr(executor, "_client", None)
    if client is not None and callable(getattr(client, "ncores", None)):
        try:
            return len(client.ncores())
        except Exception:  # its scheduler is gone, which the tasks will say
            return None
    count = getattr(executor, "_max_workers", None)
    return count if isinstance(count, int) else None
