"""The closed forms, as pure functions of keys, residuals and a covariance, in float64.

Keys K are [d_in, n], residuals R = V* - W K are [d_out, n]; all give the update as factors U [d_out, r], V [r, d_in],
dW = U V. With ``columns`` only those inputs are read: dW k = D k_S and tr(dW C dW^T) = tr(D C_SS D^T), so that the
restricted optimum is the same formula of k_S and C_SS, and every other column of V is exactly 0.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

LEAST_DENOMINATOR = 1e-3
"""Of a key, k^T C^-1 k divided by the number of columns: a token of ordinary text has 1 on average."""
Factors = tuple[Tensor, Tensor]


class SingularCovariance(ValueError):
    """A covariance that cannot be inverted."""


class VanishingDenominator(ValueError):
    """A key that the written columns do not see, so that the update would explode."""


class Metric:
    """A symmetric positive matrix, C or what stands for it, by which the size of an update is measured.

    Args:
        values: [d_in, d_in]; the identity of a size: ``Metric.identity(d_in)``.
        columns: The inputs that may be read; None for all.
        where: The module, for the message.

    Raises:
        SingularCovariance: It cannot be inverted on these columns; the message has its rank.
    """

    def __init__(self, values: Tensor, columns: Sequence[int] | None = None, *, where: str = "") -> None:
        self.d_in = len(values)
        self.columns = torch.arange(self.d_in) if columns is None else torch.tensor(list(columns), dtype=torch.long)
        part = values.double()[self.columns][:, self.columns]
        factor, failed = torch.linalg.cholesky_ex(part)
        diagonal = factor.diagonal()
        if int(failed) or float(diagonal.min()) ** 2 <= float(part.diagonal().max()) * len(part) * 1e-15:
            rank = int(torch.linalg.matrix_rank(part, hermitian=True))
            raise SingularCovariance(
                f"The covariance{where and f' of {where}'} is singular: rank {rank} of {len(part)} columns. Measure it "
                "on more tokens, or raise ridge."
            )
        self._factor = factor

    @classmethod
    def identity(cls, d_in: int, columns: Sequence[int] | None = None) -> Metric:
        """C = I."""
        return cls(torch.eye(d_in, dtype=torch.float64), columns)

    @property
    def size(self) -> int:
        """How many columns may be read."""
        return len(self.columns)

    def scaled(self, scale: float) -> Metric:
        """The same times a number."""
        out = copy.copy(self)
        out._factor = self._factor * math.sqrt(scale)
        return out

    def part(self, keys: Tensor) -> Tensor:
        """Keys in the columns that may be read, [columns, n] float64."""
        return keys.double()[self.columns]

    def solve(self, keys: Tensor) -> Tensor:
        """C_SS^-1 K_S, [columns, n]."""
        return torch.cholesky_solve(self.part(keys), self._factor)

    def gram(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        """K^T C^-1 K' in these columns, [n, n']."""
        return self.part(first).T @ self.solve(first if second is None else second)

    def leverage(self, keys: Tensor) -> Tensor:
        """The denominators k^T C^-1 k of keys, [n]."""
        return (self.part(keys) * self.solve(keys)).sum(0)

    def wide(self, rows: Tensor) -> Tensor:
        """Rows [r, columns] as [r, d_in], 0 in the columns that may not be read."""
        out = torch.zeros(len(rows), self.d_in, dtype=torch.float64)
        out[:, self.columns] = rows
        return out


def check_denominators(
    denominators: Tensor, usual: float, *, n_columns: int, force: bool = False, where: str = ""
) -> None:
    """Refuse a key that the columns hardly see.

    Args:
        denominators: k^T C^-1 k, [n].
        usual: What an ordinary token has: of a measured C the number of columns.
        n_columns: How many columns are written.
        force: Let it pass, unless it is 0.
        where: The module, for the message.

    Raises:
        VanishingDenominator: With the number.
    """
    least = float(denominators.abs().min())
    if least > LEAST_DENOMINATOR * usual or (force and least > 0):
        return
    forced = ", or pass force=True to the recipe" if least > 0 else ""  # nothing can be divided by 0
    raise VanishingDenominator(
        f"The denominator k^T C^-1 k{where and f' at {where}'} is {least:.3g}, where an ordinary token has about "
        f"{usual:.3g}: the {n_columns} selected columns hardly see the subject, and the update would explode. Select "
        f"other components (or None for whole modules){forced}."
    )


def check_independent(gram: Tensor, advice: str, where: str = "") -> None:
    """Refuse keys of which one follows from the others.

    Args:
        gram: K^T C^-1 K of the keys, [n, n].
        advice: How the message ends.
        where: The module, for the message.

    Raises:
        VanishingDenominator: They span fewer than n directions.
    """
    if int(torch.linalg.matrix_rank(gram, hermitian=True)) < len(gram):
        raise VanishingDenominator(
            f"The {len(gram)} keys{where and f' at {where}'} span fewer than {len(gram)} directions, so "
            f"that no update is exact for all of them. {advice}"
        )


def rome(metric: Metric, key: Tensor, residual: Tensor, at: Tensor | None = None) -> Factors:
    """The smallest update that gives one key its value: dW = r u^T / (k.u), u = C^-1 k*.

    Args:
        metric: C.
        key: k*, [d_in].
        residual: v* - W k, [d_out], of the key at which the value is exact.
        at: That key; None for k* (one key everywhere). Another one is the published two-key form.

    Source: Meng et al. 2022 (2202.05262); one key: Gupta et al. 2024 (2403.07175).
    """
    direction = metric.solve(key[:, None])
    denominator = (metric.part((key if at is None else at)[:, None]) * direction).sum()
    return residual.double()[:, None], metric.wide(direction.T / denominator)


def memit(metric: Metric, keys: Tensor, residuals: Tensor, weights: Tensor | None = None) -> Factors:
    """The update that balances what the keys lack with what it changes elsewhere:
    dW = R K^T (A + K K^T)^-1, A = lambda C.

    Args:
        metric: A, on the selected columns.
        keys, residuals: [d_in, n], [d_out, n].
        weights: Of each key in the sum, [n]; 1 by default.

    Source: Meng et al. 2022 (2210.07229). Solved as (I + K^T A^-1 K)^-1 K^T A^-1, which is equal.
    """
    scale = torch.ones(keys.shape[1], dtype=torch.float64) if weights is None else weights.double().sqrt()
    scaled = keys.double() * scale
    inner = metric.gram(scaled) + torch.eye(len(scale), dtype=torch.float64)
    rows = torch.linalg.solve(inner, metric.solve(scaled).T)
    return residuals.double() * scale, metric.wide(rows)


def emmet(metric: Metric, keys: Tensor, residuals: Tensor, damping: float = 0.0) -> Factors:
    """The smallest update that gives every key its value: dW = R (K^T C^-1 K + damping I)^-1 K^T C^-1.

    Raises:
        VanishingDenominator: Two keys are the same direction, so that no update is exact for both.

    Source: Gupta et al. 2024 (2403.14236).
    """
    gram = metric.gram(keys)
    inner = gram + damping * torch.eye(len(gram), dtype=torch.float64)
    check_independent(inner, "Pass damping above 0, or leave out facts with one subject.")
    return residuals.double(), metric.wide(torch.linalg.solve(inner, metric.solve(keys).T))


def free_directions(values: Tensor, share: float, columns: Sequence[int] | None = None) -> tuple[Tensor, int]:
    """The projection away from the directions that ordinary text uses most.

    Args:
        values: C, [d_in, d_in].
        share: The smallest set of leading eigenvectors of C_SS with this share of its trace is kept untouched.
        columns: S; None for all.

    Returns:
        P [columns, columns] float64, and its rank.

    Raises:
        ValueError: It would be of rank 0 (nothing may move) or all (nothing is kept).

    Source: Fang et al. 2024 (2410.02355). Deviation: theirs is an absolute threshold on singular values (0.02), which
        belongs to one model.
    """
    index = torch.arange(len(values)) if columns is None else torch.tensor(list(columns), dtype=torch.long)
    eigenvalues, vectors = torch.linalg.eigh(values.double()[index][:, index])
    eigenvalues, vectors = eigenvalues.flip(0).clamp(min=0), vectors.flip(1)
    reached = eigenvalues.cumsum(0) / eigenvalues.sum()
    n_kept = int((reached < share).sum()) + 1
    n_kept = n_kept if share > 0 else 0
    if not 0 < n_kept < len(index):
        raise ValueError(
            f"kept={share:g} of the covariance's trace are {n_kept} of {len(index)} directions, so that "
            f"{'nothing would be left to move' if n_kept else 'nothing would be kept'}. Choose a share between 0 and 1 "
            "that leaves some of both."
        )
    free = vectors[:, n_kept:]
    return free @ free.T, len(index) - n_kept


def alphaedit(
    projection: Tensor,
    keys: Tensor,
    residuals: Tensor,
    *,
    earlier: Tensor | None = None,
    l2: float = 1.0,
    weights: Tensor | None = None,
    columns: Sequence[int] | None = None,
) -> Factors:
    """The update within the free directions: [P (K K^T + K_p K_p^T) + l2 I] X = P K R^T, dW = X^T.

    Args:
        projection: P, [columns, columns].
        keys, residuals: [d_in, n], [d_out, n].
        earlier: K_p, the keys of earlier edits that stay as they are, [d_in, m].
        l2: Weight of the update's own size.
        weights: Of each key in K K^T, [n]; 1 by default.
        columns: What may be read; None for all.

    Source: Fang et al. 2024 (2410.02355). The matrix is not symmetric.
    """
    d_in = len(keys)
    index = torch.arange(d_in) if columns is None else torch.tensor(list(columns), dtype=torch.long)
    scale = torch.ones(keys.shape[1], dtype=torch.float64) if weights is None else weights.double().sqrt()
    own = keys.double()[index] * scale
    outer = own @ own.T
    if earlier is not None and earlier.shape[1]:
        past = earlier.double()[index]
        outer = outer + past @ past.T
    system = projection @ outer + l2 * torch.eye(len(index), dtype=torch.float64)
    rows = torch.linalg.solve(system, projection @ own).T
    out = torch.zeros(len(rows), d_in, dtype=torch.float64)
    out[:, index] = rows
    return residuals.double() * scale, out


def compressed(factors: Factors, rank: int | None) -> Factors:
    """The update with its largest directions only (of U V, by singular values); for None with as many as it has at
    most, so that nothing is lost.

    Columns that are 0 stay exactly 0.
    """
    u, v = (factor.double() for factor in factors)
    most = min(len(u), int((v.abs().amax(0) > 0).sum()))
    rank = most if rank is None else min(rank, most)
    if u.shape[1] <= rank:
        return u, v
    q_u, r_u = torch.linalg.qr(u)
    used = v.abs().amax(0) > 0
    q_v, r_v = torch.linalg.qr(v[:, used].T)
    left, values, right = torch.linalg.svd(r_u @ r_v.T)
    out = torch.zeros(rank, v.shape[1], dtype=torch.float64)
    out[:, used] = right[:rank] @ q_v.T
    return q_u @ (left[:, :rank] * values[:rank]), out


def stable_rank(factors: Factors) -> float:
    """|dW|_F^2 / |dW|_2^2 of an update; 0 where it changes nothing."""
    values = singular_values(factors)
    return float((values**2).sum() / values[0] ** 2) if len(values) and float(values[0]) > 0 else 0.0


def norm(factors: Factors) -> float:
    """The Frobenius norm |dW|."""
    return float(singular_values(factors).norm())


def singular_values(factors: Factors) -> Tensor:
    """Of U V, largest first."""
    u, v = (factor.double() for factor in factors)
    r_u, r_v = torch.linalg.qr(u).R, torch.linalg.qr(v.T).R
    return torch.linalg.svdvals(r_u @ r_v.T)


def normal_residual(metric_values: Tensor, keys: Tensor, residuals: Tensor, factors: Factors) -> float:
    """How far an update is from MEMIT's normal equations dW (A + K K^T) = R K^T: the largest difference, relative to
    the largest entry of R K^T. ``keys`` and ``residuals`` with their weights' roots on them."""
    u, v = factors
    wanted = residuals.double() @ keys.double().T
    given = u.double() @ (v.double() @ (metric_values.double() + keys.double() @ keys.double().T))
    return float((given - wanted).abs().max() / wanted.abs().max())
