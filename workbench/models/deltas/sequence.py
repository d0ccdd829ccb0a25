"""Several deltas on a model, in order: as adapters where that is exact, else folded into weights one by one.

Memories come last at their modules, whatever their place in the order; the parts beside them are folded into weights,
so that a memory reads a module's input before any gate and takes the output of the changed weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.deltas import context, dense, gates, low_rank, memory
from workbench.models.deltas.adapter import Adapter, Base, Kind
from workbench.models.families import Architecture
from workbench.models.family import stores_transposed
from workbench.models.views import shared_view
from workbench.types import (
    ContextDelta,
    Delta,
    Deltas,
    DenseDelta,
    EditModules,
    GateDelta,
    LowRankDelta,
    MemoryDelta,
    Site,
)
from workbench.types.delta import DeltaKind

PARTS: Mapping[DeltaKind, Kind] = {
    "gates": gates,
    "low-rank": low_rank,
    "dense": dense,
    "memory": memory,
    "context": context,
}
"""What a sequence is made of: the functions of each kind."""


@dataclass
class OnAdapters:
    """A sequence on a view without weights of its own, but for a dense delta that comes first."""

    dense: dense.Mounted
    vectors: dict[str, nn.Parameter]
    factors: low_rank.Factors


@dataclass
class Folded:
    """A sequence folded into a view's weights.

    Args:
        parameters: Those weights and biases by name.
        base: A view that shares the base's weights, to fold other strengths from.
        memories: The modules with memories beside them.
    """

    parameters: dict[str, nn.Parameter]
    base: nn.Module
    memories: memory.Mounted


def put_on(view: nn.Module, architecture: Architecture, delta: Deltas) -> OnAdapters | Folded:
    """Put a sequence on a view. Returns what ``write`` needs to change its numbers in place."""
    first, rest = _split(delta)
    if rest is not None:
        of_gates, of_factors = normal_form(architecture, rest)
        return OnAdapters(
            {} if first is None else dense.put_on(view, architecture, first),
            gates.put_on(view, architecture, of_gates),
            low_rank.put_on(view, architecture, of_factors),
        )
    base = shared_view(view)
    in_weights, beside = _weights_and_memories(delta)
    fold(view, architecture, in_weights)
    before = dict(base.named_parameters())
    own = {n: p for n, p in view.named_parameters() if p.data_ptr() != before[n].data_ptr()}
    return Folded(own, base, memory.put_on(view, architecture, beside))


def write(mounted: OnAdapters | Folded, architecture: Architecture, delta: Delta) -> None:
    """Give a sequence that is on a view (as ``put_on`` returns it) the numbers of another strength, in place. Without
    its context it may be a single delta."""
    if isinstance(mounted, OnAdapters):
        first, rest = _split(delta)
        of_gates, of_factors = normal_form(architecture, rest or ())
        if first is not None:
            dense.write(mounted.dense, architecture, first)
        gates.write(mounted.vectors, architecture, of_gates)
        low_rank.write(mounted.factors, architecture, of_factors)
        return
    fresh = shared_view(mounted.base)
    in_weights, beside = _weights_and_memories(delta)
    fold(fresh, architecture, in_weights)
    memory.write(mounted.memories, architecture, beside)
    for name, parameter in mounted.parameters.items():
        parameter.data.copy_(fresh.get_parameter(name))


def fold(view: nn.Module, architecture: Architecture, delta: Delta, base: Mapping[str, Tensor] | None = None) -> None:
    """Fold each part into a view's weights, in order; memories are put beside them."""
    base = base or {name: p.detach() for name, p in view.named_parameters()}
    for part in _parts(delta):
        PARTS[part.kind].fold(view, architecture, part, base)


def put_under_gates(view: nn.Module, architecture: Architecture, delta: Deltas) -> None:
    """Fold it into weights, for gates to come on plain modules."""
    fold(view, architecture, delta)


def weights(architecture: Architecture, delta: Deltas) -> list[str]:
    """Names of the matrices that some part changes."""
    names = (name for part in delta.parts for name in PARTS[part.kind].weights(architecture, part))
    return list(dict.fromkeys(names))


def gate_sites(delta: Deltas) -> list[tuple[int, Site]]:
    """Those of its parts."""
    return list(dict.fromkeys(site for part in delta.parts for site in PARTS[part.kind].gate_sites(part)))


def check(view: nn.Module, architecture: Architecture, delta: Deltas) -> None:
    """Raise a ValueError for a part that does not fit a model."""
    for part in delta.parts:
        PARTS[part.kind].check(view, architecture, part)


def export(delta: Deltas, modules: EditModules, base: Base | None = None) -> Adapter:
    """A sequence as one PEFT LoRA adapter: a gate on a module's input or output is an update of as many ranks as gates
    have moved, which only the base's weights give.

    Raises:
        ValueError: A part that owns whole tensors or is a memory, a gate on an output with a bias, or no base at hand.
    """
    if reason := not_in_weights(delta):
        raise ValueError(reason)
    if any(isinstance(part, DenseDelta) for part in delta.parts):
        raise ValueError(
            f"This edit is {delta.words()}, and no PEFT adapter says that exactly. Write the whole edited model "
            "instead: wb.merge(model, edit, folder)."
        )
    if base is None:
        raise ValueError(
            f"This edit is {delta.words()}. As one LoRA adapter it needs the base's weights: give the base model, "
            "edit.to_peft(folder, model=model)."
        )
    of_gates, of_factors = normal_form(base.architecture, delta.parts)
    return low_rank.export(_sum(gates_as_low_rank(base, of_gates), of_factors), modules)


def not_in_weights(delta: Deltas) -> str:
    """The reason of the first part that has one; empty where weights can do all of it."""
    return next((reason for part in delta.parts if (reason := PARTS[part.kind].not_in_weights(part))), "")


def normal_form(architecture: Architecture, parts: Sequence[Delta]) -> tuple[GateDelta, LowRankDelta]:
    """Gates and low-rank updates in any order as gates first and updates after them.

    A gate that comes after an update multiplies it as well: (W + U V) diag(g) = W diag(g) + U (V diag(g)), and on a
    module's output diag(g) (W + U V) = diag(g) W + (diag(g) U) V. So the gates move to the front and leave their mark
    on the factors.
    """
    product, updates = GateDelta({}), LowRankDelta({})
    for part in parts:
        if isinstance(part, LowRankDelta):
            updates = _sum(updates, part)
            continue
        assert isinstance(part, GateDelta)
        product = product * part
        factors = dict(updates.factors)
        for (layer, site), gate in part.gates.items():
            place = architecture.gate_module(layer, site)
            key = layer, place.module.removeprefix(f"{architecture.family.layers}.{layer}.")
            if key in factors:
                u, v = (factor.clone() for factor in factors[key])
                if place.on_input:
                    v[:, place.index] *= gate
                else:
                    u[place.index] *= gate[:, None]
                factors[key] = u, v
        updates = LowRankDelta(factors)
    return product, updates


def gates_as_low_rank(base: Base, delta: GateDelta) -> LowRankDelta:
    """Gates as updates of the weights that they scale: W diag(g) - W = W[:, moved] diag(g - 1)[moved], and likewise for
    rows.

    Raises:
        ValueError: A gate on the output of a module with a bias: it scales the bias, which a LoRA leaves as it is.
    """
    architecture = base.architecture
    factors: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
    inputs = {p.module for p in (architecture.gate_module(*key) for key in delta.gates) if p.on_input}
    prefix = f"{architecture.family.layers}."
    for name, vector in architecture.vectors(delta).items():
        module: Any = base.network.get_submodule(name)
        weight = module.weight.detach().to("cpu", torch.float32)
        weight = weight.T if stores_transposed(module) else weight
        moved = (vector != 1).nonzero()[:, 0]
        ones = torch.zeros(len(moved), len(vector))
        ones[torch.arange(len(moved)), moved] = vector[moved] - 1
        if name not in inputs and module.bias is not None and bool(module.bias[moved].any()):
            raise ValueError(
                f"Gates on the output of {name} scale its bias too, and a LoRA adapter changes no bias, so this edit "
                "cannot be written as one exactly. Write the whole edited model instead: wb.merge(model, edit, folder)."
            )
        layer, _, within = name.removeprefix(prefix).partition(".")
        factors[int(layer), within] = (weight[:, moved], ones) if name in inputs else (ones.T, weight[moved])
    return LowRankDelta(factors)


def _sum(first: LowRankDelta, second: LowRankDelta) -> LowRankDelta:
    """Two low-rank updates as one."""
    joined = first.then(second)
    assert isinstance(joined, LowRankDelta), joined.kind
    return joined


def _parts(delta: Delta) -> tuple[Delta, ...]:
    return delta.parts if isinstance(delta, Deltas) else (delta,)


def _split(delta: Delta) -> tuple[DenseDelta | None, tuple[Delta, ...] | None]:
    """A dense delta that comes first, and what follows it; the latter None where another dense one or a memory follows.
    Contexts, which are in the prompt, are left out."""
    parts = tuple(part for part in _parts(delta) if not isinstance(part, ContextDelta))
    first = parts[0] if parts and isinstance(parts[0], DenseDelta) else None
    rest = parts[1:] if first is not None else parts
    return first, None if any(isinstance(part, DenseDelta | MemoryDelta) for part in rest) else rest


def _weights_and_memories(delta: Delta) -> tuple[Deltas, MemoryDelta]:
    """The parts that weights can do, in order, and all memories as one."""
    beside = MemoryDelta({})
    for part in _parts(delta):
        if isinstance(part, MemoryDelta):
            joined = beside.then(part)
            assert isinstance(joined, MemoryDelta), joined.kind
            beside = joined
    return Deltas(tuple(part for part in _parts(delta) if not isinstance(part, MemoryDelta))), beside
