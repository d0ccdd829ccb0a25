"""What somebody meets before anything is installed, and what a wheel holds."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "workbench"
OLD = """
import sys
sys.version_info = (3, 10, 12, "final", 0)
sys.version = "3.10.12 (main)"
import workbench
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `make` needs of a checkout, below a folder with a space and a letter of another language."""
    if shutil.which("make") is None:
        pytest.skip("make is missing")
    path = tmp_path / "ü b" / "check out"
    path.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "workbench/__init__.py"):
        (path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, path / name)
    return path


def make(folder: Path, *given: str) -> subprocess.CompletedProcess[str]:
    """Run make there, as from a shell: not as part of the make that runs these tests."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(["make", *given], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


# make


def test_without_space_no_environment_is_begun(folder: Path) -> None:
    before = sorted(folder.iterdir())
    done = make(folder, "env", f"PYTHON={sys.executable}", "SPACE=1000000")
    assert done.returncode != 0
    assert f"The environment needs 1000000 GB in {folder / '.venv'}, and " in done.stderr
    assert "GB are free there. Make space" in done.stderr and "Traceback" not in done.stderr
    assert sorted(folder.iterdir()) == before


def test_what_is_there_of_an_environment_counts_as_space(folder: Path) -> None:
    (folder / ".venv" / "bin").mkdir(parents=True)
    free = shutil.disk_usage(folder).free
    with (folder / ".venv" / "large").open("wb") as large:
        large.truncate(10**12)  # takes no space on the disk
    needed = f"SPACE={(free + 5 * 10**11) // 10**9}"
    (folder / ".venv" / "bin" / "pip").write_text("")  # is not run
    (folder / ".venv" / "bin" / "python").symlink_to(shutil.which("true") or "/bin/true")
    (folder / ".venv" / "bin" / "pip").chmod(0o755)
    assert make(folder, "env", f"PYTHON={sys.executable}", needed).returncode == 0
    (folder / ".venv" / ".installed").unlink()
    (folder / ".venv" / "large").unlink()
    assert "Make space" in make(folder, "env", f"PYTHON={sys.executable}", needed).stderr


def test_an_old_python_is_refused_before_anything_else(folder: Path) -> None:
    old = folder / "python3.10"
    old.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.10.12; else exit 1; fi\n')
    old.chmod(0o755)
    done = make(folder, "env", "PYTHON=./python3.10")
    assert done.returncode != 0 and "Python 3.11 or newer is needed" in done.stderr and "3.10.12" in done.stderr
    assert not (folder / ".venv").exists()


@pytest.mark.parametrize("target", ["env", "lab", "demo", "check", "test", "bench", "format"])
def test_every_target_can_be_read_below_any_folder(target: str, folder: Path) -> None:
    done = make(folder, "-n", target)
    assert done.returncode == 0, done.stderr
    assert str(folder) not in done.stdout, "paths are relative"


# Importing


def test_an_old_python_is_told_what_is_needed() -> None:
    done = subprocess.run([sys.executable, "-c", OLD], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: circuit-workbench needs Python 3.11 or newer, and this is 3.10.12")


def test_an_old_python_can_read_the_file_that_says_so() -> None:
    ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"), feature_version=(3, 8))


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """A wheel of the checkout, built with what is installed, without a network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(PACKAGE, source / "workbench", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "-q", "-w", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as held:
        yield held


def shipped_files() -> set[str]:
    """Every file of the package in the checkout, as a wheel names it."""
    kept = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in kept if path.suffix != ".pyc" and path.name[0] != "."}


def test_a_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == shipped_files()
    kinds = {os.path.splitext(name)[1] for name in held}
    assert kinds >= {".py", ".json", ".js", ".css", ".txt", ".typed"}, "code, facts, widgets, prose and types"


def test_a_wheel_holds_the_licence_the_command_and_what_it_needs(wheel: zipfile.ZipFile) -> None:
    (meta,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    text = wheel.read(meta).decode()
    assert "Requires-Python: >=3.11" in text and "License-Expression: Apache-2.0" in text
    (entries,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert "workbench = workbench.cli:main" in wheel.read(entries).decode()
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())
