"""Low-rank updates on a model: PEFT's LoRA layers, or added to the weights."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.models.deltas.adapter import Adapter, Base, any_of, base_key, float_weight
from workbench.models.families import Architecture
from workbench.models.family import sizes, stores_transposed
from workbench.types import EditModules, LowRankDelta, Site

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER = "workbench-low-rank"
Factors = dict[str, tuple[nn.Parameter, nn.Parameter]]
"""By module name, V [r, d_in] and U [d_out, r] of a LoRA layer."""


def put_on(view: nn.Module, architecture: Architecture, delta: LowRankDelta) -> Factors:
    """Put the factors on a view as LoRA layers, on top of the adapters that it has. Returns them by module."""
    ranks = {name: u.shape[1] for name, (u, _) in named(architecture, delta).items() if u.shape[1]}
    factors = inject_lora(view, architecture, ranks, ADAPTER)
    write(factors, architecture, delta)
    return factors


def write(factors: Factors, architecture: Architecture, delta: LowRankDelta) -> None:
    """Give LoRA layers (as ``put_on`` returns them) a delta's factors, in place; it touches none but them."""
    for name, (u, v) in named(architecture, delta).items():
        if name in factors:
            down, up = factors[name]
            down.data.copy_(v)
            up.data.copy_(u)


def fold(
    view: nn.Module, architecture: Architecture, delta: LowRankDelta, base: Mapping[str, Tensor] | None = None
) -> None:
    """Give the modules weights of their own, with U V added. The sums are rounded to the weights' dtype once.

    Raises:
        ValueError: Weights that are not plain numbers (quantised).
    """
    for name, (u, v) in named(architecture, delta).items():
        module: Any = view.get_submodule(name)
        weight = float_weight(module, name)
        update = (u @ v).to(weight.device)
        if stores_transposed(module):
            update = update.T
        module.weight = nn.Parameter((weight + update).to(weight.dtype), requires_grad=False)


def weights(architecture: Architecture, delta: LowRankDelta) -> list[str]:
    """Names of the weight matrices that the delta adds to."""
    return [f"{name}.weight" for name in named(architecture, delta)]


def put_under_gates(view: nn.Module, architecture: Architecture, delta: LowRankDelta) -> None:
    """Fold it into weights, for gates to come on plain modules."""
    fold(view, architecture, delta)


def gate_sites(delta: LowRankDelta) -> list[tuple[int, Site]]:
    """None."""
    return []


def check(view: nn.Module, architecture: Architecture, delta: LowRankDelta) -> None:
    """Raise a ValueError for factors that do not fit a model's modules."""
    for name, (u, v) in named(architecture, delta).items():
        module: Any = view.get_submodule(name)
        outputs, inputs = sizes(module)
        if (u.shape[0], v.shape[1]) != (outputs, inputs):
            raise ValueError(
                f"The delta has factors for {u.shape[0]} outputs and {v.shape[1]} inputs at {name}, and the model's "
                f"module has {outputs} and {inputs}: the delta was made for another model."
            )


def not_in_weights(delta: LowRankDelta) -> str:
    """Nothing: its weights do all of it."""
    return ""


def export(delta: LowRankDelta, modules: EditModules, base: Base | None = None) -> Adapter:
    """The factors as one PEFT LoRA adapter, whose alpha is its rank.

    Raises:
        ValueError: All ranks are 0.
    """
    from peft import TaskType

    pairs = {key: (u, v) for key, (u, v) in delta.factors.items() if u.shape[1]}  # PEFT knows no rank of 0
    if not pairs:
        raise ValueError("This edit changes nothing at that stage, so there is nothing to export.")
    factors = {f"{modules.layers}.{layer}.{module}": pair for (layer, module), pair in pairs.items()}
    config = lora_config({name: u.shape[1] for name, (u, _) in factors.items()}, modules.fan_in_fan_out)
    config.task_type, config.inference_mode = TaskType.CAUSAL_LM, True
    tensors: dict[str, Tensor] = {}
    for name, (u, v) in factors.items():
        tensors[base_key(name, "lora_A.weight")] = v.contiguous()
        tensors[base_key(name, "lora_B.weight")] = u.contiguous()
    return Adapter("lora", config, tensors, f"This LoRA adapter adds {delta.words().replace(' added', '')}.")


def lora_config(ranks: Mapping[str, int], fan_in_fan_out: bool) -> LoraConfig:
    """A PEFT configuration for LoRA layers of these ranks, with alpha the rank, on exactly these modules (full names).

    Source: Hu et al. 2021 (2106.09685); no dropout.
    """
    from peft import LoraConfig

    usual = max(ranks.values(), default=1)
    others = {f"^{re.escape(name)}$": rank for name, rank in ranks.items() if rank != usual}
    return LoraConfig(
        r=usual,
        lora_alpha=usual,
        rank_pattern=others,
        alpha_pattern=dict(others),
        target_modules=any_of(ranks),
        fan_in_fan_out=fan_in_fan_out,
    )


def inject_lora(
    view: nn.Module, architecture: Architecture, ranks: Mapping[str, int], adapter: str, seed: int = 0
) -> Factors:
    """Put a PEFT LoRA adapter on modules of a view (full names), and freeze everything.

    It starts as no change: U is 0, and V is drawn by seed. Float32 whatever the model's dtype.
    Memories of the modules stay outermost: they take the output with the update in it.

    Args:
        view: The view; a module may carry IA3 gates already, which then multiply its weight and not the update.
        architecture: The model's.
        ranks: By module.
        adapter: The adapter's name.
        seed: Of V.

    Returns:
        The factors by module name.
    """
    if not ranks:
        return {}
    from peft import inject_adapter_in_model

    from workbench.models.deltas.remembering import remember_outside

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():  # pyright: ignore[reportUnknownMemberType]
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        config = lora_config(ranks, architecture.fan_in_fan_out)
        inject_adapter_in_model(config, view, adapter_name=adapter)
    out: Factors = {}
    for name in ranks:
        layer: Any = view.get_submodule(name)
        down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        for factor in (down, up):
            factor.data = factor.data.float()
        out[name] = down, up
        remember_outside(layer)
    for parameter in view.parameters():
        parameter.requires_grad_(False)
    return out


def named(architecture: Architecture, delta: LowRankDelta) -> dict[str, tuple[Tensor, Tensor]]:
    """U and V by the full name of the module.

    Raises:
        ValueError: The model has no such module.
    """
    return {architecture.module_name(layer, module): pair for (layer, module), pair in delta.factors.items()}


def read_delta(architecture: Architecture, factors: Factors) -> LowRankDelta:
    """The delta that LoRA layers (as ``inject_lora`` returns them) hold now."""
    out: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
    prefix = f"{architecture.family.layers}."
    for name, (down, up) in factors.items():
        layer, _, module = name.removeprefix(prefix).partition(".")
        out[int(layer), module] = up.detach(), down.detach()
    return LowRankDelta(out)


def targets(architecture: Architecture, layers: Iterable[int]) -> list[str]:
    """Full names of all linear modules of some layers."""
    return [architecture.module_name(layer, module) for layer in layers for module in architecture.family.modules]
