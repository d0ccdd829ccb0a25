"""The project's habits: what pre-commit refuses, the lanes of CI, the forms for issues, how it is cited."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

import workbench
from tools import check_files

ROOT = Path(__file__).parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
HOOKS = ROOT / ".pre-commit-config.yaml"


def cell(source: str, count: int | None, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": count,
        "id": f"c{count}{len(source)}",
        "metadata": {},
        "outputs": list(outputs),
        "source": source,
    }


def result(count: int) -> dict[str, Any]:
    return {"output_type": "execute_result", "execution_count": count, "data": {"text/plain": "2"}, "metadata": {}}


ERROR = {"output_type": "error", "ename": "NameError", "evalue": "x", "traceback": []}


def stored(path: Path, *cells: dict[str, Any]) -> Path:
    """A notebook with these code cells, an empty one among them and a text before."""
    text = {"cell_type": "markdown", "id": "text", "metadata": {}, "source": "# Title"}
    content = {"cells": [text, *cells, cell("", None)], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content), encoding="utf-8")
    nbformat.validate(nbformat.read(path, as_version=4))
    return path


@pytest.mark.parametrize(
    ("cells", "faults"),
    [
        ([cell("1 + 1", 1, result(1)), cell("pass", 2)], []),
        ([cell("1 + 1", None), cell("pass", 2)], ["code cell 1 was not executed"]),
        (
            [cell("a", 2), cell("b", 1)],
            ["code cell 1 was executed as number 2", "code cell 2 was executed as number 1"],
        ),
        ([cell("x", 1, ERROR)], ["code cell 1 ended in NameError"]),
        ([cell("1 + 1", 1, result(7))], ["code cell 1 shows the result of execution 7"]),
    ],
    ids=["whole", "not executed", "out of order", "error", "old result"],
)
def test_faults_of_a_notebook(tmp_path: Path, cells: list[dict[str, Any]], faults: list[str]) -> None:
    found = list(check_files.notebooks(stored(tmp_path / "one.ipynb", *cells)))
    assert [fault.split(":")[0] for fault in found] == faults


@pytest.mark.parametrize("text", ["{", "[]", '{"cells": [{"cell_type": "code"}]}'])
def test_what_is_no_notebook(tmp_path: Path, text: str) -> None:
    (tmp_path / "no.ipynb").write_text(text)
    (fault,) = check_files.notebooks(tmp_path / "no.ipynb")
    assert "no notebook that can be read" in fault


def test_largest_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(check_files.LIMIT))
    assert list(check_files.large(file)) == []
    file.write_bytes(bytes(check_files.LIMIT + 100_000))
    assert list(check_files.large(file)) == ["1.1 MB, and at most 1 MB goes into git: make it smaller, or leave it out"]
    notebook = stored(tmp_path / "large.ipynb", cell("#" * check_files.LIMIT, 1))
    assert len(list(check_files.notebooks(notebook))) == 1


def test_exit_status_of_the_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = stored(tmp_path / "good.ipynb", cell("1", 1)), stored(tmp_path / "bad.ipynb", cell("1", None))
    assert check_files.main(["notebooks", str(good)]) == 0
    assert capsys.readouterr().out == ""
    assert check_files.main(["notebooks", str(good), str(bad)]) == 1
    assert capsys.readouterr().out.startswith(f"{bad}: code cell 1 was not executed")
    assert check_files.main(["everything"]) == check_files.main([]) == 2
    assert "large, notebooks" in capsys.readouterr().err


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def test_pre_commit_refuses_what_must_not_be_committed(tmp_path: Path) -> None:
    """The hooks as they are, in a repository of its own whose path has a space; nothing is fetched."""
    repository = tmp_path / "a folder"
    for name in (".pre-commit-config.yaml", ".ci/python", "tools/check_files.py", "pyproject.toml"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_bytes((ROOT / name).read_bytes())
    (repository / ".ci/python").chmod(0o755)
    git(tmp_path, "init", "-q", str(repository))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PRE_COMMIT_HOME": str(tmp_path / "home"),
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    }

    def failed() -> set[str]:
        git(repository, "add", "-A")
        done = subprocess.run(
            [sys.executable, "-m", "pre_commit", "run", "--all-files"],
            cwd=repository,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        hooks = re.findall(r"^(.+?)\.{3,}.*?(Passed|Failed|Skipped)$", done.stdout, re.MULTILINE)
        assert len(hooks) == 4, done.stdout + done.stderr
        assert (done.returncode == 0) == all(how != "Failed" for _, how in hooks)
        return {name for name, how in hooks if how == "Failed"}

    stored(repository / "good.ipynb", cell("1 + 1", 1, result(1)))
    failed()  # the formatter lays the notebook out
    assert failed() == set()
    (repository / "bad.py").write_text("import os\nx = [1,2]\n")
    stored(repository / "bad.ipynb", cell("1 + 1", None))
    (repository / "large.bin").write_bytes(bytes(2 * check_files.LIMIT))
    expected = {"ruff check", "files of at most 1 MB", "notebooks executed in order"}
    assert failed() == {"ruff format", *expected}
    assert (repository / "bad.py").read_text() == "import os\n\nx = [1, 2]\n", "the formatter mends it"
    assert failed() == expected


def test_hooks_need_no_other_repository() -> None:
    repositories = yaml.safe_load(HOOKS.read_text(encoding="utf-8"))["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    assert {hook["language"] for hook in repositories[0]["hooks"]} == {"unsupported"}, "nothing is installed for a hook"


def lanes() -> list[str]:
    """What ``.ci/run`` takes."""
    (names,) = re.findall(r"^([a-z |]+)\) ;;$", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE)
    return names.split(" | ")


def ci_run(folder: Path, *arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
    """``.ci/run`` with a make that says what it was asked for, and an apt-get that installs nothing."""
    summary = "=== 1 failed in 0.5s ===" if fails else "=== 1 passed in 0.5s ==="
    for name, text in (("make", f'echo "make $*"; echo "{summary}"; exit {int(fails)}'), ("apt-get", "exit 0")):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [str(ROOT / ".ci/run"), *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_each_lane_is_the_make_target_of_its_name(tmp_path: Path) -> None:
    assert lanes() == ["check", "docs", "unit", "model", "browser", "notebooks", "test"]
    targets = re.findall(r"^([a-z]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(lanes()) <= set(targets)
    for lane in lanes():
        done = ci_run(tmp_path, lane)
        assert done.returncode == 0
        assert done.stdout.splitlines()[-2:] == [f"make {lane}", "=== 1 passed in 0.5s ==="]
    assert ci_run(tmp_path).stdout == ci_run(tmp_path, "test").stdout, "everything, where no lane is named"


def test_every_test_is_in_one_lane_at_least() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = dict(re.findall(r"^([a-z]+):(?!=)[^\n]*\n((?:\t.*\n)+)", makefile, re.MULTILINE))
    chosen = [found[1] for lane in lanes() if (found := re.search(r'-m "?([^"]+?)"? tests\n', recipes[lane]))]
    assert len(chosen) == 3
    for model, browser in itertools.product((False, True), repeat=2):
        assert any(eval(marks, {"model": model, "browser": browser}) for marks in chosen), (model, browser)
    assert "notebooks" in recipes["notebooks"]


def test_ci_run_ends_with_the_summary_of_a_failure_too(tmp_path: Path) -> None:
    done = ci_run(tmp_path, "unit", fails=True)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "=== 1 failed in 0.5s ==="


def test_an_unknown_lane(tmp_path: Path) -> None:
    done = ci_run(tmp_path, "everything")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "'everything'" in done.stderr
    assert all(lane in done.stderr for lane in lanes())


def test_the_workflow_runs_every_lane_by_the_same_script() -> None:
    (job,) = WORKFLOW["jobs"].values()
    assert [*job["strategy"]["matrix"]["lane"], "test"] == lanes()
    assert job["steps"][-1] == {"run": ".ci/run ${{ matrix.lane }}"}
    assert "pull_request" in WORKFLOW[True], "YAML reads the key 'on' as true"


FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_for_issues(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(form) == {"name", "description", "labels", "body"}
    assert len({item["id"] for item in form["body"]}) == len(form["body"])
    for item in form["body"]:
        assert item["type"] in ("textarea", "input")
        assert all(isinstance(value, str) for value in item["attributes"].values())
        assert item["attributes"]["label"]
    text = path.read_text(encoding="utf-8")
    assert all(wanted in text for wanted in ("__version__", "print(model)", ".code")), "what an answer needs"


def test_how_it_is_cited() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited), "what version 1.2.0 of the format requires"
    newest = re.search(r"^## \[(\S+)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert (cited["version"], str(cited["date-released"])) == newest.groups()
    assert cited["version"] == workbench.__version__
