"""Attribution and patching against finite differences, slow loops, hand computation and TransformerLens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.plain_hooks import FACTS, FRANCE, ITALY, SPAIN, Plain, head, single, tiny
from tests.helpers.tiny_facts import FAMILIES, MAKERS, by_hand, edit_of, knowing, some_gates
from workbench.editing.applied import Dial
from workbench.language.prompts import traced_prompt
from workbench.tracing.agreement import agreement
from workbench.tracing.attribution import AttributionUnit, Method, attribute
from workbench.types import EffectMap

SWAP: dict[str, Any] = {"corruption": "swap", "partner": SPAIN, "form": "cloze", "pool": FACTS, "progress": False}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@FAMILIES
def test_gradient_attribution_of_heads_is_the_slope(family: str) -> None:
    model = tiny(family)
    plain, shape = Plain(model, family), model.shape
    found = attribute(model, FRANCE, **SWAP)
    slopes = [[plain.slope("z", at, head(h, shape.d_head)) for h in range(shape.n_heads)] for at in range(3)]
    torch.testing.assert_close(found.values, torch.tensor(slopes), atol=1e-4, rtol=1e-4)
    assert found.axes == ("layer", "head")
    assert found.clean == pytest.approx(plain.run(plain.clean, {}), abs=1e-4)
    assert found.corrupted == pytest.approx(plain.run(plain.corrupted, {}), abs=1e-4)


@FAMILIES
def test_gradient_attribution_of_layers_and_neurons_is_the_slope(family: str) -> None:
    model = tiny(family)
    plain = Plain(model, family)
    attention = attribute(model, FRANCE, "attn", **SWAP)
    slopes = torch.tensor([plain.slope("attn", at, slice(None)) for at in range(3)])
    torch.testing.assert_close(attention.values, slopes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(attention.values, attribute(model, FRANCE, **SWAP).values.sum(1), atol=1e-3, rtol=1e-4)
    assert attention.axes == ("layer",) and str(attention.top(3).sorted()) == "L0ATTN L1ATTN L2ATTN"
    mlps = attribute(model, FRANCE, "mlp", **SWAP)
    slopes = torch.tensor([plain.slope("mlp", at, slice(None)) for at in range(3)])
    torch.testing.assert_close(mlps.values, slopes, atol=1e-4, rtol=1e-4)
    neurons = attribute(model, FRANCE, "neuron", **SWAP)
    assert neurons.values.shape == (3, 56)
    for layer, index in ((0, 3), (1, 55), (2, 17)):
        slope = plain.slope("post", layer, slice(index, index + 1))
        assert float(neurons.values[layer, index]) == pytest.approx(slope, abs=1e-4)
    # A layer's neurons together are its MLP, to first order:
    torch.testing.assert_close(neurons.values.sum(1), slopes, atol=1e-3, rtol=1e-4)


@FAMILIES
def test_patching_equals_a_slow_loop(family: str) -> None:
    model = tiny(family)
    plain, shape = Plain(model, family), model.shape
    base = plain.run(plain.corrupted, {})
    heads = attribute(model, FRANCE, method="patching", **SWAP)
    for layer in range(3):
        for index in range(shape.n_heads):
            clean, entries = plain.state("z", layer, plain.clean), head(index, shape.d_head)

            def put(value: Tensor, at: slice = entries, clean: Tensor = clean) -> Tensor:
                value = value.clone()
                value[..., at] = clean[..., at]
                return value

            effect = plain.run(plain.corrupted, {("z", layer): put}) - base
            assert float(heads.values[layer, index]) == pytest.approx(effect, abs=1e-4)
    for site in ("mlp", "attn"):
        whole = attribute(model, FRANCE, site, method="patching", **SWAP)
        for layer in range(3):
            clean = plain.state(site, layer, plain.clean)
            effect = plain.run(plain.corrupted, {(site, layer): lambda value, clean=clean: clean}) - base
            assert float(whole.values[layer]) == pytest.approx(effect, abs=1e-4)


@pytest.mark.parametrize("max_rows", [None, 16])
def test_patching_tells_each_layer_once_when_it_is_finished(max_rows: int | None) -> None:
    told: list[tuple[AttributionUnit, int, Tensor]] = []
    options: dict[str, Any] = {**SWAP, "corruption": "noise", "partner": None, "samples": 3, "max_rows": max_rows}
    found = attribute(
        tiny(),
        FRANCE,
        ("head", "mlp"),
        method="patching",
        on_layer=lambda unit, layer, values: told.append((unit, layer, values.clone())),
        **options,
    )
    assert sorted((unit, layer) for unit, layer, _ in told) == [(u, at) for u in ("head", "mlp") for at in range(3)]
    for unit, layer, values in told:
        assert torch.equal(values, found[unit].values[layer])


def test_patching_in_small_batches() -> None:
    options: dict[str, Any] = {"method": "patching", "samples": 3, "pool": FACTS, "progress": False}
    whole = attribute(single(), FRANCE, **options)
    torch.testing.assert_close(
        attribute(single(), FRANCE, **options, max_rows=1).values, whole.values, atol=1e-4, rtol=0
    )


def test_by_hand() -> None:
    """Head L1H0 carries all of Paris - Madrid: exactly 8 - (-8) = 16 by patching.

    To first order it is half of that: z moves by 4 / 5, the gradient on it is 5 / 2 (output projection) times 4, for
    the slope of 4 x2 / rms at x2 = -1 is 4 (1 / rms - x2^2 / (8 rms^3)) = 4 (2 - 1). Its direct effect in the clean run
    is 4 x2 / rms = 8, the whole logit difference.
    """
    model = by_hand()
    expected = torch.zeros(3, 2)
    effects: dict[Method, float] = {"patching": 16.0, "attribution": 8.0, "dla": 8.0}
    for method, value in effects.items():
        expected[1, 0] = value
        found = attribute(model, FRANCE, method=method, **SWAP)
        torch.testing.assert_close(found.values, expected, atol=1e-4, rtol=0)
        assert found.clean == pytest.approx(8, abs=1e-4)
    for unit in ("mlp", "neuron"):
        assert not attribute(model, FRANCE, unit, **SWAP).values.any()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_heads_and_mlps_equal_transformer_lens(family: str) -> None:
    from transformer_lens.tools.analysis.attribution_patching import attribution_patch

    model = knowing(MAKERS[family](), FACTS)
    plain = Plain(model, family)
    bridge = model.bridge
    for parameter in bridge.parameters():  # the bridge's own flags: its graph has to start somewhere
        parameter.requires_grad_(True)
    scores = attribution_patch(
        bridge,
        torch.tensor([plain.clean]),
        torch.tensor([plain.corrupted]),
        lambda logits: logits[0, -1, plain.answer] - logits[0, -1, plain.other],
    ).node_scores
    heads, mlps = torch.zeros(3, model.shape.n_heads), torch.zeros(3)
    for node, score in scores.items():
        if node.kind == "attn_head_out":
            heads[node.layer, node.head] += score
        elif node.kind == "mlp_out":
            mlps[node.layer] += score
    torch.testing.assert_close(attribute(model, FRANCE, **SWAP).values, heads, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(attribute(model, FRANCE, "mlp", **SWAP).values, mlps, atol=1e-4, rtol=1e-5)


def test_noise_is_a_mean_over_samples() -> None:
    """A sample's effects do not depend on the others; more samples average them."""
    options: dict[str, Any] = {"pool": FACTS, "progress": False, "form": "cloze", "unit": "mlp", "method": "patching"}
    two = attribute(single(), FRANCE, samples=2, seed=3, **options)
    table = single().hf.get_input_embeddings().weight
    prompt = two.prompts[0]
    clean = table[torch.tensor([prompt.token_ids])]
    sigma = clean[0, list(prompt.subject)].std()
    draws = torch.randn(2, 1, 42, generator=torch.Generator().manual_seed(3)) * 3 * sigma
    hf = single().hf
    effects = torch.zeros(2, 3)
    for i, draw in enumerate(draws):
        corrupted = clean.clone()
        corrupted[0, list(prompt.subject)] += draw
        for layer in range(3):
            kept: list[Tensor] = []
            handle = hf.model.layers[layer].mlp.register_forward_hook(lambda m, a, out, k=kept: k.append(out))
            hf(inputs_embeds=clean)
            handle.remove()
            base = hf(inputs_embeds=corrupted).logits[0, -1]
            handle = hf.model.layers[layer].mlp.register_forward_hook(lambda m, a, out, k=kept: k[0])
            patched = hf(inputs_embeds=corrupted).logits[0, -1]
            handle.remove()
            change = patched - base
            effects[i, layer] = change[prompt.answer_id] - change[prompt.other_id]
    torch.testing.assert_close(two.values, effects.mean(0), atol=1e-4, rtol=1e-4)


def test_attribution_on_an_edited_model_is_the_slope_there() -> None:
    """Activations are those before the gates, and effects go through them: a closed gate has none."""
    base = tiny()
    gates = some_gates(base, (1, "z"), (2, "post"))
    gates[1, "z"][:8] = 0
    model = Dial(base, edit_of(base, gates)).at(1.0)
    found = attribute(model, FRANCE, **SWAP)
    plain = Plain(model, "llama")
    plain.answer, plain.other = (traced_prompt(base, f, form="cloze").answer_id for f in (FRANCE, SPAIN))
    slopes = [[plain.slope("z", at, head(h, 8)) for h in range(6)] for at in range(3)]
    torch.testing.assert_close(found.values, torch.tensor(slopes), atol=1e-4, rtol=1e-4)
    assert found.values[1, 0] == 0


def test_contrast_subtracts_the_mean_over_controls() -> None:
    options: dict[str, Any] = {"pool": FACTS, "progress": False, "samples": 2, "unit": "neuron"}
    own, spain, italy = (attribute(single(), f, **options) for f in (FRANCE, SPAIN, ITALY))
    found = attribute(single(), FRANCE, contrast=[SPAIN, ITALY], **options)
    torch.testing.assert_close(found.values, own.values - (spain.values + italy.values) / 2)
    assert found.stderr is None, "of one fact nobody knows the spread"
    assert found.method == "attribution - controls"
    assert found.clean == own.clean
    assert found.provenance["settings"]["contrast"] == ["spain-capital", "italy-capital"]
    assert [p.fact_id for p in found.prompts] == ["france-capital"]


def test_the_error_of_a_contrast_is_that_of_a_difference() -> None:
    """It holds the spread of the facts and that of the controls."""
    options: dict[str, Any] = {"pool": FACTS, "progress": False, "samples": 2}
    facts, controls = [FRANCE, SPAIN, ITALY], [FACTS["germany-capital"], FACTS["japan-capital"]]
    a, b = (torch.stack([attribute(single(), f, **options).values for f in group]) for group in (facts, controls))
    found = attribute(single(), facts, contrast=controls, **options)
    torch.testing.assert_close(found.stderr, (a.var(0) / 3 + b.var(0) / 2).sqrt())
    torch.testing.assert_close(found.per_fact, a - b.mean(0))
    assert found.per_fact is not None and found.stderr is not None
    torch.testing.assert_close(found.per_fact.mean(0), found.values)
    assert (found.stderr > a.std(0) / 3**0.5).all()
    assert attribute(single(), facts, contrast=controls[:1], **options).stderr is None


def test_several_facts_are_means() -> None:
    options: dict[str, Any] = {"pool": FACTS, "progress": False, "samples": 2}
    parts = torch.stack([attribute(single(), f, **options).values for f in (FRANCE, SPAIN, ITALY)])
    found = attribute(single(), [FRANCE, SPAIN, ITALY], **options)
    torch.testing.assert_close(found.values, parts.mean(0))
    torch.testing.assert_close(found.per_fact, parts)
    torch.testing.assert_close(found.stderr, parts.std(0) / 3**0.5)
    assert found.n == 3


def small_map(values: list[list[float]]) -> EffectMap:
    tensor = torch.tensor(values)
    labels = {"layer": tuple("ab"), "head": tuple(f"H{i}" for i in range(tensor.shape[1]))}
    return EffectMap(
        values=tensor,
        axes=("layer", "head"),
        labels=labels,
        unit="head",
        metric="logit_diff",
        method="patching",
        clean=0.0,
    )


def test_agreement_is_a_rank_correlation() -> None:
    a = small_map([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert agreement(a, small_map([[0.1, 0.2, 0.9], [7.0, 8.0, 100.0]])) == pytest.approx(1)
    assert agreement(a, small_map([[6.0, 5.0, 4.0], [3.0, 2.0, 1.0]])) == pytest.approx(-1)
    # Ranks 1 2 3 4 6 5: 1 - 6 * 2 / (6 * 35)
    assert agreement(a, small_map([[1.0, 2.0, 3.0], [4.0, 9.0, 8.0]])) == pytest.approx(1 - 12 / 210)
    with pytest.raises(ValueError, match=r"differ in shape: \(2, 3\) and \(2, 2\)"):
        agreement(a, small_map([[1.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "resid"}, r"unit must be one of \('head', 'kv', 'mlp', 'neuron', 'attn'\), got 'resid'"),
        ({"normalise": "yes"}, "normalise must be True or False, got 'yes'"),
        ({"method": "magic"}, "method must be one of .*got 'magic'"),
        ({"unit": "neuron", "method": "patching"}, r"Patching each of 168 neurons.*use method='attribution'"),
        ({"metric": "loss"}, "metric must be one of"),
        (
            {"method": "dla", "metric": "probability"},
            "method='dla' takes the logit difference apart.*metric='probability' is none",
        ),
        ({"corruption": "none"}, "corruption must be one of"),
        ({"fact": []}, "at least one fact, got none"),
        ({"contrast": [FRANCE]}, r"must not hold the attributed facts themselves, got \['france-capital'\]"),
        ({"contrast": [ITALY], "partner": SPAIN, "corruption": "swap"}, "partner= is for one fact without contrast"),
        ({"on_layer": print}, "on_layer= is for method='patching'"),
        ({"on_layer": print, "method": "patching", "contrast": [ITALY]}, "one fact without contrast"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"fact": FRANCE, "pool": FACTS, "progress": False, **options}
    with pytest.raises(ValueError, match=message):
        attribute(single(), **given)
