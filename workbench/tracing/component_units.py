"""What an attribution is about: units, where their activations are, how they are measured, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from workbench.models.engine import HookSite
from workbench.tracing.setup import Setup
from workbench.types import Kind, ModelShape, Selection, TracedPrompt
from workbench.types.units import UNITS

AttributionUnit = Literal["head", "kv", "mlp", "neuron", "attn"]
Method = Literal["attribution", "ig", "patching", "dla"]
Along = Literal["inputs", "activations"]
OnLayerOfUnit = Callable[[AttributionUnit, int, Tensor], Any]
"""Is told the unit, the layer and its effects, a scalar or [heads], [groups], [neurons]; if asked, [..., position]."""
UNIT_SITES: dict[AttributionUnit, tuple[HookSite, ...]] = {
    "head": ("z",),
    "kv": ("k", "v"),
    "mlp": ("mlp",),
    "neuron": ("post",),
    "attn": ("attn",),
}
"""Where a unit's activations are; of a key-value group its keys and its values, before positions are rotated in."""


@dataclass(frozen=True, kw_only=True)
class How:
    """How effects are measured; ``attribute`` explains the options."""

    units: tuple[AttributionUnit, ...]
    method: Method = "attribution"
    steps: int = 5
    along: Along = "inputs"
    per_position: bool = False
    components: Selection | None = None

    @property
    def sites(self) -> tuple[HookSite, ...]:
        """Where all activations are."""
        return tuple(site for unit in self.units for site in UNIT_SITES[unit])

    @property
    def method_words(self) -> str:
        """The method, as maps name it."""
        return "ig along activations" if self.method == "ig" and self.along == "activations" else self.method

    @property
    def settings(self) -> dict[str, Any]:
        """What a result's provenance keeps."""
        found: dict[str, Any] = {"method": self.method}
        if self.method == "ig":
            found |= {"steps": self.steps, "along": self.along}
        if self.per_position:
            found["per_position"] = True
        return found if self.components is None else found | {"components": str(self.components)}

    def parts(self, unit: AttributionUnit, layer: int, shape: ModelShape) -> Sequence[int | None]:
        """The heads, groups or neurons of a layer that are measured; None for a layer's only one."""
        if self.components is not None:
            (kind,) = UNITS[unit].kinds
            return [c.index for c in self.components if (c.layer, c.kind) == (layer, kind)]
        n = parts_of(unit, shape)
        return (None,) if n is None else range(n)


def parts_of(unit: AttributionUnit, shape: ModelShape) -> int | None:
    """How many heads, groups or neurons a layer has; None of wholes."""
    counts: dict[str, int] = {"head": shape.n_heads, "kv": shape.n_kv_heads, "neuron": shape.d_mlp}
    return counts.get(unit)


@dataclass(frozen=True)
class Measured:
    """What was measured of one fact.

    Args:
        prompt: The traced text.
        effects: By unit, [layer, ...].
        corrupted, clean: The metric with and without the corruption; None where none was used.
        before_cap: Whether it is the metric before a cap that the model puts on its logits.
    """

    prompt: TracedPrompt
    effects: dict[AttributionUnit, Tensor]
    corrupted: float | None
    clean: float
    before_cap: bool = False


Summed = tuple[dict[AttributionUnit, Tensor], float, float]
"""Effects by unit, and the metric of the corrupted and of the clean run."""


def summed(setup: Setup, effects: Callable[[Setup], Summed], *, per_position: bool) -> Summed:
    """The effects in a setup; on whole answers the sum over their tokens, per position at those of the text."""
    if not setup.steps:
        return effects(setup)
    total: dict[AttributionUnit, Tensor] = {}
    at_worst = at_best = 0.0
    tokens = len(setup.prompt.tokens)
    for sign, step in setup.steps:
        of_step, worst, best = effects(step)
        at_worst, at_best = at_worst + sign * worst, at_best + sign * best
        cut = slice(tokens if per_position else None)
        total = {unit: sign * of[..., cut] + (total[unit] if total else 0.0) for unit, of in of_step.items()}
    return total, at_worst, at_best


def check_components(components: Selection, units: Sequence[AttributionUnit], shape: ModelShape) -> None:
    """Raise a ValueError for components that the model does not have, or that are not what is attributed to."""
    if not len(components):
        raise ValueError("components= is empty: there is nothing to patch. Leave it out for all components.")
    units_of: dict[Kind, AttributionUnit] = {UNITS[unit].kinds[0]: unit for unit in UNIT_SITES}
    for component in components:
        component.check(shape)
        unit = units_of.get(component.kind)
        if unit is None:
            raise ValueError(
                f"{component} in components= cannot be patched: choose heads (L23H4), key-value groups (L9KV1), MLPs "
                "(L13MLP), neurons (L13N207) or attention layers (L9ATTN)."
            )
        if unit not in units:
            raise ValueError(
                f"{component} in components= is of the unit {unit!r}, and unit={units!r} does not have it. Add it, or "
                "leave the component out."
            )
    missing = [unit for unit in units if unit not in {units_of[c.kind] for c in components}]
    if missing:
        raise ValueError(f"components= has nothing of the units {missing}. Leave them out, or add components.")
