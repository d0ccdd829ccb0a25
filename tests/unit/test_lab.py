"""``workbench lab``: which notebook opens in which folder, the port, and what is passed on to JupyterLab."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from workbench import cli, lab

ROOT = Path(__file__).parents[2]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line that this process would become."""
    command: list[str] = []
    monkeypatch.setattr("workbench.models.load.load_model", lambda: None)
    monkeypatch.setattr(os, "execv", lambda program, given: command.extend(given))
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    return command


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which somebody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def without_checkout(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As from a wheel: no notebooks beside the package."""
    monkeypatch.setattr(lab, "NOTEBOOKS", folder / "site-packages" / "notebooks")
    monkeypatch.chdir(folder)


# The notebook


def test_it_opens_the_start_notebook_of_the_checkout(started: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab"]) == 0
    assert started[:3] == [sys.executable, "-m", "jupyterlab"]
    assert Path(started[3]) == ROOT / "notebooks"
    assert "--LabApp.default_url=/lab/tree/00_start.ipynb" in started
    assert f"00_start.ipynb in {ROOT / 'notebooks'}" in capsys.readouterr().out


def test_the_start_notebook_is_the_one_that_is_written_where_there_is_no_checkout() -> None:
    stored = nbformat.read(ROOT / "notebooks" / lab.START, as_version=4)
    written = nbformat.reads(lab.start_notebook().decode(), as_version=4)
    nbformat.validate(written)
    assert [(c.cell_type, c.source) for c in stored.cells] == [(c.cell_type, c.source) for c in written.cells]
    assert [c.cell_type for c in stored.cells].count("code") == 1, "one cell, the Workbench"
    assert stored.metadata.kernelspec.name == written.metadata.kernelspec.name == "python3"


def test_without_a_checkout_the_start_notebook_is_written_to_the_current_folder(
    started: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_checkout(monkeypatch, tmp_path)
    assert cli.main(["lab"]) == 0
    path = tmp_path / lab.START
    assert nbformat.read(path, as_version=4).cells[-1].source == lab.START_CODE
    assert started[3] == str(tmp_path) and f"Wrote {path}" in capsys.readouterr().out
    path.write_text("mine")
    assert cli.main(["lab"]) == 0
    assert path.read_text() == "mine" and "Wrote" not in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_said_before_anything_else(
    started: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    without_checkout(monkeypatch, tmp_path)
    monkeypatch.setattr(lab, "write_bytes", refuse)
    monkeypatch.setattr("workbench.models.load.load_model", lambda: pytest.fail("the model was loaded"))
    assert cli.main(["lab"]) == 1
    error = capsys.readouterr().err
    assert str(tmp_path) in error and "Permission denied" in error and "can be written" in error
    assert not started


# The port


@pytest.mark.parametrize("form", ["--port {}", "--port={}", "--ServerApp.port={}", "--port 1 --port {}"])
def test_a_port_that_is_asked_for_and_in_use_is_an_error(
    form: str,
    started: list[str],
    taken: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("workbench.models.load.load_model", lambda: pytest.fail("the model was loaded"))
    assert cli.main(["lab", *form.format(taken).split()]) == 1
    error = capsys.readouterr().err
    assert f"Port {taken} is in use" in error and "Leave --port out" in error
    assert not started


def test_a_port_that_cannot_be_is_an_error(started: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "--port", "70000"]) == 1
    assert "Port 70000 does not exist" in capsys.readouterr().err
    assert cli.main(["lab", "--port", "0", "--ip", "192.0.2.1"]) == 1, "an address of nobody"
    assert "at 192.0.2.1 cannot be had" in capsys.readouterr().err
    assert not started


def test_where_none_is_asked_for_another_port_is_taken_and_said(
    started: list[str], taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUPYTER_PORT", str(taken))
    assert cli.main(["lab"]) == 0
    assert f"Port {taken} is in use" in capsys.readouterr().out
    assert "--LabApp.default_url=/lab/tree/00_start.ipynb" in started, "and the same notebook opens"
    assert not [option for option in started if "port" in option]


def test_a_free_port_that_is_asked_for_is_that_one_or_none(
    started: list[str], taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["lab", "--port", "0"]) == 0
    assert "in use" not in capsys.readouterr().out
    assert "--ServerApp.port_retries=0" not in started, "any free one is asked for"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    assert cli.main(["lab", f"--port={free}"]) == 0
    assert "--ServerApp.port_retries=0" in started


# What is passed on


def test_options_are_passed_on(started: list[str]) -> None:
    cli.main(["lab", "--no-browser", "--IdentityProvider.token=mine"])
    assert started[-2:] == ["--no-browser", "--IdentityProvider.token=mine"]


def test_a_page_of_ones_own_is_opened(started: list[str]) -> None:
    cli.main(["lab", "--LabApp.default_url=/lab/tree/06_the_paper.ipynb"])
    assert [option for option in started if "default_url" in option] == [
        "--LabApp.default_url=/lab/tree/06_the_paper.ipynb"
    ]


@pytest.mark.parametrize("own", [False, True])
def test_widgets_are_saved_unless_the_environment_has_settings(
    own: bool, started: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("jupyterlab.commands.get_app_dir", lambda: str(tmp_path))
    if own:
        (tmp_path / "settings").mkdir()
    cli.main(["lab"])
    given = [option.partition("=")[2] for option in started if option.startswith("--LabApp.app_settings_dir=")]
    assert len(given) == (0 if own else 1)
    for folder in given:
        (defaults,) = (Path(folder) / "overrides.d").glob("*.json")
        assert json.loads(defaults.read_text())["@jupyter-widgets/jupyterlab-manager:plugin"] == {"saveState": True}


def test_root_is_allowed_once(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    cli.main(["lab", "--allow-root"])
    assert started.count("--allow-root") == 1
    started.clear()
    cli.main(["lab"])
    assert started[-1] == "--allow-root"
