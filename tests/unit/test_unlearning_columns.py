"""Columns of output projections that the unlearning methods move: which they are, and that no others do."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny_facts import FAMILIES, tiny
from workbench.editing.unlearning.columns import MovingColumns, selected_columns
from workbench.models.views import shared_view
from workbench.types import Selection


@FAMILIES
def test_gradients_stop_at_what_may_not_move(family: str) -> None:
    model = tiny(family)
    view = shared_view(model.hf)
    columns = selected_columns(model, Selection("L1N2 L1N9"), "This")
    moving = MovingColumns(view, model.architecture, columns)
    ((key, name),) = moving.names.items()
    moving.parameters[name].requires_grad_(True)
    with torch.enable_grad():
        view(torch.tensor([model.token_ids("The capital of France is")])).logits.square().sum().backward()
    assert [n for n, p in view.named_parameters() if p.grad is not None] == [name]
    assert all(p.grad is None for p in model.hf.parameters())
    moving.mask_gradients()
    gradient = moving.parameters[name].grad
    assert gradient is not None
    inside = moving.oriented(key, gradient)[:, [2, 9]]
    assert inside.any() and float(gradient.abs().sum()) == pytest.approx(float(inside.abs().sum()))
    assert moving.oriented(key, gradient).shape == (model.shape.d_model, model.shape.d_mlp)


@FAMILIES
def test_of_an_attention_layer_the_output_projection_moves(family: str) -> None:
    model = tiny(family)
    columns = selected_columns(model, Selection("L1ATTN L2H0"), "This")
    names = {model.architecture.module_name(*key): index for key, index in columns.items()}
    written = [model.architecture.gate_module(layer, "z").module for layer in (1, 2)]
    width = model.shape.site_size("z") // model.shape.n_heads
    assert names == dict(zip(written, (None, tuple(range(width))), strict=True))
    with pytest.raises(ValueError, match="This moves columns of output projections, and L1Q0 has none"):
        selected_columns(model, Selection("L1Q0"), "This")
