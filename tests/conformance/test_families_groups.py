"""Key-value groups of every family, patched by resumed passes and by TransformerLens' hooks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.helpers.families import TINY, model_of
from tests.helpers.tiny_facts import capitals
from workbench.tracing.attribution import attribute
from workbench.tracing.bridge_runs import bridge_of

FACTS = capitals()
FRANCE, SPAIN = FACTS[0], FACTS[2]
OPTIONS: dict[str, Any] = {
    "corruption": "swap",
    "partner": SPAIN,
    "form": "cloze",
    "pool": FACTS,
    "progress": False,
}


@pytest.mark.parametrize("name", TINY)
def test_groups_are_those_of_transformerlens(name: str) -> None:
    model = model_of(name)
    fast = attribute(model, FRANCE, "kv", method="patching", **OPTIONS)
    assert fast.values.shape == (model.shape.n_layers, model.shape.n_kv_heads)
    assert float(fast.values.abs().max()) > 1
    try:
        bridge_of(model)
    except ValueError:
        return  # the shape and that something is found is all that can be said
    slow = attribute(model, FRANCE, "kv", method="patching", engine="transformerlens", **OPTIONS)
    torch.testing.assert_close(fast.values, slow.values, atol=2e-3, rtol=1e-3)
