"""Memories beside linear modules, with a router that decides token by token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from workbench.types.delta.base import Delta, DeltaKind, check_shapes, finite, owned

MemoryKind = Literal["codebook", "side"]


@dataclass(frozen=True, eq=False)
class Codebook:
    """A codebook puts a value in the place of a module's output where the module's input is near one of its keys.

    A token takes the value of its nearest key, if it is no farther from it than the key's radius.

    Args:
        keys: [n, inputs read], float32.
        values: [n, d_out], float32: outputs of the module, its bias included.
        radii: [n], Euclidean distances; a negative one never fires.
        labels: Of each key, the token ids of what it teaches.
        columns: The inputs that are read, in the order of the keys' columns; None: all.
        strength: How far the output goes from the module's own (0) to the value (1).

    Raises:
        ValueError: Parts that do not fit together, or a strength that is not a finite number.

    Source: Hartvigsen et al. 2022 (GRACE, 2211.11031).

    Example:
        >>> from workbench.types import Codebook
        >>> book = Codebook(torch.zeros(2, 56), torch.ones(2, 42), torch.tensor([1.0, 0.5]), ((7,), (7,)))
        >>> book.words(), book.n_numbers(), book.fits(42, 56)
        ('a codebook of 2 keys', 198, True)
    """

    keys: Tensor
    values: Tensor
    radii: Tensor
    labels: tuple[tuple[int, ...], ...]
    columns: Tensor | None = None
    strength: float = 1.0
    kind: ClassVar[MemoryKind] = "codebook"

    def __post_init__(self) -> None:
        for name in ("keys", "values", "radii"):
            object.__setattr__(self, name, owned(getattr(self, name)))
        object.__setattr__(self, "labels", tuple(tuple(map(int, label)) for label in self.labels))
        n = len(self.keys)
        if self.keys.ndim != 2 or self.values.ndim != 2 or self.radii.shape != (n,) or len(self.values) != n:
            raise ValueError(
                f"A codebook has keys [n, inputs], values [n, d_out] and radii [n], got {tuple(self.keys.shape)}, "
                f"{tuple(self.values.shape)} and {tuple(self.radii.shape)}."
            )
        if len(self.labels) != n:
            raise ValueError(f"A codebook of {n} keys has {n} labels, got {len(self.labels)}.")
        if self.columns is not None:
            object.__setattr__(self, "columns", owned(self.columns, None))
            if self.columns.shape != self.keys.shape[1:]:
                raise ValueError(
                    f"The keys have {self.keys.shape[1]} inputs and columns= names {tuple(self.columns.shape)}."
                )
        finite(self.strength)

    @property
    def outputs(self) -> int:
        """Outputs of the module that it stands beside."""
        return self.values.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """Its numbers by name."""
        own = {"keys": self.keys, "values": self.values, "radii": self.radii}
        return own if self.columns is None else {**own, "columns": self.columns}

    def header(self) -> dict[str, Any]:
        """The rest as plain JSON values."""
        labels = [list(label) for label in self.labels]
        return {"kind": self.kind, "strength": self.strength, "labels": labels, "restricted": self.columns is not None}

    @classmethod
    def read(cls, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Codebook:
        """The inverse of ``header`` and ``tensors``."""
        return cls(
            tensors["keys"],
            tensors["values"],
            tensors["radii"],
            tuple(tuple(label) for label in header["labels"]),
            tensors["columns"] if header["restricted"] else None,
            header["strength"],
        )

    def n_numbers(self) -> int:
        """How many numbers it holds."""
        return self.keys.numel() + self.values.numel() + self.radii.numel()

    def largest(self) -> float:
        """How far it moves an output is not known without the module: NaN, or 0.0 where it moves none."""
        return math.nan if self.strength and len(self.keys) else 0.0

    def words(self) -> str:
        """What it is, for a person."""
        n = len(self.keys)
        return f"a codebook of {n} key{'' if n == 1 else 's'}"

    def fits(self, outputs: int, inputs: int) -> bool:
        """Whether it can stand beside a module of this size."""
        read = self.keys.shape[1]
        inside = read == inputs if self.columns is None else read == 0 or int(self.columns.max()) < inputs
        return self.outputs == outputs and inside


@dataclass(frozen=True, eq=False)
class SideMemory:
    """A side memory holds other weights W' = W + D for a module, and its router sends a token through them where they
    would move it far.

    A token's activation distance is |D x|, of its input x: it goes through W' where that is at least the threshold. Of
    several shards it goes through the one with the largest distance of those that reach their own thresholds.

    Args:
        index: Of each shard, the places of D's entries in the flattened [d_out, d_in], int64.
        weights: Of each shard, those entries, float32.
        shape: d_out and d_in of the module, however it stores its weight.
        thresholds: Of each shard, [shards], float32.
        strength: What D is multiplied by in the output; the router looks at the whole D.

    Raises:
        ValueError: Parts that do not fit together, or a strength that is not a finite number.

    Source: Wang et al. 2024 (WISE, 2405.14768).

    Example:
        >>> from workbench.types import SideMemory
        >>> side = SideMemory((torch.tensor([2, 4]),), (torch.tensor([4.0, 1.0]),), (2, 3), torch.tensor([2.0]))
        >>> side.words(), side.dense()
        ('a side memory of 2 weights', tensor([[[0., 0., 4.],
                 [0., 1., 0.]]]))
    """

    index: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    shape: tuple[int, int]
    thresholds: Tensor
    strength: float = 1.0
    kind: ClassVar[MemoryKind] = "side"

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", tuple(owned(i, None) for i in self.index))
        object.__setattr__(self, "weights", tuple(owned(w) for w in self.weights))
        object.__setattr__(self, "thresholds", owned(self.thresholds))
        object.__setattr__(self, "shape", (int(self.shape[0]), int(self.shape[1])))
        n, size = len(self.weights), self.shape[0] * self.shape[1]
        if len(self.index) != n or self.thresholds.shape != (n,):
            raise ValueError(
                f"A side memory of {n} shards has {n} indices and thresholds, got {len(self.index)} and "
                f"{tuple(self.thresholds.shape)}."
            )
        for index, weights in zip(self.index, self.weights, strict=True):
            if index.shape != weights.shape or index.ndim != 1:
                raise ValueError(
                    f"A shard has as many places as weights, got {tuple(index.shape)} and {tuple(weights.shape)}."
                )
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
                raise ValueError(f"A shard has places outside its {self.shape[0]} x {self.shape[1]} weights.")
        finite(self.strength)

    @property
    def outputs(self) -> int:
        """Outputs of the module that it stands beside."""
        return self.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """Its numbers by name."""
        shards = enumerate(zip(self.index, self.weights, strict=True))
        parts = {f"{i}.{name}": t for i, pair in shards for name, t in zip(("index", "weights"), pair, strict=True)}
        return {"thresholds": self.thresholds, **parts}

    def header(self) -> dict[str, Any]:
        """The rest as plain JSON values."""
        return {"kind": self.kind, "strength": self.strength, "shape": list(self.shape), "shards": len(self.weights)}

    @classmethod
    def read(cls, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SideMemory:
        """The inverse of ``header`` and ``tensors``."""
        shards = range(header["shards"])
        outputs, inputs = header["shape"]
        return cls(
            tuple(tensors[f"{i}.index"] for i in shards),
            tuple(tensors[f"{i}.weights"] for i in shards),
            (outputs, inputs),
            tensors["thresholds"],
            header["strength"],
        )

    def dense(self) -> Tensor:
        """D of each shard, [shards, d_out, d_in]."""
        whole = self.thresholds.new_zeros(len(self.weights), self.shape[0] * self.shape[1])
        for row, index, weights in zip(whole, self.index, self.weights, strict=True):
            row[index] = weights
        return whole.view(-1, *self.shape)

    def n_numbers(self) -> int:
        """How many numbers it holds."""
        return sum(w.numel() for w in self.weights) + len(self.thresholds)

    def largest(self) -> float:
        """Largest absolute entry of D at the strength."""
        return abs(self.strength) * max((float(w.abs().max()) for w in self.weights if len(w)), default=0.0)

    def words(self) -> str:
        """What it is, for a person."""
        n = len(self.weights)
        shards = "" if n == 1 else f" in {n} shards"
        return f"a side memory of {sum(w.numel() for w in self.weights):,} weights{shards}"

    def fits(self, outputs: int, inputs: int) -> bool:
        """Whether it can stand beside a module of this size."""
        return self.shape == (outputs, inputs)


Memory = Codebook | SideMemory
_MEMORIES: Mapping[str, type[Codebook] | type[SideMemory]] = {"codebook": Codebook, "side": SideMemory}


@dataclass(frozen=True, eq=False)
class MemoryDelta(Delta):
    """A memory delta puts memories beside linear modules. Weights stay as they are: a router looks at each token's own
    input of the module and decides whether the memory has a say in its output.

    Several memories at one module act in order, the later one on the output as the earlier ones leave it. Beside other
    kinds of delta a memory comes last at its module, whatever their order: it reads the module's input before any gate
    on it, and takes the output that the changed weights give.

    Args:
        memories: By (layer, module), the memories there in order. The module's name is the one within its layer
            (``"mlp.down_proj"``).

    Source: GRACE (2211.11031) and WISE (2405.14768). Deviation: both decide once for a whole text or at one position of
    it; here every token is routed by its own state alone, so that a text in parts, in a batch, with padding or with
    cached keys and values gives what it gives alone.

    Example:
        >>> from workbench.types import Codebook, MemoryDelta
        >>> keys, values = torch.zeros(1, 56), torch.ones(1, 42)
        >>> delta = MemoryDelta({(1, "mlp.down_proj"): (Codebook(keys, values, torch.ones(1), ((7,),)),)})
        >>> delta.words(), delta.lowest_layer, delta.n_moved()
        ('a codebook of 1 key beside 1 module', 1, 99)
        >>> delta.scaled(0.0).n_moved()
        0
    """

    memories: Mapping[tuple[int, str], Sequence[Memory]]
    kind: ClassVar[DeltaKind] = "memory"

    def __post_init__(self) -> None:
        clean = {(int(layer), str(module)): tuple(ms) for (layer, module), ms in self.memories.items() if ms}
        for (layer, module), memories in clean.items():
            if len({memory.outputs for memory in memories}) > 1:
                raise ValueError(f"The memories at layer {layer} {module} are for modules of different sizes.")
        object.__setattr__(self, "memories", dict(sorted(clean.items())))

    def tensors(self) -> dict[str, Tensor]:
        """See ``Delta``: by ``"layer.module.number.name"``."""
        return {
            f"{layer}.{module}.{i}.{name}": tensor
            for (layer, module), memories in self.memories.items()
            for i, memory in enumerate(memories)
            for name, tensor in memory.tensors().items()
        }

    def header(self) -> dict[str, Any]:
        """See ``Delta``."""
        places = [[*key, [memory.header() for memory in memories]] for key, memories in self.memories.items()]
        return {"kind": self.kind, "places": places}

    @classmethod
    def read(cls, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MemoryDelta:
        """The inverse of ``header`` and ``tensors``.

        Raises:
            KeyError: A kind of memory that is not known, or a missing tensor.
        """
        found: dict[tuple[int, str], tuple[Memory, ...]] = {}
        for layer, module, headers in header["places"]:
            memories: list[Memory] = []
            for i, of in enumerate(headers):
                start = f"{layer}.{module}.{i}."
                own = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
                memories.append(_MEMORIES[of["kind"]].read(of, own))
            found[layer, module] = tuple(memories)
        return cls(found)

    @property
    def lowest_layer(self) -> int | None:
        """See ``Delta``."""
        return min((layer for layer, _ in self.memories), default=None)

    def _all(self) -> list[Memory]:
        return [memory for memories in self.memories.values() for memory in memories]

    def n_moved(self) -> int:
        """How many numbers its memories hold, of those with a strength."""
        return sum(memory.n_numbers() for memory in self._all() if memory.strength)

    def largest_move(self) -> float:
        """Largest absolute entry of a side memory; NaN with a codebook, whose moves only the model tells."""
        moves = [memory.largest() for memory in self._all()]
        return math.nan if any(map(math.isnan, moves)) else max(moves, default=0.0)

    def words(self) -> str:
        """See ``Delta``."""
        n = len(self.memories)
        return f"{' and '.join(memory.words() for memory in self._all())} beside {n} module{'' if n == 1 else 's'}"

    def scaled(self, strength: float) -> MemoryDelta:
        """The same memories at a strength times their own: what they give is drawn back to what the module gives. The
        routers decide as before."""
        factor = finite(strength)
        return MemoryDelta(
            {key: tuple(replace(m, strength=m.strength * factor) for m in ms) for key, ms in self.memories.items()}
        )

    def _joined(self, other: MemoryDelta) -> MemoryDelta:
        out = {key: tuple(memories) for key, memories in self.memories.items()}
        for key, memories in other.memories.items():
            if key in out:
                mine, theirs = (torch.empty(of[0].outputs, device="meta") for of in (out[key], memories))
                check_shapes(f"layer {key[0]} {key[1]}", mine, theirs)
            out[key] = (*out.get(key, ()), *memories)
        return MemoryDelta(out)
