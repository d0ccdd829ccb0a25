"""What components write and what is lost without them: direct effects, ablation, attention patterns of heads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.plain_hooks import FACTS, FRANCE, SPAIN, Plain, head, single, tiny
from tests.helpers.tiny_facts import MAKERS, by_hand, edit_of, knowing, some_gates
from tests.helpers.traces import hooked
from workbench.editing.applied import Dial, applied
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.tracing.ablation import ablate
from workbench.tracing.attention import attention_pattern
from workbench.tracing.attribution import attribute
from workbench.tracing.dla import head_outputs
from workbench.types import TracedPrompt


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


# Direct effects


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


def bias_effect(model: LoadedModel, family: str, layer: int, prompt: TracedPrompt) -> float:
    """What the bias of a layer's attention output projection writes onto the answer direction."""
    hf = model.hf
    norm = hf.base_model.ln_f if family == "gpt2" else hf.base_model.norm
    caught: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda m, a: caught.append(a[0][0, -1]))
    with torch.no_grad():
        hf(torch.tensor([prompt.token_ids]))
    handle.remove()
    table, base = model.base.hf.get_output_embeddings().weight, model.base.hf.base_model
    block = base.h[layer].attn.c_proj if family == "gpt2" else base.layers[layer].self_attn.o_proj
    gain = base.ln_f.weight if family == "gpt2" else base.norm.weight
    direction = (table[prompt.answer_id] - table[prompt.other_id]) * gain
    if family == "gpt2":
        direction = direction - direction.mean()
        scale = (caught[0].var(unbiased=False) + norm.eps).sqrt()
    else:
        scale = (caught[0].pow(2).mean() + norm.variance_epsilon).sqrt()
    bias = getattr(block, "bias", None)
    return 0.0 if bias is None else float(bias @ direction / scale)


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
    layers = attribute(model, FRANCE, "attn", **options)
    rest = direct_rest(model, family, heads.prompts[0])
    with torch.no_grad():
        logits = model.hf(torch.tensor([heads.prompts[0].token_ids])).logits[0, -1]
    difference = float(logits[heads.prompts[0].answer_id] - logits[heads.prompts[0].other_id])
    assert heads.clean == pytest.approx(difference, abs=2e-4)
    assert float(heads.values.sum() + mlps.values.sum()) + rest == pytest.approx(difference, abs=2e-3)
    # An attention layer is its heads, and the bias of its output projection.
    biases = torch.tensor([bias_effect(model, family, layer, heads.prompts[0]) for layer in range(3)])
    torch.testing.assert_close(layers.values, heads.values.sum(1) + biases, atol=2e-3, rtol=1e-4)
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
        expected = plain.run(plain.clean, changes)
        assert found.clean == pytest.approx(clean, abs=1e-4)
        assert found.ablated == pytest.approx(expected, abs=1e-4)
        assert found.effect == pytest.approx(clean - expected, abs=1e-4)
        assert str(found.selection) == text


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_ablated_queries_are_those_of_a_plain_hook(family: str) -> None:
    """Against a plain hook that sets one head's queries to 0."""
    model = single(family)
    name = {"llama": "model.layers.1.self_attn.q_proj", "gpt2": "transformer.h.1.attn.c_attn"}[family]
    width = model.shape.d_head

    def zero(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., 2 * width : 3 * width] = 0
        return value

    prompt = traced_prompt(model, FRANCE, form="cloze")
    with torch.no_grad(), hooked(model.hf, {name: (False, zero)}):
        logits = model.hf(torch.tensor([prompt.token_ids])).logits[0, -1]
    found = ablate(model, FRANCE, "L1Q2", form="cloze")
    assert found.ablated == pytest.approx(float(logits[prompt.answer_id] - logits[prompt.other_id]), abs=1e-4)
    assert abs(found.effect) > 1e-3
    swapped = ablate(model, FRANCE, "L1Q2", form="cloze", ablation="swap", partner=SPAIN, pool=FACTS)
    assert swapped.ablated != pytest.approx(swapped.clean, abs=1e-4)


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
        ("L1GATEUP", "L1GATEUP cannot be ablated: choose heads"),
        ("L1KV2", "L1KV2 does not exist: the model has 6 query heads but only 2 key-value groups"),
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
