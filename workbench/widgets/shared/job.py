"""A function in a background thread, so that the notebook and its widgets stay usable while it runs.

With ipykernel 7.4 a click waits for a running cell, so nothing long may run in a cell or in a callback. Most settings
of torch are those of a thread: they are set here, so that the same call gives the same numbers from a widget and from a
script.

A daemon thread that is still in the middle of a computation when the interpreter ends makes C++ abort ("terminate
called without an active exception"). So what still runs then is cancelled and waited for, a short time.
"""

from __future__ import annotations

import atexit
import ctypes
import threading
import time
import weakref
from collections.abc import Callable
from typing import Generic, Literal, TypeVar, cast

from workbench.types.cancelling import Cancelled
from workbench.types.torch_settings import own_torch_settings

State = Literal["running", "done", "failed", "cancelled"]
T = TypeVar("T")
SECONDS_AT_EXIT = 5.0
"""Most seconds that the end of the interpreter waits for all jobs."""

_running: weakref.WeakSet[Job] = weakref.WeakSet()


class Job(Generic[T]):
    """One run of a function in a daemon thread. It starts at once.

    Args:
        function: Called with a ``threading.Event`` that is set by ``cancel()``. It ends as cancelled by raising
            ``workbench.types.cancelling.Cancelled``, and as failed by raising anything else.
        on_done: Called in the thread with the job once it has ended, whichever way. An error in it makes the job fail.
    """

    def __init__(
        self, function: Callable[[threading.Event], T], *, on_done: Callable[[Job[T]], object] | None = None
    ) -> None:
        self._function, self._on_done = function, on_done
        self._cancel = threading.Event()
        self._ended = threading.Event()
        self._began = time.perf_counter()
        self._seconds: float | None = None
        self._state: State = "running"
        self._result: T | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="workbench-job", daemon=True)
        _running.add(self)
        self._thread.start()

    def __repr__(self) -> str:
        return f"Job({self.state})"

    @property
    def state(self) -> State:
        """``"running"``, ``"done"``, ``"failed"`` or ``"cancelled"``."""
        return self._state

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._state == "running"

    @property
    def settled(self) -> bool:
        """Whether it has ended and ``on_done`` too, so that nothing more comes of it."""
        return self._ended.is_set()

    @property
    def result(self) -> T | None:
        """What the function returned; None unless the job is done."""
        return self._result

    @property
    def error(self) -> BaseException | None:
        """What ended a failed or cancelled job, else None."""
        return self._error

    @property
    def seconds(self) -> float:
        """Since the start; once ended, how long the function took."""
        return time.perf_counter() - self._began if self._seconds is None else self._seconds

    @property
    def cancelling(self) -> bool:
        """Whether it was asked to stop."""
        return self._cancel.is_set()

    def cancel(self) -> None:
        """Ask it to stop. Returns at once; the function stops where it next looks. No effect on an ended job."""
        self._cancel.set()

    def wait(self, timeout: float | None = None) -> T:
        """Wait for the end and return the result. Ctrl-C stops the waiting, not the job.

        Args:
            timeout: Most seconds to wait; None for ever.

        Raises:
            BaseException: What the function raised, ``Cancelled`` included.
            TimeoutError: It still runs.
            RuntimeError: Called by the job itself, which would never end.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("A job cannot wait for itself. Read .result in on_done instead.")
        if not self._ended.wait(timeout):
            raise TimeoutError(f"The job still runs after {self.seconds:.1f} s. Wait longer, or job.cancel() it.")
        if self._error is not None:
            raise self._error
        return cast("T", self._result)

    def every(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function every so many seconds until the job has ended, in a thread of its own."""

        def tick() -> None:
            while not self._ended.wait(seconds):
                if self.running:
                    function()

        threading.Thread(target=tick, name="workbench-tick", daemon=True).start()

    def _run(self) -> None:
        try:
            with own_torch_settings():
                result = self._function(self._cancel)
        except Cancelled as error:
            self._end("cancelled", error=error)
        except BaseException as error:
            self._end("failed", error=error)
        else:
            self._end("done", result)
        try:
            if self._on_done is not None:
                self._on_done(self)
        except BaseException as error:
            self._state, self._error = "failed", error
        finally:
            self._ended.set()
            _running.discard(self)

    def _end(self, state: State, result: T | None = None, error: BaseException | None = None) -> None:
        self._seconds = time.perf_counter() - self._began
        self._result, self._error = result, error
        self._state = state


@atexit.register
def _stop_all() -> None:
    """Cancel what runs; what does not look at its event in time gets ``Cancelled`` at its next Python instruction.

    A thread cannot be stopped from outside, and one that is left in the middle of a computation makes C++ abort (see
    above). CPython can set an exception in another thread, which is raised between two of its instructions: so a loop
    of short computations ends, through its own ``finally`` clauses. One long call into C ends first, or the time is up.
    """
    threads = [job._thread for job in _running]
    for job in list(_running):
        job.cancel()
    deadline = time.monotonic() + SECONDS_AT_EXIT
    for thread in threads:
        thread.join(0.5)
        if thread.is_alive() and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Cancelled))
            thread.join(max(0.0, deadline - time.monotonic()))
