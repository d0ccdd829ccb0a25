"""Every family: noise, direct effects, the lens, and the self-check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.families import TINY, model_of
from tests.helpers.family_checks import check
from tests.helpers.family_plain import Plain
from tests.helpers.tiny_facts import capitals
from workbench.facts.known import pool_or_bundled
from workbench.models.engine import Resumable
from workbench.models.load import LoadedModel
from workbench.tracing.attribution import attribute
from workbench.tracing.corruption import set_up
from workbench.tracing.dla import decomposed
from workbench.tracing.lens import lens
from workbench.tracing.lens_grid import lens_grid
from workbench.tracing.setup import SetupOptions
from workbench.tracing.writes import writes

FACTS = capitals()
FRANCE = FACTS[0]
OPTIONS: dict[str, Any] = {"form": "cloze", "pool": FACTS, "progress": False}


@check("noise")
def test_noise_is_as_large_as_asked(name: str) -> None:
    model, samples, asked = model_of(name), 400, 2.5
    options = SetupOptions(
        corruption="noise",
        metric="logit_diff",
        form="cloze",
        token="answer",
        samples=samples,
        noise=asked,
        seed=0,
        partner=None,
        pool=pool_or_bundled(FACTS),
    )
    setup = set_up(model, Resumable(model), FRANCE, options)
    entering = Plain(model, FRANCE).states(("resid", 0))["resid", 0]
    subject = list(setup.prompt.subject)
    noise = setup.corrupted[:, [at - setup.start for at in subject]] - entering[subject]
    assert noise.shape == (samples, len(subject), model.shape.d_model)
    assert float(noise.std() / entering[subject].std()) == pytest.approx(asked, rel=0.05)


def own_difference(model: LoadedModel, plain: Plain) -> float:
    """The model's own logit difference, and where it caps its logits, what it is before that."""
    with torch.no_grad():
        logits = plain.logits().double()
    cap = model.architecture.traits.logit_cap
    if cap is not None:
        assert float(logits.abs().max()) > 0.1 * cap, "a cap that does nothing tests nothing"
        logits = cap * torch.atanh(logits / cap)
    return float(plain.difference(logits))


@check("parts")
def test_parts_add_up_to_the_logit_difference(name: str, record_property: Callable[[str, object], None]) -> None:
    model = model_of(name)
    plain = Plain(model, FRANCE)
    total = own_difference(model, plain)
    found = decomposed(model, plain.prompt, "head", "attn", "mlp")
    wanted = pytest.approx(total, abs=2e-3)
    # A layer's attention is its heads and a bias, and the constant part has the biases.
    heads, layers, mlps = (found.values[unit] for unit in ("head", "attn", "mlp"))
    assert heads.shape == (model.shape.n_layers, model.shape.n_heads)
    assert float(found.sublayers.sum()) + found.embedding + found.constant == wanted
    assert found.total == wanted and found.capped == (model.architecture.traits.logit_cap is not None)
    biases = _of_biases(model, plain)
    assert float(heads.sum()) + biases["attn"] == pytest.approx(float(layers.sum()), abs=2e-3)
    of_maps = attribute(model, FRANCE, ("head", "mlp"), method="dla", **OPTIONS)
    assert float(of_maps["head"].values.sum() + of_maps["mlp"].values.sum()) + found.embedding == pytest.approx(
        total - found.constant + biases["mlp"], abs=2e-3
    )
    assert of_maps["head"].clean == wanted
    assert ("before the cap" in of_maps["head"].metric_words.title) == found.capped
    if model.shape.no_neurons:
        with pytest.raises(ValueError, match="no neurons to attribute to") as refusal:
            attribute(model, FRANCE, "neuron", method="dla", **OPTIONS)
        assert model.shape.no_neurons in str(refusal.value)
        record_property("without", "neurons")
        return
    neurons = decomposed(model, plain.prompt, "neuron").values["neuron"]
    assert neurons.shape == (model.shape.n_layers, model.shape.d_mlp)
    assert float(neurons.sum()) + biases["mlp"] == pytest.approx(float(mlps.sum()), abs=2e-3)


def _of_biases(model: LoadedModel, plain: Plain) -> dict[str, float]:
    """What the biases of all output projections of attention and of MLPs write, by hand."""
    out = {"attn": 0.0, "mlp": 0.0}
    for part, site in (("attn", "z"), ("mlp", "post")):
        for layer in range(model.shape.n_layers):
            if part == "mlp" and model.shape.no_neurons:
                continue
            name, _ = plain.module(site, layer)
            module: Any = model.hf.get_submodule(name)
            if module.bias is not None:
                out[part] += direct(model, plain, part, layer, module.bias)
    return out


def direct(model: LoadedModel, plain: Plain, part: str, layer: int, vector: Tensor) -> float:
    """What a vector that a sublayer's output projection puts out adds to the logit difference, by hand: through the
    norm after the sublayer, if there is one, the residual factor, the final norm, the output embeddings and their
    factor, with each norm at its scale on the text."""
    traits, family = model.architecture.traits, model.architecture.family
    with torch.no_grad():
        if traits.post_norms:
            path, _ = plain.module(part, layer)
            vector = frozen(plain, path, vector)
        vector = traits.residual_scale * vector
        vector = frozen(plain, family.norm, vector)
        table = model.hf.get_output_embeddings().weight
        return float(traits.logit_scale * (plain.difference(table @ vector)))


def frozen(plain: Plain, path: str, vector: Tensor) -> Tensor:
    """A vector through a norm at the scale that it has on the text, by the formula of its class, without its bias."""
    norm: Any = plain.hf.get_submodule(path)
    entered: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda module, args: entered.append(args[0].reshape(-1, len(vector))[-1]))
    plain.logits()
    handle.remove()
    state = entered[0]
    weight = getattr(norm, "weight", None)
    centres = "RMS" not in type(norm).__name__ and not type(norm).__name__.startswith("T5")
    gain = torch.ones_like(state) if weight is None else weight
    if type(norm).__name__.startswith("Gemma"):
        gain = 1 + gain
    if centres:
        state, vector = state - state.mean(), vector - vector.mean()
    eps = next((getattr(norm, n) for n in ("eps", "variance_epsilon") if hasattr(norm, n)), 1e-5)  # OLMo's is fixed
    return vector * gain / (state.pow(2).mean() + eps).sqrt()


@check("writes")
def test_what_components_write_is_their_direct_effect(name: str) -> None:
    model = model_of(name)
    plain = Plain(model, FRANCE)
    answer, other = plain.prompt.answer_id, plain.prompt.other_id
    assert other is not None
    found = decomposed(model, plain.prompt, "head", "attn", "mlp")
    last = model.shape.n_layers - 1
    single = (
        [("L1H4", found.values["head"][1, 4]), (f"L{last}H0", found.values["head"][last, 0])]
        if (model.shape.n_heads > 4)
        else [("L1H3", found.values["head"][1, 3])]
    )
    layers = [("L0ATTN", found.values["attn"][0]), ("L1MLP", found.values["mlp"][1])]
    if not model.shape.no_neurons:
        layers.append(("L1N7", decomposed(model, plain.prompt, "neuron").values["neuron"][1, 7]))
    for component, value in [*single, *layers]:
        written = writes(model, component, fact=FRANCE, form="cloze", k=model.shape.d_vocab)
        by_token = {one.id: one.value for one in written.raised}
        assert by_token[answer] - by_token[other] == pytest.approx(float(value), abs=2e-3)
    # A head by hand: its slice of what enters the output projection, through the projection's weight.
    width = model.shape.d_head
    state = plain.states(("z", 1))["z", 1][-1].clone()
    state[: 3 * width], state[4 * width :] = 0, 0
    module: Any = model.hf.get_submodule(plain.module("z", 1)[0])
    with torch.no_grad():
        alone = module(state[None])[0] - module(torch.zeros_like(state)[None])[0]
    assert float(found.values["head"][1, 3]) == pytest.approx(direct(model, plain, "attn", 1, alone), abs=2e-3)


@check("lens")
def test_the_last_row_of_the_lenses_is_the_models_output(name: str) -> None:
    model = model_of(name)
    plain = Plain(model, FRANCE)
    with torch.no_grad():
        logits = model.hf(plain.ids).logits[0]
    own = logits.softmax(-1)
    read = lens(model, FRANCE, form="cloze")
    assert read.probabilities["old"][-1] == pytest.approx(float(own[-1, plain.prompt.answer_id]), rel=1e-3)
    assert read.probabilities["new"][-1] == pytest.approx(float(own[-1, plain.prompt.other_id]), rel=1e-3, abs=1e-9)
    assert read.ranks["old"][-1] == int((logits[-1] > logits[-1, plain.prompt.answer_id]).sum())
    grid = lens_grid(model, FRANCE, form="cloze")
    torch.testing.assert_close(grid.probabilities[-1], own[:, plain.prompt.answer_id], rtol=1e-3, atol=1e-7)
    assert [cell[0].id for cell in grid.top[-1]] == logits.argmax(-1).tolist()
    middle = own.new_tensor(read.probabilities["old"])
    assert len(middle) == model.shape.n_layers + 1 and float((middle - middle[-1]).abs().max()) > 1e-6


@check("support")
def test_the_self_check_passes(name: str) -> None:
    support = model_of(name).support
    assert support.tested and support.passed, support
    assert support.family == TINY[name].family


def test_norms_after_sublayers_and_factors_matter() -> None:
    """Without them the parts of these tiny models would be others, so the checks above can fail."""
    for name in ("gemma 2", "olmo 2", "granite", "cohere"):
        model = model_of(name)
        plain = Plain(model, FRANCE)
        found = decomposed(model, plain.prompt, "attn").values["attn"]
        naive = []
        with torch.no_grad():
            table = model.hf.get_output_embeddings().weight
            for layer in range(model.shape.n_layers):
                module: Any = model.hf.get_submodule(plain.module("z", layer)[0])
                out = module(plain.states(("z", layer))["z", layer][-1][None])[0]
                naive.append(float(plain.difference(table @ frozen(plain, model.architecture.family.norm, out))))
        assert float((found - torch.tensor(naive)).abs().max()) > 0.1, name
