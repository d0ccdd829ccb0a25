"""A job's states, its waiting and its thread's settings."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from workbench.types.cancelling import Cancelled
from workbench.widgets.shared.job import Job


def until_cancelled(cancel: threading.Event) -> str:
    if cancel.wait(20):
        raise Cancelled("as asked")
    return "never"


def test_done() -> None:
    seen = []
    job = Job(lambda cancel: 3 * 7, on_done=lambda job: seen.append((job.state, job.result)))
    assert job.wait(10) == 21
    assert (job.state, job.result, job.error, job.running) == ("done", 21, None, False)
    assert seen == [("done", 21)], "on_done sees the ended job, and wait returns after it"
    assert repr(job) == "Job(done)"
    took = job.seconds
    job.cancel()
    time.sleep(0.01)
    assert (job.state, job.seconds) == ("done", took), "nothing happens to an ended job"


def test_running_then_cancelled() -> None:
    seen = []
    job = Job(until_cancelled, on_done=lambda job: seen.append(job.state))
    assert job.running and not job.cancelling and job.result is None and job.error is None
    before = job.seconds
    with pytest.raises(TimeoutError, match=r"still runs.*job\.cancel\(\)"):
        job.wait(0.01)
    assert job.running and job.seconds > before
    job.cancel()
    assert job.cancelling
    with pytest.raises(Cancelled, match="as asked"):
        job.wait(10)
    assert job.state == "cancelled" and isinstance(job.error, Cancelled) and seen == ["cancelled"]


def test_failed_is_raised_again_by_every_wait() -> None:
    job = Job(lambda cancel: 1 // 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            job.wait(10)
    assert job.state == "failed" and isinstance(job.error, ZeroDivisionError) and job.result is None


def test_a_system_exit_does_not_vanish_with_its_thread() -> None:
    job = Job(lambda cancel: exec("raise SystemExit(3)"))
    with pytest.raises(SystemExit):
        job.wait(10)
    assert job.state == "failed"


def test_an_error_in_on_done_fails_the_job() -> None:
    def broken(job: Job[int]) -> None:
        raise LookupError("in the callback")

    job = Job(lambda cancel: 1, on_done=broken)
    with pytest.raises(LookupError, match="in the callback"):
        job.wait(10)
    assert job.state == "failed"


def test_a_job_that_waits_for_itself_is_refused() -> None:
    box: list[Job[int]] = []
    ready = threading.Event()

    def wait_for_me(cancel: threading.Event) -> int:
        ready.wait(10)
        return box[0].wait()

    box.append(Job(wait_for_me))
    ready.set()
    with pytest.raises(RuntimeError, match="cannot wait for itself"):
        box[0].wait(10)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_stops_the_waiting_and_not_the_job(interruptible: None) -> None:
    job = Job(until_cancelled)
    timer = threading.Timer(0.2, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        job.wait(10)
    assert job.running
    job.cancel()
    with pytest.raises(Cancelled):
        job.wait(10)


def test_gradients_are_on_inside_whatever_they_are_outside() -> None:
    def settings(cancel: threading.Event) -> tuple[bool, bool, int]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads()

    with torch.inference_mode():
        assert Job(settings).wait(10) == (True, False, torch.get_num_threads())


def test_the_thread_does_not_keep_the_process() -> None:
    job = Job(until_cancelled)
    assert any(t.daemon and t.name == "workbench-job" for t in threading.enumerate())
    job.cancel()


@pytest.mark.parametrize("body", ["cancel.wait(60)", "while True: torch.ones(300, 300) @ torch.ones(300, 300)"])
def test_the_interpreter_ends_quietly_while_a_job_runs(body: str) -> None:
    code = (
        "import time, torch\nfrom workbench.widgets.shared.job import Job\n\ndef work(cancel):\n"
        f"    {body}\n\njob = Job(work)\ntime.sleep(0.3)\nassert job.running\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 60, "whether it looks at its event or not"
