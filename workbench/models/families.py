"""Architectures: which modules of a model hold which gate sites, and how it computes.

``family_table.py`` is the one place that knows module names; everything else speaks of gate sites (see
``workbench.types.selection``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.family import PARTS, Family, Traits, sizes, stores_transposed
from workbench.models.family_table import FAMILIES, REFUSED
from workbench.types import EditModules, GateDelta, ModelShape, Site, SiteModule

INPUT_SITES: frozenset[Site] = frozenset({"z", "post"})
"""Sites on a module's input (PEFT calls such modules feedforward); the others are on its output."""


class UnknownFamilyError(ValueError):
    """A model of no family of the table. ``best_effort`` may read it."""


@dataclass(frozen=True)
class GateModule:
    """Where a gate site lives.

    Args:
        module: The module's full name.
        index: The place of each of the site's entries in the module's IA3 vector, [site's length].
        on_input: Whether that vector multiplies the module's input, else its output.
    """

    module: str
    index: Tensor
    on_input: bool

    def places(self, entries: Iterable[int]) -> Tensor:
        """The places of some of the site's entries."""
        return self.index[torch.tensor(list(entries), dtype=torch.long)]


@dataclass(frozen=True)
class Architecture:
    """The shape of a model, the modules of its gate sites, and how it computes.

    Args:
        shape: Its sizes.
        family: Its family; of a mixture of experts without the modules of the MLP.
        traits: What its numbers depend on.
        fan_in_fan_out: Its linear modules store their weights transposed (GPT-2's Conv1D), by their class.
        untested: The model is of no family of the table.
    """

    shape: ModelShape
    family: Family
    traits: Traits = field(default_factory=Traits)
    fan_in_fan_out: bool = False
    untested: bool = False

    def gate_module(self, layer: int, site: Site) -> GateModule:
        """The module of a gate site.

        Raises:
            ValueError: The model has no such site.
        """
        for name, sites in self.family.modules.items():
            if site in sites:
                start, groups = self._start(sites, site), self._groups(sites)
                index = site_index(start, self.shape.site_size(site), self._vector_size(sites), groups)
                return GateModule(f"{self.family.layers}.{layer}.{name}", index, site in INPUT_SITES)
        if self.shape.no_neurons and PARTS[site] == "MLP":
            raise ValueError(f"There is no {site!r} projection to gate: {self.shape.no_neurons}")
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
            sites = next(sites for sites in self.family.modules.values() if site in sites)
            start, size, groups = self._start(sites, site), self._vector_size(sites), self._groups(sites)
            places.append(SiteModule(layer, site, place.module, start, size, place.on_input, groups))
        return EditModules(self.family.layers, self.fan_in_fan_out, tuple(places))

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

    def _groups(self, sites: Sequence[Site]) -> int:
        """How many blocks a module's vector has, each with its share of every site."""
        return self.shape.n_kv_heads if self.family.interleaved and len(sites) > 1 else 1

    def _start(self, sites: Sequence[Site], site: Site) -> int:
        """Where a site begins in the vector of a module with these sites."""
        before = sites[: list(sites).index(site)]
        return sum(self.shape.site_size(other) for other in before) // self._groups(sites)

    def _vector_size(self, sites: Sequence[Site]) -> int:
        """Length of the IA3 vector of a module with these sites."""
        return sum(map(self.shape.site_size, sites))

    def vectors(self, delta: GateDelta, fill: float = 1.0) -> dict[str, Tensor]:
        """The IA3 vector of each module that a delta touches, by module name, as float32; ``fill`` elsewhere."""
        out: dict[str, Tensor] = {}
        for (layer, site), gate in delta.gates.items():
            place = self.gate_module(layer, site)
            if place.module not in out:
                name = place.module.removeprefix(f"{self.family.layers}.").partition(".")[2]
                out[place.module] = torch.full((self._vector_size(self.family.modules[name]),), fill)
            out[place.module][place.index] = gate
        return out


def site_index(start: int, size: int, total: int, groups: int) -> Tensor:
    """The places of a site's entries in the vector of its module.

    Args:
        start: Where the site begins.
        size: How many entries it has.
        total: The vector's length.
        groups: The vector is so many equal blocks, and each holds its share of every site; 1 where the sites follow
            each other.
    """
    blocks = torch.arange(groups)[:, None] * (total // groups)
    return (start + blocks + torch.arange(size // groups)).flatten()


def read_architecture(model: Any) -> Architecture:
    """Find a model's family and shape, and check that every layer has what the family has.

    Raises:
        UnknownFamilyError: The model is of no family of the table; the message lists them.
        ValueError: It is of one, and is refused: the message says why.
    """
    name = type(model).__name__
    if name in REFUSED:
        raise ValueError(f"{name} is refused: {REFUSED[name]}.")
    family = next((f for f in FAMILIES if name in f.classes), None)
    if family is None:
        supported = ", ".join(f.name for f in FAMILIES)
        raise UnknownFamilyError(
            f"{name} is of no supported decoder family, so nothing says that its numbers would be right. "
            f"Supported: {supported}."
        )
    problem = family.problem(_config(model))
    if problem:
        raise ValueError(f"This {name} is refused: {problem}.")
    return _read(model, family)


def best_effort(model: Any) -> Architecture:
    """Read a model of no family of the table by the module names of those that are. It says nothing about what the
    model computes: that is for the self-check.

    Raises:
        ValueError: It has no family's module names in every layer, or it is of a family and refused.
    """
    name = type(model).__name__
    if name in REFUSED:  # for what the self-check will find: whoever asks for it knows that
        unknown = f"{name} is refused: {REFUSED[name]}."
    else:
        try:
            return read_architecture(model)
        except UnknownFamilyError as error:
            unknown = str(error)
    problems: list[str] = []
    normed = any(name.endswith("layers.0.post_feedforward_layernorm") for name, _ in model.named_modules())
    for family in sorted(FAMILIES, key=lambda family: family.post_norms != normed):
        try:
            guess = replace(family, name=f"{type(model).__name__}, read as {family.name}")
            return replace(_read(model, guess), untested=True)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(f"{unknown} Nor does it have the module names of one of them. {problems[0]}")


def _config(model: Any) -> Any:
    return model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config


def _read(model: Any, family: Family) -> Architecture:
    """The architecture of a model as one of a family, checked in every layer."""
    config, modules = _config(model), dict(model.named_modules(remove_duplicate=False))
    layers = [modules.get(f"{family.layers}.{i}") for i in range(config.num_hidden_layers)]
    if family.norm not in modules or not layers or None in layers:
        raise ValueError(
            f"{type(model).__name__} lacks {family.norm} or some of the {len(layers)} layers at {family.layers}, which "
            f"models of the family {family.name} have."
        )
    if len(set(layers)) < len(layers):
        first, second = next((layers.index(one), i) for i, one in enumerate(layers) if layers.index(one) < i)
        raise ValueError(
            f"The layers {first} and {second} of this {type(model).__name__} are one module, so that neither can be "
            "read or changed alone. Give each layer a module of its own (copy.deepcopy)."
        )
    mixed = tuple(
        i for i in range(len(layers)) if family.experts and f"{family.layers}.{i}.{family.experts}" in modules
    )
    if mixed:
        family = replace(family, modules={n: s for n, s in family.modules.items() if PARTS[s[0]] == "attention"})
    heads = config.num_attention_heads
    shape = ModelShape(
        n_layers=len(layers),
        n_heads=heads,
        n_kv_heads=family.kv_heads(config) or heads,
        d_head=getattr(config, "head_dim", None) or config.hidden_size // heads,
        d_mlp=_d_mlp(config, family, modules),
        d_model=config.hidden_size,
        d_vocab=model.get_input_embeddings().weight.shape[0],
        no_neurons=_no_neurons(mixed, len(layers)),
    )
    found = Architecture(shape, family, family.traits(config, mixed))
    linear = _check_layers(model, found, modules)
    return replace(found, fan_in_fan_out=any(map(stores_transposed, linear)))


def _d_mlp(config: Any, family: Family, modules: dict[str, nn.Module]) -> int:
    """Neurons of an MLP; of an expert in a mixture."""
    name = next((name for name, sites in family.modules.items() if "post" in sites), None)
    module = modules.get(f"{family.layers}.0.{name}")
    if name is not None and module is not None and hasattr(module, "weight"):
        return sizes(module)[1]
    return getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", None) or 0


def _no_neurons(mixed: Sequence[int], n_layers: int) -> str:
    """Why a model has no neurons to point at; empty where it has."""
    if not mixed:
        return ""
    which = "every layer" if len(mixed) == n_layers else f"{len(mixed)} of {n_layers} layers (L{mixed[0]} first)"
    return (
        f"in {which} the MLP is a mixture of experts: a token is read by a few of many small MLPs, so no one neuron "
        "has that index. Choose whole MLPs to look at, and heads or attention layers to edit."
    )


def _check_layers(model: Any, architecture: Architecture, modules: dict[str, nn.Module]) -> list[nn.Module]:
    """The linear modules of all layers; a ValueError unless every layer has the family's, with the shape's sizes."""
    family, shape = architecture.family, architecture.shape
    linear: list[nn.Module] = []
    name = type(model).__name__
    for layer in range(shape.n_layers):
        path = f"{family.layers}.{layer}"
        missing = [m for m in (*family.modules, family.attention, family.mlp) if f"{path}.{m}" not in modules]
        if missing:
            raise ValueError(
                f"{name} has no {missing[0]} in layer {layer}, and models of the family {family.name} have it in every "
                "layer."
            )
        for module_name, sites in family.modules.items():
            module = modules[f"{path}.{module_name}"]
            if not (isinstance(module, nn.Linear) or stores_transposed(module)):
                raise ValueError(
                    f"{path}.{module_name} of {name} is a {type(module).__name__}, and must be a Linear or a Conv1D. "
                    "Load the model whole and without quantisation or adapters."
                )
            on_input = sites[0] in INPUT_SITES
            found, wanted = sizes(module)[on_input], sum(map(shape.site_size, sites))
            if found != wanted:
                raise ValueError(
                    f"{path}.{module_name} of {name} has {found} {'inputs' if on_input else 'outputs'}, and by its "
                    f"configuration {wanted} are expected ({shape.n_heads} heads of {shape.d_head}, {shape.n_kv_heads} "
                    f"key-value groups, {shape.d_mlp} neurons): its layers differ, or they compute something else."
                )
            linear.append(module)
    return linear
