"""Rates, intervals and formulas against values computed by hand or by slower, plainer code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.types.intervals import (
    harmonic_mean,
    mean_over,
    ngram_entropy,
    paired_difference,
    share,
    spearman,
    wilson,
)

floats = st.floats(-100, 100)
bits = st.lists(st.booleans(), min_size=1, max_size=6)


def test_wilson_by_hand() -> None:
    """8 of 10: the textbook interval; 0 of 10: [0, z^2 / (n + z^2)]."""
    rate = wilson(8, 10)
    assert (rate.value, rate.n, rate.method, rate.clusters) == (0.8, 10, "wilson", 1)
    assert rate.low == pytest.approx(0.490162, abs=1e-6)
    assert rate.high == pytest.approx(0.943318, abs=1e-6)
    zero = wilson(0, 10)
    assert zero.low == 0.0
    assert zero.high == pytest.approx(1.959964**2 / (10 + 1.959964**2), abs=1e-6)
    assert wilson(10, 10).high == 1.0


@given(st.integers(0, 200), st.integers(0, 200))
def test_wilson_contains_its_estimate(a: int, b: int) -> None:
    rate = wilson(min(a, b), max(a, b))
    if rate.n:
        assert 0 <= rate.low <= rate.value <= rate.high <= 1
        assert rate.high - rate.low > 0
    else:
        assert math.isnan(rate.value)


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="between 0 and n"):
        wilson(successes, n)


def test_nothing_to_count_is_nan() -> None:
    rates = [wilson(0, 0), share([]), mean_over({}), mean_over({"a": []}), paired_difference({}, {})]
    for rate in rates:
        assert rate.n == 0
        assert all(math.isnan(v) for v in (rate.value, rate.low, rate.high))


def test_rows_are_weighed_and_clusters_counted() -> None:
    """(1 + 1 + 1 + 0) / 4, though the mean of the cluster means is 0.5."""
    rate = mean_over({"a": [1, 1, 1], "b": [0]})
    assert (rate.value, rate.n, rate.clusters, rate.method) == (0.75, 4, 2, "clustered wilson")
    assert 0 <= rate.low < 0.1 and rate.high > 0.99


def test_single_rows_get_wilsons_interval() -> None:
    """59 of 60 controls, one question each: a percentile bootstrap said [0.95, 1.00]."""
    rate = share([(i, i > 0) for i in range(60)])
    assert (rate.low, rate.high) == (wilson(59, 60).low, wilson(59, 60).high)
    assert str(rate) == "0.98 [0.91, 1.00] (n=60)" and (rate.method, rate.clusters) == ("wilson", 60)


def test_the_effective_sample_size_by_hand() -> None:
    """Rows (1 1), (1 1), (1 0), (0 0): p = 5/8; V = (2 (3/4)^2 + (1/4)^2 + (5/4)^2) / 64 * 4/3; three clusters have
    a 1, two a 0: d = 2, so (3/5)^2 of the weight is on 1/4, as if the two rows of each cluster were alike."""
    rate = mean_over({0: [1, 1], 1: [1, 1], 2: [1, 0], 3: [0, 0]})
    p, between = 5 / 8, (2 * 0.75**2 + 0.25**2 + 1.25**2) / 64 * 4 / 3
    q = 0.64 * 3.182446**2 * between / (p * (1 - p)) + 0.36 * 1.959964**2 / 4
    centre, half = (p + q / 2) / (1 + q), math.sqrt(q * p * (1 - p) + q * q / 4) / (1 + q)
    assert (rate.low, rate.high) == pytest.approx((centre - half, centre + half))


def test_clusters_count_not_rows() -> None:
    """Ten identical rows in each of four clusters carry four units of information, not forty."""
    clustered = mean_over({i: [float(i % 2)] * 10 for i in range(4)})
    single = mean_over({(i, j): [float(i % 2)] for i in range(4) for j in range(10)})
    assert clustered.high - clustered.low > 2 * (single.high - single.low)


@pytest.mark.parametrize("n", [9, 40, 60, 80])
@pytest.mark.parametrize(("wordings", "alike"), [(1, 0.0), (4, 0.3), (8, 0.5)])
def test_intervals_of_shares_keep_their_promise(n: int, wordings: int, alike: float) -> None:
    """95% intervals of n facts hold the true share in 95% of repetitions, less what 300 repetitions can show; the
    wordings of a fact are alike (correlation of two of them). The full run is ``benchmarks/intervals.py``."""
    draw, repetitions = np.random.default_rng(n + wordings), 300
    for p in (0.85, 0.9, 0.95, 0.99):
        c = (1 - alike) / alike if alike else 0.0
        held = 0
        for _ in range(repetitions):
            of_fact = draw.beta(p * c, (1 - p) * c, size=n) if alike else np.full(n, p)
            rows = draw.random((n, wordings)) < of_fact[:, None]
            rate = mean_over(dict(enumerate(rows.astype(float))))
            held += rate.low <= p <= rate.high
        assert held / repetitions > 0.95 - 3 * math.sqrt(0.95 * 0.05 / repetitions), p  # 0.912


@pytest.mark.parametrize("n", [9, 60])
@pytest.mark.parametrize("wordings", [1, 4])
def test_intervals_of_differences_keep_their_promise(n: int, wordings: int) -> None:
    """Two arms on the same prompts: what one alone gets right is rare."""
    draw, repetitions = np.random.default_rng(n), 300
    for better, worse in ((0.0, 0.03), (0.02, 0.02), (0.05, 0.3)):
        held = 0
        for _ in range(repetitions):
            kind = draw.random((n, 1)) if wordings == 1 else np.repeat(draw.random((n, 2)), wordings // 2, 1)
            a, b = (kind > worse).astype(float), (kind < 1 - better).astype(float)
            rate = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
            held += rate.low <= better - worse <= rate.high
        assert held / repetitions > 0.912, (better, worse)


def test_few_clusters_get_students_interval() -> None:
    """Numbers 1, 2, 3 and 6: 3 +- 3.182 sqrt(14 / 3 / 4). More than thirty clusters are left alone."""
    rate = mean_over({"a": [1.0], "b": [2.0], "c": [3.0], "d": [6.0]})
    half = 3.182446 * math.sqrt(14 / 3 / 4)
    assert (rate.low, rate.high) == pytest.approx((3 - half, 3 + half))
    assert mean_over({0: [0.9], 1: [1.0], 2: [0.8]}).high > 1
    bounded = mean_over({0: [0.9], 1: [1.0], 2: [0.8]}, within=(0, 1))
    assert bounded.method == "clustered wilson" and bounded.low < 0.9 < bounded.high < 1
    widths = []
    for k in (30, 31):
        rate, spread = mean_over({i: [float(i)] for i in range(k)}), math.sqrt((k * k - 1) / 12 / (k - 1))
        widths.append((rate.high - rate.low) / 2 / spread)
    assert widths[0] == pytest.approx(2.045230, abs=1e-5) and widths[1] < 2.02


@pytest.mark.parametrize("sizes", [[4] * 3, [4] * 5, [1] * 4, [20, 1], [8, 4, 2, 1]])
def test_few_clusters_rarely_deny_the_truth(sizes: list[int]) -> None:
    """Three equal signs are no proof: intervals of 95% miss a true difference of 0 about one time in twenty, and no
    more often where one cluster is large."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(400):
        values = {i: list(draw.normal(size=n) + draw.normal()) for i, n in enumerate(sizes)}
        found.append(paired_difference(values, {i: [0.0] * n for i, n in enumerate(sizes)}))
    assert sum(rate.low > 0 or rate.high < 0 for rate in found) / len(found) < 0.08


def test_bootstrap_matches_the_normal_interval() -> None:
    """200 single-row clusters, half 0.2, half 0.8: 0.5 +- 1.96 * 0.3 / sqrt(200)."""
    rate = mean_over({i: [0.2 + 0.6 * (i % 2)] for i in range(200)}, resamples=4000)
    assert rate.low == pytest.approx(0.5 - 1.96 * 0.3 / math.sqrt(200), abs=0.01)
    assert rate.high == pytest.approx(0.5 + 1.96 * 0.3 / math.sqrt(200), abs=0.01)


def test_bootstrap_is_seeded() -> None:
    values = {i: [math.sin(i), math.sqrt(i)] for i in range(40)}
    assert mean_over(values, seed=3) == mean_over(values, seed=3)
    assert mean_over(values, seed=3) != mean_over(values, seed=4)


def test_one_cluster_is_wilson() -> None:
    assert mean_over({"a": [1, 0, 1]}) == wilson(2, 3)
    assert share([("a", True), ("a", False), ("a", True)]) == wilson(2, 3)


def test_one_cluster_of_numbers_resamples_rows() -> None:
    """As if each were a cluster: of few ones Student's t."""
    rate = mean_over({"a": [0.1, 0.2, 0.6]})
    half = 4.302653 * math.sqrt((0.04 + 0.01 + 0.09) / 2 / 3)
    assert (rate.value, rate.low, rate.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))
    many = mean_over({"a": [0.1 * i for i in range(20)]})
    assert many.value == pytest.approx(0.95) and 0.5 < many.low < 0.9 < 1.0 < many.high < 1.4


def test_equal_clusters_do_not_pretend_to_be_certain() -> None:
    """Five facts, all right on all eight questions: as wide as 5 of 5, not as 40 of 40, and not of zero width."""
    rate = share([(f, True) for f in range(5) for _ in range(8)])
    assert (rate.value, rate.n, rate.clusters, rate.method) == (1.0, 40, 5, "clustered wilson")
    assert rate.low == pytest.approx(wilson(5, 5).low)
    half = mean_over({i: [0, 1] for i in range(4)})  # never narrower than of as many independent rows
    assert (half.low, half.high) == pytest.approx((wilson(4, 8).low, wilson(4, 8).high))
    number = mean_over({i: [0.25] for i in range(4)})
    assert number.value == 0.25
    assert math.isnan(number.low)


def test_paired_difference_by_hand() -> None:
    rate = paired_difference({"a": [1, 1], "b": [0.5]}, {"a": [0, 1], "b": [0.25]})
    assert rate.value == pytest.approx(1.25 / 3)
    half = 12.706205 * 0.25 / 2  # without b 0.5, without a 0.25
    assert (rate.low, rate.high) == pytest.approx((rate.value - half, rate.value + half))


def test_pairing_narrows() -> None:
    """Facts differ widely, the difference hardly: the paired interval is the narrow one."""
    b = {i: [10.0 * i] for i in range(12)}
    a = {i: [10.0 * i + 1 + 0.01 * (i % 3)] for i in range(12)}
    rate = paired_difference(a, b)
    assert 1.0 <= rate.low <= rate.value <= rate.high <= 1.02


@pytest.mark.parametrize(("x", "y", "sign"), [(1, 1, 0), (1, 0, 1), (0, 1, -1)])
def test_equal_differences_keep_a_width(x: int, y: int, sign: int) -> None:
    """Of six: no difference is as 0 of six with one each way, 0 +- 1.96 sqrt(2 / 8 / 8)."""
    rate = paired_difference({i: [x] for i in range(6)}, {i: [y] for i in range(6)})
    assert rate.value == sign and rate.method == "adjusted wald"
    if sign:
        assert rate.high - rate.low > 0.2 and (rate.high if sign > 0 else rate.low) == sign
    else:
        assert (rate.low, rate.high) == pytest.approx((-1.96 * math.sqrt(2) / 8, 1.96 * math.sqrt(2) / 8), abs=1e-4)


def test_an_adjusted_difference_by_hand() -> None:
    """Three pairs of 1 and 0, one of 0 and 1, six equal: adjusted (3 - 1) / 12 and ((3 + 1 + 2) / 12 - its square)
    / 12, beside 0.2 and the variance between pairs; four of them differ, so the former weigh (3 / 7)^2."""
    d = [1, 1, 1, -1, *[0] * 6]
    rate = paired_difference({i: [max(x, 0)] for i, x in enumerate(d)}, {i: [max(-x, 0)] for i, x in enumerate(d)})
    doubt = 9 / 49
    centre = (1 - doubt) * 0.2 + doubt * 2 / 12
    between, adjusted = (4 / 10 - 0.04) / 9, (6 / 12 - (2 / 12) ** 2) / 12
    half = math.sqrt((1 - doubt) * 2.262157**2 * between + doubt * 1.959964**2 * adjusted)
    assert (rate.value, rate.n) == (pytest.approx(0.2), 10)
    assert (rate.low, rate.high) == pytest.approx((centre - half, centre + half))


def test_paired_difference_refuses_unpaired_rows() -> None:
    with pytest.raises(ValueError, match="same clusters"):
        paired_difference({"a": [1]}, {"b": [1]})
    with pytest.raises(ValueError, match="paired"):
        paired_difference({"a": [1]}, {"a": [1, 0]})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_unmeasured_values_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_over({"a": [1.0, bad]})


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(0, 9), st.lists(floats, min_size=1, max_size=5), min_size=1, max_size=6))
def test_a_mean_is_within_its_interval(values: dict[int, list[float]]) -> None:
    rate = mean_over(values, resamples=50)
    rows = [v for vs in values.values() for v in vs]
    assert rate.value == pytest.approx(sum(rows) / len(rows), abs=1e-9)
    if not math.isnan(rate.low):
        assert rate.low <= rate.value <= rate.high


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(0, 9), bits, min_size=1, max_size=6))
def test_a_share_always_has_a_width(groups: dict[int, list[bool]]) -> None:
    rate = share([(k, b) for k, bs in groups.items() for b in bs])
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert rate.clusters == len(groups)
    assert rate.low < rate.high and rate.has_interval


def test_ngram_entropy_by_hand() -> None:
    """a b a b c: bigrams ab 2, ba 1, bc 1 -> 1.5 bits; trigrams aba, bab, abc -> log2 3."""
    assert ngram_entropy("a b a b c") == pytest.approx(2 / 3 * 1.5 + 4 / 3 * math.log2(3))
    assert ngram_entropy("a b a b c", weights=(1.0, 0.0)) == pytest.approx(1.5)
    assert ngram_entropy("a a a a a") == 0.0
    assert math.isnan(ngram_entropy("a b"))


@given(st.text(alphabet="ab c\n", max_size=40))
def test_ngram_entropy_is_bounded(text: str) -> None:
    n = len(text.split())
    if n >= 3:
        assert 0 <= ngram_entropy(text) <= 2 / 3 * math.log2(n - 1) + 4 / 3 * math.log2(max(1, n - 2)) + 1e-9


def test_harmonic_mean_by_hand() -> None:
    assert harmonic_mean([1.0, 0.5, 0.25]) == pytest.approx(3 / 7)
    assert harmonic_mean([1.0, 0.0]) == 0.0
    assert math.isnan(harmonic_mean([]))
    assert math.isnan(harmonic_mean([1.0, math.nan]))
    with pytest.raises(ValueError, match="0 or more"):
        harmonic_mean([1.0, -0.1])


def test_spearman_by_hand() -> None:
    """Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15) = 0.8; ties at their mean rank."""
    assert spearman([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(0.8)
    assert spearman([1, 2, 3], [9, 4, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(math.sqrt(3) / 2)
    assert math.isnan(spearman([1, 1], [1, 2]))
    assert math.isnan(spearman([1], [1]))
    with pytest.raises(ValueError, match="one length"):
        spearman([1, 2], [1])


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=20))
def test_spearman_sees_only_order(pairs: list[tuple[int, int]]) -> None:
    x, y = [a for a, _ in pairs], [b for _, b in pairs]
    plain, bent = spearman(x, y), spearman([v**3 for v in x], y)
    assert math.isnan(plain) == math.isnan(bent)
    if not math.isnan(plain):
        assert bent == pytest.approx(plain, abs=1e-12)
        assert spearman(y, x) == pytest.approx(plain, abs=1e-12)
