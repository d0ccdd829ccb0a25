"""What a computation would take, told before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EstimatedWork = Literal["trace", "attribute", "fit"]
"""A causal trace, an attribution by one backward pass, or a fit of a recipe."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Time and memory of a computation, from a model's configuration alone.

    Args:
        what: What is computed.
        model: The model's name.
        n_parameters: All of its parameters.
        dtype: Of its weights.
        weights_bytes: What the weights take.
        working_bytes: About what the computation takes besides, at its peak.
        operations: At most so many floating-point operations (two for a multiplication and its addition).
        speed: Operations a second of a large matrix product on the machine that is meant.
        counted: What the operations are of, in words.

    Example:
        >>> from transformers import LlamaConfig
        >>> wb.estimate(LlamaConfig(), speed=1e12, dtype="bfloat16").n_parameters
        6738415616
    """

    what: EstimatedWork
    model: str
    n_parameters: int
    dtype: str
    weights_bytes: int
    working_bytes: int
    operations: float
    speed: float
    counted: str

    @property
    def peak_bytes(self) -> int:
        """Weights and work together."""
        return self.weights_bytes + self.working_bytes

    @property
    def seconds(self) -> float:
        """At the speed of a large matrix product; what is measured is 1 to 2 times that."""
        return self.operations / self.speed

    @property
    def words(self) -> str:
        """The estimate in two sentences."""
        return (
            f"{_WORK[self.what]} on {self.model} ({self.n_parameters / 1e9:.2f} billion parameters in {self.dtype}): "
            f"about {_size(self.peak_bytes)} of memory, {_size(self.weights_bytes)} of it weights, and from "
            f"{_time(self.seconds)} to {_time(2 * self.seconds)}. Counted at most: {self.counted}, "
            f"{_number(self.operations)}operations at {_number(self.speed)}operations a second."
        )

    def __str__(self) -> str:
        return self.words


_WORK = {"trace": "A causal trace", "attribute": "An attribution", "fit": "A fit"}


def _size(nbytes: float) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    """Seconds in the unit in which they are read easily."""
    for unit, size in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _number(value: float) -> str:
    """With a factor in words, and a space behind it."""
    for word, size in (("quadrillion ", 1e15), ("trillion ", 1e12), ("billion ", 1e9)):
        if value >= size:
            return f"{value / size:.1f} {word}"
    return f"{value / 1e6:.1f} million "
