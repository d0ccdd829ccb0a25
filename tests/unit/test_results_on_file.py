"""The table of results on file says what is there: every file has a row, with a script, commits and readers."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.lib.store import ENDING, Store

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Row:
    """A row of the table in ``benchmarks/results/README.md``."""

    file: str
    command: str
    commits: tuple[str, ...]
    readers: tuple[str, ...]


def table() -> list[Row]:
    lines = [
        line for line in (RESULTS / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        Row(file.strip("`"), command, tuple(commits.split(", ")), tuple(one.strip("`") for one in readers.split(", ")))
        for file, _, command, commits, readers in cells
    ]


ROWS = table()


def git(*command: str) -> str:
    try:
        done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return done.stdout.strip()


def test_every_file_and_folder_has_one_row() -> None:
    found = [path for path in RESULTS.iterdir() if path.name != "README.md" and not path.name.startswith(".")]
    there = [path.name + "/" * path.is_dir() for path in found]
    assert sorted(row.file for row in ROWS) == sorted(there)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.file)
def test_the_script_exists_and_is_the_one_of_the_command(row: Row) -> None:
    (script,) = re.findall(r"^`(benchmarks/\w+\.py)`", row.command)
    assert (ROOT / script).is_file()
    stem = Path(script).stem
    assert {name for name in re.findall(r"python -m benchmarks\.(\w+)", row.command)} <= {stem}
    beside = [other.command for other in ROWS if other.command.startswith(f"`{script}`")]
    assert any(f"`python -m benchmarks.{stem}" in command for command in beside)
    assert Path(row.file).name.split(".")[0].startswith(stem)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.file)
def test_readers_exist_and_name_what_they_read(row: Row) -> None:
    for reader in row.readers:
        path = RESULTS / reader if (RESULTS / reader).exists() else ROOT / reader
        assert path.is_file(), reader
        if path.suffix in (".ipynb", ".py"):
            stem = row.file.strip("/").split(".")[0]
            assert stem in path.read_text(encoding="utf-8"), f"{reader} does not name {row.file}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.file)
def test_the_commits_are_those_that_made_the_file(row: Row) -> None:
    path = RESULTS / row.file
    if row.file.endswith(ENDING):
        made_by = {line.code.commit or line.code.filed_in or "" for line in Store(path).lines().values()}
        assert set(row.commits) == {commit[:7] for commit in made_by}
        return
    if path.name.endswith(".tar.xz"):  # its summary, which is written with it, says it
        path = path.with_name(path.name.replace(".tar.xz", ".json"))
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if isinstance(content, dict) and "code" in content:
        assert row.commits == (content["code"]["commit"][:7],)
        return
    if git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("a shallow checkout does not have the commits")
    assert len(row.commits) == 1
    assert row.commits[0] in git("log", "--format=%h", "--abbrev=7", "--", str(path)).splitlines()
