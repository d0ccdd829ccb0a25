"""Every kind of delta on every shape of model, for what all of them promise: ``tests/conformance`` runs over these.

The models are tiny and random; their gates, factors and tensors too, zero and negative ones among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

import workbench as wb
from tests.helpers.tiny import loaded, random_edit, tiny_gpt2, tiny_llama, tiny_phi3
from workbench.models import LoadedModel
from workbench.types import (
    Codebook,
    Delta,
    DenseDelta,
    Edit,
    EditStage,
    GateDelta,
    LowRankDelta,
    MemoryDelta,
    SideMemory,
    Site,
)

IDS = torch.tensor([[5, 90, 17, 201, 33, 8]])

MODELS: dict[str, Callable[[], Any]] = {
    "llama, tied": lambda: tiny_llama(bias=True),
    "llama, untied": lambda: tiny_llama(tied=False, seed=1),
    "gpt2, tied": tiny_gpt2,
    "gpt2, untied": lambda: tiny_gpt2(tie_word_embeddings=False, seed=1),
    "phi3": tiny_phi3,
}


@cache
def model_of(name: str) -> LoadedModel:
    """A tiny model; nothing in here may change it."""
    return loaded(MODELS[name]())


def draw(*shape: int, seed: int, scale: float = 0.3) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gates(model: LoadedModel, seed: int) -> GateDelta:
    """Gates on heads and neurons, a zero and a negative one among them; no biased output, so that a LoRA can say it."""
    places: tuple[tuple[int, Site], ...] = ((0, "post"), (1, "z"), (2, "post"))
    found: dict[tuple[int, Site], Tensor] = {}
    for layer, site in places:
        gate = 1 + draw(model.shape.site_size(site), seed=seed + layer)
        gate[0], gate[1], gate[2] = 0.0, -0.5, 1.0
        found[layer, site] = gate
    return GateDelta(found)


def low_rank(model: LoadedModel, seed: int) -> LowRankDelta:
    """Updates of ranks 2 and 1 on the projections that the gates are on, and on one that they are not on."""
    factors: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
    names = list(model.architecture.family.modules)
    for layer, module, rank in ((0, names[-1], 2), (1, names[0], 1), (2, names[-1], 1)):
        weight = model.hf.get_submodule(model.architecture.module_name(layer, module)).weight
        d_out, d_in = weight.shape[::-1] if model.architecture.fan_in_fan_out else weight.shape
        factors[layer, module] = draw(d_out, rank, seed=seed), draw(rank, d_in, seed=seed + 1)
    return LowRankDelta(factors)


def dense(model: LoadedModel, seed: int) -> DenseDelta:
    """Every tensor of the last layer, and the embeddings (which may be tied)."""
    own = {
        name: p + draw(*p.shape, seed=seed, scale=0.05)
        for name, p in model.hf.named_parameters()
        if f".{model.shape.n_layers - 1}." in name or p is model.hf.get_input_embeddings().weight
    }
    return DenseDelta(own)


def states_of(model: LoadedModel, layer: int, module: str) -> Tensor:
    """What the base gives a module of each token of ``IDS``, [tokens, d_in]."""
    caught: list[Tensor] = []
    hooked = model.runner.get_submodule(model.architecture.module_name(layer, module))
    handle = hooked.register_forward_pre_hook(lambda _, args: caught.append(args[0].detach()))
    try:
        with torch.no_grad():
            model.runner(IDS)
    finally:
        handle.remove()
    return caught[0].reshape(-1, caught[0].shape[-1])


def codebook(model: LoadedModel, layer: int, seed: int) -> Codebook:
    """Two keys near what the last module of a layer is given of two tokens, the last one among them, so wide that what
    is done to lower layers does not move those out of reach; a state of zeros is out of reach."""
    states = states_of(model, layer, list(model.architecture.family.modules)[-1])
    keys = states[[2, 5]] + draw(2, states.shape[1], seed=seed, scale=0.01)
    values = draw(2, model.shape.d_model, seed=seed + 1)
    return Codebook(keys, values, 0.95 * keys.norm(dim=1), ((5, 6), (7,)))


def side_memory(model: LoadedModel, layer: int, seed: int) -> SideMemory:
    """Two shards, which send some tokens through other weights."""
    states = states_of(model, layer, list(model.architecture.family.modules)[-1])
    inputs, outputs = states.shape[1], model.shape.d_model
    places = [torch.randperm(outputs * inputs - 1, generator=torch.Generator().manual_seed(seed + i)) for i in (0, 1)]
    index = tuple(place[: outputs * inputs // 5].sort().values for place in places)
    weights = tuple(draw(len(of), seed=seed + i, scale=3.0) for i, of in enumerate(index))
    free = SideMemory(index, weights, (outputs, inputs), torch.zeros(2))
    distances = (states @ free.dense().transpose(1, 2)).norm(dim=-1)
    return replace(free, thresholds=0.8 * distances.median(dim=1).values)


def memory(model: LoadedModel, seed: int) -> MemoryDelta:
    """A codebook and a side memory, beside the modules that the gates and the updates are on."""
    last = list(model.architecture.family.modules)[-1]
    return MemoryDelta(
        {(1, last): (codebook(model, 1, seed),), (2, last): (side_memory(model, 2, seed), codebook(model, 2, seed + 9))}
    )


KINDS: dict[str, Callable[[LoadedModel, int], Delta]] = {
    "gates": gates,
    "low-rank": low_rank,
    "dense": dense,
    "gates, then low-rank": lambda m, s: gates(m, s).then(low_rank(m, s + 50)),
    "low-rank, then gates": lambda m, s: low_rank(m, s).then(gates(m, s + 50)),
    "dense, then gates": lambda m, s: dense(m, s).then(gates(m, s + 50)),
    "gates, then dense": lambda m, s: gates(m, s).then(dense(m, s + 50)),
    "dense, then dense": lambda m, s: dense(m, s).then(dense(m, s + 50)),
    "memory": memory,
    "low-rank, memory, then gates": lambda m, s: low_rank(m, s).then(memory(m, s)).then(gates(m, s + 50)),
    "memory, then dense": lambda m, s: memory(m, s).then(dense(m, s + 50)),
}


@dataclass(frozen=True)
class Case:
    """A model, a delta for it, and what makes another of the kind by seed."""

    model: LoadedModel
    delta: Delta
    make: Callable[[LoadedModel, int], Delta]


def edit_with(model: LoadedModel, *deltas: Delta) -> Edit:
    """An edit that has these deltas, one a stage."""
    plain = random_edit(model, "L0H0" if model.shape.no_neurons else "L0MLP")
    names = ("unlearn", "learn", "more")
    stages = tuple(EditStage(name, delta) for name, delta in zip(names, deltas, strict=False))
    ours: list[Site] = [site for of in model.architecture.family.modules.values() for site in of]
    sites: list[tuple[int, Site]] = [(layer, site) for layer in range(model.shape.n_layers) for site in ours]
    return replace(plain, stages=stages, modules=model.architecture.describe(sites))


def logits_of(model: LoadedModel, *edits: Edit, strength: float = 1.0) -> Tensor:
    """Logits of a model with edits, the last at a strength."""
    with torch.no_grad():
        if not edits:
            return model.runner(IDS).logits
        with wb.applied(model, edits[0], strength=strength if len(edits) == 1 else 1.0) as once:
            if len(edits) == 1:
                return once.hf(IDS).logits
            with wb.applied(once, edits[1], strength=strength, stack=True) as twice:
                return twice.hf(IDS).logits


def has_memory(delta: Delta) -> bool:
    """Whether a delta, or a part of it, is a memory."""
    return any(part.kind == "memory" for part in getattr(delta, "parts", (delta,)))


def gates_of(delta: Delta) -> Mapping[tuple[int, Site], Tensor]:
    """The gates of a delta that has nothing else."""
    assert isinstance(delta, GateDelta), delta.kind
    return delta.gates


def same_gates(one: Delta, other: Delta) -> bool:
    """Whether two deltas of nothing but gates are equal to the bit."""
    mine, theirs = gates_of(one), gates_of(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Equal but for rounding."""
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
