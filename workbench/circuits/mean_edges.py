"""The mean of edge maps of several facts or contrasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from workbench.types import EdgeMap
from workbench.types.cell_intervals import mean_and_error


def mean_edges(maps: Sequence[EdgeMap], items: Sequence[str]) -> EdgeMap:
    """The mean of scores of edges over maps, with the standard error over them; an edge without a score in some is a
    mean over the others.

    Args:
        maps: Of one measure and one model, at least one.
        items: What each is of, for the provenance.
    """
    first = maps[0]
    mean, error = mean_and_error(torch.stack([one.values for one in maps]))
    return replace(
        first,
        values=mean,
        stderr=error,
        clean=sum(one.clean for one in maps) / len(maps),
        corrupted=sum(one.corrupted for one in maps) / len(maps),
        n=len(maps),
        provenance=first.provenance | {"facts": list(items)},
    )
