"""Edits on models that they were not made for: refused by dry runs and stacks; and odd arguments of both."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.panels import FACTS, tiny
from tests.helpers.tiny import random_edit, tiny_llama
from tests.helpers.tiny_facts import knowing
from workbench.types import Edit

FRANCE = FACTS["france-capital"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def edit_of(model: wb.LoadedModel, selection: str, seed: int = 0) -> Edit:
    return replace(random_edit(model, selection, seed), facts=(FRANCE,), retain_ids=())


def test_the_reach_of_an_edit_is_not_read_under_another_edit() -> None:
    model = tiny()
    low, late = edit_of(model, "L0MLP"), edit_of(model, "L2N5 L1H2", 3)
    with wb.applied(model, low) as edited, pytest.raises(ValueError, match="dry_run puts the edit on what it was made"):
        wb.dry_run(edited, late, pool=FACTS, progress=False)


@pytest.mark.parametrize("most", [-1, 1.5, True])
def test_how_many_facts_are_looked_at(most: Any) -> None:
    with pytest.raises(ValueError, match=r"most must be a whole number, 0 or more, got"):
        wb.dry_run(tiny(), edit_of(tiny(), "L1N5"), pool=FACTS, most=most, progress=False)


def test_a_stack_whose_edit_was_replaced_by_one_of_another_base(tmp_path: Path) -> None:
    model = tiny()
    other = edit_of(knowing(tiny_llama(3, tied=False, bias=True), FACTS), "L0ATTN L1MLP L2MLP")
    folder = wb.EditStack(model, [edit_of(model, "L1N5")]).save(tmp_path / "stack")
    assert len(wb.EditStack.load(model, folder)) == 1
    shutil.rmtree(folder / "edits" / "000")
    other.save(folder / "edits" / "000")
    with pytest.raises(ValueError, match="its files were replaced") as caught:
        wb.EditStack.load(model, folder)
    assert other.base_fingerprint[:16] in str(caught.value) and model.fingerprint[:16] in str(caught.value)


def test_what_a_stack_adds_is_checked_before_it_is_there() -> None:
    model = tiny()
    stack = wb.EditStack(model)
    edit: Any = edit_of(model, "L1N5")
    with pytest.raises(ValueError, match="on must be True or False, got 'off'"):
        stack.add(edit, on="off")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"stage must be one of .* or None, got \["):
        stack.add(edit, stage=[edit.stage_names[0]])  # pyright: ignore[reportArgumentType]
    assert len(stack) == 0 and stack.model is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_tokens": -5}, "max_tokens must be a whole number of at least 1, got -5"),
        ({"layer": "1"}, "layer must be a whole number, got '1'"),
        ({"layer": True}, "layer must be a whole number, got True"),
    ],
)
def test_what_a_covariance_is_not_measured_with(options: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"layer": 1, "texts": ["The capital of France is Paris."] * 40, **options}
    with pytest.raises(ValueError, match=words):
        wb.covariance(tiny(), min_tokens=1, **given)


def test_texts_may_come_from_an_iterator() -> None:
    texts = ["The capital of France is Paris."] * 40
    listed, drawn = (wb.covariance(tiny(), 1, texts=of) for of in (texts, iter(texts)))  # pyright: ignore[reportArgumentType]
    assert drawn.tokens == listed.tokens and bool((drawn.values == listed.values).all())
