"""Module names of the supported decoder families: the one place that knows them.

Everything else speaks of gate sites (see ``workbench.types.selection``). A new family is a new entry in ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.types import EditModules, GateDelta, ModelShape, Site, SiteModule


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

    def describe(self, keys: Iterable[tuple[int, Site]] = ()) -> EditModules:
        """Module names for an edit, so that it can be exported without its model at hand.

        Args:
            keys: The gate sites that the edit may touch.
        """
        places: list[SiteModule] = []
        for layer, site in keys:
            place = self.gate_module(layer, site)
            size = self._vector_size(place.module)
            places.append(SiteModule(layer, site, place.module, place.span.start, size, place.on_input))
        return EditModules(self.family.layers, self.family.fan_in_fan_out, tuple(places))

    def module_name(self, layer: int, module: str) -> str:
        """The full name of a module within a layer.

        Raises:
            ValueError: The model has no such layer, or no such linear module.
        """
        if not 0 <= layer < self.shape.n_layers or module not in self.family.modules:
            raise ValueError(
                f"The model has no linear module {module!r} in layer {layer}; it has {list(self.family.modules)} in "
                f"the layers 0 to {self.shape.n_layers - 1}. The delta is for another architecture."
            )
        return f"{self.family.layers}.{layer}.{module}"

    def sites_of(self, module: str) -> tuple[Site, ...]:
        """The gate sites of a module within a layer, in the order in which they are laid out in its vector."""
        return self.family.modules[module]

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
        d_vocab=model.get_input_embeddings().weight.shape[0],
    )
    return Architecture(shape, family)
