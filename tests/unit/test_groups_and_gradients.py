"""Key-value groups as units, and integrated gradients: against plain hooks, exact patching, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.plain_hooks import FACTS, FRANCE, SPAIN, single
from tests.helpers.tiny_facts import FAMILIES
from tests.helpers.traces import hooked
from workbench.language.contrasts import prepare
from workbench.models.load import LoadedModel

OPTIONS: dict[str, Any] = {"pool": FACTS, "progress": False}
PROJECTIONS = {
    "llama": {"k": "model.layers.{}.self_attn.k_proj", "v": "model.layers.{}.self_attn.v_proj"},
    "gpt2": {"k": "transformer.h.{}.attn.c_attn", "v": "transformer.h.{}.attn.c_attn"},
    "phi3": {"k": "model.layers.{}.self_attn.qkv_proj", "v": "model.layers.{}.self_attn.qkv_proj"},
}
FIRST = {"llama": {"k": 0, "v": 0}, "gpt2": {"k": 40, "v": 80}, "phi3": {"k": 48, "v": 64}}
"""Where keys and values begin in the outputs of their module: after the queries, where all are fused."""


def contrast(model: LoadedModel) -> wb.Contrast:
    return wb.Contrast.of(model, FRANCE, partner=SPAIN, pool=FACTS, form="cloze")


def by_hand(model: LoadedModel, family: str, layer: int, group: int) -> float:
    """The effect of a group's clean keys and values in the corrupted run, by plain hooks."""
    ready, width = prepare(model, contrast(model)), model.shape.d_head
    kept: dict[str, Tensor] = {}
    modules = {PROJECTIONS[family][name].format(layer) for name in ("k", "v")}
    spans: dict[str, list[slice]] = {module: [] for module in modules}
    for name in ("k", "v"):
        start = FIRST[family][name] + group * width
        spans[PROJECTIONS[family][name].format(layer)].append(slice(start, start + width))

    def keeping(module: str) -> Any:
        return lambda value: kept.update({module: value.clone()}) or value

    def putting(module: str) -> Any:
        def put(value: Tensor) -> Tensor:
            value = value.clone()
            for span in spans[module]:
                value[..., span] = kept[module][..., span]
            return value

        return put

    def difference(ids: Any, changes: dict[str, Any]) -> float:
        with torch.no_grad(), hooked(model.hf, {module: (False, change) for module, change in changes.items()}):
            logits = model.hf(torch.tensor([ids])).logits[0, -1]
        return float(logits[ready.answer_ids[0]] - logits[ready.wrong_ids[0]])

    difference(ready.clean, {module: keeping(module) for module in modules})
    restored = difference(ready.corrupted, {module: putting(module) for module in modules})
    return restored - difference(ready.corrupted, {})


@FAMILIES
def test_a_group_is_patched_as_by_plain_hooks(family: str) -> None:
    model = single(family)
    exact = wb.attribute(model, contrast(model), "kv", method="patching", progress=False)
    assert exact.values.shape == (model.shape.n_layers, model.shape.n_kv_heads)
    for layer, group in ((0, 0), (1, model.shape.n_kv_heads - 1)):
        expected = by_hand(model, family, layer, group)
        assert float(exact.values[layer, group]) == pytest.approx(expected, abs=2e-4)
    assert exact.values.abs().max() > 0.05


@FAMILIES
@pytest.mark.filterwarnings("ignore:.*hardly changes")
@pytest.mark.parametrize("method", ["attribution", "ig"])
def test_groups_by_gradients_are_near_exact_patching_where_little_changes(family: str, method: Any) -> None:
    model = single(family)
    little = wb.Contrast(clean="The capital of France is", noise=1e-2, noise_at=3, answer=" Paris", wrong=" Rome")
    exact = wb.attribute(model, little, "kv", method="patching", samples=2, progress=False)
    near = wb.attribute(model, little, "kv", method=method, samples=2, progress=False)
    assert torch.allclose(near.values, exact.values, rtol=0.15, atol=0.05 * float(exact.values.abs().max()))


@FAMILIES
def test_transformerlens_gives_the_same_groups(family: str) -> None:
    model = single(family)
    for method in ("attribution", "ig", "patching"):
        fast, slow = (
            wb.attribute(model, contrast(model), ("kv", "head"), method=mistyped(method), engine=engine, progress=False)
            for engine in mistyped(("auto", "transformerlens"))
        )
        for unit in ("kv", "head"):
            assert torch.allclose(fast[unit].values, slow[unit].values, atol=2e-4), (method, unit)


def test_groups_beside_heads_change_no_heads() -> None:
    alone = wb.attribute(single(), FRANCE, "head", method="patching", **OPTIONS)
    both = wb.attribute(single(), FRANCE, ("kv", "head"), method="patching", **OPTIONS)
    assert torch.allclose(alone.values, both["head"].values, atol=1e-5)  # in larger batches, which round otherwise


def test_a_group_is_a_component(tmp_path: Any) -> None:
    groups = wb.attribute(single(), FRANCE, "kv", **OPTIONS)
    assert groups.labels["kv"] == ("KV0", "KV1") and groups.title == "key-value groups (attribution)"
    (best,) = groups.top(1)
    assert best.kind == "KV" and wb.ablate(single(), FRANCE, groups.top(1), pool=FACTS).effect != 0
    assert groups.plot() is not None
    assert wb.EffectMap.load(groups.save(tmp_path / "a.safetensors")).top(1) == groups.top(1)
    with pytest.raises(ValueError, match="key-value groups are read by heads"):
        wb.attribute(single(), FRANCE, "kv", method="dla", **OPTIONS)


def test_one_step_of_integrated_gradients_is_the_gradient_at_the_clean_run() -> None:
    model = single()
    given = contrast(model)
    assert given.corrupted is not None
    back = wb.Contrast(
        clean=given.corrupted, corrupted=given.clean, answer=given.answer, wrong=given.wrong
    )  # whose first-order effects have their gradient at this one's clean run, and the opposite difference
    once = wb.attribute(model, given, ("head", "mlp"), method="ig", steps=1, progress=False)
    turned = wb.attribute(model, back, ("head", "mlp"), progress=False)
    for unit in ("head", "mlp"):
        assert torch.allclose(once[unit].values, -turned[unit].values, atol=1e-4)


def test_more_steps_come_nearer_to_what_many_give() -> None:
    model = single()
    maps = {n: wb.attribute(model, contrast(model), "mlp", method="ig", steps=n, progress=False) for n in (2, 16, 64)}
    far, near = ((maps[n].values - maps[64].values).abs().max() for n in (2, 16))
    assert near < far / 3
    assert maps[2].method == "ig" and maps[2].provenance["settings"]["steps"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [({"steps": 0}, "steps must be a whole number"), ({"metric": "rank"}, "'rank' has no gradient, which method='ig'")],
)
def test_integrated_gradients_say_what_does_not_fit(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        wb.attribute(single(), FRANCE, method="ig", **{**OPTIONS, **options})
