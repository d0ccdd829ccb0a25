"""Means, standard errors and intervals of the cells of a map, all at once."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.types.intervals import T95, Z95


def t_interval(mean: Tensor, stderr: Tensor, values: Tensor | None, n: int) -> tuple[Tensor, Tensor]:
    """Bounds of 95% intervals of means, by Student's t: mean - t x stderr and mean + t x stderr.

    Args:
        mean, stderr: Of each cell, any shape.
        values: What the means are of, [n, ...]; NaN was left out. None where that is not known.
        n: How many, where it is not.

    Returns:
        Lower and upper bounds, of the shape of ``mean``; NaN where fewer than two values are known.

    Source: Student 1908.
    """
    counts = (~values.isnan()).sum(0) if values is not None else torch.full_like(mean, n, dtype=torch.long)
    table = torch.tensor([float("nan"), float("nan"), *T95, Z95], dtype=mean.dtype)
    half = table[counts.clamp(max=len(table) - 1)] * stderr
    return mean - half, mean + half


def mean_and_error(samples: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean and standard error over the first axis, NaN left out; the error is None for a single sample."""
    mean = samples.nanmean(0)
    if samples.shape[0] == 1:
        return mean, None
    n = (~samples.isnan()).sum(0)
    variance = ((samples - mean) ** 2).nansum(0) / (n - 1).clamp(min=1)
    return mean, torch.where(n > 1, (variance / n.clamp(min=1)).sqrt(), torch.nan)
