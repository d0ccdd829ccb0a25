"""What the inputs of a module look like in ordinary text: the uncentred covariance that closed-form editors spare."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

OutputModule = Literal["mlp", "attn"]
"""Whose output projection is meant: the MLP's (its inputs are the neurons) or the attention's (the heads' entries)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Covariance:
    """C = E[k k^T] over the tokens of ordinary text, where k is what a layer's output projection reads. Not centred; a
    text's first token does not count.

    Args:
        layer: The layer.
        module: ``"mlp"``: k is the activation of the neurons; ``"attn"``: the concatenated heads.
        values: C, [d_in, d_in] float64, on the CPU.
        tokens: How many tokens it is the mean of.
        fingerprint: Of the unedited model that read them.
        texts: Hash of the texts.
        spectrum: Its eigenvalues in ascending order, [d_in] float64, where they are known already.

    Source: Meng et al. 2022 (2202.05262), where it is the second moment of keys.

    Example:
        >>> covariance = wb.covariance(model, 1, texts=["The capital of France is Paris."] * 40)
        >>> tuple(covariance.values.shape), covariance.tokens, covariance.rank <= 56
        ((56, 56), 240, True)
    """

    layer: int
    module: OutputModule
    values: Tensor
    tokens: int
    fingerprint: str = ""
    texts: str = ""
    spectrum: Tensor | None = None

    @property
    def d_in(self) -> int:
        """The module's inputs."""
        return len(self.values)

    @cached_property
    def eigenvalues(self) -> Tensor:
        """In ascending order, [d_in] float64."""
        if self.spectrum is not None:
            return self.spectrum
        return torch.linalg.eigvalsh(self.values)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

    @property
    def rank(self) -> int:
        """How many directions the text has, of d_in: eigenvalues above rounding, and never more than tokens."""
        values = self.eigenvalues
        least = float(values[-1].clamp(min=0)) * self.d_in * torch.finfo(torch.float64).eps
        return min(int((values > least).sum()), self.tokens)

    @property
    def condition(self) -> float:
        """The largest eigenvalue divided by the smallest; infinite where directions are missing."""
        if self.rank < self.d_in:
            return float("inf")
        return float(self.eigenvalues[-1] / self.eigenvalues[0])

    @property
    def words(self) -> str:
        """What it is, for a person."""
        return f"{self.tokens:,} tokens, rank {self.rank} of {self.d_in}, condition number {self.condition:.1e}"

    def __repr__(self) -> str:
        return f"Covariance(L{self.layer} {self.module}: {self.words})"
