"""A real JupyterLab on a temporary folder, seen through headless Chromium.

A test writes a notebook, opens it and runs it, uses the page as a person would, and asks the kernel what Python holds.
Every page fails its test on a request to another host and on any uncaught error.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Locator, Page

from workbench.lab import SETTINGS as LAB_SETTINGS

TOKEN = "e2e"
START = 90  # seconds until JupyterLab must answer
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}
# Runs code in the notebook's kernel and returns what it prints.
EXECUTE = """async ([path, code]) => {
  const widget = [...jupyterapp.shell.widgets('main')].find((one) => one.context && one.context.path === path);
  const kernel = widget.context.sessionContext.session.kernel;
  const future = kernel.requestExecute({ code, store_history: false, silent: false });
  let out = '', error = null;
  future.onIOPub = (message) => {
    if (message.header.msg_type === 'stream') out += message.content.text;
    if (message.header.msg_type === 'error') error = message.content.ename + ': ' + message.content.evalue;
  };
  await future.done;
  return { out, error };
}"""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab and the folder it serves."""

    url: str
    folder: Path


class Notebook:
    """One notebook, open in a page."""

    def __init__(self, page: Page, lab: Lab, path: str) -> None:
        self.page, self.lab, self.path = page, lab, path
        self.patience = 5.0  # seconds

    def open(self) -> None:
        """Open it in an otherwise empty JupyterLab, and wait for its kernel."""
        # Its own workspace, or the tabs of the last test come back.
        space = re.sub(r"\W", "-", f"{self.path}-{time.monotonic_ns()}")
        self.page.goto(f"{self.lab.url}/lab/workspaces/{space}/tree/{self.path}?token={TOKEN}")
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it is open and its kernel answers."""
        self.page.wait_for_function(
            """(path) => window.jupyterapp && [...jupyterapp.shell.widgets('main')].some((one) => one.context
            && one.context.path === path && one.context.isReady && one.context.sessionContext.session
            && one.context.sessionContext.session.kernel?.status === 'idle')""",
            arg=self.path,
            timeout=60_000,
        )

    def command(self, name: str, **arguments: Any) -> None:
        """Run a command of JupyterLab and wait for its end."""
        self.page.evaluate(
            "([name, args]) => jupyterapp.commands.execute(name, args).then(() => null)", [name, arguments]
        )

    def run_all(self) -> None:
        """Run all cells; a cell that raises fails the test."""
        self.command("notebook:run-all-cells")
        errors = self.page.evaluate(
            """(path) => [...jupyterapp.shell.widgets('main')].find((one) => one.context && one.context.path === path)
            .content.model.sharedModel.cells.flatMap((cell) => cell.toJSON().outputs || [])
            .filter((output) => output.output_type === 'error').map((output) => output.ename + ': ' + output.evalue)""",
            self.path,
        )
        assert not errors, errors

    def execute(self, code: str) -> str:
        """Run code in the kernel, outside of any cell; returns what it printed."""
        done = self.page.evaluate(EXECUTE, [self.path, code])
        assert done["error"] is None, done["error"]
        return done["out"]

    def ask(self, expression: str) -> Any:
        """The value of a Python expression in the kernel, through JSON."""
        return json.loads(self.execute(f"import json as _json\nprint(_json.dumps({expression}))"))

    def wait_for(self, expression: str, expected: Any) -> None:
        """Ask until the value is the expected one, for ``patience`` seconds."""
        deadline = time.monotonic() + self.patience
        while (value := self.ask(expression)) != expected:
            assert time.monotonic() < deadline, f"{expression} is {value}, not {expected}"
            time.sleep(0.02)

    def restart_kernel(self) -> None:
        """A fresh kernel, without asking."""
        self.page.evaluate(
            """(path) => [...jupyterapp.shell.widgets('main')].find((one) => one.context && one.context.path === path)
            .context.sessionContext.session.kernel.restart()""",
            self.path,
        )

    def shut_down_kernel(self) -> None:
        """End the kernel, as after closing the laptop for a night."""
        self.page.evaluate(
            """(path) => [...jupyterapp.shell.widgets('main')].find((one) => one.context && one.context.path === path)
            .context.sessionContext.shutdown()""",
            self.path,
        )

    def save(self) -> None:
        """Save the file, with the state of its widgets."""
        self.command("docmanager:save")

    def theme(self, name: str) -> None:
        """``"JupyterLab Light"`` or ``"JupyterLab Dark"``."""
        self.command("apputils:change-theme", theme=name)
        light = "true" if "Light" in name else "false"
        self.page.wait_for_function("(light) => document.body.dataset.jpThemeLight === light", arg=light)
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")  # it would catch the pointer

    def output(self, index: int = 0) -> Locator:
        """The output area of a cell, counted among the cells that have one."""
        return self.page.locator(".jp-Notebook .jp-OutputArea").nth(index)


@contextmanager
def serve(home: Path, folder: Path) -> Iterator[Lab]:
    """JupyterLab on a folder, without any configuration of the person who runs it."""
    overrides = home / "config" / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir(parents=True)
    overrides.write_text(json.dumps(SETTINGS), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += [
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={TOKEN}",
        "--LabApp.expose_app_in_browser=True",
        f"--LabApp.app_settings_dir={LAB_SETTINGS}",  # as `workbench lab`: widgets are saved with a notebook
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # refused otherwise
    log = home / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START
        while True:
            try:
                urllib.request.urlopen(f"{url}/api?token={TOKEN}", timeout=5).close()
                break
            except OSError:
                gone = process.poll() is not None
                if gone or time.monotonic() > deadline:
                    pytest.fail(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')[-3000:]}", pytrace=False)
                time.sleep(0.2)
        yield Lab(url, folder)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on an empty folder."""
    with serve(tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("notebooks")) as running:
        yield running


@pytest.fixture
def context(browser: Browser, lab: Lab) -> Iterator[BrowserContext]:
    """A fresh profile, 1100 pixels wide. Fails on a request to another host and on any uncaught error of a page."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    context.set_default_timeout(20_000)
    errors: list[str] = []
    strangers: list[str] = []
    allowed = (f"{lab.url}/", f"{lab.url.replace('http', 'ws')}/", "data:", "blob:", "about:")

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", refuse)
        page.on("websocket", lambda socket: note(socket.url))

    def refuse(dialog: Dialog) -> None:
        errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def note(url: str) -> None:
        if not url.startswith(allowed):
            strangers.append(url)

    context.on("page", watch)
    context.on("request", lambda request: note(request.url))
    yield context
    for one in context.pages:
        one.close(run_before_unload=False)
    context.close()
    for kernel in _api(lab, "sessions"):
        _api(lab, f"sessions/{kernel['id']}", "DELETE")
    assert not strangers, f"requests to another host: {strangers}"
    assert not errors, f"errors in the page: {errors}"


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A page of `context`."""
    return context.new_page()


@pytest.fixture
def write_notebook(lab: Lab, request: pytest.FixtureRequest) -> Any:
    """``write_notebook(cells, name=None) -> path``: a notebook with these code cells in JupyterLab's folder."""

    def write(cells: list[str], name: str | None = None) -> str:
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        path = name or re.sub(r"\W+", "-", request.node.name) + ".ipynb"
        nbformat.write(notebook, lab.folder / path)
        return path

    return write


@pytest.fixture
def run_notebook(page: Page, lab: Lab, write_notebook: Any) -> Any:
    """``run_notebook(*cells) -> Notebook``: written, opened, all cells run without an error."""

    def run(*cells: str) -> Notebook:
        notebook = Notebook(page, lab, write_notebook(list(cells)))
        notebook.open()
        notebook.run_all()
        return notebook

    return run


def _api(lab: Lab, path: str, method: str = "GET") -> Any:
    request = urllib.request.Request(
        f"{lab.url}/api/{path}", method=method, headers={"Authorization": f"token {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None
