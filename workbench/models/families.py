"""Module names of the supported decoder families: the one place that knows them.

Everything else speaks of gate sites (see ``workbench.types.selection``). A new family is a new entry in ``FAMILIES``.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.types import GateDelta, ModelShape, Site

if TYPE_CHECKING:
    from peft import IA3Config

ADAPTER = "workbench"


@dataclass(frozen=True)
class Family:
    """Names of one decoder family, relative to a layer.

    Args:
        name: For error messages.
        layers: Path of the layer list.
        modules: For each module with gates, the sites in the order in which they are laid out in its vector.
        attention, mlp: The modules whose outputs are added to the residual stream.
        norm: Path of the final norm, between the residual stream and the output embeddings.
        fan_in_fan_out: True where linear layers store their weight transposed (GPT-2's Conv1D).
    """

    name: str
    layers: str
    modules: Mapping[str, tuple[Site, ...]]
    attention: str
    mlp: str
    norm: str = "model.norm"
    fan_in_fan_out: bool = False


FAMILIES: tuple[Family, ...] = (
    Family(
        "Llama-like (Llama, SmolLM, Mistral, Qwen2)",
        "model.layers",
        {
            "self_attn.q_proj": ("q",),
            "self_attn.k_proj": ("k",),
            "self_attn.v_proj": ("v",),
            "self_attn.o_proj": ("z",),
            "mlp.gate_proj": ("gate",),
            "mlp.up_proj": ("up",),
            "mlp.down_proj": ("post",),
        },
        attention="self_attn",
        mlp="mlp",
    ),
    Family(
        "Phi-3",
        "model.layers",
        {
            "self_attn.qkv_proj": ("q", "k", "v"),
            "self_attn.o_proj": ("z",),
            "mlp.gate_up_proj": ("gate", "up"),
            "mlp.down_proj": ("post",),
        },
        attention="self_attn",
        mlp="mlp",
    ),
    Family(
        "GPT-2",
        "transformer.h",
        {"attn.c_attn": ("q", "k", "v"), "attn.c_proj": ("z",), "mlp.c_fc": ("up",), "mlp.c_proj": ("post",)},
        attention="attn",
        mlp="mlp",
        norm="transformer.ln_f",
        fan_in_fan_out=True,
    ),
)
INPUT_SITES: frozenset[Site] = frozenset({"z", "post"})
"""Sites on a module's input (PEFT calls such modules feedforward); the others are on its output."""


@dataclass(frozen=True)
class GateModule:
    """Where a gate site lives: a module's full name and the span of the site in the module's IA3 vector."""

    module: str
    span: slice
    on_input: bool


@dataclass(frozen=True)
class Architecture:
    """The shape of a model and the modules of its gate sites."""

    shape: ModelShape
    family: Family

    def gate_module(self, layer: int, site: Site) -> GateModule:
        """The module of a gate site.

        Raises:
            ValueError: The family has no such site.
        """
        for name, sites in self.family.modules.items():
            if site in sites:
                start = sum(self.shape.site_size(s) for s in sites[: sites.index(site)])
                span = slice(start, start + self.shape.site_size(site))
                return GateModule(f"{self.family.layers}.{layer}.{name}", span, site in INPUT_SITES)
        raise ValueError(f"Models of the family {self.family.name} have no {site!r} projection, so it cannot be gated.")

    def is_fused(self, site: Site) -> bool:
        """Whether a site shares its module with others (fused q, k and v, or gate and up)."""
        return any(site in sites and len(sites) > 1 for sites in self.family.modules.values())

    def ia3_config(self, keys: Iterable[tuple[int, Site]]) -> IA3Config:
        """A PEFT configuration that targets exactly the modules of these gate sites.

        Names are anchored regular expressions: PEFT matches a list of names by suffix.
        """
        from peft import IA3Config

        places = [self.gate_module(layer, site) for layer, site in keys]
        names = sorted({p.module for p in places})
        inputs = sorted({p.module for p in places if p.on_input})
        return IA3Config(
            task_type="CAUSAL_LM",
            target_modules="|".join(map(re.escape, names)),
            feedforward_modules="|".join(map(re.escape, inputs)) if inputs else [],
            fan_in_fan_out=self.family.fan_in_fan_out,
        )

    def describe(self, keys: Iterable[tuple[int, Site]]) -> dict[str, Any]:
        """Modules and spans of gate sites as plain JSON values, for an edit to be exported without its model at hand.

        Returns:
            ``fan_in_fan_out``, and ``sites``: for each its layer, site, module, the start of its span in the module's
            IA3 vector, that vector's size, and whether it multiplies the module's input.
        """
        sites: list[dict[str, Any]] = []
        for layer, site in keys:
            place = self.gate_module(layer, site)
            where = {"layer": layer, "site": site, "module": place.module, "start": place.span.start}
            sites.append({**where, "size": self._vector_size(place.module), "on_input": place.on_input})
        return {"fan_in_fan_out": self.family.fan_in_fan_out, "sites": sites}

    def _vector_size(self, module: str) -> int:
        """Length of a module's IA3 vector."""
        name = module.removeprefix(f"{self.family.layers}.").partition(".")[2]
        return sum(self.shape.site_size(site) for site in self.family.modules[name])

    def vectors(self, delta: GateDelta, fill: float = 1.0) -> dict[str, Tensor]:
        """The IA3 vector of each module that a delta touches, by module name, as float32; ``fill`` elsewhere."""
        out: dict[str, Tensor] = {}
        for (layer, site), gate in delta.gates.items():
            place = self.gate_module(layer, site)
            if place.module not in out:
                out[place.module] = torch.full((self._vector_size(place.module),), fill)
            out[place.module][place.span] = gate
        return out


def read_architecture(model: Any) -> Architecture:
    """Find a model's family and shape.

    Raises:
        ValueError: The model is of no supported family; the message lists them.
    """
    config: Any = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    for family in FAMILIES:
        names = {f"{family.layers}.0.{m}" for m in family.modules}
        if names <= {name for name, _ in model.named_modules()}:
            break
    else:
        supported = "; ".join(f.name for f in FAMILIES)
        raise ValueError(f"{type(model).__name__} is of no supported decoder family. Supported: {supported}.")
    heads = config.num_attention_heads
    d_model = config.hidden_size
    d_mlp = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * d_model
    shape = ModelShape(
        n_layers=config.num_hidden_layers,
        n_heads=heads,
        n_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        d_head=getattr(config, "head_dim", None) or d_model // heads,
        d_mlp=d_mlp,
        d_model=d_model,
        d_vocab=model.get_input_embeddings().weight.shape[0],  # type: ignore[operator, union-attr]
    )
    return Architecture(shape, family)


PASS_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def shared_view(model: nn.Module) -> Any:
    """A structure copy in eval mode that shares every tensor with ``model`` but none of its flags or modules.

    It takes some milliseconds and no memory. Injecting adapters, wrapping modules or setting flags on the view leaves
    the original as it is.
    """
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    memo |= {id(b): b for b in model.buffers()}
    for module in model.modules():
        # Most of what there is to copy are tables of hooks, nearly all of them empty; what watches passes stays behind.
        tables = {name: table for name, table in vars(module).items() if "_hooks" in name}
        memo |= {id(t): type(t)() for name, t in tables.items() if not t or name.startswith(PASS_HOOKS)}
    return copy.deepcopy(model, memo).eval()


def inject_gates(
    view: nn.Module, architecture: Architecture, delta: GateDelta, adapter: str = ADAPTER
) -> dict[str, nn.Parameter]:
    """Put a PEFT IA3 adapter with these gates into a view, on top of the adapters that it has, and freeze everything.

    The vectors stay float32 whatever the model's dtype, and are on each module's device.

    Returns:
        The IA3 vectors by module name.
    """
    if not delta.gates:
        return {}
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # PEFT draws the vectors, which are overwritten below, and warns of the second stage's adapter, which is meant.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(architecture.ia3_config(delta.gates), view, adapter_name=adapter)
    modules: dict[str, Any] = dict(view.named_modules())
    for layer in modules.values():
        if hasattr(layer, "ia3_l"):  # all live, where the new adapter has no gates too: their gates multiply
            layer.set_adapter(list(layer.ia3_l.keys()))
    out: dict[str, nn.Parameter] = {}
    for name, vector in architecture.vectors(delta).items():
        layer = modules[name]
        parameter = layer.ia3_l[adapter]
        parameter.data = vector.reshape(parameter.shape).to(parameter.device)
        out[name] = parameter
    for parameter in view.parameters():
        parameter.requires_grad_(False)
    return out


def write_gates(parameters: Mapping[str, nn.Parameter], architecture: Architecture, delta: GateDelta) -> None:
    """Give IA3 vectors (as ``inject_gates`` returns them) a delta's gates, in place; it touches none but them."""
    for name, vector in architecture.vectors(delta).items():
        parameter = parameters[name]
        parameter.data.copy_(vector.reshape(parameter.shape))


def inject_lora(view: nn.Module, architecture: Architecture, modules: Iterable[str], rank: int, seed: int) -> None:
    """Put a PEFT LoRA adapter of this rank on these modules of a view (full names), and freeze everything.

    It starts as no change: B is 0, and A is drawn by seed. Float32 whatever the model's dtype.

    Source: Hu et al. 2021 (2106.09685); alpha equals the rank, no dropout.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = "|".join(re.escape(name) for name in sorted(set(modules)))
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=f"({names})", fan_in_fan_out=architecture.family.fan_in_fan_out
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, view, adapter_name=ADAPTER)
    for parameter in view.parameters():
        parameter.requires_grad_(False)


def own_layer_weights(view: nn.Module, architecture: Architecture, layers: Iterable[int]) -> dict[str, nn.Parameter]:
    """Give these layers of a view weights of their own, copies of the shared ones, and return them by name."""
    out: dict[str, nn.Parameter] = {}
    for layer in sorted(set(layers)):
        path = f"{architecture.family.layers}.{layer}"
        for name, shared in list(view.get_submodule(path).named_parameters()):
            # A new Parameter: new data in the view's would go on counting writes for the base's weight too.
            own = nn.Parameter(shared.detach().clone(), requires_grad=shared.requires_grad)
            module, _, leaf = f"{path}.{name}".rpartition(".")
            setattr(view.get_submodule(module), leaf, own)
            out[f"{path}.{name}"] = own
    return out


def fold_gates(view: nn.Module, architecture: Architecture, delta: GateDelta) -> None:
    """Give the gated modules of a view weights and biases of their own, with the gates multiplied in. The products are
    rounded to the weights' dtype once.

    Raises:
        ValueError: Weights that are not plain numbers (quantised).
    """
    inputs = {p.module for p in (architecture.gate_module(*key) for key in delta.gates) if p.on_input}
    for name, vector in architecture.vectors(delta).items():
        module: Any = view.get_submodule(name)
        if not module.weight.is_floating_point():
            raise ValueError(
                f"The weight of {name} is {module.weight.dtype}, so gates cannot be multiplied into it. Load the model "
                "without quantisation."
            )
        on_input = name in inputs
        columns = on_input != architecture.family.fan_in_fan_out  # the weight's second dimension, else its first
        gate = vector.to(module.weight.device)
        module.weight = _product(module.weight, gate if columns else gate[:, None])
        if not on_input and module.bias is not None:
            module.bias = _product(module.bias, gate)


def _product(weight: Tensor, gate: Tensor) -> nn.Parameter:
    # Half precision times float32 is float32.
    return nn.Parameter((weight * gate).to(weight.dtype), requires_grad=False)
