"""What a closed-form edit wrote into one module, in numbers that say how it may go wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from workbench.types.covariance import OutputModule
from workbench.types.plain import lists_as_tuples, tuples_as_lists


@dataclass(frozen=True, kw_only=True)
class Write:
    """An update of one output projection.

    Args:
        layer: The layer.
        module: ``"mlp"`` or ``"attn"``: whose output projection.
        name: The module's name within its layer (``"mlp.down_proj"``).
        stage: The edit's stage that wrote it.
        columns: The inputs that it may read; None for all.
        keys: How many keys it was solved for.
        rank: Of the update.
        denominator: k^T C^-1 k of the keys in those columns, the smallest of the facts' means; C has the ridge and the
            spared keys in it. Of two-key ROME it is the product of both keys. An ordinary token has about as much as
            there are columns.
        relative_norm: |dW| / |W| (Frobenius); NaN where it is not known before the update is trained.
        stable_rank: |dW|^2 / |dW|_2^2; NaN likewise.
        tokens, covariance_rank, condition: Of the covariance; None where the identity stood for it.
        residual_before, residual_after: What the keys' outputs lacked of their targets, and lack after the write,
            |v* - W k| as a mean over keys.

    Example:
        >>> from workbench.types import Write
        >>> Write(layer=5, module="mlp", name="mlp.down_proj", denominator=30.0, relative_norm=0.02).words
        'L5 mlp.down_proj: |dW| is 0.02 of |W|, denominator 30'
    """

    layer: int
    module: OutputModule
    name: str
    stage: str = "edit"
    columns: tuple[int, ...] | None = None
    keys: int = 1
    rank: int = 1
    denominator: float = 0.0
    relative_norm: float = 0.0
    stable_rank: float = 1.0
    tokens: int | None = None
    covariance_rank: int | None = None
    condition: float | None = None
    residual_before: float | None = None
    residual_after: float | None = None

    @property
    def words(self) -> str:
        """What was written, for a person."""
        size = "" if math.isnan(self.relative_norm) else f"|dW| is {self.relative_norm:.2g} of |W|, "
        return f"L{self.layer} {self.name}: {size}denominator {self.denominator:.3g}"

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return tuples_as_lists(asdict(self))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Write:
        """The inverse of ``to_dict``."""
        given: dict[str, Any] = lists_as_tuples(fields)
        return cls(**given)
