"""Exact effects of components in one setup, one restoration for each; or of those alone that are named."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from workbench.models.load import LoadedModel
from workbench.tracing.component_units import (
    UNIT_SITES,
    AttributionUnit,
    How,
    Measured,
    OnLayerOfUnit,
    Summed,
    parts_of,
    summed,
)
from workbench.tracing.restoration import Restoration
from workbench.tracing.runs import Runs
from workbench.tracing.setup import Setup

_Place = tuple[AttributionUnit, int, int | None, int | None]
"""A unit, a layer, a head, group or neuron, and a position; None for wholes and for all positions."""


def by_patching(model: LoadedModel, runs: Runs, setup: Setup, how: How, on_layer: OnLayerOfUnit | None) -> Measured:
    """Effects by unit, [layer, ...]; NaN where a component was not asked for.

    Args:
        model, runs, setup: What is run.
        how: What is patched.
        on_layer: Is told what is finished.
    """
    told = None if setup.steps else on_layer  # of whole answers, once all their tokens are there
    values, at_worst, at_best = summed(
        setup, lambda one: _patched(model, runs, one, how, told), per_position=how.per_position
    )
    divisor = setup.divisor(at_best, at_worst)
    setup.warn_if_alike(at_best, at_worst)
    by_unit: dict[AttributionUnit, Tensor] = {unit: (of / divisor).mean(0) for unit, of in values.items()}
    if on_layer is not None and setup.steps:
        for layer in range(model.shape.n_layers):
            for unit, of in by_unit.items():
                if how.parts(unit, layer, model.shape):
                    on_layer(unit, layer, of[layer])
    return Measured(setup.prompt, by_unit, at_worst, at_best)


def _patched(model: LoadedModel, runs: Runs, setup: Setup, how: How, on_layer: OnLayerOfUnit | None) -> Summed:
    """``by_patching`` of one prediction, by sample: [samples, layer, ...]."""
    samples, tokens = setup.corrupted.shape[:2]
    positions = range(tokens) if how.per_position else (None,)
    places: list[_Place] = [
        (unit, layer, part, at)
        for unit in how.units
        for layer in range(model.shape.n_layers)
        for part in how.parts(unit, layer, model.shape)
        for at in positions
    ]
    restorations = [
        Restoration("kv" if unit == "kv" else UNIT_SITES[unit][0], range(layer, layer + 1), at, part)
        for unit, layer, part, at in places
    ]
    values: dict[AttributionUnit, Tensor] = {unit: _empty(model, setup, how, unit) for unit in how.units}
    missing = Counter({of: samples * n for of, n in Counter((unit, layer) for unit, layer, *_ in places).items()})
    baseline = torch.zeros(samples)
    with torch.no_grad():
        clean = runs.record(setup, how.sites)
        setup = setup.against(clean.logits)
        at_best = float(setup.measure(clean.logits))
        for part in runs.effects(setup, clean, restorations):
            baseline[part.samples] = part.baseline.float().cpu()
            for i, effect in zip(part.cells, part.effects.float().cpu(), strict=True):
                unit, layer, head, at = places[i]
                of_layer = values[unit][part.samples, layer]
                of_part = of_layer if head is None else of_layer[:, head]
                of_part[:] = _at(of_part, effect, at, setup.start)
                missing[unit, layer] -= len(effect)
                if on_layer is not None and not missing[unit, layer]:
                    divisor = setup.divisor(at_best, float(baseline.mean()))
                    on_layer(unit, layer, (values[unit][:, layer] / divisor).mean(0))
    return values, float(baseline.mean()), at_best


def _at(before: Tensor, effect: Tensor, at: int | None, start: int) -> Tensor:
    """Effects [samples], or those of all positions [samples, position] with one filled in."""
    if at is None:
        return effect
    before = before.clone()
    before[:, at + start] = effect
    return before


def _empty(model: LoadedModel, setup: Setup, how: How, unit: AttributionUnit) -> Tensor:
    """Zeros [samples, layer, ...], with NaN for the components that are not patched."""
    n, shape = parts_of(unit, model.shape), model.shape
    parts = () if n is None else (n,)
    positions = (len(setup.prompt.token_ids),) if how.per_position else ()
    values = torch.zeros(len(setup.corrupted), shape.n_layers, *parts, *positions)
    if how.components is None:
        return values
    values.fill_(float("nan"))
    for layer in range(shape.n_layers):
        for part in how.parts(unit, layer, shape):
            values[(slice(None), layer, *(() if part is None else (part,)))] = 0
    return values
