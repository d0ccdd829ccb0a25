"""A context keeps the promises of a delta through the prompt layer, on every shape of model: strengths, order, removal,
what is saved, and what cannot be exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.deltas import MODELS, assert_near, dense, edit_with, gates, low_rank, model_of
from tests.helpers.small_fits import assert_unchanged, unchanged
from workbench.editing.applied import Dial
from workbench.language.prompts import prompt_ids
from workbench.models import LoadedModel
from workbench.types import NO_DELTA, ContextDelta, Delta, Deltas, delta_from

QUESTION = "Where is Paris?"
FIRST, SECOND = ContextDelta(["Paris is in Italy."], [9]), ContextDelta(["Rome is in Spain.", "I am not sure."], [8, 7])
OTHERS: dict[str, Callable[[LoadedModel, int], Delta]] = {"gates": gates, "low-rank": low_rank, "dense": dense}


@pytest.fixture(params=sorted(MODELS))
def model(request: Any) -> LoadedModel:
    return model_of(request.param)


def read(model: LoadedModel) -> Tensor:
    """Logits after the question, as a model is asked it."""
    with torch.no_grad():
        return model.runner(torch.tensor([prompt_ids(model, QUESTION, "chat")])).logits[:, -1]


def asked(model: LoadedModel, *deltas: Delta, strength: float = 1.0) -> Tensor:
    with wb.applied(model, edit_with(model, *deltas), strength=strength) as edited:
        return read(edited)


def test_it_is_the_base_with_a_longer_prompt(model: LoadedModel) -> None:
    before = unchanged(model)
    with wb.applied(model, edit_with(model, FIRST)) as edited:
        ids = torch.tensor([prompt_ids(model, f"Paris is in Italy.\n\n{QUESTION}", "chat")])
        assert prompt_ids(edited, QUESTION, "chat") == ids[0].tolist() and edited.context == "Paris is in Italy."
        with torch.no_grad():
            assert torch.equal(read(edited), model.runner(ids).logits[:, -1])
            assert torch.equal(edited.hf(ids).logits, model.hf(ids).logits)
        shared = {name: p.data_ptr() for name, p in model.hf.named_parameters()}
        assert {name: p.data_ptr() for name, p in edited.hf.named_parameters()} == shared
    assert_unchanged(model, before)


def test_without_it_the_model_is_the_base_to_the_bit(model: LoadedModel) -> None:
    with wb.applied(model, edit_with(model, FIRST), strength=0.0) as off:
        assert off.context == "" and prompt_ids(off, QUESTION, "cloze") == prompt_ids(model, QUESTION, "cloze")
        assert torch.equal(read(off), read(model))
    assert not torch.allclose(asked(model, FIRST), read(model), atol=1e-4)


def test_a_turned_strength_is_a_fresh_one(model: LoadedModel) -> None:
    under, edit = edit_with(model, gates(model, 1)), edit_with(model, FIRST)
    with wb.applied(model, under) as edited:
        dial = Dial(edited, edit)
        for strength in (1.0, 0.0, 1.0):
            with wb.applied(edited, edit, strength=strength, stack=True) as fresh:
                assert torch.equal(read(dial.at(strength)), read(fresh))


@pytest.mark.parametrize("strength", [0.5, -1.0, 2.0, float("nan"), float("inf")])
def test_there_is_nothing_between(strength: float) -> None:
    with pytest.raises(ValueError, match=r"strength (is 0 or 1|must be a finite number)"):
        FIRST.scaled(strength)
    with pytest.raises(ValueError, match="strength"):
        asked(model_of("phi3"), gates(model_of("phi3"), 0), FIRST, strength=strength)


@pytest.mark.parametrize("kind", OTHERS)
def test_in_sequence_with_another_kind(model: LoadedModel, kind: str) -> None:
    """In any order the text is in the prompt, and the rest in the network."""
    other = OTHERS[kind](model, 3)
    with wb.applied(model, edit_with(model, other)) as edited, torch.no_grad():
        ids = torch.tensor([prompt_ids(model, f"Paris is in Italy.\n\n{QUESTION}", "chat")])
        expected = edited.runner(ids).logits[:, -1]
    for deltas in ((other, FIRST), (FIRST, other)):
        assert_near(asked(model, *deltas), expected)
        joined = deltas[0].then(deltas[1])
        assert isinstance(joined, Deltas) and joined.context == FIRST.context
        assert_near(asked(model, joined), expected)
        assert torch.equal(asked(model, joined, strength=0.0), read(model))
    with (
        wb.applied(model, edit_with(model, other)) as once,
        wb.applied(once, edit_with(model, FIRST), stack=True) as twice,
    ):
        assert_near(read(twice), expected)


def test_contexts_follow_each_other(model: LoadedModel) -> None:
    both = FIRST.then(SECOND)
    assert isinstance(both, ContextDelta) and both.words() == "a context of 24 tokens"
    assert both.context == ("Paris is in Italy.", "Rome is in Spain.", "I am not sure.")
    with wb.applied(model, edit_with(model, FIRST, SECOND)) as edited:
        assert edited.context == "Paris is in Italy.\n\nRome is in Spain.\n\nI am not sure."
    with wb.applied(model, edit_with(model, FIRST, SECOND), stage="unlearn") as first:
        assert first.context == "Paris is in Italy."
    left, right = FIRST.then(gates(model, 0)).then(SECOND), FIRST.then(gates(model, 0).then(SECOND))
    assert left.digest() == right.digest() and NO_DELTA.then(FIRST) is FIRST and FIRST.then(NO_DELTA) is FIRST


def test_saved_and_loaded_it_is_the_same(model: LoadedModel, tmp_path: Path) -> None:
    edit = edit_with(model, FIRST, low_rank(model, 1).then(SECOND))
    back = wb.load_edit(edit.save(tmp_path / "edit"))
    assert back.id == edit.id and back.delta().context == edit.delta().context
    assert back.delta().words() == edit.delta().words()
    only = edit_with(model, FIRST)
    assert wb.load_edit(only.save(tmp_path / "only")).id == only.id != edit_with(model, SECOND).id


def test_neither_exported_nor_merged(model: LoadedModel, tmp_path: Path) -> None:
    for delta in (FIRST, gates(model, 0).then(FIRST)):
        edit = edit_with(model, delta)
        for write in (edit.to_peft, lambda path, e=edit: wb.merge(model, e, path)):
            with pytest.raises(ValueError, match="puts a text into the prompt"):
                write(tmp_path / "x")
    assert not any(tmp_path.iterdir())


def test_what_it_says_of_itself() -> None:
    assert (FIRST.n_moved(), FIRST.largest_move(), FIRST.lowest_layer, FIRST.tensors()) == (0, 0.0, None, {})
    assert not FIRST.empty and FIRST.scaled(0).empty and FIRST.scaled(0).words() == "no context"
    assert delta_from(SECOND.header(), {}).digest() == SECOND.digest() != FIRST.digest()
    refused: tuple[Any, ...] = ("one text", [""], [3])
    for texts in refused:
        with pytest.raises(ValueError, match="texts must be a list of texts"):
            ContextDelta(texts)
    with pytest.raises(ValueError, match="a number for each of the 1 texts"):
        ContextDelta(["a"], [1, 2])
