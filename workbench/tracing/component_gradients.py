"""First-order effects of components in one setup: by one gradient, or by the mean of several (integrated gradients)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from workbench.models.engine import HookSite, Recording
from workbench.models.load import LoadedModel
from workbench.tracing.component_units import UNIT_SITES, AttributionUnit, How, Measured, Summed, parts_of, summed
from workbench.tracing.replacements import fused_entries
from workbench.tracing.runs import Runs
from workbench.tracing.setup import Setup
from workbench.types.torch_settings import own_torch_settings

Place = tuple[HookSite, int]


@own_torch_settings()
def by_gradient(model: LoadedModel, runs: Runs, setup: Setup, how: How) -> Measured:
    """Effects by one backward pass for all units, or by the mean gradient over several.

    Args:
        model, runs, setup: What is run.
        how: What is attributed to. Of ``"ig"`` the gradients are those at shares 1/steps to 1 of the clean inputs, or
            of a layer's clean activations in the corrupted run.
    """
    by_unit, at_worst, at_best = summed(
        setup, lambda one: _gradient_effects(model, runs, one, how), per_position=how.per_position
    )
    divisor = setup.divisor(at_best, at_worst)
    setup.warn_if_alike(at_best, at_worst)
    return Measured(setup.prompt, {unit: of / divisor for unit, of in by_unit.items()}, at_worst, at_best)


def _gradient_effects(model: LoadedModel, runs: Runs, setup: Setup, how: How) -> Summed:
    """``by_gradient`` of one prediction."""
    with torch.no_grad():
        clean = runs.record(setup, how.sites)
    setup = setup.against(clean.logits)
    run, gradients = runs.gradients(setup, how.sites)
    if how.method == "ig" and how.along == "inputs":
        gradients = _along_inputs(runs, setup, how)
    elif how.method == "ig":
        gradients = _along_activations(model, runs, setup, clean, run, how)
    by_unit: dict[AttributionUnit, Tensor] = {}
    for unit in how.units:
        rows: list[Tensor] = []
        for layer in range(model.shape.n_layers):
            parts: list[Tensor] = []
            for site in UNIT_SITES[unit]:
                place = site, layer
                product = (clean.states[place] - run.states[place]) * gradients[place]
                states = product.float().mean(0) if how.per_position else product.float().sum(1).mean(0)
                own = _own_entries(model, place, states) if unit == "kv" else states
                parts.append(_per_unit(own, model, unit))
            row = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
            rows.append(_placed(row, setup.start) if how.per_position else row)
        by_unit[unit] = torch.stack(rows).cpu()
    return by_unit, float(setup.measure(run.logits).mean()), float(setup.measure(clean.logits))


def _along_inputs(runs: Runs, setup: Setup, how: How) -> dict[Place, Tensor]:
    """The mean gradients over runs between the corrupted and the clean inputs."""
    towards = setup.clean[:, setup.start :] - setup.corrupted
    total: dict[Place, Tensor] = {}
    for step in range(1, how.steps + 1):
        between = replace(setup, corrupted=setup.corrupted + step / how.steps * towards, corrupted_ids=None)
        _, found = runs.gradients(between, how.sites)
        total = {place: gradient + total[place] if total else gradient for place, gradient in found.items()}
    return {place: gradient / how.steps for place, gradient in total.items()}


def _along_activations(
    model: LoadedModel, runs: Runs, setup: Setup, clean: Recording, run: Recording, how: How
) -> dict[Place, Tensor]:
    """The mean gradients over corrupted runs in which the activations of one unit in one layer, all of them together,
    lie between their corrupted and their clean ones."""
    total: dict[Place, Tensor] = {}
    for unit in how.units:
        for layer in range(model.shape.n_layers):
            places: list[Place] = [(site, layer) for site in UNIT_SITES[unit]]
            for step in range(1, how.steps + 1):
                share = step / how.steps
                between = {at: run.states[at] + share * (clean.states[at] - run.states[at]) for at in places}
                for at, gradient in runs.gradients_at(setup, between).items():
                    total[at] = gradient + total[at] if at in total else gradient
    return {place: gradient / how.steps for place, gradient in total.items()}


def _own_entries(model: LoadedModel, place: Place, states: Tensor) -> Tensor:
    """A projection's entries [..., width] of those of all that it is fused with (which TransformerLens tells apart)."""
    whole = fused_entries(model, place)
    return states if whole is None or states.shape[-1] != whole[1] else states[..., whole[0].to(states.device)]


def _per_unit(states: Tensor, model: LoadedModel, unit: AttributionUnit) -> Tensor:
    """Sum states [..., width] over each unit's entries: [..., heads], [..., neurons], or [...] of wholes."""
    n = parts_of(unit, model.shape)
    return states.sum(-1) if n is None else states.unflatten(-1, (n, -1)).sum(-1)


def _placed(row: Tensor, start: int) -> Tensor:
    """[tokens from start, ...] as [..., tokens], 0 where both runs are the same."""
    before = row.new_zeros(start, *row.shape[1:])
    return torch.cat([before, row]).movedim(0, -1)
