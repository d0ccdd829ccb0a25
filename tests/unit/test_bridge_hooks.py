"""Hooks of one's own in every tracing function, TransformerLens' cache, and names both ways."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.plain_hooks import FRANCE, SPAIN, head, single
from tests.helpers.tiny_facts import capitals, edit_of, some_gates
from tests.helpers.traces import hooked
from workbench.editing.applied import applied
from workbench.types import Component

SHUT = "blocks.1.attn.hook_z"


def shut(value: torch.Tensor, hook: Any) -> torch.Tensor:
    """Head 3 says nothing."""
    value = value.clone()
    value[:, :, 3] = 0
    return value


def add(value: torch.Tensor, hook: Any) -> None:
    """A hook that only looks."""


CALLS: dict[str, Callable[..., Any]] = {
    "causal_trace": lambda model, **more: wb.causal_trace(model, FRANCE, samples=1, progress=False, **more).values,
    "attribute": lambda model, **more: wb.attribute(model, FRANCE, samples=1, progress=False, **more).values,
    "ablate": lambda model, **more: torch.tensor(wb.ablate(model, FRANCE, "L2H1", **more).ablated),
    "lens": lambda model, **more: torch.tensor(wb.lens(model, FRANCE, **more).probabilities["old"]),
    "lens_grid": lambda model, **more: wb.lens_grid(model, FRANCE, **more).probabilities,
    "next_tokens": lambda model, **more: torch.tensor([t.probability for t in wb.next_tokens(model, "Hi", **more).top]),
    "attention_patterns": lambda model, **more: wb.attention_patterns(model, FRANCE, **more)[0],
    "attention_pattern": lambda model, **more: torch.tensor(wb.attention_pattern(model, FRANCE, "L2H1", **more).values),
}


@pytest.mark.filterwarnings("ignore:fwd_hooks= run through")
@pytest.mark.parametrize("name", CALLS)
def test_every_tracing_function_takes_hooks(name: str) -> None:
    model, call = single(), CALLS[name]
    plain = call(model)
    assert torch.allclose(call(model, fwd_hooks=[("blocks.0.hook_mlp_out", add)]), plain, atol=1e-4), "changes nothing"
    changed = call(model, fwd_hooks=[(SHUT, shut)])
    assert changed.shape == plain.shape and not torch.allclose(changed, plain, atol=1e-3)
    again = call(model)
    assert torch.equal(again, plain), "and nothing stays behind"
    with pytest.raises(ValueError, match=r"The model has no hook 'blocks.1.attn.hook_zz'.*blocks\.1\.attn\.hook_z"):
        call(model, fwd_hooks=[("blocks.1.attn.hook_zz", shut)])
    with pytest.raises(ValueError, match=r"fwd_hooks= is a list of \(hook name, function\), got 'hook_z'"):
        call(model, fwd_hooks=["hook_z"])


@pytest.mark.filterwarnings("ignore:fwd_hooks= run through")
def test_a_hook_is_part_of_every_run() -> None:
    """A trace of a model with a shut head is that of the model whose head a plain hook shuts."""
    model = single()
    found = wb.causal_trace(
        model, FRANCE, "mlp", corruption="swap", partner=SPAIN, form="cloze", fwd_hooks=[(SHUT, shut)]
    )

    def shut_plainly(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value[..., head(3, model.shape.d_head)] = 0
        return value

    prompt = found.prompts[0]
    with hooked(model.hf, {"model.layers.1.self_attn.o_proj": (True, shut_plainly)}), torch.no_grad():
        logits = model.hf(torch.tensor([prompt.token_ids])).logits[0, -1]
    assert found.clean == pytest.approx(float(logits.softmax(-1)[prompt.answer_id]), abs=1e-5)
    settings = found.provenance["settings"]
    assert (settings["engine"], settings["fwd_hooks"]) == ("transformerlens", [SHUT])


def test_hooks_say_that_they_are_slower() -> None:
    with pytest.warns(UserWarning, match="fwd_hooks= run through TransformerLens, one forward pass a cell"):
        wb.causal_trace(single(), FRANCE, samples=1, progress=False, fwd_hooks=[(SHUT, shut)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        options: dict[str, Any] = {"samples": 1, "progress": False, "engine": "transformerlens"}
        wb.causal_trace(single(), FRANCE, fwd_hooks=[(SHUT, shut)], **options)
    with pytest.raises(ValueError, match=r"engine must be one of \('auto', 'transformerlens'\), got 'fast'"):
        wb.causal_trace(single(), FRANCE, engine=mistyped("fast"))
    refused: list[dict[str, Any]] = [{"fwd_hooks": [(SHUT, shut)]}, {"engine": "transformerlens"}]
    for more in refused:
        with pytest.raises(ValueError, match="method='dla' reads one run"):
            wb.attribute(single(), FRANCE, method="dla", **more)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
@pytest.mark.parametrize("ablation", ["zero", "mean", "swap"])
def test_ablations_are_equal_by_both_engines(family: str, ablation: Any) -> None:
    model = single(family)
    groups = "L2K1 L0V1" if family == "llama" else "L2K0 L0V1" if family == "phi3" else "L1K2"
    for selection in ("L1H3 L2H0", "L1MLP L0N5 L2ATTN", groups):
        options: dict[str, Any] = {"ablation": ablation, "partner": SPAIN, "pool": capitals(), "new_tokens": 2}
        fast, slow = (wb.ablate(model, FRANCE, selection, engine=e, **options) for e in ("auto", "transformerlens"))
        assert fast.ablated == pytest.approx(slow.ablated, abs=1e-4, rel=1e-5), selection
        assert fast.ablated != pytest.approx(fast.clean, abs=1e-3)
        assert (fast.corrupted, fast.ablated_text) == (pytest.approx(slow.corrupted, abs=1e-4), slow.ablated_text)


def test_the_cache_is_transformerlens_own() -> None:
    from transformer_lens import ActivationCache

    model = single()
    names = ["blocks.1.attn.hook_z", "blocks.1.hook_attn_out"]
    found = wb.cache(model, FRANCE, names, form="cloze")
    assert isinstance(found, ActivationCache) and set(found) == set(names)
    text = wb.cache(model, FRANCE.prompt, names[0], form="cloze")
    assert torch.equal(text[names[0]], found[names[0]]) and set(text) == {names[0]}
    assert len(wb.cache(model, FRANCE, None, form="cloze")) > 50
    some = wb.cache(model, FRANCE, lambda name: name.endswith("hook_mlp_out"), form="cloze")
    assert len(some) == model.shape.n_layers
    hooks = [(SHUT, shut)]
    assert not wb.cache(model, FRANCE, names[0], form="cloze", fwd_hooks=hooks)[names[0]][:, :, 3].any()
    with pytest.raises(ValueError, match=r"no hook 'blocks.1.hook_mlp_outs'.*blocks\.1\.hook_mlp_out"):
        wb.cache(model, FRANCE, "blocks.1.hook_mlp_outs")
    with pytest.raises(ValueError, match="names= is an empty list"):
        wb.cache(model, FRANCE, [])


def test_the_cache_of_an_edited_model_has_its_gates() -> None:
    model = single()
    edit = edit_of(model, some_gates(model, (1, "z"), (2, "post")))
    name = "blocks.1.hook_attn_out"
    with applied(model, edit) as edited, torch.no_grad():
        found = wb.cache(edited, FRANCE, [name, "blocks.2.hook_resid_post"], form="cloze")
        prompt = wb.traced_prompt(edited, FRANCE, form="cloze")
        kept: list[torch.Tensor] = []

        def keep(value: torch.Tensor) -> torch.Tensor:
            kept.append(value)
            return value

        with hooked(edited.hf, {"model.layers.1.self_attn": (False, keep)}):
            edited.hf(input_ids=torch.tensor([prompt.token_ids]))
        assert torch.allclose(found[name], kept[0], atol=1e-4)
        before = wb.cache(model, FRANCE, name, form="cloze")[name]
        assert not torch.allclose(found[name], before, atol=1e-2)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("L1H3", "blocks.1.attn.hook_z"),
        ("L2MLP", "blocks.2.hook_mlp_out"),
        ("L2N7", "blocks.2.mlp.hook_post"),
        ("L0ATTN", "blocks.0.hook_attn_out"),
        ("L0Q3", "blocks.0.attn.hook_q"),
        ("L0K1", "blocks.0.attn.hook_k"),
        ("L0V1", "blocks.0.attn.hook_v"),
    ],
)
def test_names_translate_both_ways(text: str, name: str) -> None:
    component = Component.parse(text)
    assert component.hook_name == name and Component.from_hook(name, component.index) == component
    assert name in single().bridge.hook_dict


def test_what_has_no_hook_or_no_component() -> None:
    with pytest.raises(ValueError, match="L0KV1 is at two hooks: take L0K1 and L0V1"):
        _ = Component.parse("L0KV1").hook_name
    with pytest.raises(ValueError, match=r"L0GATEUP is at two hooks: mlp\.hook_pre and mlp\.hook_pre_linear"):
        _ = Component.parse("L0GATEUP").hook_name
    for name in ("blocks.1.hook_resid_pre", "hook_embed", "L1H3"):
        with pytest.raises(ValueError, match=f"No component is at the hook '{name}'"):
            Component.from_hook(name)
    with pytest.raises(ValueError, match="needs an index"):
        Component.from_hook("blocks.1.attn.hook_z")
    with pytest.raises(ValueError, match="index"):
        Component.from_hook("blocks.1.hook_mlp_out", 3)
