"""What a sweep refuses, with a clear error and nothing lost."""

from __future__ import annotations

import errno
import importlib.util
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from tests.helpers.sweeping import Counting, run
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, knowing
from workbench.files.folder_lock import FolderInUse, folder_lock
from workbench.sweeps.described import function_state
from workbench.sweeps.folder import OtherSweep

FACTS = capitals()
IDS = list(FACTS.ids)


@pytest.fixture(scope="module")
def model() -> wb.LoadedModel:
    return knowing(tiny_llama(tied=False), FACTS)


@dataclass(frozen=True)
class Multiple:
    """A function with a setting of its own."""

    k: int

    def __call__(self, model: wb.LoadedModel, item: wb.Fact) -> int:
        return self.k

    def times(self, model: wb.LoadedModel, item: wb.Fact) -> int:
        return 2 * self.k


def test_another_sweep_in_the_folder_is_refused(model: wb.LoadedModel, tmp_path: Path) -> None:
    run(wb.attribute, tmp_path, model, FACTS[:1], pool=FACTS)
    before = sorted((p, p.read_bytes()) for p in tmp_path.rglob("*.*") if p.is_file())
    with pytest.raises(OtherSweep, match="another function"):
        run(wb.lens, tmp_path, model, FACTS[:1])
    with pytest.raises(OtherSweep, match="other options: normalise None there, True now"):
        run(wb.attribute, tmp_path, model, FACTS[:1], pool=FACTS, normalise=True)
    other = knowing(tiny_llama(seed=1, tied=False), FACTS)
    with pytest.raises(OtherSweep, match="another model: fingerprint"):
        run(wb.attribute, tmp_path, other, FACTS[:1], pool=FACTS)
    changed = replace(FACTS[0], question="Which city is the capital of France?")
    with pytest.raises(OtherSweep, match="was another one"):
        run(wb.attribute, tmp_path, model, [changed], pool=FACTS)
    after = sorted((p, p.read_bytes()) for p in tmp_path.rglob("*.*") if p.is_file() and p.name != ".lock")
    assert [pair for pair in before if pair[0].name != ".lock"] == after


def test_a_changed_function_is_another_sweep(model: wb.LoadedModel, tmp_path: Path) -> None:
    def make(source: str) -> Any:
        scope: dict[str, Any] = {"__name__": "mine"}
        exec(source, scope)
        return scope["f"]

    run(make("def f(model, item): return 1"), tmp_path / "a", model)
    with pytest.raises(OtherSweep, match="mine:f as it was before: its source has changed"):
        run(make("def f(model, item): return 2"), tmp_path / "a", model)
    run(make("K = 1\ndef g(): return K\ndef f(model, item): return g()"), tmp_path / "b", model)
    with pytest.raises(OtherSweep, match="or what it uses from around it"):
        run(make("K = 2\ndef g(): return K\ndef f(model, item): return g()"), tmp_path / "b", model)


@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        ("L = [1]\ndef f(model, item): return L[0]", "[1]", "[2]"),
        ("def f(model, item): return item.answer", "answer", "target"),
        ("def f(model, item): return [item in {'a', 'b'} for _ in item]", "'b'", "'c'"),
        ("K = 1\ndef f(model, item): return max(K * i for i in (1, 2))", "K = 1", "K = 2"),
        ("K = {'k': 1}\ndef f(model, item): return (lambda: K['k'])()", "1", "2"),
        ("R = wb.recipes.LoRA(steps=1)\ndef f(model, item): return R.steps", "steps=1", "steps=2"),
        ("S = wb.Selection('L1MLP')\ndef f(model, item): return len(S)", "L1MLP", "L2MLP"),
        ("T = torch.ones(2)\ndef f(model, item): return float(T.sum())", "ones", "zeros"),
        ("K = 1\ndef f(model, item, deep=False): return K if deep else f(model, item, True)", "K = 1", "K = 2"),
    ],
)
def test_values_of_its_module_are_part_of_what_a_function_is(source: str, old: str, new: str) -> None:
    """Lists, recipes and tensors too, and what is read in a comprehension: or results would be those of before."""

    def state(text: str) -> Any:
        scope: dict[str, Any] = {"__name__": "mine", "wb": wb, "torch": torch, "opened": threading.Lock()}
        exec(text, scope)
        return function_state(scope["f"])

    assert state(source) == state(source) != state(source.replace(old, new))


def test_a_class_of_its_module_is_part_of_what_a_function_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def state(k: int) -> Any:
        file = tmp_path / f"mine{k}.py"
        file.write_text(f"class C:\n    k = {k}\n\n\ndef f(model, item):\n    return C.k\n")
        spec = importlib.util.spec_from_file_location("mine", file)
        assert spec is not None and spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "mine", module)
        spec.loader.exec_module(module)
        return function_state(module.f)

    assert state(1) == state(1) != state(2)


def test_a_function_in_a_function_may_call_itself() -> None:
    def make(k: int) -> Any:
        def f(model: Any, item: Any, deep: bool = False) -> int:
            return k if deep else f(model, item, True)

        return f

    assert function_state(make(1)) == function_state(make(1)) != function_state(make(2))


@pytest.mark.parametrize(
    "make",
    [
        lambda k: lambda model, item: k,
        lambda k: lambda model, item, k=k: k,
        lambda k: partial(Counting(), value=k),
        lambda k: Multiple(k),
        lambda k: Multiple(k).times,
        lambda k: (lambda f: lambda model, item: f())(lambda: k),
    ],
)
def test_what_a_function_carries_along_is_part_of_the_sweep(make: Any, model: wb.LoadedModel, tmp_path: Path) -> None:
    run(make(1), tmp_path, model)
    run(make(1), tmp_path, model)
    with pytest.raises(OtherSweep, match="as it was before"):
        run(make(2), tmp_path, model)


def test_other_code_is_refused_unless_asked_for(
    model: wb.LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(Counting(), tmp_path, model, FACTS[:1])
    monkeypatch.setattr("workbench.sweeps.sweep.code_version", lambda: {"torch": "9"})
    with pytest.raises(OtherSweep, match=r"computed by other code.* other_code=True"):
        run(Counting(), tmp_path, model)
    assert len(run(Counting(), tmp_path, model, other_code=True)) == len(IDS)


def test_two_sweeps_into_one_folder_at_once_are_refused(model: wb.LoadedModel, tmp_path: Path) -> None:
    with folder_lock(tmp_path, "A sweep"), pytest.raises(FolderInUse, match=r"is written to .* by process \d+ on "):
        run(Counting(), tmp_path, model)
    assert len(run(Counting(), tmp_path, model)) == len(IDS)


def test_a_folder_with_something_else_is_left_alone(model: wb.LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"something else than a sweep \(thesis.txt\)"):
        run(Counting(), tmp_path, model)
    with pytest.raises(FileExistsError, match="is a file"):
        run(Counting(), tmp_path / "thesis.txt", model)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(FileNotFoundError, match="There is no sweep in"):
        wb.load_sweep(tmp_path)


def test_a_full_disk_ends_it_with_what_is_finished(
    model: wb.LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.sweeps import folder

    real, written = folder.write_bytes, []

    def full(path: Path, content: bytes) -> Path:
        written.append(path)
        if len(written) == 4:  # sweep.json, and two items
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, content)

    monkeypatch.setattr(folder, "write_bytes", full)
    with pytest.raises(OSError, match="2 items of this call are kept; make space") as caught:
        run(Counting(), tmp_path, model)
    assert caught.value.errno == errno.ENOSPC
    assert list(wb.load_sweep(tmp_path)) == IDS[:2]
    assert list(run(Counting(), tmp_path, model)) == IDS


@pytest.mark.parametrize(
    ("items", "error", "words"),
    [
        ([], ValueError, "nothing to sweep over"),
        ([FACTS[0], FACTS[0]], ValueError, r"more than once: \['france-capital'\]"),
        ([{"a": 1}], TypeError, "has none. Pass facts"),
        ({1: "a"}, TypeError, "Ids are text, got 1"),
        ({"a": object()}, None, ""),
        ({"a": threading.Lock()}, TypeError, "the item 'a' is a lock, of which a sweep cannot tell"),
    ],
)
def test_items(items: Any, error: Any, words: str, model: wb.LoadedModel, tmp_path: Path) -> None:
    if error is None:
        assert len(run(lambda model, item: 1, tmp_path / "a", model, items)) == 1
        return
    with pytest.raises(error, match=words):
        run(lambda model, item: 1, tmp_path / "a", model, items)
    assert not (tmp_path / "a").exists()


def test_options_are_checked_before_anything_is_computed(model: wb.LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"cannot be called as function.*'sites'"):
        run(wb.causal_trace, tmp_path / "a", model, sites="mlp")
    with pytest.raises(TypeError, match="got 'trace'"):
        run("trace", tmp_path / "a", model)
    with pytest.raises(TypeError, match=r"a model of wb\.load_model, got Llama"):
        run(Counting(), tmp_path / "b", model.hf)
    assert not (tmp_path / "a").exists()


def test_a_result_that_no_file_keeps_ends_the_sweep(model: wb.LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="the result\\[0\\] is of the type set, which no file keeps"):
        run(lambda model, item: [{1}], tmp_path, model)

    for value, said in (
        (np.ma.masked_array([1, -999], mask=[False, True]), "masked array"),
        (np.longdouble(1), "float64"),
    ):
        with pytest.raises(TypeError, match=said):
            run(lambda model, item, value=value: {"x": value}, tmp_path / said, model)

    def sometimes(model: wb.LoadedModel, item: wb.Fact) -> Any:
        return {1} if item.id == IDS[1] else 1

    results = run(sometimes, tmp_path / "b", model)
    assert results.failed[IDS[1]].error == "NotKept" and len(results) == len(IDS) - 1
    assert IDS[1] in run(sometimes, tmp_path / "b", model).failed, "nor does it stop the next call"


def test_executors_that_cannot_be_used(model: wb.LoadedModel, tmp_path: Path) -> None:
    import multiprocessing

    with pytest.raises(TypeError, match=r"an executor of concurrent.futures, got int"):
        run(Counting(), tmp_path / "a", model, executor=2)
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    with pytest.raises(RuntimeError, match=r"shut down\. Make a new one"):
        run(Counting(), tmp_path / "a", model, executor=threads)
    if "fork" in multiprocessing.get_all_start_methods():
        forking = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
        with forking, pytest.raises(ValueError, match="torch may hang"):
            run(Counting(), tmp_path / "a", model, executor=forking)
    assert not (tmp_path / "a").exists()


def test_a_function_that_cannot_be_sent_says_how_it_could(
    model: wb.LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import multiprocessing

    lock = threading.Lock()

    def locked(model: wb.LoadedModel, item: wb.Fact) -> int:
        with lock:
            return 1

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(TypeError, match=r"cannot be sent to a worker .*Put the function into a file"):
            run(locked, tmp_path / "a", model, executor=pool)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(TypeError, match="pip install dask distributed cloudpickle"):
            run(lambda model, item: 1, tmp_path / "b", model, executor=pool)
