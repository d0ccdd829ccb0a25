"""What makes a sweep the same one: the function with all that is around it, the options, the model with its tokenizer,
and that the files in a folder are of it."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from tests.helpers.sweeping import Counting, run
from tests.helpers.tiny import loaded, tiny_llama
from tests.helpers.tiny_facts import capitals, knowing, tokenizer_from_files
from workbench.files.atomic import write_bytes
from workbench.files.checked_json import dump, wrap
from workbench.files.item_file import item_bytes, read_item
from workbench.sweeps.described import described, function_state
from workbench.sweeps.descriptions import alike, digest
from workbench.sweeps.folder import OtherSweep, SweepFolder
from workbench.sweeps.tokenizer_digest import tokenizer_digest
from workbench.types.torch_settings import own_torch_settings

FACTS = capitals()
IDS = list(FACTS.ids)


@pytest.fixture(scope="module")
def model() -> wb.LoadedModel:
    return knowing(tiny_llama(tied=False), FACTS)


def one(model: wb.LoadedModel, item: Any) -> int:
    """A number."""
    return 1


def two(model: wb.LoadedModel, item: Any) -> int:
    """Another number."""
    return 2


# The folder


def test_items_without_the_file_that_says_what_they_are_of_are_refused(model: wb.LoadedModel, tmp_path: Path) -> None:
    run(one, tmp_path, model, FACTS[:2])
    (tmp_path / "sweep.json").unlink()
    with pytest.raises(OtherSweep, match=r"results of 2 items without the sweep.json .*Put sweep.json back"):
        run(two, tmp_path, model)
    assert not (tmp_path / "sweep.json").exists()


def test_items_of_another_sweep_are_refused(model: wb.LoadedModel, tmp_path: Path) -> None:
    mine = run(one, tmp_path / "one", model, FACTS[:2])
    run(two, tmp_path / "two", model, FACTS[2:])
    for file in (tmp_path / "two" / "items").iterdir():
        shutil.copy(file, tmp_path / "one" / "items")
    with pytest.raises(OtherSweep, match=r"is of another sweep than sweep.json beside it says"):
        run(one, tmp_path / "one", model)
    assert mine.mean().value == 1.0
    shutil.copy(next((tmp_path / "two" / "items").iterdir()), mine._paths[IDS[0]])
    with pytest.raises(OtherSweep, match="Remove it"):
        mine.mean()


def test_items_of_the_same_sweep_in_another_folder_join(model: wb.LoadedModel, tmp_path: Path) -> None:
    run(one, tmp_path / "a", model, FACTS[:2])
    run(one, tmp_path / "b", model, FACTS[2:])
    for file in (tmp_path / "b" / "items").iterdir():
        shutil.copy(file, tmp_path / "a" / "items")
    told: list[str] = []
    assert list(run(one, tmp_path / "a", model, on_item=lambda id, _: told.append(id))) == IDS and told == []


def bare(values: Any) -> Any:
    """A description without what sweeps of version 0.2.0 did not record."""
    if isinstance(values, dict):
        return {k: bare(v) for k, v in values.items() if k not in ("layers", "tokenizer") and "code of" not in k}
    return [bare(v) for v in values] if isinstance(values, list) else values


def test_a_folder_that_records_less_is_read_and_gone_on_with(model: wb.LoadedModel, tmp_path: Path) -> None:
    results = run(one, tmp_path, model, FACTS[:2])
    folder = SweepFolder(tmp_path)
    settings = folder.settings()
    assert settings is not None
    folder.write_settings(bare(settings))
    for id in results:
        value, fields = read_item(folder.item_path(id))
        write_bytes(folder.item_path(id), item_bytes(value, {k: v for k, v in fields.items() if k != "call"}))
    assert dict(wb.load_sweep(tmp_path)) == {id: 1 for id in IDS[:2]}
    told: list[str] = []
    after = run(one, tmp_path, model, on_item=lambda id, _: told.append(id))
    assert told == IDS[2:] and list(after) == IDS and after.mean().n == len(IDS)
    now = folder.settings()
    assert now is not None and now == {**settings, "items": now["items"]}
    value, fields = read_item(folder.item_path(IDS[0]))
    write_bytes(folder.item_path(IDS[0]), item_bytes(value, {**fields, "fingerprint": "of another model"}))
    with pytest.raises(OtherSweep):
        after[IDS[0]]


# The model


def test_another_tokenizer_or_chat_template_is_another_model(tmp_path: Path) -> None:
    hf = tiny_llama(tied=False)
    with_chat, without = (wb.load_model(hf, tokenizer=tokenizer_from_files(chat=chat)) for chat in (True, False))
    assert with_chat.fingerprint == without.fingerprint
    run(one, tmp_path, with_chat, FACTS[:2])
    with pytest.raises(OtherSweep, match="another model: tokenizer"):
        run(one, tmp_path, without)
    assert list(run(one, tmp_path, with_chat)) == IDS


def test_a_tokenizer_is_the_same_after_it_was_used_and_saved(tmp_path: Path) -> None:
    model = loaded(tiny_llama(tied=False))
    before = tokenizer_digest(model)
    model.tokenizer(["a", "Paris Rome"], padding=True, truncation=True, max_length=3)
    assert tokenizer_digest(model) == before
    assert tokenizer_digest(wb.load_model(wb.export_base(tmp_path / "base", model))) == before


# The function


def scaled(k: int) -> Any:
    """A decorator."""

    def around(f: Any) -> Any:
        @functools.wraps(f)
        def call(*args: Any) -> Any:
            return k * f(*args)

        return call

    return around


@contextmanager
def setting(k: int) -> Any:
    """A context manager, which decorates too."""
    yield k


class Method:
    """An object with a decorated method."""

    def __init__(self, k: int) -> None:
        self.k = k

    @scaled(1)
    def __call__(self, model: Any, item: Any) -> int:
        return self.k

    @scaled(1)
    def of(self, model: Any, item: Any) -> int:
        return self.k


@pytest.mark.parametrize(
    "make",
    [
        lambda k: scaled(k)(one),
        lambda k: scaled(1)(scaled(k)(one)),
        lambda k: setting(k)(one),
        lambda k: scaled(k)(wb.lens),
        lambda k: scaled(1)(functools.partial(two, item=k)),
        lambda k: Method(k).of,
    ],
)
def test_what_decorators_put_around_a_function_is_part_of_it(make: Any) -> None:
    assert alike(function_state(make(2)), function_state(make(2)))
    assert not alike(function_state(make(2)), function_state(make(3)))


def test_decorators_of_others_and_of_the_package() -> None:
    """They are no reason to refuse a function, and those of this package go by its version."""
    assert function_state(wb.attribute) is None
    assert function_state(own_torch_settings()(one))["layers"] == []
    for around in (torch.no_grad(), torch.inference_mode(), functools.cache):
        assert alike(function_state(around(one)), function_state(around(one)))
        assert not alike(function_state(around(one)), function_state(one))


def test_code_that_runs_counts_where_its_file_has_changed(
    model: wb.LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "score_of_a_file.py"
    file.write_text("def score(model, item):\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("score_of_a_file")
    file.write_text("def score(model, item):\n    return 2  # now\n")
    os.utime(file, (1, 1))  # or the compiled file of the same second is taken for its own
    run(module.score, tmp_path / "out", model, FACTS[:2])
    importlib.reload(module)
    assert module.score(None, None) == 2
    with pytest.raises(OtherSweep, match="its source has changed"):
        run(module.score, tmp_path / "out", model)


def test_names_of_several_modules_are_told_apart() -> None:
    def made(value: int, other: int) -> Any:
        inner: dict[str, Any] = {"__name__": "inner", "K": other}
        outer: dict[str, Any] = {"__name__": "outer", "K": value}
        exec("def g(): return K", inner)
        exec("def make(g):\n    def f(model, item): return K + g()\n    return f", outer)
        return outer["make"](inner["g"])

    assert function_state(made(1, 1)) == function_state(made(1, 1)) != function_state(made(1, 2))


def test_another_version_of_python_compiles_other_code() -> None:
    here, there = (
        {"source": "a", f"code of Python {version}": code} for version, code in (("3.11", "x"), ("3.12", "y"))
    )
    assert alike(here, there) and digest(here) == digest(there)
    assert not alike(here, {**here, "code of Python 3.11": "z"})


# Values


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (np.array(["value-0"], dtype=object), np.array(["value-1"], dtype=object)),
        (np.array([{"k": 1}], dtype=object), np.array([{"k": 2}], dtype=object)),
        (np.ma.masked_array([1, 2], mask=[False, True]), np.ma.masked_array([1, 2], mask=[True, False])),
        (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)),
        (1, True),
        (1, 1.0),
        ([1], [True]),
    ],
)
def test_values_are_told_apart(old: Any, new: Any) -> None:
    assert alike(described(old, "x"), described(old, "x"))
    assert not alike(described(old, "x"), described(new, "x"))


def test_another_kind_of_number_is_another_option(model: wb.LoadedModel, tmp_path: Path) -> None:
    run(Counting(), tmp_path, model, FACTS[:2], value=1)
    with pytest.raises(OtherSweep, match="other options: value 1 there, True now"):
        run(Counting(), tmp_path, model, value=True)
    with pytest.raises(OtherSweep, match=r"other options: value 1 there, 1.0 now"):
        run(Counting(), tmp_path, model, value=1.0)


IN_ANOTHER_SESSION = """
import numpy as np, torch
from workbench.sweeps.described import described
from workbench.sweeps.descriptions import digest

class Words:
    def __init__(self):
        self.words, self.weights = {"a", "b", "c", "d"}, torch.arange(3.0)

values = [Words(), torch.Generator().manual_seed(3), np.array([{"k": 1}, "x"], dtype=object)]
print(*(digest(described(value, "x")) for value in values))
"""


def test_values_are_the_same_in_another_session() -> None:
    said = [
        subprocess.run(
            [sys.executable, "-c", IN_ANOTHER_SESSION],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1] and len(set(said[0].split())) == 3


@pytest.mark.parametrize("make", [lambda: iter([1, 2]), lambda: map(str, [1]), lambda: (i for i in [1])])
def test_iterators_are_refused(make: Any, model: wb.LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"the option value is a .*used up by the first item .*pass a list"):
        run(Counting(), tmp_path, model, value=make())
    assert not list(tmp_path.iterdir())


def test_a_file_of_a_failure_says_how_often_a_process_died(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    folder.begin()
    fields = {"id": "a", "error": "E", "message": "m", "traceback": "t"}
    write_bytes(folder.failure_path("a"), dump(wrap("workbench-sweep-failure", fields)))
    assert folder.failures(["a", "b"])["a"].deaths == 0
