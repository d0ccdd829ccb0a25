"""Paths as people write them, folders in which other programs have left something, and renames that Windows refuses."""

from __future__ import annotations

import ast
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

import workbench as wb
from tests.helpers.tiny import random_edit, tiny_llama, tiny_tokenizer
from tests.helpers.tiny_facts import capitals, knowing
from workbench.cli import main
from workbench.files import atomic
from workbench.files.atomic import new_folder, write_bytes
from workbench.files.paths import user_path
from workbench.files.user_cache import cache_folder
from workbench.models.load import LoadedModel
from workbench.plots.export import write_image

PACKAGE = Path(__file__).parents[2] / "workbench"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder; the current folder is another empty one."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


# The home folder


def session(model: LoadedModel) -> wb.Session:
    return wb.Session(fact=capitals()[0], fingerprint=model.fingerprint, model_name=model.name)


WRITTEN: dict[str, Callable[[LoadedModel, str], Any]] = {
    "edit": lambda m, path: random_edit(m).save(path),
    "adapter": lambda m, path: random_edit(m, "L1N5").to_peft(path),
    "merged": lambda m, path: wb.merge(m, random_edit(m), path),
    "base": lambda m, path: wb.export_base(path, m),
    "session": lambda m, path: session(m).save(path),
    "figure.html": lambda _, path: write_image(go.Figure(), path),
    "map": lambda m, path: wb.causal_trace(m, capitals()[0], "mlp", samples=1, pool=capitals(), progress=False).save(
        path
    ),
    "report.json": lambda m, path: wb.evaluate(
        m, edit=random_edit(m, "L1N5"), pool=capitals(), facts=capitals()[:1], progress=False
    ).save(path),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_below_the_home_folder(name: str, home: Path, model: LoadedModel) -> None:
    written = WRITTEN[name](model, f"~/out/{name}")
    assert (home / "out" / name).exists()
    assert Path(written) == home / "out" / name
    assert os.listdir() == []


READ: dict[str, tuple[str, Callable[[str], Any]]] = {
    "edit": ("edit", lambda path: wb.load_edit(path)),
    "model": ("base", lambda path: wb.load_model(path)),
    "session": ("session", lambda path: wb.load_session(path)),
    "map": ("map", lambda path: wb.EffectMap.load(path)),
    "report": ("report.json", lambda path: wb.EvalReport.load(path)),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_read_below_the_home_folder(name: str, home: Path, model: LoadedModel) -> None:
    file, read = READ[name]
    WRITTEN[file](model, str(home / file))
    assert read(f"~/{file}") is not None


def test_facts_tokenizers_and_missing_folders_below_the_home_folder(home: Path, model: LoadedModel) -> None:
    texts = {"subject": "France", "prompt": "The capital of France is", "question": "Which?", "answer": "Paris"}
    (home / "facts.jsonl").write_text(json.dumps(texts | {"target": "Rome"}) + "\n")
    assert len(wb.load_facts("~/facts.jsonl")) == 1
    WRITTEN["base"](model, str(home / "base"))
    tiny_tokenizer(chat=False).save_pretrained(home / "tokenizer")
    assert wb.load_model("~/base", tokenizer="~/tokenizer").chat_template is None
    with pytest.raises(FileNotFoundError, match=rf"There is no folder {home}/nowhere"):
        wb.load_model("~/nowhere")
    with pytest.raises(FileNotFoundError, match=rf"There is no file {home}/nowhere.gguf"):
        wb.load_model("~/nowhere.gguf")


def test_the_cache_folder_below_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", "~/cache")
    assert cache_folder() == home / "cache"
    monkeypatch.delenv("WORKBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/xdg")
    assert cache_folder() == home / "xdg" / "circuit-workbench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == home / ".cache" / "circuit-workbench"


def test_the_command_line_below_the_home_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import nbformat

    (home / "a.ipynb").write_text(nbformat.writes(nbformat.v4.new_notebook()))
    assert main(["export", "~/a.ipynb", "--out=~/pages/a.html"]) == 0
    assert (home / "pages" / "a.html").is_file()
    assert os.listdir() == []


def test_a_home_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="names a home folder that there is none of"):
        user_path("~nobody-of-this-name/x")


def paths_taken(path: Path) -> Iterator[str]:
    """Functions that take a path from outside and do not read it by ``user_path``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for argument in (*node.args.args, *node.args.kwonlyargs):
                kind = "" if argument.annotation is None else ast.unparse(argument.annotation)
                if {"str", "Path"} <= set(kind.replace("|", " ").split()):
                    bare = f"Path({argument.arg})"
                    if any(isinstance(n, ast.Call) and ast.unparse(n) == bare for n in ast.walk(node)):
                        yield f"{path.relative_to(PACKAGE)}: {node.name}({argument.arg})"


def test_a_user_without_a_home_has_a_cache_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is in no table of users."""

    def nobody(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("WORKBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", nobody)
    assert cache_folder() == Path(tempfile.gettempdir()) / "circuit-workbench"


def test_every_path_that_is_taken_is_read_in_one_way() -> None:
    found = [where for path in PACKAGE.rglob("*.py") for where in paths_taken(path)]
    assert found == ["files/paths.py: user_path(path)"], "use user_path"


# What other programs leave


LITTER = [".ipynb_checkpoints", ".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", "._edit.json", ".nfs00000001"]


@pytest.mark.parametrize("litter", LITTER)
@pytest.mark.parametrize("name", ["edit", "adapter", "merged", "base", "session"])
def test_saving_again_where_another_program_has_left_something(
    name: str, litter: str, tmp_path: Path, model: LoadedModel
) -> None:
    path = tmp_path / name
    WRITTEN[name](model, str(path))
    before = {file.name for file in path.iterdir()}
    (path / litter).mkdir() if litter.startswith(".ipynb") else (path / litter).write_text("")
    WRITTEN[name](model, str(path))
    assert {file.name for file in path.iterdir()} == before


@pytest.mark.parametrize("name", ["edit", "adapter", "merged", "base", "session"])
def test_what_is_in_the_way_is_named(name: str, tmp_path: Path, model: LoadedModel) -> None:
    path = tmp_path / name
    WRITTEN[name](model, str(path))
    (path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds something else than what is to be written \(notes\.txt\), so"):
        WRITTEN[name](model, str(path))
    assert (path / "notes.txt").read_text() == "mine"
    for more in "abcd":
        (path / f"{more}.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"\(a\.txt, b\.txt, c\.txt and 2 more\)"):
        WRITTEN[name](model, str(path))


# Renames


class Busy:
    """``os.replace`` that is refused some times, as by Windows while a file is open."""

    def __init__(self, times: int) -> None:
        self.times, self.calls, self._real = times, 0, os.replace

    def __call__(self, old: Any, new: Any) -> None:
        self.calls += 1
        if self.calls <= self.times:
            raise PermissionError(13, "The process cannot access the file because it is being used")
        self._real(old, new)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(atomic.time, "sleep", slept.append)
    return slept


def test_a_rename_that_is_refused_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(os, "replace", Busy(3))
    assert write_bytes(tmp_path / "file", b"new").read_bytes() == b"new"
    assert len(pauses) == 3
    monkeypatch.setattr(os, "replace", Busy(2))
    with new_folder(tmp_path / "folder", lambda _: False) as folder:
        (folder / "x").write_text("x")
    assert (tmp_path / "folder" / "x").read_text() == "x"


def test_a_rename_that_is_refused_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    """After about a second; what was there is as it was, and nothing temporary is left."""
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    monkeypatch.setattr(os, "replace", Busy(10**6))
    with pytest.raises(PermissionError), new_folder(path, lambda _: True) as folder:
        (folder / "x").write_text("x")
    assert 0.5 <= sum(pauses) <= 2
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(path) == ["old"]
