"""Intervals where two things are drawn: edited facts, and the untouched facts that every edit is asked about.

An edit's controls are not independent (one edit harms many), and neither are a control's rows (a near tie is lost by
many edits). Taken as clusters of edited facts alone, the interval speaks of other edits but of these controls only. A
crossed bootstrap draws both: whole edited facts and, independently, whole asked facts.

Source: Owen 2007 (the pigeonhole bootstrap, 0711.4026), which is conservative: it counts what is neither one's nor the
other's up to three times. Known deviation: shares get Wilson's score interval with the bootstrap's variance, as in
``workbench.types.intervals``, since percentiles are too narrow near 0 and 1. ``benchmarks/crossed_intervals.py`` counts
how often it holds the truth.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from workbench.types.intervals import DOUBT, Z95, are_shares, mean_over, score_bounds, t95
from workbench.types.report import Rate

RESAMPLES = 2000


def crossed_mean(
    values: Mapping[Any, Sequence[float]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    within: tuple[float, float] | None = None,
) -> Rate:
    """Mean over all rows, with an interval for other edited facts *and* other asked facts.

    Where everything that is asked is asked of one edit only (held-out questions of the edited fact itself), or there is
    one edit, or one thing asked, there is nothing to cross: it is ``mean_over``.

    Args:
        values: Rows by (edited fact, asked fact). Not every pair need be there.
        seed, resamples: Of the bootstrap.
        within: The least and the largest value that there can be, infinite ones for values without bounds. Values
            within 0 and 1 are shares; where nothing is said (None), values of 0 and 1 are.

    Returns:
        The mean in the values' unit, ``n`` rows; ``clusters`` is the smaller of the two numbers of facts. ``method`` is
        ``"crossed wilson"`` for shares, else ``"crossed bootstrap"``, whose bounds are NaN where nothing differs.

    Raises:
        ValueError: A value that is not finite, or ``resamples`` below 1.

    Example:
        >>> from workbench.types.crossed import crossed_mean
        >>> kept = {(edit, asked): [0.0 if edit == asked else 1.0] for edit in range(10) for asked in range(10)}
        >>> print(crossed_mean(kept), crossed_mean(kept).method)
        0.90 [0.80, 0.95] (n=100) crossed wilson
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}.")
    rows = {pair: np.asarray(of, dtype=float) for pair, of in values.items() if len(of)}
    odd = next((pair for pair, of in rows.items() if not np.isfinite(of).all()), None)
    if odd is not None:
        raise ValueError(f"Values must be finite; {odd!r} has {rows[odd].tolist()}. Leave out what was not measured.")
    edited, asked = (list(dict.fromkeys(pair[way] for pair in rows)) for way in (0, 1))
    if len(asked) == len(rows) or len(edited) == 1:  # each is asked of one edit only; or there is one edit
        by = 0 if len(edited) > 1 else 1
        return mean_over(_by(rows, by), seed=seed, resamples=resamples, within=within)
    if len(asked) == 1:
        return mean_over(_by(rows, 0), seed=seed, resamples=resamples, within=within)
    sums, counts = np.zeros((len(edited), len(asked))), np.zeros((len(edited), len(asked)))
    places = {name: i for i, name in enumerate(edited)}, {name: i for i, name in enumerate(asked)}
    for (one, other), of in rows.items():
        at = places[0][one], places[1][other]
        sums[at], counts[at] = of.sum(), len(of)
    draws = _drawn_means(sums, counts, seed, resamples)
    every = np.concatenate(list(rows.values()))
    mean, n, k = float(every.mean()), len(every), min(len(edited), len(asked))
    if are_shares([every], within):
        return Rate(mean, n, *_score(sums, counts, mean, float(draws.var(ddof=1)), k), "crossed wilson", k)
    deviation = float(draws.std(ddof=1))
    if deviation < 1e-12:
        return Rate(mean, n, math.nan, math.nan, "crossed bootstrap", k)
    low, high = (float(x) for x in np.quantile(draws, (0.025, 0.975)))
    half = t95(k) * deviation
    least, most = within or (-math.inf, math.inf)
    return Rate(mean, n, max(min(low, mean - half), least), min(max(high, mean + half), most), "crossed bootstrap", k)


def _by(rows: Mapping[tuple[Hashable, Hashable], np.ndarray], way: int) -> dict[Any, list[float]]:
    """Rows by edited (0) or by asked (1) fact."""
    out: dict[Any, list[float]] = {}
    for pair, of in rows.items():
        out.setdefault(pair[way], []).extend(of.tolist())
    return out


def _drawn_means(sums: np.ndarray, counts: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means over resamples of rows and, independently, of columns; a resample that holds nothing is left out."""
    rng = np.random.default_rng(seed)
    edits, controls = (rng.multinomial(n, np.full(n, 1 / n), size=resamples) for n in sums.shape)
    total, held = (((edits @ of) * controls).sum(1) for of in (sums, counts))
    return total[held > 0] / held[held > 0]


def _score(sums: np.ndarray, counts: np.ndarray, p: float, variance: float, k: int) -> tuple[float, float]:
    """Wilson's bounds with the effective sample size of the bootstrap's variance, weighed as in ``mean_over`` by how
    many edited or asked facts deviate, whichever are fewer."""
    n = float(counts.sum())
    ways = [(sums.sum(1 - way), counts.sum(1 - way)) for way in (0, 1)]
    alike = max(float((of**2).sum()) / n**2 for _, of in ways)
    deviating = min(min(int((s < c).sum()), int((s > 0).sum())) for s, c in ways)
    if not deviating:
        return score_bounds(p, Z95**2 * alike)
    doubt = (DOUBT / (DOUBT + deviating)) ** 2
    q = (1 - doubt) * t95(k) ** 2 * variance / (p * (1 - p)) + doubt * Z95**2 * alike
    return score_bounds(p, max(q, Z95**2 / n))
