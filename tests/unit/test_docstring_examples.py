"""Every public name has an example in its docstring, and every example in the package gives what it says.

The names that examples may use are in ``tests.helpers.examples``.
"""

from __future__ import annotations

import doctest
import inspect
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import workbench as wb
from tests.helpers.examples import FLAGS, WITH_EXAMPLE, Docstring, Names, docstrings
from workbench.types import delta as deltas

CLASSES_WITH_METHODS = (
    *(wb.Fact, wb.FactSet, wb.Selection, wb.EffectMap, wb.Edit, wb.EvalReport, wb.ProbeReport, wb.ArmTable),
    *(wb.TaskSet, wb.Session, wb.LoadedModel),
)
"""Their public methods that take an argument have examples too."""

WITHOUT: dict[str, str] = {
    **dict.fromkeys(
        ("ArmTable.save", "EffectMap.save", "EvalReport.save", "ProbeReport.save"), "the example of load saves"
    ),
    **dict.fromkeys(("ArmTable.words_of", "ProbeReport.words_of"), "words of the figures and panels"),
}
"""Public names without an example, and why."""

DOCSTRINGS = docstrings()
WITH_EXAMPLES = {name: doc for name, doc in DOCSTRINGS.items() if ">>> " in doc.text}


def public() -> dict[str, str]:
    """Where the docstring of each public name is, by the name that a user writes."""
    objects: dict[str, Any] = {name: getattr(wb, name) for name in wb.__all__}
    objects |= {f"recipes.{m.recipe.__name__}": m.recipe for m in wb.recipes.METHODS.values()}
    objects |= {n: o for n, o in vars(deltas).items() if inspect.isclass(o) and issubclass(o, deltas.Delta)}
    for owner in CLASSES_WITH_METHODS:
        objects |= {f"{owner.__name__}.{name}": method for name, method in methods(owner).items()}
    return {name: f"{o.__module__}.{o.__qualname__}" for name, o in objects.items() if not isinstance(o, ModuleType)}


def methods(owner: type) -> dict[str, Any]:
    """A class's own public methods that take an argument."""
    found = {}
    for name, raw in vars(owner).items():
        method = getattr(owner, name)
        if name.startswith("_") or isinstance(raw, (property, cached_property)) or not inspect.isroutine(method):
            continue
        if [p for p in inspect.signature(method).parameters if p != "self"]:
            found[name] = method
    return found


@pytest.fixture(scope="module")
def names() -> Names:
    return Names()


@pytest.mark.parametrize("name", sorted(public()))
def test_public_name_has_an_example(name: str) -> None:
    doc = DOCSTRINGS[public()[name]]
    has = WITH_EXAMPLE.search(doc.text) is not None
    if name in WITHOUT:
        assert not has, f"{name} has an example now: take it out of WITHOUT"
    else:
        where = f"{doc.file.name}:{doc.line}"
        assert has, f"The docstring of {name} ({where}) needs an 'Example:' section with '>>> ' lines"


def test_exceptions_are_public() -> None:
    assert set(WITHOUT) <= set(public())


@pytest.mark.parametrize("doc", WITH_EXAMPLES.values(), ids=list(WITH_EXAMPLES))
def test_example_gives_what_it_says(
    doc: Docstring, names: Names, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    test = doc.test
    assert test.examples, f"{doc.name}: '>>> ' stands where doctest does not read it"
    test.globs = {} if doc.name in public().values() else dict(vars(import_module(doc.module)))
    test.globs |= names.used_in(test.examples)
    report: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=report.append)
    if report:
        pytest.fail("".join(report), pytrace=False)
