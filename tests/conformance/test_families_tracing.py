"""Every family: causal traces, attribution and ablation against plain hooks on the plain model; heads are heads."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.families import TINY, model_of
from tests.helpers.family_checks import check
from tests.helpers.family_plain import Change, Place, Plain
from tests.helpers.slow_cells import slow_trace
from tests.helpers.tiny_facts import capitals
from workbench.facts.known import pool_or_bundled
from workbench.models.engine import Resumable
from workbench.models.load import LoadedModel
from workbench.tracing import restore
from workbench.tracing.attribution import AttributionUnit
from workbench.tracing.causal import TraceSite, causal_trace
from workbench.tracing.corruption import set_up
from workbench.tracing.restoration import SEVERED
from workbench.tracing.setup import Setup, SetupOptions
from workbench.types import Component, FactSet, Kind
from workbench.types.effect import Corruption

FACTS = capitals()
FRANCE, SPAIN = FACTS[0], FACTS[2]
SITES: tuple[TraceSite, ...] = ("resid", "mlp", "attn")
HEAD_SITES: tuple[TraceSite, ...] = ("z", "q", "k", "v")
UNITS: tuple[AttributionUnit, ...] = ("head", "mlp", "attn", "neuron")


def set_up_of(model: LoadedModel, corruption: Corruption, samples: int) -> Setup:
    """What the trace of France's capital begins with: the corrupted embeddings above all."""
    options = SetupOptions(
        corruption=corruption,
        metric="logit_diff",
        normalise=False,
        form="cloze",
        token="answer",
        samples=samples,
        noise=3.0,
        seed=0,
        partner=SPAIN if corruption == "swap" else None,
        pool=pool_or_bundled(FactSet(FACTS)),
    )
    return set_up(model, Resumable(model), FRANCE, options)


@check("trace")
def test_traces_are_plain_hooks(name: str) -> None:
    model = model_of(name)
    cases: tuple[tuple[Corruption, int, int], ...] = (("noise", 2, 2), ("swap", 1, 1))
    for corruption, samples, window in cases:
        options: dict[str, Any] = {"partner": SPAIN} if corruption == "swap" else {"samples": samples}
        maps = causal_trace(
            model,
            FRANCE,
            SITES,
            corruption=corruption,
            metric="logit_diff",
            window=window,
            form="cloze",
            pool=FACTS,
            progress=False,
            **options,
        )
        setup = set_up_of(model, corruption, samples)
        for site in SITES:
            wanted = slow_trace(model, FRANCE, setup, site, 1 if site == "resid" else window)
            torch.testing.assert_close(maps[site].values, wanted, atol=2e-3, rtol=1e-3)
            assert wanted.abs().max() > 0.05, "an effect that could be missed"


@check("sites")
def test_heads_and_severed_traces_are_plain_hooks(name: str) -> None:
    model = model_of(name)
    options: dict[str, Any] = {"metric": "logit_diff", "form": "cloze", "pool": FACTS, "progress": False}
    swap, noise = {"corruption": "swap", "partner": SPAIN}, {"samples": 2}
    maps = causal_trace(model, FRANCE, HEAD_SITES, **swap, **options)
    setup = set_up_of(model, "swap", 1)
    for site in HEAD_SITES:
        wanted = slow_trace(model, FRANCE, setup, site)
        torch.testing.assert_close(maps[site].values, wanted, atol=2e-3, rtol=1e-3)
        assert wanted.abs().max() > 0.02, f"an effect of {site} that could be missed"
    setup = set_up_of(model, "noise", 2)
    for severed in SEVERED:
        sites: tuple[TraceSite, ...] = ("resid", "v")
        maps = causal_trace(model, FRANCE, sites, severed=severed, **noise, **options)
        for site in sites:
            wanted = slow_trace(model, FRANCE, setup, site, severed=severed)
            torch.testing.assert_close(maps[site].values, wanted, atol=2e-3, rtol=1e-3)


@check("path")
def test_the_fast_path_is_taken_where_it_is_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, passes = model_of(name), list[int]()
    plainly = restore.plain_effects

    def counted(*args: Any) -> Any:
        passes.append(1)
        return plainly(*args)

    monkeypatch.setattr(restore, "plain_effects", counted)
    causal_trace(model, FRANCE, "mlp", corruption="swap", partner=SPAIN, form="cloze", pool=FACTS, progress=False)
    assert bool(passes) == bool(TINY[name].plain), TINY[name].plain


@check("head")
def test_slices_are_heads(name: str) -> None:
    """Turning the sign of a head's query entries changes what that head puts out, and nothing else at the input of the
    output projection; of a group's key or value entries, its heads. A change of sign passes through norms over all
    heads."""
    model = model_of(name)
    plain, shape, layer = Plain(model, FRANCE), model.shape, 1
    before = plain.states(("z", layer))["z", layer]
    kinds: tuple[tuple[Kind, int], ...] = (("Q", shape.n_heads), ("K", shape.n_kv_heads), ("V", shape.n_kv_heads))
    for kind, n in kinds:
        for i in range(n):
            component = Component(layer, kind, i)
            ((site, span),) = component.slices(shape).items()
            entries = model.architecture.gate_module(layer, site).places(span)
            kept: list[Tensor] = []
            with torch.no_grad():
                plain.logits({(site, layer): turned(entries), ("z", layer): keeping(kept)})
            moved = (kept[0] - before).view(len(before), shape.n_heads, shape.d_head).abs().amax((0, 2))
            mine = (i,) if kind == "Q" else shape.heads_of(i)
            for head in range(shape.n_heads):
                assert (float(moved[head]) > 1e-3) == (head in mine), (component, head, moved)
    entries = model.architecture.gate_module(layer, "z").places(Component(layer, "H", 1).slices(shape)["z"])
    assert entries.tolist() == list(range(shape.d_head, 2 * shape.d_head))


def turned(entries: Tensor) -> Change:
    def change(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, entries] = -value[:, entries]
        return value

    return change


def keeping(kept: list[Tensor]) -> Change:
    def keep(value: Tensor) -> Tensor:
        kept.append(value.clone())
        return value

    return keep


@check("attribution")
def test_attribution_is_a_derivative(name: str, record_property: Callable[[str, object], None]) -> None:
    """Against the derivative, by plain hooks, of moving each component's entries from corrupted to clean; in double
    precision, and for one head against a finite difference as well."""
    model = model_of(name, double=True)
    units: list[AttributionUnit] = [unit for unit in UNITS if unit != "neuron" or not model.shape.no_neurons]
    options: dict[str, Any] = {"corruption": "swap", "partner": SPAIN, "form": "cloze", "pool": FACTS}
    maps = wb.attribute(model, FRANCE, units, progress=False, **options)
    setup = set_up_of(model, "swap", 1)
    for unit in units:
        wanted = slopes(model, setup, unit)
        torch.testing.assert_close(maps[unit].values, wanted.float(), atol=2e-3, rtol=2e-3)
        assert wanted.abs().max() > 1e-3
    steps = [[by if at == (1, 2) else 0.0 for at in grid(model, "head")] for by in (1e-3, -1e-3)]
    up, down = (float(moving(model, setup, "head", step)) for step in steps)
    slope = (up - down) / 2e-3
    assert abs(slope - float(maps["head"].values[1, 2])) < 5e-3 * max(1, abs(slope))
    if model.shape.no_neurons:
        with pytest.raises(ValueError, match=re.escape(model.shape.no_neurons)):
            wb.attribute(model, FRANCE, "neuron", progress=False, **options)
        record_property("without", f"no neurons: {model.shape.no_neurons}")


SITE_OF: dict[str, str] = {"head": "z", "mlp": "mlp", "attn": "attn", "neuron": "post"}


def grid(model: LoadedModel, unit: str) -> list[tuple[int, int]]:
    """Layers and indices of a unit."""
    n = {"head": model.shape.n_heads, "neuron": model.shape.d_mlp}.get(unit, 1)
    return [(layer, i) for layer in range(model.shape.n_layers) for i in range(n)]


def moving(model: LoadedModel, setup: Setup, unit: str, by: Any) -> Tensor:
    """The corrupted run's difference with every component moved towards its clean state by a number of its own."""
    plain, site, n = Plain(model, FRANCE, setup.prompt), SITE_OF[unit], model.shape.n_layers
    places: list[Place] = [(site, layer) for layer in range(n)]
    start = torch.cat([setup.clean[0, : setup.start], setup.corrupted[0]])
    clean, corrupted = plain.states(*places), plain.states(*places, start=start)
    by = torch.as_tensor(by, dtype=torch.float64).view(n, -1)

    def mover(place: Place) -> Change:
        difference, share = clean[place] - corrupted[place], by[place[1]]

        def move(value: Tensor) -> Tensor:
            parts = difference.view(len(difference), len(share), -1)
            return value + (share[None, :, None] * parts).reshape(difference.shape)

        return move

    return plain.difference(plain.logits({place: mover(place) for place in places}, start=start))


def slopes(model: LoadedModel, setup: Setup, unit: str) -> Tensor:
    """The derivatives of ``moving`` at 0, in the shape of the map."""
    by = torch.zeros(len(grid(model, unit)), dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(moving(model, setup, unit, by), by)
    shaped = gradient.view(model.shape.n_layers, -1)
    return shaped if unit in ("head", "neuron") else shaped[:, 0]


@check("ablation")
def test_ablations_are_plain_hooks(name: str, record_property: Callable[[str, object], None]) -> None:
    model = model_of(name)
    parts = ["L1H2", "L1Q2", "L0V0", "L2K0", "L1ATTN", "L2MLP", *([] if model.shape.no_neurons else ["L0N5"])]
    prompt = Plain(model, FRANCE).prompt
    setup = set_up_of(model, "swap", 1)
    plain = Plain(model, FRANCE, setup.prompt)
    whole = torch.cat([setup.clean[0, : setup.start], setup.corrupted[0]])
    for text in parts:
        site, layer, entries = place_of(model, text)
        for ablation in ("zero", "swap"):
            found = wb.ablate(model, FRANCE, text, ablation=ablation, partner=SPAIN, form="cloze", pool=FACTS, k=1)
            other = plain.states((site, layer), start=whole)[site, layer] if ablation == "swap" else None
            with torch.no_grad():
                wanted = plain.difference(plain.logits({(site, layer): replaced(entries, other)}))
                clean = plain.difference(plain.logits())
            assert found.ablated == pytest.approx(float(wanted), abs=2e-3), (text, ablation)
            assert found.clean == pytest.approx(float(clean), abs=2e-3)
    assert prompt.token_ids == setup.prompt.token_ids
    if model.shape.no_neurons:
        with pytest.raises(ValueError, match=re.escape(model.shape.no_neurons)):
            wb.ablate(model, FRANCE, "L1N5", form="cloze", pool=FACTS)
        record_property("without", f"no neurons: {model.shape.no_neurons}")


def place_of(model: LoadedModel, text: str) -> tuple[str, int, Tensor | slice]:
    """The site, the layer and the entries of a component."""
    component = Component.parse(text)
    wholes = {"MLP": "mlp", "ATTN": "attn"}
    if component.kind in wholes:
        return wholes[component.kind], component.layer, slice(None)
    ((site, span),) = component.slices(model.shape).items()
    return site, component.layer, model.architecture.gate_module(component.layer, site).places(span)


def replaced(entries: Tensor | slice, other: Tensor | None) -> Change:
    def change(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, entries] = 0 if other is None else other[:, entries]
        return value

    return change


@pytest.mark.parametrize("name", ["llama", "falcon", "opt"])
def test_a_model_is_as_it_was(name: str) -> None:
    model = model_of(name)
    before = copy.deepcopy(model.hf.state_dict())
    causal_trace(model, FRANCE, SITES, form="cloze", pool=FACTS, samples=1, progress=False)
    assert all(torch.equal(before[key], value) for key, value in model.hf.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())
