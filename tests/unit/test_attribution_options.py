"""Attribution by position, along activations, and of named components: against plain hooks, traces and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.plain_hooks import FACTS, FRANCE, ITALY, SPAIN, Plain, single
from tests.helpers.tiny_facts import FAMILIES
from workbench.tracing.component_units import AttributionUnit

UNITS: tuple[AttributionUnit, ...] = ("head", "kv", "mlp", "neuron", "attn")
OPTIONS: dict[str, Any] = {
    "corruption": "swap",
    "partner": SPAIN,
    "form": "cloze",
    "pool": FACTS,
    "progress": False,
}


@FAMILIES
@pytest.mark.parametrize("method", [{}, {"method": "ig"}, {"method": "ig", "along": "activations", "steps": 2}])
def test_positions_add_up_to_the_whole(family: str, method: dict[str, Any]) -> None:
    model = single(family)
    by_position = wb.attribute(model, FRANCE, UNITS, per_position=True, **method, **OPTIONS)
    whole = wb.attribute(model, FRANCE, UNITS, **method, **OPTIONS)
    for unit, effects in by_position.items():
        assert effects.axes == (*whole[unit].axes, "position") and len(effects.labels["position"]) == 5
        assert torch.allclose(effects.values.sum(-1), whole[unit].values, atol=1e-4), unit
        assert not effects.values[..., :3].any() and effects.values[..., 3:].abs().max() > 0.01


@FAMILIES
def test_patched_positions_are_cells_of_traces(family: str) -> None:
    model = single(family)
    patched = wb.attribute(model, FRANCE, ("head", "mlp", "attn"), method="patching", per_position=True, **OPTIONS)
    traced = wb.causal_trace(model, FRANCE, ("z", "mlp", "attn"), metric="logit_diff", window=1, **OPTIONS)
    for unit, effects in zip(("z", "mlp", "attn"), patched.values(), strict=True):
        assert torch.allclose(effects.values, traced[mistyped(unit)].values, atol=1e-4), unit
    groups = wb.attribute(model, FRANCE, "kv", method="patching", per_position=True, **OPTIONS)
    slow = wb.attribute(model, FRANCE, "kv", method="patching", per_position=True, engine="transformerlens", **OPTIONS)
    assert torch.allclose(groups.values, slow.values, atol=2e-4) and groups.values.abs().max() > 0.05


@FAMILIES
def test_gradients_along_activations_add_up_to_exact_patching(family: str) -> None:
    """The integral of a gradient along a straight line is the difference of its ends: of a whole MLP or attention layer
    that is its exact effect, and of heads their sum is that of their layer, whose output they write but for a bias."""
    model = single(family)
    options: dict[str, Any] = {"method": "ig", "along": "activations", **OPTIONS}
    exact = wb.attribute(model, FRANCE, ("mlp", "attn"), method="patching", **OPTIONS)
    few, many = (wb.attribute(model, FRANCE, ("mlp", "attn", "head"), steps=steps, **options) for steps in (4, 64))
    for unit in ("mlp", "attn"):
        far, near = ((maps[unit].values - exact[unit].values).abs().max() for maps in (few, many))
        assert near < 0.03 * exact[unit].values.abs().max() and near < far / 4, unit
    assert torch.allclose(many["head"].values.sum(1), many["attn"].values, atol=1e-3)
    inputs = wb.attribute(model, FRANCE, "mlp", method="ig", steps=64, **OPTIONS)
    assert (inputs.values - exact["mlp"].values).abs().max() > 0.05, "the other path is another quantity"


@FAMILIES
def test_transformerlens_gives_the_same_along_activations(family: str) -> None:
    model = single(family)
    maps = [
        wb.attribute(
            model, FRANCE, ("kv", "head", "mlp"), method="ig", along="activations", steps=2, engine=engine, **OPTIONS
        )
        for engine in mistyped(("auto", "transformerlens"))
    ]
    for unit, effects in maps[0].items():
        assert torch.allclose(effects.values, maps[1][unit].values, atol=2e-4), unit
        assert (effects.method, effects.provenance["settings"]["along"]) == ("ig along activations", "activations")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_named_neurons_are_patched_as_by_plain_hooks(family: str) -> None:
    model = single(family)
    exact = wb.attribute(model, FRANCE, "neuron", method="patching", components="L0N5 L2N7", **OPTIONS)
    plain = Plain(model, family)
    for layer, index in ((0, 5), (2, 7)):
        clean = plain.state("post", layer, plain.clean)

        def put(value: Tensor, clean: Tensor = clean, index: int = index) -> Tensor:
            value = value.clone()
            value[..., index] = clean[..., index]
            return value

        wanted = plain.run(plain.corrupted, {("post", layer): put}) - plain.run(plain.corrupted, {})
        assert float(exact.values[layer, index]) == pytest.approx(wanted, abs=1e-4) and abs(wanted) > 1e-3
    assert int(exact.values.isfinite().sum()) == 2
    assert {str(one) for one in exact.top(2, by="abs")} == {"L0N5", "L2N7"}
    assert exact.plot() is not None and exact.provenance["settings"]["components"] == "L0N5 L2N7"


def test_named_components_have_the_values_of_the_whole_map() -> None:
    model, told = single(), list[tuple[str, int]]()
    named = wb.Selection("L0H1 L2H3 L1MLP L0KV1 L2ATTN")
    units: tuple[AttributionUnit, ...] = ("head", "mlp", "kv", "attn")
    some = wb.attribute(
        model,
        FRANCE,
        units,
        method="patching",
        components=named,
        on_layer=lambda unit, layer, _: told.append((unit, layer)),
        **OPTIONS,
    )
    whole = wb.attribute(model, FRANCE, units, method="patching", **OPTIONS)
    found = 0
    for unit, effects in some.items():
        there = effects.values.isfinite()
        found += int(there.sum())
        assert torch.allclose(effects.values[there], whole[unit].values[there], atol=1e-5), unit
    assert found == len(named)
    assert set(told) == {("head", 0), ("head", 2), ("mlp", 1), ("kv", 0), ("attn", 2)} and len(told) == 5
    by_position = wb.attribute(
        model, FRANCE, "head", method="patching", components="L0H1", per_position=True, **OPTIONS
    )
    assert by_position.values[0, 1].isfinite().all() and int(by_position.values.isfinite().sum()) == 5


def test_positions_of_several_facts_are_roles() -> None:
    options: dict[str, Any] = {"form": "cloze", "pool": FACTS, "samples": 2, "progress": False}
    both = wb.attribute(single(), [FRANCE, ITALY], "head", per_position=True, **options)
    alone = [wb.attribute(single(), one, "head", per_position=True, **options) for one in (FRANCE, ITALY)]
    assert both.labels["position"][-1] == "last token"
    assert torch.allclose(both.values[..., -1], (alone[0].values[..., -1] + alone[1].values[..., -1]) / 2, atol=1e-5)
    less = wb.attribute(single(), FRANCE, "mlp", per_position=True, contrast=[ITALY], **options)
    ours, theirs = (wb.attribute(single(), one, "mlp", per_position=True, **options) for one in (FRANCE, ITALY))
    assert less.labels == ours.labels and less.method == "attribution - controls"
    for role in ("last subject token", "last token"):
        wanted = ours.at(role=role) - theirs.at(role=role)
        assert torch.allclose(less.at(role=role), wanted, atol=1e-5), role


@pytest.mark.filterwarnings("ignore:.*hardly changes")
def test_whole_answers_have_the_positions_of_their_text() -> None:
    texts: dict[str, Any] = {"clean": "The capital of France is", "corrupted": "The capital of Spain is"}
    whole = wb.Contrast(**texts, answer=" Paris Rome")
    for method in mistyped(("attribution", "patching")):
        effects = wb.attribute(
            single(), whole, "mlp", method=method, metric="log_prob", per_position=True, progress=False
        )
        assert effects.values.shape == (3, 5) and effects.values.isfinite().all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"along": "layers"}, r"along must be one of \('inputs', 'activations'\), got 'layers'"),
        ({"along": "activations"}, "along='activations' is for method='ig', got method='attribution'"),
        ({"method": "dla", "per_position": True}, "method='dla' reads the last position alone"),
        ({"components": "L0H1"}, "components= is for method='patching', got method='attribution'"),
        ({"method": "patching", "components": ""}, "components= is empty"),
        (
            {"method": "patching", "components": "L0N1"},
            r"L0N1 in components= is of the unit 'neuron', and unit=\('head",
        ),
        ({"method": "patching", "components": "L0GATEUP"}, "L0GATEUP in components= cannot be patched: choose heads"),
        ({"method": "patching", "components": "L9H1"}, "L9H1 does not exist: the model has 3 layers"),
        ({"method": "patching", "components": "L0H1", "unit": ("head", "mlp")}, r"has nothing of the units \['mlp'\]"),
        ({"method": "patching", "unit": "neuron"}, "or name some: components='L13N207 L9N3'"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        wb.attribute(single(), FRANCE, **{**OPTIONS, **options})
