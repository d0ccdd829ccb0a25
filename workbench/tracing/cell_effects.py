"""Effects of a trace's cells in one setup; ``causal_trace`` makes maps of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from workbench.tracing.restoration import Restoration, Severed
from workbench.tracing.runs import Runs
from workbench.tracing.setup import Setup
from workbench.tracing.where import Where
from workbench.types import ModelShape
from workbench.types.units import UNITS

TraceSite = Literal["resid", "mlp", "attn", "z", "q", "k", "v"]
WINDOWED: tuple[TraceSite, ...] = ("mlp", "attn")
"""Sites that are restored in several layers at once."""
OnLayer = Callable[[TraceSite, int, Tensor], None]
"""Is told the site, the layer, and the layer's finished values by position, or by head and position."""


@dataclass(frozen=True)
class Cells:
    """Which cells a trace has.

    Args:
        widths: How many layers are restored together, by site.
        where: In which layers and at which positions.
        shape: Of the model.
        severed: What the restored token's later modules are severed from; None for nothing.
    """

    widths: dict[TraceSite, int]
    where: Where
    shape: ModelShape
    severed: Severed | None = None

    def parts(self, site: TraceSite) -> Sequence[int | None]:
        """The heads or groups that are restored one by one; None for states that are restored as wholes."""
        n = {"head": self.shape.n_heads, "kv": self.shape.n_kv_heads}.get(UNITS[site].axis or "")
        return (None,) if n is None else range(n)

    def empty(self, site: TraceSite, samples: int, tokens: int) -> Tensor:
        """Zeros [samples, layer, position], or [samples, layer, head, position]."""
        parts = self.parts(site)
        heads = () if parts == (None,) else (len(parts),)
        return torch.zeros(samples, self.shape.n_layers, *heads, tokens)

    def restoration(self, site: TraceSite, layer: int, part: int | None, at: int) -> Restoration:
        """What makes a cell."""
        return Restoration(site, window_of(layer, self.widths[site], self.shape.n_layers), at, part, self.severed)


def sum_of_steps(
    runs: Runs, setup: Setup, cells: Cells, chosen: frozenset[int]
) -> tuple[dict[TraceSite, Tensor], float, float]:
    """``cell_effects`` on whole answers: the sum over their tokens, at the positions of the text before them."""
    tokens = len(setup.prompt.tokens)
    values: dict[TraceSite, Tensor] = {site: cells.empty(site, len(setup.corrupted), tokens) for site in cells.widths}
    at_best = worst = 0.0
    for sign, step in setup.steps:
        of_step, best, corrupted = cell_effects(runs, step, cells, chosen, lambda *_: None)
        at_best, worst = at_best + sign * best, worst + sign * corrupted
        for site, of_site in of_step.items():
            values[site] += sign * of_site[..., :tokens].nan_to_num()
    return values, at_best, worst


def cell_effects(
    runs: Runs, setup: Setup, cells: Cells, chosen: frozenset[int], finished: OnLayer
) -> tuple[dict[TraceSite, Tensor], float, float]:
    """Effects of every cell by site, [samples, layer, position] or [samples, layer, head, position], and the metric of
    the clean and the corrupted run."""
    clean = runs.record(setup, tuple(cells.widths))
    setup = setup.against(clean.logits)
    samples, tokens = setup.corrupted.shape[:2]
    # Where both runs are the same all effects are 0; one cell is computed all the same, for the baseline.
    at_tokens = [at for at in range(tokens) if at + setup.start in chosen] or [0]
    places: list[tuple[TraceSite, int, int | None, int]] = [
        (site, layer, part, at)
        for layer in cells.where.layers
        for site in cells.widths
        for part in cells.parts(site)
        for at in at_tokens
    ]
    restorations = [cells.restoration(*place) for place in places]
    values: dict[TraceSite, Tensor] = {
        site: cells.empty(site, samples, len(setup.prompt.token_ids)) for site in cells.widths
    }
    for of_site in values.values():
        cells.where.leave_out(of_site, chosen)
    missing = {
        (site, layer): samples * len(at_tokens) * len(cells.parts(site))
        for site in cells.widths
        for layer in cells.where.layers
    }
    baseline, at_best = torch.zeros(samples), float(setup.measure(clean.logits))
    for part in runs.effects(setup, clean, restorations):
        baseline[part.samples] = part.baseline.float().cpu()
        for i, effect in zip(part.cells, part.effects.float().cpu(), strict=True):
            site, layer, head, at = places[i]
            of_layer = values[site][part.samples, layer]
            (of_layer if head is None else of_layer[:, head])[:, at + setup.start] = effect
            missing[site, layer] -= len(effect)
            if not missing[site, layer]:
                finished(site, layer, (values[site][:, layer] / setup.divisor(at_best, float(baseline.mean()))).mean(0))
    return values, at_best, float(baseline.mean())


def window_of(layer: int, width: int, n_layers: int) -> range:
    """The layers restored together for one layer's cell; an even width reaches one layer further down."""
    return range(max(0, layer - width // 2), min(n_layers, layer - (-width // 2)))
