"""What components write: their parts of the logits, which add up to the model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.plain_hooks import FACTS, FRANCE, SITES, SPAIN, single
from tests.helpers.tiny_facts import FAMILIES, by_hand, edit_of, some_gates
from workbench.editing.applied import Dial
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.tracing.attribution import attribute
from workbench.tracing.writes import writes
from workbench.types import Writes


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def every_token(model: LoadedModel, component: str, **options: Any) -> Tensor:
    """What a component adds to each logit, by token id."""
    n = model.shape.d_vocab
    found = writes(model, component, k=n, **options)
    values = torch.zeros(n)
    values[[one.id for one in found.raised]] = torch.tensor([one.value for one in found.raised])
    assert [one.value for one in found.lowered] == [one.value for one in reversed(found.raised)]
    return values


def last_states(model: LoadedModel, ids: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Of a plain model: the embeddings at the last position, the residual stream before the final norm, the logits."""
    hf = model.hf
    norm = hf.base_model.ln_f if hasattr(hf.base_model, "ln_f") else hf.base_model.norm
    kept: list[Tensor] = []
    first = hf.get_submodule(f"{model.architecture.family.layers}.0")
    handles = [m.register_forward_pre_hook(lambda m, args: kept.append(args[0][0, -1])) for m in (first, norm)]
    with torch.no_grad():
        logits = hf(torch.tensor([list(ids)])).logits[0, -1]
    for handle in handles:
        handle.remove()
    return kept[0], kept[1], logits


def read(model: LoadedModel, vector: Tensor, scale: Any) -> Tensor:
    """A vector through the final norm's gain and the output embeddings of a plain model, without the mean."""
    base = model.base.hf
    layer_norm = hasattr(base.base_model, "ln_f")
    gain = (base.base_model.ln_f if layer_norm else base.base_model.norm).weight
    vector = vector - vector.mean() if layer_norm else vector
    logits = base.get_output_embeddings().weight @ (vector * gain / scale)
    return logits - logits.mean()


def scale_of(model: LoadedModel, last: Tensor) -> Tensor:
    inner = model.base.hf.base_model
    if hasattr(inner, "ln_f"):
        return (last.var(unbiased=False) + inner.ln_f.eps).sqrt()
    return (last.pow(2).mean() + inner.norm.variance_epsilon).sqrt()


@FAMILIES
@pytest.mark.parametrize("edited", [False, True])
def test_attention_layers_mlps_and_embeddings_add_up_to_the_logits(family: str, edited: bool) -> None:
    model = single(family)
    if edited:
        model = Dial(model, edit_of(model, some_gates(model, (0, "z"), (1, "post")))).at(1.0)
    options: dict[str, Any] = {"fact": FRANCE, "form": "cloze"}
    prompt = traced_prompt(model, FRANCE, form="cloze")
    embedded, last, logits = last_states(model, prompt.token_ids)
    total = read(model, embedded, scale_of(model, last))
    for layer in range(model.shape.n_layers):
        total = total + every_token(model, f"L{layer}ATTN", **options) + every_token(model, f"L{layer}MLP", **options)
    if family == "gpt2":  # its norm has a bias
        constant = model.base.hf.get_output_embeddings().weight @ model.base.hf.base_model.ln_f.bias
        total = total + constant - constant.mean()
    torch.testing.assert_close(total, logits - logits.mean(), atol=2e-3, rtol=1e-3)


@FAMILIES
def test_heads_and_neurons_equal_plain_hooks(family: str) -> None:
    model = single(family)
    prompt = traced_prompt(model, FRANCE, form="cloze")
    _, last, _ = last_states(model, prompt.token_ids)
    scale = scale_of(model, last)
    stem = "transformer.h.1" if family == "gpt2" else "model.layers.1"
    modules = {site: model.hf.get_submodule(f"{stem}.{SITES[family][site]}") for site in ("z", "post")}
    kept: dict[str, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda m, args, site=site: kept.update({site: args[0][0, -1]}))
        for site, module in modules.items()
    ]
    with torch.no_grad():
        model.hf(torch.tensor([prompt.token_ids]))
    for handle in handles:
        handle.remove()
    weights = {s: m.weight if family == "gpt2" else m.weight.T for s, m in modules.items()}  # [in, d_model]
    width = model.shape.d_head
    at = slice(2 * width, 3 * width)
    found = every_token(model, "L1H2", fact=FRANCE, form="cloze")
    torch.testing.assert_close(found, read(model, kept["z"][at] @ weights["z"][at], scale), atol=1e-4, rtol=1e-3)
    found = every_token(model, "L1N7", fact=FRANCE, form="cloze")
    torch.testing.assert_close(found, read(model, kept["post"][7] * weights["post"][7], scale), atol=1e-4, rtol=1e-3)
    one = writes(model, "L1N7", fact=FRANCE, form="cloze")
    assert one.activation == pytest.approx(float(kept["post"][7]), abs=1e-5) and one.prompt == prompt
    free = every_token(model, "L1N7")
    torch.testing.assert_close(free, read(model, weights["post"][7], 1.0), atol=1e-4, rtol=1e-3)
    assert writes(model, "L1N7").activation is None and "activation of 1" in writes(model, "L1N7").unit


def test_it_is_direct_attribution_to_all_tokens() -> None:
    model = single()
    options: dict[str, Any] = {"form": "cloze", "pool": FACTS, "progress": False}
    heads = attribute(model, FRANCE, method="dla", **options)
    answer, other = heads.prompts[0].answer_id, heads.prompts[0].other_id
    for layer, head in ((0, 4), (1, 3), (2, 0)):
        found = every_token(model, f"L{layer}H{head}", fact=FRANCE, form="cloze")
        assert float(found[answer] - found[other]) == pytest.approx(float(heads.values[layer, head]), abs=1e-3)


def test_by_hand() -> None:
    """The one head that knows writes Paris for France and Madrid for Spain: 4 and -4 logits, 0 for all others."""
    for fact, token in ((FRANCE, " Paris"), (SPAIN, " Madrid")):
        found = writes(by_hand(), "L1H0", fact=fact, form="cloze", k=1)
        assert (found.raised[0].token, found.raised[0].value) == (token, pytest.approx(4, abs=1e-4))
        assert found.lowered[0].value == pytest.approx(-4, abs=1e-4)
    assert not every_token(by_hand(), "L1H1", fact=FRANCE, form="cloze").any()


def test_words_and_table() -> None:
    found = writes(single(), "L0H4", fact=FRANCE, form="cloze", k=2)
    up, down = ([one.token for one in side] for side in (found.raised, found.lowered))
    assert found.words == f"L0H4 raises {up[0]!r}, {up[1]!r} and lowers {down[0]!r}, {down[1]!r} after 'is'."
    assert repr(found) == f"Writes({found.words})"
    assert found.to_frame()["token"].tolist() == [*up, *down[::-1]] and found.unit == "logits"
    assert isinstance(found, Writes) and writes(single(), "L0N4", k=1).words.endswith("where it is active.")


@pytest.mark.parametrize(
    ("component", "options", "message"),
    [
        ("L1H0", {}, r"What L1H0 writes depends on the text: give a fact=\. Only a neuron"),
        ("L1MLP", {}, "What L1MLP writes depends on the text"),
        ("L1KV0", {"fact": FRANCE}, "L1KV0 is a key-value group, not a query head: it is shared by L1H0, L1H1, L1H2"),
        ("L1GATEUP", {"fact": FRANCE}, "L1GATEUP has no output of its own"),
        ("L1Q0", {"fact": FRANCE}, "L1Q0 has no output of its own"),
        ("L9H0", {"fact": FRANCE}, "does not exist"),
        ("L1N5", {"k": 0}, "k must be a whole number of tokens from 1 to"),
        ("L1N5", {"form": "chat"}, "form= is the form of a fact's text"),
        ("x", {}, "'x' is not a component"),
    ],
)
def test_what_writes_nothing(component: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        writes(single(), component, **options)
