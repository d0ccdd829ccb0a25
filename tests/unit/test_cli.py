"""The command line: options, errors in one line, and what is passed on to JupyterLab."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench import cli


def test_an_unknown_fact_is_one_line_with_near_matches(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--fact", "frnce-capital"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'frnce-capital'" in error
    assert "'france-capital'" in error


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["facts", "--nonsense"])
    assert "--nonsense" in capsys.readouterr().err


def test_lab_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr("workbench.models.load.load_model", lambda: None)
    monkeypatch.setattr(os, "execv", lambda program, command: started.extend(command))
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    cli.main(["lab", "--no-browser", "--port", "8899"])
    assert started[:3] == [sys.executable, "-m", "jupyterlab"]
    assert started[3].endswith("notebooks")
    assert started[-3:] == ["--no-browser", "--port", "8899"]


@pytest.mark.parametrize("own", [False, True])
def test_lab_saves_widgets_unless_the_environment_has_settings(
    own: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[str] = []
    monkeypatch.setattr("workbench.models.load.load_model", lambda: None)
    monkeypatch.setattr(os, "execv", lambda program, command: started.extend(command))
    monkeypatch.setattr("jupyterlab.commands.get_app_dir", lambda: str(tmp_path))
    if own:
        (tmp_path / "settings").mkdir()
    cli.main(["lab"])
    given = [option.partition("=")[2] for option in started if option.startswith("--LabApp.app_settings_dir=")]
    assert len(given) == (0 if own else 1)
    for folder in given:
        (defaults,) = (Path(folder) / "overrides.d").glob("*.json")
        assert json.loads(defaults.read_text())["@jupyter-widgets/jupyterlab-manager:plugin"] == {"saveState": True}


def test_lab_as_root_allows_root(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr("workbench.models.load.load_model", lambda: None)
    monkeypatch.setattr(os, "execv", lambda program, command: started.extend(command))
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    cli.main(["lab"])
    assert started[-1] == "--allow-root"
