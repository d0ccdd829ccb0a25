"""`workbench lab` without a checkout, below a folder with a space and a letter of another language: what opens, and
what a second one does."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

import workbench
from tests.browser.conftest import Lab, Notebook
from workbench.lab import START as START_NOTEBOOK

pytestmark = [pytest.mark.browser, pytest.mark.model]

PATIENCE = 300
"""Seconds until JupyterLab must have said where it is; as many as a busy machine may take."""
PAGE = re.compile(r"http://\S+/lab/tree/00_start\.ipynb\?token=\w+")


class Installed:
    """The package alone, as a wheel installs it, and a folder to work in."""

    def __init__(self, root: Path) -> None:
        self.packages, self.folder = root / "ü b" / "site packages", root / "ü b" / "mine"
        self.folder.mkdir(parents=True)
        package = Path(workbench.__file__).parent
        shutil.copytree(package, self.packages / "workbench", ignore=shutil.ignore_patterns("__pycache__"))
        self.home = root / "home"

    def start(self, log: Path, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        own = {f"JUPYTER_{name}_DIR": str(self.home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
        own |= {f"JUPYTERLAB_{name}_DIR": str(self.home / name) for name in ("SETTINGS", "WORKSPACES")}
        own |= {"PYTHONPATH": str(self.packages), "HF_HUB_OFFLINE": "1", "IPYTHONDIR": str(self.home / "ipython")}
        command = [sys.executable, "-m", "workbench.cli", "lab", "--no-browser", *options]
        with log.open("wb") as out:
            return subprocess.Popen(
                command, cwd=self.folder, env=os.environ | own | environment, stdout=out, stderr=subprocess.STDOUT
            )

    @contextmanager
    def running(self, log: Path, *options: str, **environment: str) -> Iterator[str]:
        """Start it, and wait for the address that it prints."""
        process = self.start(log, *options, **environment)
        try:
            deadline = time.monotonic() + PATIENCE
            while (found := PAGE.search(log.read_text(encoding="utf-8"))) is None:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text(encoding="utf-8")[-3000:]
                time.sleep(0.2)
            yield found[0]
        finally:
            process.terminate()
            process.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_start_notebook_opens_on_france_and_a_second_one_has_its_own_port(browser: Browser, tmp_path: Path) -> None:
    installed, port = Installed(tmp_path), free_port()
    options = ["--ip=127.0.0.1", "--LabApp.expose_app_in_browser=True"]
    with installed.running(tmp_path / "log", f"--port={port}", *options) as address:
        assert f":{port}/" in address
        assert (installed.folder / START_NOTEBOOK).is_file()
        # The same port, asked for: an error. Not asked for: another one, on the same notebook.
        second = installed.start(tmp_path / "second", f"--port={port}", *options)
        assert second.wait(PATIENCE) == 1
        assert f"workbench: Port {port} is in use" in (tmp_path / "second").read_text(encoding="utf-8")
        with installed.running(tmp_path / "third", *options, JUPYTER_PORT=str(port)) as other:
            assert f":{port}/" not in other
            assert f"Port {port} is in use" in (tmp_path / "third").read_text(encoding="utf-8")
        # What is printed, pasted into a browser
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.goto(address)
        notebook = Notebook(page, Lab(address.partition("/lab")[0], installed.folder), START_NOTEBOOK)
        notebook.wait_until_ready()
        notebook.run_all()
        panel = page.locator(".wb-panel").first
        expect(panel.get_by_text("The capital of France is Paris").locator("visible=true").first).to_be_visible()
        assert notebook.ask("app.chooser.fact.id") == "france-capital"
        page.close()
