"""Rounding: does the edit survive weights of 8 and 4 bits, or does the old fact come back?

The edit is folded into the weights that it changes, on a structure copy; only those weight matrices are rounded, and
only they take memory of their own. The base model's same matrices are rounded too, as the control. That control shows
something only where rounding moves the base's weights: those of a quantised model may lie on the rounding's own grid.
The bundled model's do for groups of 32, so groups are of 64; where weights hardly move even so, the report says it.

Source: DurableUn (rounding an unlearned model). Known deviation: weights only, the edited matrices only, and rounding
to the nearest of evenly spaced values between a group's least and largest, not a calibrated method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from workbench.facts.wordings import Prompt, held_out
from workbench.models.deltas import changed_weights, fold
from workbench.models.family import stores_transposed
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.probing.battery import Battery, Skip
from workbench.probing.record import RECOVERED, Probe
from workbench.types import NO_DELTA, ContextDelta, Delta

BITS = (8, 4)
GROUP = 64
QUESTIONS = 4
LEAST_CHANGE = 1e-4
"""Of weights: a smaller relative change by rounding is none."""


def probe_requantise(battery: Battery) -> None:
    """The question and some held-out ones, asked of every stage with the edited weights rounded."""
    names = changed_weights(battery.model.architecture, battery.edit.delta())
    if not names:
        raise Skip("the edit changes no weight matrix, so there are no edited weights to round")
    for bits in BITS:
        prompts = [
            Prompt(f"{bits} bits", q, fact, group=battery.group(fact))
            for fact in battery.facts
            for q in dict.fromkeys((fact.question, *held_out(fact, QUESTIONS)))
        ]

        def made(stage: str, bits: int = bits) -> LoadedModel:
            delta = NO_DELTA if stage == "base" else battery.edit.delta(stage)
            try:
                return rounded_model(battery.model, battery.model.delta.then(delta), names, bits)
            except ValueError as error:
                raise Skip(f"the edited weights cannot be rounded: {error}") from error

        battery.ask("requantise", prompts, models=made)
        change = change_by_rounding(battery.model, names, bits)
        if change < LEAST_CHANGE:
            battery.skipped[f"requantise: {bits} bits as a control"] = (
                "the base's weights lie on this rounding's grid already, so only groups with an edited weight change"
            )


def rounded_model(model: LoadedModel, delta: Delta, names: Sequence[str], bits: int) -> LoadedModel:
    """A model of its own in which a delta is folded into weights, and weight matrices are rounded.

    Args:
        model: The base; everything else is shared with it.
        delta: The delta.
        names: Of the matrices that are rounded, whether the delta has changed them or not.
        bits: Of each weight.
    """
    view = shared_view(model.base.hf)
    fold(view, model.architecture, delta)
    for name in names:
        parameter = view.get_parameter(name)
        transposed = stores_transposed(view.get_submodule(name.rpartition(".")[0]))
        back = rounded(parameter.T if transposed else parameter, bits)
        parameter.data = (back.T if transposed else back).contiguous()
    name = f"{model.name}, edited weights at {bits} bits"
    options: dict[str, Any] = {"architecture": model.architecture, "base": model.base}
    return LoadedModel(view, model.tokenizer, name=name, delta=ContextDelta(delta.context), **options)


def change_by_rounding(model: LoadedModel, names: Sequence[str], bits: int) -> float:
    """How far rounding moves the base's weights in some matrices: the root mean square of the change as a share of the
    weights' own, from 0.

    Args:
        model: The base.
        names: Of the matrices.
        bits: Of each weight.
    """
    view, back = model.base.hf, rounded_model(model, NO_DELTA, names, bits).hf
    total = torch.zeros(2, dtype=torch.float64)
    for name in names:
        was, now = (network.get_parameter(name).detach().double() for network in (view, back))
        total += torch.stack([(now - was).square().sum(), was.square().sum()]).cpu()
    return float((total[0] / total[1]).sqrt())


def rounded(weight: Tensor, bits: int, group: int = GROUP) -> Tensor:
    """A weight matrix [out, in] rounded in groups along its inputs, to 2^bits evenly spaced values between the least
    and the largest.

    Args:
        weight: [out, in]; a last group of fewer inputs is one of its own.
        bits: Of each weight.
        group: Weights a group.
    """
    parts = []
    for part in weight.split(group, dim=1):
        low, high = part.amin(1, keepdim=True), part.amax(1, keepdim=True)
        step = ((high - low) / (2**bits - 1)).clamp(min=torch.finfo(part.dtype).tiny)
        parts.append(((part - low) / step).round() * step + low)
    return torch.cat(parts, dim=1)


PROBE = Probe(
    name="requantise",
    title="requantised weights",
    question="Does rounding the edited weights bring it back?",
    cost=25,
    run=probe_requantise,
    measure=replace(RECOVERED, slow=True),
)
