"""Rates with honest intervals, and the small formulas of the editing literature. Numbers in, numbers out.

Rows of one fact (its paraphrases, seeds) are not independent, so whole facts are what is counted on. All intervals are
95%. Nothing to count gives NaN with NaN bounds, never 0.

Shares near 0 and 1 are what an edit's evaluation is made of, and there a percentile bootstrap is far too narrow: of 59
in 60 it gives [0.95, 1.00] and holds the truth in less than nine of ten repetitions, and where all facts agree it has
no width at all. So shares get score intervals (`share`, `mean_over`): Wilson's where every fact has one row, else
Wilson's with the number of rows that the facts are worth. Differences of shares get the same treatment
(`paired_difference`). The bootstrap is left for values without bounds, such as nats. ``benchmarks/intervals.py`` counts
how often each holds the truth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from workbench.types.report import Rate

Z95 = 1.959963984540054
"""Two-sided 95% quantile of the standard normal distribution."""
T95 = (
    *(12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139),
    *(2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963),
    *(2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230),
)
"""Two-sided 95% quantiles of Student's t with 1, 2, ... degrees of freedom: for two to thirty clusters."""
DOUBT = 3.0
"""How slowly clusters that deviate make known how much clusters differ: see `mean_over`."""
SHARES = (0.0, 1.0)
"""The bounds of a share."""


def wilson(successes: float, n: int) -> Rate:
    """Share of successes with Wilson's score interval, for rows of one fact.

    centre = (p + z^2 / 2n) / (1 + z^2 / n), half-width = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2).

    Args:
        successes: How many of the rows, 0 to n.
        n: Rows.

    Returns:
        Shares from 0 to 1; NaN for n = 0.

    Raises:
        ValueError: ``successes`` is not within 0 and n.

    Source: Wilson 1927; Brown, Cai and DasGupta 2001.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be between 0 and n, got {successes} of {n}.")
    if n == 0:
        return _nothing("wilson", 0)
    return Rate(successes / n, n, *score_bounds(successes / n, Z95**2 / n), "wilson", 1)


def share(rows: Sequence[tuple[Hashable, bool]]) -> Rate:
    """Share of true rows, with the interval of `mean_over`.

    Args:
        rows: ``(cluster, is it so)``, the cluster being the fact's id.

    Returns:
        From 0 to 1; NaN without rows.
    """
    grouped: dict[Hashable, list[float]] = {}
    for cluster, true in rows:
        grouped.setdefault(cluster, []).append(float(true))
    return mean_over(grouped) if grouped else _nothing("wilson", 0)


def mean_over(
    values: Mapping[Any, Sequence[float]],
    *,
    seed: int = 0,
    resamples: int = 2000,
    within: tuple[float, float] | None = None,
) -> Rate:
    """Mean over all rows, so that facts with more rows weigh more, with an interval that takes whole clusters.

    *Shares* (any values ``within`` 0 and 1, or of 0 and 1 where it is None) get Wilson's score interval. Where each
    cluster has one row of 0 or 1, or there is one cluster of them, its trials are the rows. Else they are the effective
    sample size p (1 - p) / V, V being the variance of the mean p between clusters, and Student's t takes the place of
    z. V is hardly known where few clusters deviate from the others, and 0 where none does. So what it is made of,
    t^2 / effective size, is a mean: t^2 V / (p (1 - p)), and z^2 times what 1 / size is where all rows of a cluster are
    alike (sum of squares of the cluster sizes / n^2). The latter weighs (``DOUBT`` / (``DOUBT`` + d))^2, with d
    clusters that hold the rarer outcome.

    *Other values* get percentiles of a bootstrap that draws clusters; with two to thirty, where it is too narrow, each
    bound is at least as far as that of Student's t with the standard error of a jackknife over clusters.

    Args:
        values: Rows by cluster (fact id). Clusters without rows are left out. A single cluster of other values than 0
            and 1 is taken row by row (too narrow if they depend on one another).
        seed, resamples: Of the bootstrap.
        within: The least and the largest value that there can be, infinite ones for values without bounds; None where
            nothing is said.

    Returns:
        The mean in the values' unit, ``n`` rows, ``clusters``. ``method`` is ``"wilson"``, ``"clustered wilson"`` or
        ``"bootstrap"``. The bounds are NaN where the clusters' means are all the same and not shares of rows: the data
        then say nothing about the spread.

    Raises:
        ValueError: A value that is not finite, or ``resamples`` below 1.

    Source: Wilson 1927; design effect and effective sample size after Kish 1965, in a score interval with Student's t
    after Korn and Graubard 1998 and Dean and Pagano 2015. Known deviation: the weighing with ``DOUBT`` is ours, chosen
    by simulation (without it some intervals hold 86% where they promise 95%). Bootstrap: Field and Welsh 2007, Efron
    1979; jackknife: Efron and Stein 1981.
    """
    rows = _clean(values)
    n, k = sum(len(v) for v in rows), len(rows)
    if n == 0:
        return _nothing("bootstrap", 0)
    binary = are_shares(rows, within) and _of_0_and_1(rows)
    if binary and (k == 1 or n == k):
        total = float(np.concatenate(rows).sum())
        return Rate(total / n, n, *score_bounds(total / n, Z95**2 / n), "wilson", k)
    if not binary and (within != SHARES or not _spread(rows)):
        return _bootstrap(rows, seed, resamples, within or (-math.inf, math.inf))
    mean = float(np.concatenate(rows).mean())
    return Rate(mean, n, *_clustered_score(rows, mean, binary), "clustered wilson", k)


def are_shares(rows: Sequence[np.ndarray], within: tuple[float, float] | None) -> bool:
    """Whether values are shares: those that lie between 0 and 1, and where nothing is said, those of 0 and 1 alone.
    Values that may also be negative are none, whatever they happen to be."""
    return within == SHARES or (within is None and _of_0_and_1(rows))


def _of_0_and_1(rows: Sequence[np.ndarray]) -> bool:
    every = np.concatenate(rows)
    return bool(((every == SHARES[0]) | (every == SHARES[1])).all())


def score_bounds(p: float, q: float) -> tuple[float, float]:
    """Wilson's bounds for a share of n trials: they depend on q = z^2 / n alone."""
    centre = (p + q / 2) / (1 + q)
    half = math.sqrt(q * max(p * (1 - p), 0.0) + q * q / 4) / (1 + q)
    # At 0 and 1 the bound is 0 or 1 exactly; rounding must not put the estimate outside its own interval.
    return min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))


def _clustered_score(rows: list[np.ndarray], p: float, binary: bool) -> tuple[float, float]:
    """Wilson's bounds with the effective sample size; see `mean_over`."""
    sums, counts = _units(rows)
    n, k = float(counts.sum()), len(sums)
    deviating = min(int((sums < counts).sum()), int((sums > 0).sum()))
    alike = float((counts**2).sum()) / n**2
    if not deviating:
        return score_bounds(p, Z95**2 * alike)
    between = float(((sums - p * counts) ** 2).sum()) / n**2 * k / (k - 1)
    doubt = (DOUBT / (DOUBT + deviating)) ** 2
    q = (1 - doubt) * t95(k) ** 2 * between / (p * (1 - p)) + doubt * Z95**2 * alike
    return score_bounds(p, max(q, Z95**2 / n) if binary else q)


def t95(k: int) -> float:
    """The two-sided 95% quantile of Student's t for k clusters; for many by its expansion in 1 / (k - 1)."""
    if k < len(T95) + 2:
        return T95[k - 2]
    z, df = Z95, k - 1
    return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df * df)


def paired_difference(
    a: Mapping[Any, Sequence[float]],
    b: Mapping[Any, Sequence[float]],
    *,
    seed: int = 0,
    resamples: int = 2000,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Rate:
    """Mean of a - b over paired rows, with an interval that takes whole clusters.

    *Shares* (all values 0 or 1, or ``within`` -1 and 1) get the adjusted Wald interval: mean and variance as if there
    were two more clusters, one all for a and one all for b. Where clusters differ, the mean and the variance between
    them take over, with the weights of `mean_over`: d is the number of clusters that are not as most are, without any
    difference, all for a, or all for b. Where rows are shares themselves, the added clusters differ by as much as any
    row does. *Other values* get the bootstrap of `mean_over`.

    Args:
        a, b: Rows by cluster; the i-th rows of a cluster belong to the same prompt (and seed).
        seed, resamples: Of the bootstrap.
        within: The least and the largest difference that there can be.

    Returns:
        The difference in the values' unit, from -1 to 1 for shares. ``method`` is ``"adjusted wald"`` or
        ``"bootstrap"``; the latter has NaN bounds if no two clusters differ in their mean.

    Raises:
        ValueError: Clusters or numbers of rows that do not match, or a value that is not finite.

    Source: Agresti and Min 2005, Bonett and Price 2012 for independent pairs. Known deviation: clusters in the place
    of pairs, and the weighing, as in `mean_over`.
    """
    if set(a) != set(b):
        raise ValueError(f"a and b must have the same clusters; only in one: {sorted(map(str, set(a) ^ set(b)))}.")
    uneven = {key: (len(a[key]), len(b[key])) for key in a if len(a[key]) != len(b[key])}
    if uneven:
        raise ValueError(f"Rows must be paired; these clusters have unequal numbers of rows in a and b: {uneven}.")
    left, right = _clean(a), _clean({key: b[key] for key in a})
    rows = [x - y for x, y in zip(left, right, strict=True)]
    n, k = sum(len(v) for v in rows), len(rows)
    if n == 0:
        return _nothing("bootstrap", 0)
    binary = all(bool(np.isin(v, SHARES).all()) for v in (*left, *right))
    if binary or within == (-1.0, 1.0):
        mean = float(np.concatenate(rows).mean())
        most = 1.0 if binary else max(float(np.abs(v).max()) for v in rows) or 1.0
        return Rate(mean, n, *_adjusted_wald(rows, mean, most), "adjusted wald", k)
    return _bootstrap(rows, seed, resamples, within)


def _adjusted_wald(rows: list[np.ndarray], mean: float, most: float) -> tuple[float, float]:
    """The bounds of a difference of shares; see `paired_difference`. The added clusters differ by ``most``."""
    sums, counts = _units(rows)
    n, k, size = float(counts.sum()), len(sums), float(counts.mean())
    units = rows if len(rows) > 1 else [v.reshape(1) for v in rows[0]]
    alike = max(sum(bool((v == outcome).all()) for v in units) for outcome in (0.0, most, -most))
    differing = k - alike
    more = n + 2 * size
    centre = float(sums.sum()) / more
    added = size**2 * ((most - centre) ** 2 + (most + centre) ** 2)
    variance = (float(((sums - centre * counts) ** 2).sum()) + added) / more**2
    square = Z95**2 * variance
    if differing and k > 1:
        doubt = (DOUBT / (DOUBT + differing)) ** 2
        between = float(((sums - mean * counts) ** 2).sum()) / n**2 * k / (k - 1)
        centre, square = (1 - doubt) * mean + doubt * centre, (1 - doubt) * t95(k) ** 2 * between + doubt * square
    half = math.sqrt(square)
    return min(mean, max(-1.0, centre - half)), max(mean, min(1.0, centre + half))


def ngram_entropy(text: str, *, weights: tuple[float, float] = (2 / 3, 4 / 3)) -> float:
    """Fluency of a generated text as in CounterFact: 2/3 H2 + 4/3 H3, bits; low for a text that repeats itself.

    H_n = - sum over distinct n-grams g of f(g) log2 f(g), with f the relative frequency among the text's n-grams.

    Args:
        text: A generated text, usually of 100 tokens. Compare texts of like length only: H_n is at most log2 of the
            number of n-grams.
        weights: Of bigrams and trigrams.

    Returns:
        Bits; NaN for fewer than three words.

    Source: Meng et al. 2022 (ROME), section 3.4 and appendix. Known deviations: words are split at white space, theirs
    by NLTK; and their code averages the two weighted terms, so the figures published (times 100, about 620 for GPT-2
    XL) are half of this sum: ``weights=(1/3, 2/3)`` is on their scale.
    """
    words = text.split()
    if len(words) < 3:
        return math.nan
    return sum(w * _entropy(words, n) for w, n in zip(weights, (2, 3), strict=True))


def harmonic_mean(values: Sequence[float]) -> float:
    """n / sum(1 / v), the CounterFact score of efficacy, paraphrase and neighbourhood shares; same unit as the values.

    Returns:
        0 if one of them is 0; NaN if there are none, or if one is NaN.

    Raises:
        ValueError: A negative value.

    Source: Meng et al. 2022 (ROME), score S.
    """
    numbers = [float(v) for v in values]
    if not numbers or any(math.isnan(v) for v in numbers):
        return math.nan
    if min(numbers) < 0:
        raise ValueError(f"A harmonic mean needs values of 0 or more, got {numbers}.")
    return 0.0 if min(numbers) == 0 else len(numbers) / sum(1 / v for v in numbers)


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation, -1 to 1: Pearson's correlation of the ranks, ties at their mean rank.

    Returns:
        NaN with fewer than two pairs, a NaN among the values, or where x or y is constant.

    Raises:
        ValueError: x and y of different lengths.

    Source: Spearman 1904.
    """
    if len(x) != len(y):
        raise ValueError(f"x and y must be of one length, got {len(x)} and {len(y)}.")
    a, b = np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()
    if len(a) < 2 or np.isnan(a).any() or np.isnan(b).any():
        return math.nan
    ra, rb = _ranks(a), _ranks(b)
    ra, rb = ra - ra.mean(), rb - rb.mean()
    scale = math.sqrt(float(ra @ ra) * float(rb @ rb))
    return max(-1.0, min(1.0, float(ra @ rb) / scale)) if scale > 0 else math.nan


def _nothing(method: str, clusters: int) -> Rate:
    """The rate of no rows."""
    return Rate(math.nan, 0, math.nan, math.nan, method, clusters)


def _clean(values: Mapping[Any, Sequence[float]]) -> list[np.ndarray]:
    """Rows of each non-empty cluster as arrays, all finite."""
    rows = [np.asarray(v, dtype=float).ravel() for v in values.values()]
    for key, v in zip(values, rows, strict=True):
        if not np.isfinite(v).all():
            raise ValueError(
                f"Values must be finite; cluster {key!r} has {v.tolist()}. Leave out what was not measured."
            )
    return [v for v in rows if len(v)]


def _spread(rows: list[np.ndarray]) -> bool:
    """Whether the means of what is drawn differ at all."""
    sums, counts = _units(rows)
    return bool(np.ptp(sums / counts) >= 1e-12)


def _bootstrap(rows: list[np.ndarray], seed: int, resamples: int, within: tuple[float, float]) -> Rate:
    """The mean with the 2.5% and 97.5% points over resamples of the clusters (of the rows, if there is only one
    cluster), for few ones with those of Student's t, if it is wider; NaN bounds where nothing differs."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}.")
    every = np.concatenate(rows)
    n, k, mean = len(every), len(rows), float(every.mean())
    if not _spread(rows):
        return Rate(mean, n, math.nan, math.nan, "bootstrap", k)
    sums, counts = _units(rows)
    draws = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    low, high = (float(x) for x in np.quantile((draws @ sums) / (draws @ counts), (0.025, 0.975)))
    return Rate(mean, n, *_student(rows, mean, min(mean, low), max(mean, high), within), "bootstrap", k)


def _units(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sums and numbers of rows of what is drawn: clusters, or the rows of the only one."""
    units = rows if len(rows) > 1 else [v.reshape(1) for v in rows[0]]
    return np.array([v.sum() for v in units]), np.array([float(len(v)) for v in units])


def _student(
    rows: list[np.ndarray], mean: float, low: float, high: float, bounds: tuple[float, float]
) -> tuple[float, float]:
    """An interval widened to Student's t over clusters (or one cluster's rows) if there are 2 to 30, in bounds."""
    sums, counts = _units(rows)
    k = len(sums)
    if not 2 <= k < len(T95) + 2:
        return low, high
    without = (sums.sum() - sums) / (counts.sum() - counts)
    half = T95[k - 2] * math.sqrt((k - 1) / k * float(((without - without.mean()) ** 2).sum()))
    return max(min(low, mean - half), bounds[0]), min(max(high, mean + half), bounds[1])


def _entropy(words: Sequence[str], n: int) -> float:
    """Entropy of the n-gram frequencies, bits."""
    counts = np.array(list(Counter(zip(*(words[i:] for i in range(n)), strict=False)).values()), dtype=float)
    f = counts / counts.sum()
    return float(abs((f * np.log2(f)).sum()))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties at their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
