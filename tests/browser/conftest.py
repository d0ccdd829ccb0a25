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
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.kernels import served
from tests.browser.profile import SPOILED, Profile
from workbench.lab import SETTINGS as LAB_SETTINGS

TOKEN = "e2e"
START = 90  # seconds until JupyterLab must answer
USUAL = 30_000  # milliseconds until an assertion gives up: a busy machine is no failure; mutants get less
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}
FAILED = pytest.StashKey[bool]()
# Whether a notebook is open; close what else is.
OPEN = "(path) => [...jupyterapp.shell.widgets('main')].some((one) => one.context?.path === path)"
ALONE = """(path) => {
  for (const one of [...jupyterapp.shell.widgets('main')]) if (one.context?.path !== path) one.dispose();
}"""
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

# Whether the widgets of the current notebook's metadata are there: the last one is, once all are.
RESTORED = """async () => {
  const { content } = jupyterapp.shell.currentWidget;
  const mimeType = 'application/vnd.jupyter.widget-view+json';
  const manager = await content.rendermime.getFactory(mimeType).createRenderer({ mimeType })._manager.promise;
  const stored = Object.keys(content.model.getMetadata('widgets')['application/vnd.jupyter.widget-state+json'].state);
  return manager.has_model(stored.at(-1));
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
        self.patience = USUAL / 1000  # seconds

    def open(self) -> None:
        """Open it in an otherwise empty JupyterLab, and wait for its kernel. Where it is open already, the page is
        loaded anew."""
        in_lab = self.page.url.startswith(f"{self.lab.url}/lab")
        if in_lab and not self.page.evaluate(OPEN, self.path):
            self.command("docmanager:open", path=self.path, factory="Notebook")
            self.page.evaluate(ALONE, self.path)
        else:
            # Its own workspace, or the tabs of the last test come back.
            space = re.sub(r"\W", "-", f"{self.path}-{time.monotonic_ns()}")
            address = f"{self.lab.url}/lab/workspaces/{space}/tree/{self.path}?token={TOKEN}"
            self.page.goto(address, timeout=60_000)
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

    def wait_for_stored_widgets(self) -> None:
        """Wait until JupyterLab has read the widgets that are stored in the notebook. Of one that is drawn before, it
        says "model not found" for good (docs/how-to/save-and-share.md)."""
        deadline = time.monotonic() + 60
        while not self.page.evaluate(RESTORED):
            assert time.monotonic() < deadline, "the stored widgets are not read"
            time.sleep(0.02)

    def restart_kernel(self) -> None:
        """A fresh kernel, without asking."""
        self._of_session("session.kernel.restart()")

    def shut_down_kernel(self) -> None:
        """End the kernel, as after closing the laptop for a night."""
        self._of_session("shutdown()")

    def reopened(self, context: BrowserContext) -> Notebook:
        """The file, opened the next day: the kernel is gone, and the page is another."""
        self.shut_down_kernel()
        self.page.close()
        again = Notebook(context.new_page(), self.lab, self.path)
        again.open()
        return again

    def _of_session(self, what: str) -> None:
        """Call a method of the notebook's session. JupyterLab may go on to ask the kernel that was there before: no
        other test gets this page."""
        find = "[...jupyterapp.shell.widgets('main')].find((one) => one.context && one.context.path === path)"
        self.page.evaluate(f"(path) => {{ {SPOILED} return {find}.context.sessionContext.{what}; }}", self.path)

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


def settled_box(place: Locator) -> dict[str, float]:
    """Where something is on the page (x, y, width, height in pixels), once it has been still for four frames: a panel
    beside it may still be drawing."""
    place.scroll_into_view_if_needed()
    return place.evaluate(
        """async (element) => {
            let seen = "";
            for (let still = 0; still < 4; ) {
                await new Promise(requestAnimationFrame);
                const now = JSON.stringify(element.getBoundingClientRect());
                still = now === seen ? still + 1 : 0;
                seen = now;
            }
            return element.getBoundingClientRect().toJSON();
        }"""
    )


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
    url = f"http://127.0.0.1:{port}"
    with served(home / "kernels", environment) as kernels:
        environment["JUPYTER_PATH"] = str(kernels)
        with _running(command, environment, folder, home / "log", f"{url}/api?token={TOKEN}"):
            yield Lab(url, folder)


@contextmanager
def _running(command: list[str], environment: dict[str, str], folder: Path, log: Path, asked: str) -> Iterator[None]:
    """A server that runs meanwhile, from when it answers at an address."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START
        while True:
            try:
                urllib.request.urlopen(asked, timeout=5).close()
                break
            except OSError:
                gone = process.poll() is not None
                if gone or time.monotonic() > deadline:
                    pytest.fail(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')[-3000:]}", pytrace=False)
                time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on an empty folder."""
    with serve(tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("notebooks")) as running:
        yield running


@pytest.fixture(scope="session")
def end_kernels(lab: Lab) -> Iterator[Callable[[], None]]:
    """Ends all kernels that run now. It takes each of them seconds to go: the next test does not wait for that."""
    asked: set[str] = set()

    def end() -> None:
        for one in _api(lab, "sessions"):
            if one["id"] not in asked:
                asked.add(one["id"])
                ending.append(threads.submit(_api, lab, f"sessions/{one['id']}", "DELETE"))

    ending: list[Future[Any]] = []
    with ThreadPoolExecutor(2) as threads:
        yield end
        for one in ending:
            one.result()


@pytest.fixture(scope="session")
def profiles() -> Iterator[list[Profile]]:
    """The profile that the next test gets, if there is one."""
    kept: list[Profile] = []
    yield kept
    for one in kept:
        one.close()


@pytest.fixture
def profile(
    browser: Browser, lab: Lab, profiles: list[Profile], end_kernels: Callable[[], None], request: pytest.FixtureRequest
) -> Iterator[Profile]:
    """A profile as new. Fails on a request to another host and on any uncaught error of a page."""
    profile = profiles.pop() if profiles else Profile(browser, lab.url)
    yield profile
    if request.node.stash.get(FAILED, False) or not profile.tidy():
        profile.close()
    else:
        profiles.append(profile)
    end_kernels()
    assert not profile.strangers, f"requests to another host: {profile.strangers}"
    assert not profile.errors, f"errors in the page: {profile.errors}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep whether a test failed, for its fixtures, and say what its pages showed then."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    profile = getattr(item, "funcargs", {}).get("profile")
    if report.failed and isinstance(profile, Profile):
        report.sections.append(("what the page showed", profile.shown()))
    return report


@pytest.fixture
def context(profile: Profile) -> BrowserContext:
    """The profile's pages."""
    return profile.context


@pytest.fixture
def page(profile: Profile) -> Page:
    """A page of the profile, with nothing open in it."""
    expect.set_options(timeout=USUAL)
    return profile.page


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
