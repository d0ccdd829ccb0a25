"""The protocol of all deltas, and several deltas in order."""

from __future__ import annotations

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from workbench.types.plain import is_finite

DeltaKind = Literal["gates", "low-rank", "dense", "memory", "context", "sequence"]
LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")
"""The layer in a module's or a parameter's name."""


class Delta(ABC):
    """A delta is what an edit adds to a base model. It is frozen: every operation gives a new one.

    Attributes:
        kind: Which of the kinds it is.

    Example:
        >>> delta = edit.delta()
        >>> delta.kind, delta.words(), delta.lowest_layer
        ('gates', '368 gates moved', 1)
        >>> delta.scaled(0.0).n_moved()
        0
        >>> delta.then(delta.scaled(0.5)).words()
        '368 gates moved'
    """

    kind: ClassVar[DeltaKind]

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Its numbers by name; with ``header`` they are all of it. They are its own: do not write to them."""

    @abstractmethod
    def header(self) -> dict[str, Any]:
        """The rest as plain JSON values: the kind, and what the names of the tensors mean."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it at all, so that it can be left out."""
        return not self.tensors()

    @property
    def context(self) -> tuple[str, ...]:
        """Texts that it puts before what the model is asked, in order; none but for a context."""
        return ()

    @property
    @abstractmethod
    def lowest_layer(self) -> int | None:
        """The lowest layer that it changes (0 for the embeddings); None where it changes none."""

    @abstractmethod
    def scaled(self, strength: float) -> Delta:
        """The delta at a strength: 0 changes nothing, to the bit; 1 is the delta itself.

        Raises:
            ValueError: A strength that is not a finite number.
        """

    @abstractmethod
    def n_moved(self) -> int:
        """How many of its numbers differ from those that change nothing."""

    @abstractmethod
    def largest_move(self) -> float:
        """Largest distance of one of its numbers from that which changes nothing."""

    @abstractmethod
    def words(self) -> str:
        """What it is, for a person: ``"12 gates moved"``."""

    @abstractmethod
    def _joined(self, other: Any) -> Delta | None:
        """This and then another of the same kind, as one; None where only the base tells what they are together.

        Raises:
            ValueError: They have different shapes at one place.
        """

    def permuted(self, seed: int) -> Delta:
        """The delta with its gates, or the input columns that it reads, exchanged within each module: as large, and at
        other places. What it does then is what any change of this size does.

        Args:
            seed: Of the permutation.

        Raises:
            ValueError: A kind that has neither gates nor input columns of its own.

        Example:
            >>> delta = edit.delta()
            >>> delta.permuted(1).n_moved() == delta.n_moved()
            True
        """
        raise ValueError(
            f"A delta of the kind {self.kind!r} ({self.words()}) has no gates and no input columns of its own, so it "
            "cannot be permuted. Deltas of gates and of low rank can be."
        )

    def then(self, other: Delta) -> Delta:
        """What the two do one after the other, both made for the same base. Associative.

        Raises:
            ValueError: They are of different shapes at the same place, so that one of them is for another model.
        """
        if other.empty:
            return self
        if self.empty:
            return other
        first, second = _parts(self), _parts(other)
        joined = first[-1]._joined(second[0]) if first[-1].kind == second[0].kind else None
        middle = (first[-1], second[0]) if joined is None else (joined,)
        parts = (*first[:-1], *middle, *second[1:])
        return parts[0] if len(parts) == 1 else Deltas(parts)

    def digest(self) -> str:
        """SHA-256 of the kind and of every number, with its place and shape."""
        hashed = hashlib.sha256(self.kind.encode())
        self.hash_into(hashed)
        return hashed.hexdigest()

    def hash_into(self, hashed: Any) -> None:
        """Feed the kind, the header and every number to a hash."""
        hashed.update(repr(sorted(self.header().items(), key=lambda item: item[0])).encode())
        for name, tensor in self.tensors().items():
            hashed.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            hashed.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())


def drawn_order(seed: int) -> Callable[[int], Tensor]:
    """Permutations drawn one after the other by a seed: called with a length, it gives that many indices."""
    generator = torch.Generator().manual_seed(seed)
    return lambda n: torch.randperm(n, generator=generator)


def _parts(delta: Delta) -> tuple[Delta, ...]:
    return delta.parts if isinstance(delta, Deltas) else (delta,)


def finite(strength: object) -> float:
    """A strength that is a finite number; a ValueError for anything else."""
    if not is_finite(strength):
        raise ValueError(f"strength must be a finite number (0: base, 1: the whole edit), got {strength!r}.")
    return strength


def check_shapes(place: str, mine: Tensor, other: Tensor) -> None:
    if mine.shape != other.shape:
        raise ValueError(
            f"Two deltas cannot be put together: at {place} one has the shape {tuple(mine.shape)} and the other "
            f"{tuple(other.shape)}, so they were made for different models. Use edits of one base."
        )


def owned(tensor: Tensor, dtype: torch.dtype | None = torch.float32) -> Tensor:
    """A copy on the CPU that nobody else can change, with which a model can be trained: not one of inference mode."""
    with torch.inference_mode(False):
        return tensor.detach().to("cpu", dtype or tensor.dtype).clone()


@dataclass(frozen=True, eq=False)
class Deltas(Delta):
    """Several deltas act one after the other. Made by ``Delta.then`` where they are of different kinds.

    The later one works on the model as the earlier ones left it: gates after a low-rank update multiply that update
    too. A dense delta after others adds the difference between its tensors and the base's. A memory stands beside its
    module as all the others leave it, wherever it comes in the order.

    Args:
        parts: In order; neighbours are of different kinds, or dense.

    Example:
        >>> from workbench.types import DenseDelta, GateDelta
        >>> gates = GateDelta({(1, "z"): torch.tensor([1.0, 0.0, 2.0])})
        >>> both = gates.then(DenseDelta({"model.norm.weight": torch.ones(42)}))
        >>> both.words(), [part.kind for part in both.parts]
        ('2 gates moved, then 1 whole tensor changed (42 weights)', ['gates', 'dense'])
    """

    parts: tuple[Delta, ...]
    kind: ClassVar[DeltaKind] = "sequence"

    def tensors(self) -> dict[str, Tensor]:
        """See ``Delta``: those of each part, by its number and their names."""
        return {f"{i}.{name}": tensor for i, part in enumerate(self.parts) for name, tensor in part.tensors().items()}

    def header(self) -> dict[str, Any]:
        """See ``Delta``."""
        return {"kind": self.kind, "parts": [part.header() for part in self.parts]}

    @property
    def empty(self) -> bool:
        """See ``Delta``."""
        return all(part.empty for part in self.parts)

    @property
    def context(self) -> tuple[str, ...]:
        """See ``Delta``: those of its parts."""
        return tuple(text for part in self.parts for text in part.context)

    @property
    def lowest_layer(self) -> int | None:
        """See ``Delta``."""
        layers = [part.lowest_layer for part in self.parts]
        return min((layer for layer in layers if layer is not None), default=None)

    def n_moved(self) -> int:
        """See ``Delta``."""
        return sum(part.n_moved() for part in self.parts)

    def largest_move(self) -> float:
        """See ``Delta``."""
        moves = [part.largest_move() for part in self.parts]
        return math.nan if any(map(math.isnan, moves)) else max(moves, default=0.0)

    def words(self) -> str:
        """See ``Delta``."""
        return ", then ".join(part.words() for part in self.parts)

    def scaled(self, strength: float) -> Deltas:
        """Each part by itself."""
        return Deltas(tuple(part.scaled(strength) for part in self.parts))

    def permuted(self, seed: int) -> Deltas:
        """Each part by itself."""
        return Deltas(tuple(part.permuted(seed) for part in self.parts))

    def _joined(self, other: Any) -> Delta | None:
        raise TypeError("A sequence is taken apart before it is joined.")
