"""Rates with honest intervals, and the small formulas of the editing literature. Numbers in, numbers out.

Rows of one fact (its paraphrases, seeds) are not independent. So one fact's share gets Wilson's interval over its rows,
and several facts' share gets a bootstrap that draws whole facts. All intervals are 95%. Nothing to count gives NaN with
NaN bounds, never 0.

A bootstrap of few facts is far too narrow (of three it is no wider than from the lowest to the highest, and misses the
truth one time in four). Up to thirty the interval is Student's t over facts where that is wider.

Where no two facts differ, a bootstrap returns a zero-width interval ("100% of 5 facts, surely"). `bootstrap` then takes
Wilson's interval with whole facts as the trials, and `paired_difference` the largest share of deviating facts that
Wilson's interval for 0 of k still allows (both about 4 / (k + 4), next to the rule of three's 3 / k).
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
    p, z2 = successes / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # At 0 and n the bound is 0 or 1 exactly; rounding must not put the estimate outside its own interval.
    return Rate(p, n, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), "wilson", 1)


def bootstrap(
    values: Mapping[Any, Sequence[float]],
    *,
    seed: int = 0,
    resamples: int = 2000,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Rate:
    """Mean over all rows, with a percentile interval from resampling whole clusters.

    Each resample draws as many clusters as there are, with replacement, and takes the mean over the rows of those
    drawn, so facts with more rows weigh more, as in the estimate itself.

    Args:
        values: Rows by cluster (fact id). Clusters without rows are left out.
        seed: Of the resampling.
        resamples: How many.
        within: The least and the largest value that there can be; 0 and 1 for 0/1 values.

    Returns:
        The mean in the values' unit, ``n`` rows, ``clusters``. Exceptions, in this order: one cluster of 0/1 values is
        `wilson`; one cluster of other values resamples its rows (too narrow if they depend on one another); clusters
        that all have the same mean get Wilson's interval with the clusters as trials if the values are 0/1
        (``method`` is ``"wilson"``), else NaN bounds, because the data then say nothing about the spread.

    Raises:
        ValueError: A value that is not finite, or ``resamples`` below 1.

    Source: Field and Welsh 2007, the cluster bootstrap; percentile interval of Efron 1979. It is too narrow with few
    clusters, as every such bootstrap, so with two to thirty (or rows, of one cluster) each bound is at least as far as
    that of Student's t with the standard error of a jackknife that leaves out one cluster at a time (Efron and Stein
    1981), ``within`` what there can be.
    """
    rows = _clean(values)
    n, k = sum(len(v) for v in rows), len(rows)
    if n == 0:
        return _nothing("bootstrap", 0)
    binary = all(bool(np.isin(v, (0.0, 1.0)).all()) for v in rows)
    if k == 1 and binary:
        return wilson(float(rows[0].sum()), n)
    mean, low, high = _resampled(rows, seed, resamples)
    if low < high:
        low, high = _student(rows, mean, low, high, (0.0, 1.0) if binary else within)
        return Rate(mean, n, low, high, "bootstrap", k)
    if binary:
        over = wilson(mean * k, k)
        return Rate(mean, n, over.low, over.high, "wilson", k)
    return Rate(mean, n, math.nan, math.nan, "bootstrap", k)


def share(rows: Sequence[tuple[Hashable, bool]], *, seed: int = 0, resamples: int = 2000) -> Rate:
    """Share of true rows: `wilson` for the rows of one cluster, `bootstrap` for several.

    Args:
        rows: ``(cluster, is it so)``, the cluster being the fact's id.
        seed, resamples: See `bootstrap`.

    Returns:
        From 0 to 1; NaN without rows.
    """
    grouped: dict[Hashable, list[float]] = {}
    for cluster, true in rows:
        grouped.setdefault(cluster, []).append(float(true))
    return bootstrap(grouped, seed=seed, resamples=resamples) if grouped else _nothing("wilson", 0)


def paired_difference(
    a: Mapping[Any, Sequence[float]],
    b: Mapping[Any, Sequence[float]],
    *,
    seed: int = 0,
    resamples: int = 2000,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Rate:
    """Mean of a - b over paired rows, with a bootstrap that draws whole clusters (as in `bootstrap`, few ones too).

    Args:
        a, b: Rows by cluster; the i-th rows of a cluster belong to the same prompt (and seed).
        seed, resamples: See `bootstrap`.
        within: The least and the largest difference that there can be; -1 and 1 for 0/1 values.

    Returns:
        The difference in the values' unit, from -1 to 1 for shares. If no two clusters differ in their mean d, and all
        values are 0/1: with u the upper Wilson bound of 0 of k clusters (of the rows, if there is one cluster), up to a
        share u may deviate, by as far as they can: d - u (1 + d) to d + u (1 - d). Other values get NaN bounds then.

    Raises:
        ValueError: Clusters or numbers of rows that do not match, or a value that is not finite.
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
    mean, low, high = _resampled(rows, seed, resamples)
    binary = all(bool(np.isin(v, (0.0, 1.0)).all()) for v in (*left, *right))
    if low < high:
        low, high = _student(rows, mean, low, high, (-1.0, 1.0) if binary else within)
        return Rate(mean, n, low, high, "bootstrap", k)
    if binary:
        trials = k if k > 1 else n
        u = wilson(0, trials).high
        return Rate(mean, n, mean - u * (1 + mean), mean + u * (1 - mean), "wilson", k)
    return Rate(mean, n, math.nan, math.nan, "bootstrap", k)


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


def _resampled(rows: list[np.ndarray], seed: int, resamples: int) -> tuple[float, float, float]:
    """Mean over rows and the 2.5% and 97.5% points over resamples of the clusters (of the rows, if there is only one
    cluster). Equal bounds mean that the units do not differ at all."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}.")
    mean = float(np.concatenate(rows).mean())
    sums, counts = _units(rows)
    if np.ptp(sums / counts) < 1e-12:
        return mean, mean, mean
    draws = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    low, high = np.quantile((draws @ sums) / (draws @ counts), (0.025, 0.975))
    return mean, min(mean, float(low)), max(mean, float(high))


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
