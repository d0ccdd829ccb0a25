"""Linear modules with memories beside them.

A module of a view changes its class, and nothing else of it changes: it is still a ``Linear`` or a ``Conv1D`` of the
same name with the same, shared weights, for PEFT's layers to wrap, for TransformerLens to bridge, for weights to be
folded into. The memories' numbers are buffers, which views of views share, and which are not written to files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from workbench.models.deltas.routing import chosen_shard, nearest_key
from workbench.types import Codebook, Memory
from workbench.types.delta.memory import MemoryKind

_PREFIX = "memory_"


class Remembering(nn.Module):
    """What a linear module with memories does beside its own; see ``remember``."""

    memories: tuple[MemoryKind, ...]
    """The kinds of its memories, in the order in which they act."""

    def forward(self, *args: Any, **options: Any) -> Tensor:
        """The module's output with the memories' say in it."""
        states: Tensor = args[0]
        output: Tensor = super().forward(*args, **options)
        flat_states, flat = states.reshape(-1, states.shape[-1]), output.reshape(-1, output.shape[-1])
        for i, kind in enumerate(self.memories):
            flat = _ACT[kind](self, i, flat_states, flat)
        return flat.view(output.shape)

    def number(self, memory: int, name: str, device: torch.device | None = None) -> Tensor:
        """One of a memory's tensors, on a device."""
        own = self.get_buffer(_name(memory, name))
        return own if device is None else own.to(device)

    def has(self, memory: int, name: str) -> bool:
        """Whether a memory has a tensor of this name."""
        return _name(memory, name) in self._buffers


def _look_up(module: Remembering, i: int, states: Tensor, output: Tensor) -> Tensor:
    names = ("keys", "values", "radii", "strength")
    keys, values, radii, strength = (module.number(i, name, states.device) for name in names)
    if not len(keys) or not len(states):
        return output
    read = states[:, module.number(i, "columns", states.device)] if module.has(i, "columns") else states
    key, fires = nearest_key(read, keys, radii)
    fires = fires & (strength != 0)  # at strength 0 the output is the module's own, to the bit
    value = torch.lerp(output.float(), values[key], strength).to(output.dtype)
    return torch.where(fires[:, None], value, output)


def _go_through(module: Remembering, i: int, states: Tensor, output: Tensor) -> Tensor:
    names = ("weights", "thresholds", "strength")
    weights, thresholds, strength = (module.number(i, name, states.device) for name in names)
    if not len(weights) or not len(states):
        return output
    moves = states.float() @ weights.transpose(1, 2)
    shard, fires = chosen_shard(moves, thresholds)
    fires = fires & (strength != 0)
    move = moves[shard, torch.arange(len(states), device=states.device)]
    return torch.where(fires[:, None], (output.float() + strength * move).to(output.dtype), output)


_ACT = {"codebook": _look_up, "side": _go_through}


class RememberingLinear(Remembering, nn.Linear):
    """A ``Linear`` with memories."""


class RememberingConv1D(Remembering, Conv1D):
    """GPT-2's ``Conv1D`` with memories."""


def remember(module: nn.Module, memories: Sequence[Memory]) -> Remembering:
    """Put memories beside a linear module, after those that it has. Returns the module, which is of another class now.

    Raises:
        ValueError: It is neither a plain ``Linear`` nor a plain ``Conv1D``.
    """
    changed: Any = module
    if not isinstance(module, Remembering):
        classes: dict[type, type[Remembering]] = {nn.Linear: RememberingLinear, Conv1D: RememberingConv1D}
        if type(module) not in classes:
            raise ValueError(f"A memory stands beside a plain Linear or Conv1D, and this is a {type(module).__name__}.")
        changed.__class__ = classes[type(module)]
        changed.memories = ()
        if "_old_forward" in vars(module):  # accelerate's hook calls what the module's forward was
            changed._old_forward = MethodType(Remembering.forward, module)
    device: torch.device = changed.weight.device
    for memory in memories:
        i = len(changed.memories)
        for name, tensor in _tensors(memory).items():
            own = tensor if device.type == "meta" else tensor.to(device)
            changed.register_buffer(_name(i, name), own, persistent=False)
        changed.memories = (*changed.memories, memory.kind)
    return changed


def remember_outside(adapter: nn.Module) -> None:
    """Move the memories of a module to the adapter layer around it, so that they read what the layer is given, before
    any gate, and take the output with what the adapter adds: as when the adapter is folded into the weights."""
    outer: Any = adapter
    found = next((module for module in _within(adapter) if isinstance(module, Remembering)), None)
    if found is None:
        return
    inner: Any = found
    _, plain = type(inner).__bases__
    layer: Any = outer.__class__
    outer.__class__ = type(f"Remembering{layer.__name__}", (Remembering, layer), {})
    outer.memories = inner.memories
    for name in [name for name in inner._buffers if name.startswith(_PREFIX)]:
        outer.register_buffer(name, inner._buffers.pop(name), persistent=False)
        inner._non_persistent_buffers_set.discard(name)
    del inner.memories
    inner.__class__ = plain
    if "_old_forward" in vars(inner):
        inner._old_forward = MethodType(vars(plain)["forward"], inner)


def _within(adapter: Any) -> Iterator[nn.Module]:
    """What an adapter layer is around: other adapter layers, and the linear module."""
    while hasattr(adapter, "base_layer"):
        adapter = adapter.base_layer
        yield adapter


def write_strengths(module: Remembering, memories: Sequence[Memory]) -> None:
    """Give a module's memories, all of them, other strengths in place."""
    for i, memory in enumerate(memories):
        module.number(i, "strength").fill_(memory.strength)


def _name(i: int, name: str) -> str:
    return f"{_PREFIX}{i}_{name}"


def _tensors(memory: Memory) -> dict[str, Tensor]:
    """What a module needs of a memory: copies, a sparse D as a matrix."""
    strength = torch.tensor(float(memory.strength))
    if isinstance(memory, Codebook):
        return {**{name: t.clone() for name, t in memory.tensors().items()}, "strength": strength}
    return {"weights": memory.dense(), "thresholds": memory.thresholds.clone(), "strength": strength}
