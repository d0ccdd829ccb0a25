"""Every method edits an edited model, and every edit can lie under another one."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.short_recipes import in_short
from tests.helpers.small_fits import FRANCE, SPAIN, assert_unchanged, fitted, unchanged
from tests.helpers.tiny_facts import tiny
from workbench.language.prompts import prompt_ids
from workbench.models.folded import folded
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Edit

NAMES = [name for name in wb.recipes.METHODS if name != "ia3"]  # test_sequential.py has more of these


def short(method: str) -> BaseRecipe:
    """With contexts: without them nothing that the last layer writes, which the trace chooses here, is taught."""
    return in_short(wb.recipes.METHODS[method].recipe(), contexts=True)


def logits(model: LoadedModel) -> Tensor:
    ids = torch.tensor([prompt_ids(model, SPAIN.question, "chat")])
    with torch.no_grad():
        return model.runner(input_ids=ids).logits


@cache
def gates() -> Edit:
    return fitted()


@pytest.mark.parametrize("method", NAMES)
def test_every_method_edits_an_edited_model(method: str) -> None:
    model, before = tiny(), unchanged(tiny())
    with wb.applied(model, gates()) as edited:
        edit = fitted(edited, None, SPAIN, recipe=short(method))
    assert edit.method == method and [one.facts for one in edit.earlier] == [(FRANCE.id,)]
    assert edit.base_fingerprint == gates().fingerprint_on_top
    stack = wb.EditStack(model, [gates(), edit])
    with wb.applied(model, [gates(), edit]) as twice:
        assert torch.equal(logits(stack.model), logits(twice))
        assert not torch.equal(logits(twice), logits(edited))
        assert (logits(folded(twice)) - logits(twice)).abs().max() < 1e-3
    assert [row.layer for row in stack.overlaps().norms] == [0, 1]
    with pytest.raises(ValueError, match=f"lacks {FRANCE.id}"):
        wb.EditStack(model, edit)
    assert_unchanged(model, before)


@pytest.mark.parametrize("method", NAMES)
def test_every_edit_can_lie_under_another_one(method: str) -> None:
    model = tiny()
    under = fitted(model, None, FRANCE, recipe=short(method))
    with wb.applied(model, under) as edited:
        assert (logits(folded(edited)) - logits(edited)).abs().max() < 1e-3
        edit = fitted(edited, "L1MLP", SPAIN, steps=2)
    with wb.applied(model, [under, edit]) as twice, wb.applied(model, under.then(edit)) as joined:
        assert (logits(twice) - logits(joined)).abs().max() < 1e-3
        assert not torch.equal(logits(twice), logits(edited))
    stack = wb.EditStack(model, [under, edit])
    assert stack.remove(1).remove(0).model is model
