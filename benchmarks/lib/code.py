"""The code that decides a result: its commit, and a hash that changes when it does.

The hash is over what a measurement runs: the package without what only draws, shows or saves (``NOT_DECIDING``), with
the data in its folders, the benchmark's script, and the modules of ``benchmarks`` that it imports, without those that
only keep results. Of Python files it is over the syntax tree, without comments, docstrings and what annotations say:
prose and types change no number. Other files count byte by byte. Versions of dependencies are those of
``constraints.txt`` at the commit. A hash that differs says that a number *may* differ, not that it does.
"""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import workbench

PACKAGE = Path(workbench.__file__).parent
ROOT = Path(__file__).parents[2]
NOT_DECIDING = ("widgets", "plots", "files", "cli.py", "demo.py")
"""What lies in the package and decides no number of an edit or an evaluation."""
KEEPING = ("lib/code.py", "lib/kept.py", "lib/store.py")
"""What lies in ``benchmarks`` and only keeps results."""
IGNORED = ("annotation", "returns", "type_comment", "kind")
"""Fields of syntax trees that change nothing when the code runs."""


@dataclass(frozen=True)
class Code:
    """Which code made a result.

    Args:
        commit: The commit that was checked out; None where that is not known.
        dirty: Whether ``workbench`` or ``benchmarks`` (but for its results) then differed from the commit.
        sha256: The hash that this module describes.
        filed_in: Of a result from before the code was recorded: the commit that put it on file. It was measured by the
            code of that commit or of one shortly before.
    """

    commit: str | None
    dirty: bool | None
    sha256: str | None
    filed_in: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """What is known, as JSON values."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_dict(known: dict[str, Any]) -> Code:
        """The inverse of ``to_dict``."""
        return Code(**{"commit": None, "dirty": None, "sha256": None, **known})


def code_of(script: str | Path, *, without: Sequence[str] = NOT_DECIDING) -> Code:
    """The code as it is on disk now. Ask at the start of a measurement: it runs what was on disk then.

    Args:
        script: The benchmark, its ``__file__``.
        without: Files and folders of the package that decide nothing. A benchmark of the panels gives ().

    Returns:
        Its ``commit`` and ``dirty`` are None outside a git checkout.
    """
    changed = _git("status", "--porcelain", "--", "workbench", "benchmarks", ":(exclude)benchmarks/results")
    return Code(
        commit=_git("rev-parse", "HEAD"),
        dirty=None if changed is None else bool(changed),
        sha256=hash_of([*package_files(without), *scripts(Path(script).resolve())]),
    )


def package_files(without: Sequence[str]) -> list[Path]:
    """The files of the package, with its data, but for those in some of its folders."""
    return [
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.relative_to(PACKAGE).parts[0] not in without
    ]


def scripts(script: Path) -> list[Path]:
    """A benchmark and all modules of ``benchmarks`` that it imports, directly or not, but for those that only keep."""
    folder = ROOT / "benchmarks"
    found, todo = {script}, [script]
    while todo:
        for name in _imported(todo.pop()):
            path = folder.joinpath(*name.split(".")[1:]).with_suffix(".py")
            if path.is_file() and path not in found and path.relative_to(folder).as_posix() not in KEEPING:
                found.add(path)
                todo.append(path)
    return sorted(found)


def hash_of(files: Iterable[Path]) -> str:
    """SHA-256 of files: of their names within the checkout, and of what in them decides."""
    digest = hashlib.sha256()
    for name, path in sorted((_name(path), path) for path in files):
        digest.update(f"{name}|{_deciding(path.suffix, path.read_bytes())}\n".encode())
    return digest.hexdigest()


def _name(path: Path) -> str:
    """A file's name in the hash: the same for the same code, wherever the checkout or the package lies."""
    for folder in (PACKAGE.parent, ROOT):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name


@cache  # a benchmark and its tests ask for the same files again
def _deciding(suffix: str, content: bytes) -> str:
    if suffix == ".py":
        content = json.dumps(_plain(ast.parse(content))).encode()
    return hashlib.sha256(content).hexdigest()


def _plain(node: Any) -> Any:
    """A syntax tree as lists of its parts, without what changes nothing. Empty fields are left out, since versions of
    Python differ in which empty fields there are."""
    if isinstance(node, ast.Constant):
        return ["Constant", type(node.value).__name__, repr(node.value)]
    if isinstance(node, ast.AST):
        fields = [(k, v) for k, v in ast.iter_fields(node) if k not in IGNORED and v is not None and v != []]
        return [type(node).__name__, *([k, _plain(v)] for k, v in fields)]
    if isinstance(node, list):
        return [_plain(one) for one in node if not _is_prose(one)]
    return node


def _is_prose(node: Any) -> bool:
    """Whether a statement is a text alone, which is what docstrings are."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imported(script: Path) -> list[str]:
    """Names of modules of ``benchmarks`` that a file may import; some are names of what is in one."""
    names: list[str] = []
    for node in ast.walk(ast.parse(script.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.startswith("benchmarks.")]


def _git(*command: str) -> str | None:
    """What git answers about the checkout; None where there is no git, or no checkout."""
    try:
        done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
