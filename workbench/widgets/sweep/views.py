"""What a sweep's panel shows, as markup: what failed, and the average so far. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from workbench.sweeps.folder import Failure
from workbench.types import EdgeMap, EffectMap, Rate
from workbench.widgets.shared import markup

MOST_ROWS = 20
LARGEST = 8


def failures_view(failed: Mapping[str, Failure]) -> str:
    """A table of what failed, the first twenty; empty where nothing did."""
    if not failed:
        return ""
    rows = [(one.id, one.error, one.message) for one in [*failed.values()][:MOST_ROWS]]
    more = f" (the first {MOST_ROWS} of {len(failed)})" if len(failed) > MOST_ROWS else ""
    return markup.block(markup.table(["item", "error", "what it said"], rows, f"What failed{more}"))


def average_view(mean: Any, n: int) -> str:
    """The mean of the items that have finished: of a map its largest cells, with intervals; of edges the largest; rates
    and numbers with intervals.

    Args:
        mean: As ``SweepResults.mean`` gives it.
        n: Of how many items.
    """
    parts = [_table(name, value) for name, value in _parts("", mean)]
    return markup.block(markup.title("Average so far", f"over {n} items"), *parts) if parts else ""


def _parts(name: str, mean: Any) -> list[tuple[str, Any]]:
    """The maps in a mean, and its groups of rates, each with what it is of."""
    if isinstance(mean, Mapping):
        if mean and all(isinstance(value, Rate) for value in mean.values()):
            return [(name, mean)]
        return [part for key, value in mean.items() for part in _parts(f"{name} {key}".strip(), value)]
    return [(name, mean)]


def _table(name: str, value: Any) -> str:
    if isinstance(value, EffectMap):
        return markup.table(["cell", value.value_words.name, "95% interval"], _cells(value), f"{name} {value.title}")
    if isinstance(value, EdgeMap):
        edges = list(value.top(min(LARGEST, value.n_edges)))
        return markup.table(["edge", "score"], [(str(e), f"{value[e]:.3f}") for e in edges], f"{name} {value!r}")
    rates = value if isinstance(value, Mapping) else {name or "value": value}
    return markup.table(["rate", "mean [95% interval] (n)"], [(k, str(v)) for k, v in rates.items()], name or "Mean")


def _cells(mean: EffectMap) -> list[tuple[str, str, str]]:
    """The largest cells of a map by size, in words."""
    flat = mean.values.nan_to_num().abs().flatten()
    bounds = mean.interval
    rows: list[tuple[str, str, str]] = []
    for place in flat.argsort(descending=True, stable=True)[:LARGEST]:
        at = tuple(int(i) for i in torch.unravel_index(place, mean.values.shape))
        words = ", ".join(mean.labels[axis][i] for axis, i in zip(mean.axes, at, strict=True))
        between = "" if bounds is None else f"{float(bounds[0][at]):.3f} to {float(bounds[1][at]):.3f}"
        rows.append((words, f"{float(mean.values[at]):.3f}", between))
    return rows
