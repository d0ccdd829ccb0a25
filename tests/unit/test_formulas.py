"""The closed forms, against their defining equations and each other, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from workbench.editing.solved import formulas
from workbench.editing.solved.formulas import Metric, SingularCovariance, VanishingDenominator

D_IN, D_OUT, N = 12, 7, 3
COLUMNS = (0, 3, 4, 7, 8, 11)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariance(seed: int = 5) -> Tensor:
    keys = drawn(D_IN, 40, seed=seed)
    return keys @ keys.T / 40


K, R, C = drawn(D_IN, N, seed=1), drawn(D_OUT, N, seed=2), covariance()
EYE = torch.eye(D_IN, dtype=torch.float64)


def product(factors: formulas.Factors) -> Tensor:
    u, v = factors
    return u @ v


@pytest.mark.parametrize("columns", [None, COLUMNS])
def test_memit_solves_its_normal_equations(columns: tuple[int, ...] | None) -> None:
    weights = torch.tensor([0.5, 0.3, 2.0], dtype=torch.float64)
    factors = formulas.memit(Metric(3 * C, columns), K, R, weights)
    inside = list(columns or range(D_IN))
    part, scaled = (3 * C)[inside][:, inside], K[inside] * weights.sqrt()
    update = product(factors)
    assert formulas.normal_residual(part, scaled, R * weights.sqrt(), (factors[0], factors[1][:, inside])) < 1e-6
    outside = [i for i in range(D_IN) if i not in inside]
    assert bool((update[:, outside] == 0).all())
    written = update[:, inside] @ (part + (K[inside] * weights) @ K[inside].T)
    torch.testing.assert_close(written, (R * weights) @ K[inside].T)


@pytest.mark.parametrize("columns", [None, COLUMNS])
def test_an_update_of_some_columns_is_the_best_of_those(columns: tuple[int, ...] | None) -> None:
    """No other update of these columns has a smaller sum of what it misses and what it changes elsewhere."""

    def loss(update: Tensor) -> float:
        return float((update @ K - R).square().sum() + torch.trace(update @ C @ update.T))

    best = product(formulas.memit(Metric(C, columns), K, R))
    for seed in range(5):
        step = 1e-3 * drawn(D_OUT, D_IN, seed=10 + seed)
        mask = torch.zeros(D_IN, dtype=torch.float64)
        mask[list(columns or range(D_IN))] = 1
        assert loss(best + step * mask) > loss(best)


@pytest.mark.parametrize("columns", [None, COLUMNS])
def test_rome_is_exact_at_its_key(columns: tuple[int, ...] | None) -> None:
    metric = Metric(C, columns)
    key, other, residual = K[:, 0], K[:, 1], R[:, 0]
    torch.testing.assert_close(product(formulas.rome(metric, key, residual)) @ key, residual)
    two = product(formulas.rome(metric, key, residual, at=other))
    torch.testing.assert_close(two @ other, residual)
    assert float((two @ key - residual).norm()) > 0.1  # exact at the one, not at the other


def test_rome_by_hand() -> None:
    u, v = formulas.rome(
        Metric(torch.diag(torch.tensor([2.0, 4.0]))), torch.tensor([2.0, 4.0]), torch.tensor([6.0, 3.0, 0.0])
    )
    # C^-1 k = (1, 1), and k.(1, 1) = 6
    torch.testing.assert_close(u @ v, torch.tensor([[1.0, 1.0], [0.5, 0.5], [0.0, 0.0]], dtype=torch.float64))


def test_emmet_of_one_fact_is_rome() -> None:
    metric = Metric(C, COLUMNS)
    one = formulas.emmet(metric, K[:, :1], R[:, :1])
    torch.testing.assert_close(product(one), product(formulas.rome(metric, K[:, 0], R[:, 0])))


def test_emmet_is_exact_at_every_key() -> None:
    torch.testing.assert_close(product(formulas.emmet(Metric(C), K, R)) @ K, R)
    damped = product(formulas.emmet(Metric(C), K, R, damping=1.0)) @ K
    assert float(damped.norm()) < float(R.norm())


def test_emmet_refuses_two_facts_of_one_key() -> None:
    twice = torch.stack([K[:, 0], 2 * K[:, 0]], 1)
    with pytest.raises(VanishingDenominator, match=r"2 keys span fewer than 2 directions.*damping"):
        formulas.emmet(Metric(C), twice, R[:, :2])


def test_memit_tends_to_rome() -> None:
    rome = product(formulas.rome(Metric(C), K[:, 0], R[:, 0]))
    far, near = (product(formulas.memit(Metric(weight * C), K[:, :1], R[:, :1])) for weight in (1e-2, 1e-8))
    assert float((near - rome).norm()) < 1e-6 * float(rome.norm()) < 1e-2 * float((far - rome).norm())


def test_alphaedit_with_all_directions_free_is_memit_with_the_identity() -> None:
    same = formulas.alphaedit(EYE, K, R, l2=0.7)
    torch.testing.assert_close(product(same), product(formulas.memit(Metric(0.7 * EYE), K, R)))
    inside = torch.eye(len(COLUMNS), dtype=torch.float64)
    same = formulas.alphaedit(inside, K, R, l2=0.7, columns=COLUMNS)
    torch.testing.assert_close(product(same), product(formulas.memit(Metric(0.7 * EYE, COLUMNS), K, R)))


@pytest.mark.parametrize("columns", [None, COLUMNS])
def test_alphaedit_stays_in_the_free_directions(columns: tuple[int, ...] | None) -> None:
    projection, rank = formulas.free_directions(C, 0.8, columns)
    size = len(columns or range(D_IN))
    assert 0 < rank < size
    torch.testing.assert_close(projection @ projection, projection)
    assert float(projection.trace()) == pytest.approx(rank)
    factors = formulas.alphaedit(projection, K, R, earlier=drawn(D_IN, 2, seed=9), l2=0.5, columns=columns)
    update = product(factors)
    inside = list(columns or range(D_IN))
    torch.testing.assert_close(projection @ update[:, inside].T, update[:, inside].T)
    assert bool((update[:, [i for i in range(D_IN) if i not in inside]] == 0).all())


@pytest.mark.parametrize("columns", [None, COLUMNS])
def test_alphaedit_solves_its_equation(columns: tuple[int, ...] | None) -> None:
    """[P (K K^T + K_p K_p^T) + L2 I] dW^T = P K R^T."""
    projection, _ = formulas.free_directions(C, 0.8, columns)
    inside, earlier = list(columns or range(D_IN)), drawn(D_IN, 2, seed=9)
    update = product(formulas.alphaedit(projection, K, R, earlier=earlier, l2=0.5, columns=columns))[:, inside]
    own, before = K[inside], earlier[inside]
    left = projection @ (own @ own.T + before @ before.T) + 0.5 * torch.eye(len(inside), dtype=torch.float64)
    wanted = projection @ own @ R.T
    assert float((left @ update.T - wanted).norm() / wanted.norm()) < 1e-6


def test_alphaedit_spares_earlier_keys() -> None:
    earlier = drawn(D_IN, 2, seed=9)
    projection, _ = formulas.free_directions(C, 0.5)
    free = product(formulas.alphaedit(projection, K, R, l2=1e-3))
    spared = product(formulas.alphaedit(projection, K, R, earlier=100 * earlier, l2=1e-3))
    assert float((spared @ earlier).norm()) < 1e-2 * float((free @ earlier).norm())


def test_free_directions_by_hand() -> None:
    values = torch.diag(torch.tensor([1.0, 6.0, 3.0]))  # shares 0.6, 0.3, 0.1
    projection, rank = formulas.free_directions(values, 0.6)
    assert rank == 2
    torch.testing.assert_close(projection, torch.diag(torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)))
    assert formulas.free_directions(values, 0.61)[1] == 1
    with pytest.raises(ValueError, match=r"kept=0.95.*3 of 3 directions.*nothing would be left to move"):
        formulas.free_directions(values, 0.95)
    with pytest.raises(ValueError, match=r"0 of 3 directions.*nothing would be kept"):
        formulas.free_directions(values, 0.0)


def test_a_batch_is_the_sum_of_its_facts_where_their_keys_do_not_meet() -> None:
    factor = torch.linalg.cholesky(C)
    apart = factor @ torch.linalg.qr(drawn(D_IN, N, seed=3)).Q * torch.tensor([1.0, 2.0, 3.0])
    gram = Metric(C).gram(apart)
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()))
    metric = Metric(2 * C)
    for solve in (formulas.memit, formulas.emmet):
        one_by_one = sum(product(solve(metric, apart[:, [i]], R[:, [i]])) for i in range(N))
        torch.testing.assert_close(product(solve(metric, apart, R)), one_by_one)


def test_a_singular_covariance_is_refused_with_its_rank() -> None:
    few = drawn(D_IN, 5, seed=4)
    with pytest.raises(SingularCovariance, match=r"rank 5 of 12 columns.*raise ridge"):
        Metric(few @ few.T)
    Metric(few @ few.T, (0, 1, 2))  # of three columns it is none


def test_a_vanishing_denominator_is_refused_with_the_number() -> None:
    small = torch.tensor([5.0, 1e-5])
    with pytest.raises(VanishingDenominator, match=r"at layer 3 mlp is 1e-05, .*about 12: the 4 .*force=True"):
        formulas.check_denominators(small, 12, n_columns=4, where="layer 3 mlp")
    formulas.check_denominators(small, 12, n_columns=4, force=True)
    with pytest.raises(VanishingDenominator):
        formulas.check_denominators(torch.zeros(1), 12, n_columns=4, force=True)


def test_leverage_is_the_mean_of_ordinary_tokens() -> None:
    keys = drawn(D_IN, 40, seed=5)
    assert float(Metric(keys @ keys.T / 40).leverage(keys).mean()) == pytest.approx(D_IN)
    torch.testing.assert_close(Metric(C).scaled(4.0).leverage(K), Metric(4 * C).leverage(K))


def test_compressed_keeps_the_largest_directions() -> None:
    u, v = drawn(D_OUT, 5, seed=6), drawn(5, D_IN, seed=7)
    v[:, [1, 2]] = 0
    left, values, right = torch.linalg.svd(u @ v)
    for rank in (1, 2):
        small = formulas.compressed((u, v), rank)
        assert small[0].shape[1] == rank
        torch.testing.assert_close(product(small), left[:, :rank] * values[:rank] @ right[:rank])
        assert bool((small[1][:, [1, 2]] == 0).all())
    narrow = formulas.compressed((u, v * (torch.arange(D_IN) == 4)), None)
    assert narrow[0].shape[1] == 1
    torch.testing.assert_close(product(narrow), u @ (v * (torch.arange(D_IN) == 4)))


def test_norm_and_stable_rank() -> None:
    u, v = drawn(D_OUT, 5, seed=6), drawn(5, D_IN, seed=7)
    values = torch.linalg.svdvals(u @ v)
    assert formulas.norm((u, v)) == pytest.approx(float((u @ v).norm()))
    assert formulas.stable_rank((u, v)) == pytest.approx(float((values**2).sum() / values[0] ** 2))
    assert formulas.stable_rank((u * 0, v)) == 0.0
