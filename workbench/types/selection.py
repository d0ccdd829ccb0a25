"""Components of a transformer and selections of them: what an edit may touch.

A component is written the way the field writes it (``L23H4``). It names entries of *gate sites*, the vectors that IA3
(Liu et al. 2022, arXiv 2205.05638) multiplies; ``shape.py`` lists them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from workbench.types.ordered_set import OrderedSet
from workbench.types.plain import is_list
from workbench.types.shape import SITES, HasShape, ModelShape, Site, shape_of

Kind = Literal["H", "MLP", "N", "ATTN", "Q", "K", "V", "KV", "GATEUP"]
KINDS: tuple[Kind, ...] = get_args(Kind)
INDEXED: tuple[Kind, ...] = ("H", "N", "Q", "K", "V", "KV")
KIND_NAMES: dict[Kind, str] = {
    "H": "query head",
    "MLP": "MLP (all neurons)",
    "N": "MLP neuron",
    "ATTN": "attention layer (q, k, v and o)",
    "Q": "query projection of a head",
    "K": "key projection of a key-value group",
    "V": "value projection of a key-value group",
    "KV": "key-value group",
    "GATEUP": "MLP gate and up projections",
}
_PATTERN = re.compile(r"L(\d+)(?:(MLP|ATTN|GATEUP)|(KV|H|N|Q|K|V)(\d+))")
_EXAMPLES = "L23H4, L13MLP, L13N207, L9ATTN, L9Q4, L9K1, L9V1, L9KV1, L9GATEUP"
_HOOKS: dict[Kind, str] = {
    "H": "attn.hook_z",
    "MLP": "hook_mlp_out",
    "N": "mlp.hook_post",
    "ATTN": "hook_attn_out",
    "Q": "attn.hook_q",
    "K": "attn.hook_k",
    "V": "attn.hook_v",
}
"""TransformerLens' name, within a block, of what a component gives out."""
_HOOK = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a model that can be selected. ``str()`` and ``parse`` are inverse to each other.

    Args:
        layer: Layer index from 0.
        kind: ``H`` query head, ``MLP`` all neurons, ``N`` one neuron, ``ATTN`` q, k, v and o of the layer, ``Q`` /
            ``K`` / ``V`` one projection of a head or group, ``KV`` both of a group, ``GATEUP`` the MLP's gate and up
            projections.
        index: Head, group or neuron index for the kinds that have one, else None.

    Raises:
        ValueError: A negative number, an index where the kind has none, or none where it needs one.

    Example:
        >>> head = wb.Component(1, "H", 3)
        >>> head, head == wb.Component.parse("L1H3")
        (L1H3, True)
    """

    layer: int
    kind: Kind
    index: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Unknown component kind {self.kind!r}; allowed are {KINDS}.")
        if self.layer < 0 or (self.index is not None and self.index < 0):
            raise ValueError(f"Layer and index start at 0, got layer {self.layer}, index {self.index}.")
        if (self.kind in INDEXED) != (self.index is not None):
            need = "needs an index" if self.kind in INDEXED else "takes no index"
            raise ValueError(f"A component of kind {self.kind!r} {need}, got {self.index!r}. Examples: {_EXAMPLES}.")

    def __str__(self) -> str:
        return f"L{self.layer}{self.kind}{'' if self.index is None else self.index}"

    def __repr__(self) -> str:
        return str(self)

    @classmethod
    def parse(cls, text: str | Component) -> Component:
        """Read a component such as ``"L23H4"``.

        Raises:
            ValueError: The text is not a component; the message lists examples.
        """
        return _component(text)

    def slices(self, shape: ModelShape) -> dict[Site, range]:
        """The entries of each gate site that the component stands for; none for the MLP of a mixture of experts.

        Raises:
            ValueError: The model has no such component.
        """
        self.check(shape)
        if shape.no_neurons and self.kind in ("MLP", "GATEUP"):
            return {}
        i, d = self.index or 0, shape.d_head
        head = range(i * d, (i + 1) * d)
        if self.kind == "H":
            return {"z": head}
        if self.kind == "N":
            return {"post": range(i, i + 1)}
        if self.kind == "MLP":
            return {"post": range(shape.d_mlp)}
        if self.kind == "GATEUP":
            return {"gate": range(shape.d_mlp), "up": range(shape.d_mlp)}
        if self.kind == "Q":
            return {"q": head}
        if self.kind == "K":
            return {"k": head}
        if self.kind == "V":
            return {"v": head}
        if self.kind == "KV":
            return {"k": head, "v": head}
        return {site: range(shape.site_size(site)) for site in ("q", "k", "v", "z")}

    def check(self, shape: ModelShape) -> None:
        """Raise a ValueError that names the allowed range when the model has no such component."""
        if self.layer >= shape.n_layers:
            raise ValueError(
                f"{self} does not exist: the model has {shape.n_layers} layers (L0 to L{shape.n_layers - 1})."
            )
        if shape.no_neurons and self.kind == "N":
            raise ValueError(f"{self} does not exist: {shape.no_neurons}")
        limit = {"H": shape.n_heads, "Q": shape.n_heads, "N": shape.d_mlp}.get(self.kind)
        if self.kind in ("K", "V", "KV"):
            limit = shape.n_kv_heads
        if self.index is None or limit is None or self.index < limit:
            return
        if self.kind in ("K", "V", "KV") and self.index < shape.n_heads:
            group = shape.group_of(self.index)
            raise ValueError(
                f"{self} does not exist: the model has {shape.n_heads} query heads but only {limit} key-value groups "
                f"(0 to {limit - 1}). Query head {self.index} reads group {group}: write "
                f"L{self.layer}{self.kind}{group} for the group "
                f"(shared by query heads {', '.join(map(str, shape.heads_of(group)))}), or "
                f"L{self.layer}H{self.index} for the query head."
            )
        raise ValueError(f"{self} does not exist: {KIND_NAMES[self.kind]} indices run from 0 to {limit - 1}.")

    @property
    def hook_name(self) -> str:
        """TransformerLens' name of the activation in which the component's output stands; of a head, group or neuron
        the entry ``index`` of its last or last but one dimension.

        Raises:
            ValueError: The component has outputs at several hooks (``KV``, ``GATEUP``).

        Example:
            >>> wb.Component.parse("L1H3").hook_name, wb.Component.parse("L2MLP").hook_name
            ('blocks.1.attn.hook_z', 'blocks.2.hook_mlp_out')
        """
        if self.kind == "KV":
            raise ValueError(f"{self} is at two hooks: take L{self.layer}K{self.index} and L{self.layer}V{self.index}.")
        if self.kind not in _HOOKS:
            raise ValueError(f"{self} is at two hooks: mlp.hook_pre and mlp.hook_pre_linear of blocks.{self.layer}.")
        return f"blocks.{self.layer}.{_HOOKS[self.kind]}"

    @classmethod
    def from_hook(cls, name: str, index: int | None = None) -> Component:
        """The component whose output stands at a TransformerLens hook.

        Args:
            name: The hook's name, such as ``"blocks.1.attn.hook_z"``.
            index: The head, group or neuron, where the hook has several.

        Raises:
            ValueError: No component has this hook, or ``index`` is missing or one too many.

        Example:
            >>> wb.Component.from_hook("blocks.1.attn.hook_z", 3), wb.Component.from_hook("blocks.2.hook_mlp_out")
            (L1H3, L2MLP)
        """
        found = _HOOK.fullmatch(name)
        kinds: list[Kind] = [kind for kind, hook in _HOOKS.items() if found and found[2] == hook]
        if not found or not kinds:
            names = ", ".join(f"blocks.0.{hook}" for hook in _HOOKS.values())
            raise ValueError(f"No component is at the hook {name!r}; components are at hooks such as {names}.")
        return cls(int(found[1]), kinds[0], index)

    def require_head(self, shape: ModelShape) -> int:
        """The query head's index, for functions about one query head.

        Raises:
            ValueError: The component is something else; for a key-value group the message names the query heads that
                share it.
        """
        self.check(shape)
        if self.kind in ("H", "Q") and self.index is not None:
            return self.index
        if self.kind in ("K", "V", "KV") and self.index is not None:
            heads = ", ".join(f"L{self.layer}H{h}" for h in shape.heads_of(self.index))
            raise ValueError(
                f"{self} is a key-value group, not a query head: it is shared by {heads}. Pick one of these heads."
            )
        raise ValueError(
            f"{self} is not a query head but {KIND_NAMES[self.kind]}; write a head such as L{self.layer}H0."
        )


def _component(item: object) -> Component:
    """A component, or its text; a ValueError for anything else."""
    if isinstance(item, Component):
        return item
    match = _PATTERN.fullmatch(item.strip()) if isinstance(item, str) else None
    if match is None:
        raise ValueError(f"{item!r} is not a component. Write one like these: {_EXAMPLES}.")
    layer, bare, indexed, index = match.groups()
    kind: Any = bare or indexed
    return Component(int(layer), kind, None if bare else int(index))


def _sort_key(component: Component) -> tuple[int, int, int]:
    return component.layer, KINDS.index(component.kind), component.index or 0


class Selection(OrderedSet[Component]):
    """An ordered, immutable set of components. ``|``, ``&``, ``-`` and ``^`` keep the order of first appearance.

    Example:
        >>> selection = wb.Selection("L1H3 L2MLP")
        >>> selection | "L0ATTN"
        Selection('L1H3 L2MLP L0ATTN')
        >>> "L1H3" in selection, list(selection - "L1H3")
        (True, [L2MLP])
    """

    __slots__ = ()

    def __init__(self, components: Iterable[Component | str] | str = ()) -> None:
        if isinstance(components, str):
            components = re.split(r"[\s,]+", components.strip()) if components.strip() else ()
        self._items = dict.fromkeys(Component.parse(c) for c in components)

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Read components separated by spaces or commas.

        Raises:
            ValueError: A part is not a component.

        Example:
            >>> wb.Selection.parse("L1H3, L2MLP")
            Selection('L1H3 L2MLP')
        """
        return cls(text)

    @classmethod
    def read(cls, given: Any, name: str = "selection") -> Selection:
        """A selection as functions take one: itself, its text, one component, or a list of components and their names.

        Args:
            given: It.
            name: Of the argument, for the error.

        Raises:
            ValueError: Nothing of the kind, or a part that is no component.

        Example:
            >>> wb.Selection.read(["L1H3", wb.Component(2, "MLP")])
            Selection('L1H3 L2MLP')
        """
        if isinstance(given, Selection):
            return given
        if isinstance(given, str):
            return cls(given)
        if isinstance(given, Component):
            return cls([given])
        if not hasattr(given, "__iter__"):
            raise ValueError(
                f"{name} must be a Selection, its text such as 'L23H4 L13MLP', or a list of components, got "
                f"{type(given).__name__}."
            )
        return cls(given)

    @classmethod
    def _as_set(cls, given: Iterable[Any]) -> Selection:
        return given if isinstance(given, Selection) else cls(given)

    def __contains__(self, item: object) -> bool:
        try:
            return _component(item) in self._items
        except ValueError:
            return False

    def __str__(self) -> str:
        return " ".join(map(str, self))

    def __repr__(self) -> str:
        return f"Selection({str(self)!r})"

    def sorted(self) -> Selection:
        """The same components by layer, kind and index."""
        return Selection(sorted(self, key=_sort_key))

    def to_json(self) -> str:
        """A JSON list of component names."""
        return json.dumps([str(c) for c in self])

    @classmethod
    def from_json(cls, text: str) -> Selection:
        """Make a selection from what ``to_json`` gave.

        Raises:
            ValueError: Not a JSON list of component names.

        Example:
            >>> wb.Selection.from_json('["L1H3", "L2MLP"]')
            Selection('L1H3 L2MLP')
        """
        data: object = json.loads(text)
        if not is_list(data):
            raise ValueError(f"Expected a JSON list of component names, got {type(data).__name__}.")
        return cls(data)

    def entries(self, model: HasShape | ModelShape) -> dict[tuple[int, Site], tuple[int, ...]]:
        """List the sorted gate entries by (layer, site). Each is counted once, however many components cover it.

        Raises:
            ValueError: The model lacks a component.

        Example:
            >>> wb.Selection("L1H3 L2N5 L2N7").entries(model)  # of heads that are 8 wide
            {(1, 'z'): (24, 25, 26, 27, 28, 29, 30, 31), (2, 'post'): (5, 7)}
        """
        shape = shape_of(model)
        found: dict[tuple[int, Site], set[int]] = {}
        for component in self:
            for site, span in component.slices(shape).items():
                found.setdefault((component.layer, site), set()).update(span)
        return {key: tuple(sorted(found[key])) for key in sorted(found, key=lambda k: (k[0], SITES.index(k[1])))}

    def n_parameters(self, model: HasShape | ModelShape) -> int:
        """Count the gates that an edit of this selection trains. The MLPs of a mixture of experts have none.

        Example:
            >>> wb.Selection("L1H3 L2MLP").n_parameters(model)  # 8 of the head, 56 neurons
            64
        """
        return sum(map(len, self.entries(model).values()))

    def random_like(
        self,
        model: HasShape | ModelShape,
        *,
        seed: int = 0,
        where: Literal["same-layers", "anywhere", "one-layer"] = "anywhere",
        exclude_self: bool = True,
    ) -> Selection:
        """Draw a random selection with the same number of components of each kind: the control for this one.

        Args:
            model: The model (or its shape).
            seed: Two calls with one seed agree.
            where: ``"anywhere"`` draws from all layers; ``"same-layers"`` keeps the number per layer as well (not
                possible for kinds with one component a layer, such as a whole MLP); ``"one-layer"`` draws a layer that
                has none of them, and all from there: for what must lie in one module.
            exclude_self: Never draw a component of this selection.

        Raises:
            ValueError: There are not enough other components to draw from.

        Example:
            >>> control = wb.Selection("L1H3 L2N5 L2N7").random_like(model, seed=0, where="same-layers")
            >>> [(component.layer, component.kind) for component in control.sorted()]
            [(1, 'H'), (2, 'N'), (2, 'N')]
        """
        from workbench.types.random_draws import draw_like

        return draw_like(self, shape_of(model), seed, where, exclude_self)


def all_components(model: HasShape | ModelShape, kind: Kind, layer: int | None = None) -> list[Component]:
    """Every component of a kind, of one layer or of the whole model, in order."""
    shape = shape_of(model)
    layers = range(shape.n_layers) if layer is None else (layer,)
    if kind not in INDEXED:
        return [Component(at, kind) for at in layers]
    neurons = 0 if shape.no_neurons else shape.d_mlp
    n = {"H": shape.n_heads, "Q": shape.n_heads, "N": neurons}.get(kind, shape.n_kv_heads)
    return [Component(at, kind, i) for at in layers for i in range(n)]
