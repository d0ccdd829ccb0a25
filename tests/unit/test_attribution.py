"""Attribution against finite differences, slow loops, hand computation and TransformerLens; single heads."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import tiny_gpt2, tiny_llama, tiny_phi3
from tests.tiny_facts import by_hand, capitals, edit_of, knowing, some_gates
from workbench.editing.applied import Dial, applied
from workbench.models import LoadedModel
from workbench.prompts import traced_prompt
from workbench.tracing.ablation import ablate, attention_pattern
from workbench.tracing.attribution import agreement, attribute
from workbench.tracing.dla import head_outputs
from workbench.types import EffectMap, TracedPrompt

FACTS = capitals()
FRANCE, ITALY, SPAIN = FACTS[0], FACTS[1], FACTS[2]
MAKERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tiny_llama(tied=False, bias=True),
    "gpt2": lambda: tiny_gpt2(tie_word_embeddings=False),
    "phi3": tiny_phi3,
}
FAMILIES = pytest.mark.parametrize("family", MAKERS)
SITES = {  # inputs of the attention output and MLP output projections, outputs of the MLP
    "llama": {"z": "self_attn.o_proj", "post": "mlp.down_proj", "mlp": "mlp"},
    "gpt2": {"z": "attn.c_proj", "post": "mlp.c_proj", "mlp": "mlp"},
}
SITES["phi3"] = SITES["llama"]
SWAP: dict[str, Any] = {"corruption": "swap", "partner": SPAIN, "form": "cloze", "pool": FACTS, "progress": False}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@lru_cache
def tiny(family: str = "llama") -> LoadedModel:
    """In double precision, so that finite differences are exact enough."""
    model = knowing(MAKERS[family](), FACTS)
    model.hf.double()
    return model


@lru_cache
def single(family: str = "llama") -> LoadedModel:
    return knowing(MAKERS[family](), FACTS)


class Plain:
    """The clean and the swapped text on the plain model, with states replaced by plain hooks."""

    def __init__(self, model: LoadedModel, family: str) -> None:
        self.hf, self.family, self.shape = model.hf, family, model.shape
        self.layers = model.architecture.family.layers
        prompt = traced_prompt(model, FRANCE, form="cloze")
        spain = traced_prompt(model, SPAIN, form="cloze")
        self.clean, self.corrupted = prompt.token_ids, spain.token_ids
        self.answer, self.other = prompt.answer_id, spain.answer_id

    def run(self, ids: Any, changes: dict[tuple[str, int], Callable[[Tensor], Tensor]]) -> float:
        """Answer minus the partner's answer, with states changed by (site, layer)."""
        with torch.no_grad():
            return float(self.difference(ids, changes))

    def difference(self, ids: Any, changes: dict[tuple[str, int], Callable[[Tensor], Tensor]]) -> Tensor:
        handles = []
        for (site, layer), change in changes.items():
            module = self.hf.get_submodule(f"{self.layers}.{layer}.{SITES[self.family][site]}")
            if site == "mlp":
                handles.append(module.register_forward_hook(lambda m, a, out, c=change: c(out)))
            else:
                handles.append(module.register_forward_pre_hook(lambda m, a, c=change: (c(a[0]), *a[1:])))
        try:
            logits = self.hf(torch.tensor([ids])).logits[0, -1].double()
        finally:
            for handle in handles:
                handle.remove()
        return logits[self.answer] - logits[self.other]

    def state(self, site: str, layer: int, ids: Any) -> Tensor:
        kept: list[Tensor] = []

        def keep(value: Tensor) -> Tensor:
            kept.append(value.detach().clone())
            return value

        self.run(ids, {(site, layer): keep})
        return kept[0]

    def moved(self, site: str, layer: int, entries: slice, by: Any) -> Any:
        """The corrupted run with some entries moved towards their clean values, at all positions."""
        clean, corrupted = self.state(site, layer, self.clean), self.state(site, layer, self.corrupted)

        def change(value: Tensor) -> Tensor:
            value = value.clone()
            value[..., entries] += by * (clean - corrupted)[..., entries]
            return value

        return self.difference(self.corrupted, {(site, layer): change})

    def slope(self, site: str, layer: int, entries: slice) -> float:
        """The derivative of ``moved`` at 0: a finite difference, or autograd on the one number ``by`` for the families
        whose norms round to single precision."""
        if self.family == "gpt2":
            up, down = (self.moved(site, layer, entries, by) for by in (1e-5, -1e-5))
            return float(up - down) / 2e-5
        by = torch.zeros((), dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.moved(site, layer, entries, by), by)
        return float(gradient)


def head(index: int, width: int) -> slice:
    return slice(index * width, (index + 1) * width)


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
def test_gradient_attribution_of_mlps_and_neurons_is_the_slope(family: str) -> None:
    model = tiny(family)
    plain = Plain(model, family)
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
    mlps = attribute(model, FRANCE, "mlp", method="patching", **SWAP)
    for layer in range(3):
        clean = plain.state("mlp", layer, plain.clean)
        effect = plain.run(plain.corrupted, {("mlp", layer): lambda value, clean=clean: clean}) - base
        assert float(mlps.values[layer]) == pytest.approx(effect, abs=1e-4)


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
    for method, value in (("patching", 16.0), ("attribution", 8.0), ("dla", 8.0)):
        expected[1, 0] = value
        found = attribute(model, FRANCE, method=method, **SWAP)  # type: ignore[arg-type]
        torch.testing.assert_close(found.values, expected, atol=1e-4, rtol=0)
        assert found.clean == pytest.approx(8, abs=1e-4)
    for unit in ("mlp", "neuron"):
        assert not attribute(model, FRANCE, unit, **SWAP).values.any()  # type: ignore[arg-type]


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
    draws = torch.randn(2, 1, 42, generator=torch.Generator().manual_seed(3)) * 3 * table.std()
    prompt = two.prompts[0]
    clean = table[torch.tensor([prompt.token_ids])]
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


def direct_rest(model: LoadedModel, family: str, prompt: TracedPrompt) -> float:
    """What embeddings and biases write onto the answer direction at the last position, from the plain model."""
    hf, base = model.base.hf, model.base.hf.base_model
    with torch.no_grad():
        ids = torch.tensor([prompt.token_ids])
        caught: list[Tensor] = []
        norm = base.ln_f if family == "gpt2" else base.norm
        handle = norm.register_forward_pre_hook(lambda m, a: caught.append(a[0][0, -1]))
        states = (model.hf if model.applied else hf)(ids, output_hidden_states=True).hidden_states
        if model.applied:
            handle.remove()
            inner = model.hf.base_model.ln_f if family == "gpt2" else model.hf.base_model.norm
            handle = inner.register_forward_pre_hook(lambda m, a: caught.append(a[0][0, -1]))
            model.hf(ids)
        handle.remove()
        last, table = caught[-1], hf.get_output_embeddings().weight
        raw = table[prompt.answer_id] - table[prompt.other_id]
        direction = raw * norm.weight
        written = states[0][0, -1].clone()
        constant = 0.0
        if family == "gpt2":
            scale = (last.var(unbiased=False) + norm.eps).sqrt()
            direction = direction - direction.mean()
            written = written + sum(block.attn.c_proj.bias for block in base.h)
            constant = float(raw @ norm.bias)
        else:
            scale = (last.pow(2).mean() + norm.variance_epsilon).sqrt()
            biases = [getattr(layer.self_attn.o_proj, "bias", None) for layer in base.layers]
            written = written + sum(b for b in biases if b is not None)
        return float(written @ direction / scale) + constant


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("edited", [False, True])
def test_direct_effects_sum_to_the_logit_difference(family: str, edited: bool) -> None:
    """Heads, MLPs, embeddings and biases are all that writes to the residual stream, with gates or without."""
    model = knowing(MAKERS[family](), FACTS)
    if edited:
        more: Any = ((2, "v"), (1, "k")) if family == "llama" else ()
        gates = some_gates(model, (0, "z"), (1, "z"), (1, "post"), (2, "post"), *more)
        model = Dial(model, edit_of(model, gates)).at(1.0)
    options: dict[str, Any] = {"method": "dla", "form": "cloze", "pool": FACTS, "progress": False}
    heads = attribute(model, FRANCE, "head", **options)
    mlps = attribute(model, FRANCE, "mlp", **options)
    neurons = attribute(model, FRANCE, "neuron", **options)
    rest = direct_rest(model, family, heads.prompts[0])
    with torch.no_grad():
        logits = model.hf(torch.tensor([heads.prompts[0].token_ids])).logits[0, -1]
    difference = float(logits[heads.prompts[0].answer_id] - logits[heads.prompts[0].other_id])
    assert heads.clean == pytest.approx(difference, abs=2e-4)
    assert float(heads.values.sum() + mlps.values.sum()) + rest == pytest.approx(difference, abs=2e-3)
    assert heads.metric == "logit_diff"
    assert heads.corrupted is None
    if family == "llama":  # its MLPs have no bias, so a layer's neurons are all of it
        torch.testing.assert_close(neurons.values.sum(1), mlps.values, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("edited", [False, True])
def test_head_outputs_sum_to_the_attention_output(family: str, edited: bool) -> None:
    model = knowing(MAKERS[family](), FACTS)
    if edited:
        model = Dial(model, edit_of(model, some_gates(model, (0, "z"), (1, "z"), (1, "post")))).at(1.0)
    prompt = traced_prompt(model, FRANCE, form="cloze")
    for layer in range(3):
        heads, whole = head_outputs(model, prompt, layer)
        assert heads.shape == (5, model.shape.n_heads, model.shape.d_model)
        block = model.base.hf.get_submodule(f"{model.architecture.family.layers}.{layer}")
        bias = block.attn.c_proj.bias if family == "gpt2" else block.self_attn.o_proj.bias
        torch.testing.assert_close(heads.sum(1) + bias, whole, atol=1e-4, rtol=0)
        kept: list[Tensor] = []
        name = f"{model.architecture.family.layers}.{layer}.{model.architecture.family.attention}"
        handle = model.hf.get_submodule(name).register_forward_hook(lambda m, a, out, k=kept: k.append(out[0]))
        with torch.no_grad():
            model.hf(torch.tensor([prompt.token_ids]))
        handle.remove()
        torch.testing.assert_close(whole, kept[0][0], atol=1e-4, rtol=0)


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
    assert found.method == "attribution - controls"
    assert found.clean == own.clean
    assert found.provenance["settings"]["contrast"] == ["spain-capital", "italy-capital"]
    assert [p.fact_id for p in found.prompts] == ["france-capital"]


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
        ({"unit": "resid"}, r"unit must be one of \('head', 'mlp', 'neuron'\), got 'resid'"),
        ({"method": "magic"}, "method must be one of .*got 'magic'"),
        ({"unit": "neuron", "method": "patching"}, r"Patching each of 168 neurons.*use method='attribution'"),
        ({"metric": "loss"}, "metric must be one of"),
        ({"corruption": "none"}, "corruption must be one of"),
        ({"fact": []}, "at least one fact, got none"),
        ({"contrast": [FRANCE]}, r"must not hold the attributed facts themselves, got \['france-capital'\]"),
        ({"contrast": [ITALY], "partner": SPAIN, "corruption": "swap"}, "partner= is for one fact without contrast"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attribute(single(), **{"fact": FRANCE, "pool": FACTS, "progress": False, **options})


# Single heads


def test_ablating_equals_a_plain_hook() -> None:
    model = tiny()
    plain = Plain(model, "llama")
    plain.other = model.token_ids(" Rome")[0]  # here the metric is answer minus target

    def zero(entries: Any) -> Callable[[Tensor], Tensor]:
        def change(value: Tensor) -> Tensor:
            value = value.clone()
            value[..., entries] = 0
            return value

        return change

    clean = plain.run(plain.clean, {})
    for text, changes in {
        "L1H2": {("z", 1): zero(head(2, 8))},
        "L0MLP": {("post", 0): zero(slice(None))},
        "L2N5 L2N7": {("post", 2): zero([5, 7])},
        "L1H2 L1H4 L0MLP": {("z", 1): zero([*range(16, 24), *range(32, 40)]), ("post", 0): zero(slice(None))},
    }.items():
        found = ablate(model, FRANCE, text, form="cloze")
        expected = plain.run(plain.clean, changes)  # type: ignore[arg-type]
        assert found.clean == pytest.approx(clean, abs=1e-4)
        assert found.ablated == pytest.approx(expected, abs=1e-4)
        assert found.effect == pytest.approx(clean - expected, abs=1e-4)
        assert str(found.selection) == text


def test_ablating_by_hand() -> None:
    """Without head L1H0 the hand-made model has no preference: Paris falls from 4 to 0, and its share to 1 / N."""
    model = by_hand()
    assert ablate(model, FRANCE, "L1H0", form="cloze").effect == pytest.approx(4, abs=1e-5)
    share = ablate(model, FRANCE, "L1H0", form="cloze", metric="probability")
    assert share.ablated == pytest.approx(1 / model.shape.d_vocab, abs=1e-7)
    assert ablate(model, FRANCE, "L1H1 L0H0 L2MLP", form="cloze").effect == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "selection is empty"),
        ("L1KV0", "L1KV0 is a key-value group, not a query head: it is shared by L1H0, L1H1, L1H2"),
        ("L1H0 L1ATTN", "L1ATTN cannot be ablated here"),
        ("L1GATEUP", "L1GATEUP cannot be ablated here"),
        ("L9H0", "does not exist"),
        ("L1H6", "does not exist"),
    ],
)
def test_what_cannot_be_ablated(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ablate(single(), FRANCE, text)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_attention_pattern_is_the_plain_models(family: str) -> None:
    model = single(family)
    frame = attention_pattern(model, FRANCE, "L1H3", form="cloze")
    assert list(frame.columns) == list(frame.index) == ["0 The", "1  capital", "2  of", "3  France", "4  is"]
    assert frame.sum(axis=1).to_numpy() == pytest.approx([1.0] * 5, abs=1e-5)
    assert all(frame.iloc[q, k] == 0 for q in range(5) for k in range(q + 1, 5))
    ids = torch.tensor([model.token_ids("The capital of France is")])
    eager = MAKERS[family]()
    eager.load_state_dict(model.hf.state_dict())
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        expected = eager(ids, output_attentions=True).attentions[1][0, 3]
    torch.testing.assert_close(torch.tensor(frame.to_numpy()), expected, atol=1e-5, rtol=0)


def test_attention_by_hand_is_uniform() -> None:
    frame = attention_pattern(by_hand(), FRANCE, "L1H1", form="cloze")
    assert frame.iloc[4].to_numpy() == pytest.approx([0.2] * 5)
    assert frame.iloc[1].to_numpy() == pytest.approx([0.5, 0.5, 0, 0, 0])


def test_attention_pattern_wants_a_query_head() -> None:
    with pytest.raises(
        ValueError, match="L1KV1 is a key-value group, not a query head: it is shared by L1H3, L1H4, L1H5"
    ):
        attention_pattern(single(), FRANCE, "L1KV1")
    with pytest.raises(ValueError, match="L1MLP is not a query head"):
        attention_pattern(single(), FRANCE, "L1MLP")


def test_attention_pattern_of_an_edited_model_differs() -> None:
    model = single()
    with applied(model, edit_of(model, some_gates(model, (1, "k")))) as edited:
        changed = attention_pattern(edited, FRANCE, "L1H3", form="cloze")
    same = attention_pattern(model, FRANCE, "L1H3", form="cloze")
    assert changed.sum(axis=1).to_numpy() == pytest.approx([1.0] * 5, abs=1e-5)
    assert float((changed - same).abs().to_numpy().max()) > 1e-3
