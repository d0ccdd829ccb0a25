"""Kernels that start as forks of one process in which the large packages are imported already.

Every browser test has a kernel of its own, and importing torch and transformers takes longer than most of them do.
``python -m tests.browser.kernels serve NUMBER`` imports them once; JupyterLab starts ``kernels.py start SOCKET FILE``
in place of a kernel, which has one forked, hands on its signals and ends with it. Everything else is imported in each
kernel anew.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

IMPORTED = (
    "ipykernel.kernelapp",
    "numpy",
    "pandas",
    "torch",
    "transformers",
    "transformers.models.llama.modeling_llama",
)
"""Large, and the same wherever they are imported: nothing of widgets, which look for the kernel that they are in."""
HANDED_ON = (signal.SIGINT, signal.SIGTERM)


def serve(server_number: str) -> NoReturn:
    """Import what kernels import, and fork a kernel for each connection, until the standard input ends."""
    import importlib
    import select

    for name in IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a kernel: its connection ends with it
    with socket.socket(fileno=int(server_number)) as server:
        while True:
            readable, _, _ = select.select([server, sys.stdin], [], [])
            if sys.stdin in readable:
                os._exit(0)
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _become_kernel(connection)
            connection.close()


def _become_kernel(connection: socket.socket) -> NoReturn:
    """Be the kernel that is asked for."""
    import threading

    asked = json.loads(connection.makefile("r", encoding="utf-8").readline())
    connection.sendall(f"{os.getpid()}\n".encode())
    for which in (signal.SIGCHLD, *HANDED_ON):
        signal.signal(which, signal.default_int_handler if which == signal.SIGINT else signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.setpgid(0, 0)  # processes of this kernel are ended with it, and no other's
    sys.argv = ["ipykernel_launcher", "-f", asked["file"]]
    sys.path[0] = ""

    def end_with_starter() -> None:
        connection.recv(1)  # nothing is sent: this returns when the other side is gone
        os._exit(1)

    threading.Thread(target=end_with_starter, daemon=True).start()
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()
    sys.exit()


def start(path: str, file: str) -> None:
    """Stand for a kernel: ask for one, and end when it ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        environment = {name: value for name, value in os.environ.items() if name != "JPY_PARENT_PID"}
        asked = {"file": file, "folder": os.getcwd(), "environment": environment}
        connection.sendall(f"{json.dumps(asked)}\n".encode())
        kernel = int(connection.makefile("r", encoding="utf-8").readline())

        def hand_on(which: int, frame: Any) -> None:
            os.kill(kernel, which)

        for which in HANDED_ON:
            signal.signal(which, hand_on)
        connection.recv(1)


@contextmanager
def served(home: Path, environment: dict[str, str]) -> Iterator[Path]:
    """A folder for ``JUPYTER_PATH`` in which the kernel ``python3`` is a fork of a process that runs meanwhile.

    Args:
        home: A new folder for it.
        environment: Of the process.
    """
    import subprocess
    from tempfile import TemporaryDirectory

    spec = home / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    # A socket's path has little more than 100 characters.
    with (
        TemporaryDirectory(prefix="kernels-") as short,
        socket.socket(socket.AF_UNIX) as server,
        (home / "log").open("wb") as log,
    ):
        path = f"{short}/socket"
        server.bind(path)
        server.listen()  # whoever asks before all is imported waits
        argv = [sys.executable, "-S", "-E", __file__, "start", path, "{connection_file}"]
        spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3 (ipykernel)", "language": "python"}))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.browser.kernels", "serve", str(server.fileno())],
            cwd=Path(__file__).parents[2],
            env=environment,
            pass_fds=[server.fileno()],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
        try:
            yield home
        finally:
            process.communicate(timeout=20)


if __name__ == "__main__":
    {"serve": serve, "start": start}[sys.argv[1]](*sys.argv[2:])
