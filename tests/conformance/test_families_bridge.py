"""TransformerLens' hooks, one pass a cell, give what the fast path gives, for every family that has a bridge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.families import TINY, model_of
from tests.helpers.family_checks import check, refused
from tests.helpers.tiny_facts import capitals
from workbench.models.load import LoadedModel
from workbench.tracing.bridge_runs import bridge_of

FACTS = capitals()
FRANCE, SPAIN = FACTS[0], FACTS[2]
NO_BRIDGE = {
    "ministral": "its class is not among TransformerLens' architectures",
    "phi 2": "TransformerLens would skip its query and key norms",
    "helium": "its class is not among TransformerLens' architectures",
    "falcon, groups": "TransformerLens fails in its forward pass",
    "falcon, alibi": "TransformerLens computes other logits",
}
"""Families without a bridge, and why."""
BRIDGED = [name for name in TINY if name not in NO_BRIDGE]
PATCHED = ("llama", "gpt2", "gemma 2", "cohere", "bloom")
"""One pass a component is slow; these have all that differs: biases, post-norms, parallel layers, fused projections."""


def both(model: LoadedModel, function: Any, *given: Any, **options: Any) -> list[Any]:
    """The same by the two engines, without a progress bar."""
    common: dict[str, Any] = {"form": "cloze", "metric": "logit_diff", "progress": False, **options}
    return [function(model, FRANCE, *given, **common, engine=engine) for engine in ("auto", "transformerlens")]


@check("bridge")
def test_traces_are_equal_by_both_engines(name: str, record_property: Callable[[str, object], None]) -> None:
    if name in NO_BRIDGE:
        model = model_of(name)
        with pytest.raises(ValueError, match=f"TransformerLens has no bridge for {type(model.hf).__name__}"):
            bridge_of(model)
        with pytest.raises(ValueError, match="the default engine needs no bridge"):
            wb.causal_trace(model, FRANCE, engine="transformerlens", progress=False)
        return refused(record_property, NO_BRIDGE[name])
    fast, slow = both(model_of(name), wb.causal_trace, ("resid", "mlp", "attn"), samples=2)
    for site, found in fast.items():
        assert torch.allclose(found.values, slow[site].values, atol=1e-4), (name, site)
        assert found.clean == pytest.approx(slow[site].clean, abs=1e-4)
        assert found.corrupted == pytest.approx(slow[site].corrupted, abs=1e-4)
    assert float(fast["resid"].values.abs().max()) > 0.01


@pytest.mark.parametrize("name", BRIDGED)
def test_attributions_are_equal_by_both_engines(name: str) -> None:
    model = model_of(name)
    units = ("head", "mlp", "attn") if model.shape.no_neurons else ("head", "mlp", "attn", "neuron")
    fast, slow = both(model, wb.attribute, units, corruption="swap", partner=SPAIN)
    for unit, found in fast.items():
        assert torch.allclose(found.values, slow[unit].values, atol=1e-4), (name, unit)


@pytest.mark.parametrize("name", PATCHED)
def test_patches_are_equal_by_both_engines(name: str) -> None:
    fast, slow = both(model_of(name), wb.attribute, ("head", "mlp", "attn"), method="patching", samples=1)
    for unit, found in fast.items():
        assert torch.allclose(found.values, slow[unit].values, atol=1e-4), (name, unit)
