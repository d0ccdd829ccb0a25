"""Effects of components in one setup, by whatever method; ``attribute`` makes maps of them."""

from __future__ import annotations

from torch import Tensor

from workbench.models.load import LoadedModel
from workbench.tracing.component_gradients import by_gradient
from workbench.tracing.component_patches import by_patching
from workbench.tracing.component_units import AttributionUnit, How, Measured, OnLayerOfUnit
from workbench.tracing.dla import DirectUnit, decomposed
from workbench.tracing.runs import Runs
from workbench.tracing.setup import Setup
from workbench.types.traced_prompt import require_text


def component_effects(
    model: LoadedModel, runs: Runs, setup: Setup, how: How, on_layer: OnLayerOfUnit | None
) -> Measured:
    """Measure the components of one fact or contrast.

    Args:
        model, runs, setup: What is run.
        how: What is measured of which components.
        on_layer: Is told what patching has finished.
    """
    if how.method == "dla":
        return _directly(model, setup, how)
    if how.method == "patching":
        return by_patching(model, runs, setup, how, on_layer)
    return by_gradient(model, runs, setup, how)


def _directly(model: LoadedModel, setup: Setup, how: How) -> Measured:
    """Direct effects, and no corruption."""
    require_text(setup.prompt, "Direct effects")
    direct: list[DirectUnit] = [unit for unit in how.units if unit != "kv"]
    if len(direct) < len(how.units):
        raise ValueError(
            "method='dla' is of what writes to the stream; key-value groups are read by heads. Use 'head'."
        )
    if max(len(setup.prompt.answers), len(setup.prompt.others)) > 1 or setup.prompt.whole_answers:
        raise ValueError("method='dla' takes one logit apart: give one answer of one token, and one wrong answer.")
    found = decomposed(model, setup.prompt, *direct)
    by_unit: dict[AttributionUnit, Tensor] = {unit: found.values[unit] for unit in direct}
    return Measured(setup.prompt, by_unit, None, found.total, found.capped)
