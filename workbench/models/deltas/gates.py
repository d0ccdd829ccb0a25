"""Gates on a model: PEFT's IA3 layers, or multiplied into the weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.models.deltas.adapter import Adapter, Base, any_of, base_key, float_weight
from workbench.models.families import Architecture, site_index
from workbench.models.family import stores_transposed
from workbench.types import EditModules, GateDelta, Site

if TYPE_CHECKING:
    from peft import IA3Config

ADAPTER = "workbench"


def put_on(view: nn.Module, architecture: Architecture, delta: GateDelta) -> dict[str, nn.Parameter]:
    """Put gates on a view as an IA3 adapter, on top of the adapters that it has. Returns the vectors by module."""
    return inject_gates(view, architecture, delta)


def write(vectors: Mapping[str, nn.Parameter], architecture: Architecture, delta: GateDelta) -> None:
    """Give IA3 vectors (as ``put_on`` returns them) a delta's gates, in place; it touches none but them."""
    for name, vector in architecture.vectors(delta).items():
        parameter = vectors[name]
        parameter.data.copy_(vector.reshape(parameter.shape))


def fold(
    view: nn.Module, architecture: Architecture, delta: GateDelta, base: Mapping[str, Tensor] | None = None
) -> None:
    """Give the gated modules of a view weights and biases of their own, with the gates multiplied in. The products are
    rounded to the weights' dtype once.

    Raises:
        ValueError: Weights that are not plain numbers (quantised).
    """
    inputs = {p.module for p in (architecture.gate_module(*key) for key in delta.gates) if p.on_input}
    for name, vector in architecture.vectors(delta).items():
        module: Any = view.get_submodule(name)
        weight = float_weight(module, name)
        on_input = name in inputs
        columns = on_input != stores_transposed(module)  # the weight's second dimension, else its first
        gate = vector.to(weight.device)
        module.weight = _product(weight, gate if columns else gate[:, None])
        if not on_input and module.bias is not None:
            module.bias = _product(module.bias, gate)


def put_under_gates(view: nn.Module, architecture: Architecture, delta: GateDelta) -> None:
    """Put gates on a view, for more gates to come on top."""
    inject_gates(view, architecture, delta)


def weights(architecture: Architecture, delta: GateDelta) -> list[str]:
    """Names of the weight matrices that the gates scale."""
    return [f"{name}.weight" for name in architecture.vectors(delta)]


def gate_sites(delta: GateDelta) -> list[tuple[int, Site]]:
    """Their places."""
    return list(delta.gates)


def check(view: nn.Module, architecture: Architecture, delta: GateDelta) -> None:
    """Raise a ValueError for gates that a model has no place for."""
    shape = architecture.shape
    for (layer, site), gate in delta.gates.items():
        architecture.gate_module(layer, site)
        if not 0 <= layer < shape.n_layers or len(gate) != shape.site_size(site):
            raise ValueError(
                f"The delta has {len(gate)} gates at layer {layer} {site}, and the model has {shape.site_size(site)} "
                f"in each of the layers 0 to {shape.n_layers - 1}: the delta was made for another model."
            )


def not_in_weights(delta: GateDelta) -> str:
    """Nothing: its weights do all of it."""
    return ""


def export(delta: GateDelta, modules: EditModules, base: Base | None = None) -> Adapter:
    """The gates as one PEFT IA3 adapter.

    Raises:
        ValueError: The module of a gate is not known.
    """
    places = {(p.layer, p.site): p for p in modules.sites}
    missing = [f"layer {layer} {site}" for layer, site in delta.gates if (layer, site) not in places]
    if missing:
        raise ValueError(
            f"The edit does not name the modules of {len(missing)} gate sites (the first: {missing[0]}). Add them with "
            "the base model at hand: edit.to_peft(folder, model=model)."
        )
    vectors: dict[str, Tensor] = {}
    inputs: set[str] = set()
    for key, gate in delta.gates.items():
        place = places[key]
        vector = vectors.setdefault(place.module, torch.ones(place.size))  # a fused module keeps 1 at its other sites
        vector[site_index(place.start, len(gate), place.size, place.groups)] = gate
        inputs |= {place.module} if place.on_input else set()
    config = _config(vectors, inputs, modules.fan_in_fan_out)
    config.inference_mode = True
    tensors = {
        base_key(module, "ia3_l"): vector.reshape((1, -1) if module in inputs else (-1, 1)).contiguous()
        for module, vector in vectors.items()
    }
    text = f"This IA3 adapter multiplies {delta.n_moved()} activations of the base model."
    return Adapter("ia3", config, tensors, text)


def ia3_config(architecture: Architecture, keys: Iterable[tuple[int, Site]]) -> IA3Config:
    """A PEFT configuration that targets exactly the modules of these gate sites.

    Names are anchored regular expressions: PEFT matches a list of names by suffix.
    """
    places = [architecture.gate_module(layer, site) for layer, site in keys]
    inputs = {p.module for p in places if p.on_input}
    return _config({p.module for p in places}, inputs, architecture.fan_in_fan_out)


def _config(modules: Iterable[str], inputs: Iterable[str], fan_in_fan_out: bool) -> IA3Config:
    """IA3 on modules by their full names, some of them on the input."""
    from peft import IA3Config

    feedforward = any_of(inputs)
    return IA3Config(
        task_type="CAUSAL_LM",
        target_modules=any_of(modules),
        feedforward_modules=feedforward if feedforward else [],
        fan_in_fan_out=fan_in_fan_out,
    )


def inject_gates(
    view: nn.Module, architecture: Architecture, delta: GateDelta, adapter: str = ADAPTER
) -> dict[str, nn.Parameter]:
    """Put a PEFT IA3 adapter with these gates into a view, on top of the adapters that it has, and freeze everything.
    Memories of its modules stay outermost: they read what no gate has multiplied.

    The vectors stay float32 whatever the model's dtype, and are on each module's device.

    Returns:
        The IA3 vectors by module name.
    """
    if not delta.gates:
        return {}
    from peft import inject_adapter_in_model

    from workbench.models.deltas.remembering import remember_outside

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():  # pyright: ignore[reportUnknownMemberType]
        # PEFT draws the vectors, which are overwritten below, and warns of the second stage's adapter, which is meant.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(ia3_config(architecture, delta.gates), view, adapter_name=adapter)
    layer: Any
    for layer in view.modules():
        if hasattr(layer, "ia3_l"):  # all live, where the new adapter has no gates too: their gates multiply
            layer.set_adapter(list(layer.ia3_l.keys()))
    out: dict[str, nn.Parameter] = {}
    for name, vector in architecture.vectors(delta).items():
        gated: Any = view.get_submodule(name)
        parameter = gated.ia3_l[adapter]
        parameter.data = vector.reshape(parameter.shape).to(parameter.device)
        out[name] = parameter
        remember_outside(gated)
    for parameter in view.parameters():
        parameter.requires_grad_(False)
    return out


def _product(weight: Tensor, gate: Tensor) -> nn.Parameter:
    # Half precision times float32 is float32.
    return nn.Parameter((weight * gate).to(weight.dtype), requires_grad=False)
