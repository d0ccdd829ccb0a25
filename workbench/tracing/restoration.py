"""Restorations: which clean state is put where, and the fewest layers and tokens that it can change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from workbench.models.engine import Change, HookSite

RestoredSite = HookSite | Literal["kv"]
Severed = Literal["mlp", "attn"]
"""Which modules keep what they put out in the corrupted run."""
SEVERED: dict[Severed, str] = {"mlp": "MLPs", "attn": "attention"}
"""What figures call them."""
Measure = Callable[[Tensor], Tensor]
"""From last-position logits [rows, d_vocab] to one number a row."""
Entries = Callable[[HookSite, int], Tensor | None]
"""From a site and a part of it (a head, a group, a neuron) to where its entries are in the site's states; None of a
site without parts."""
_INSIDE: dict[Severed, tuple[RestoredSite, ...]] = {"mlp": ("mlp", "post"), "attn": ("attn", "z", "q", "k", "v", "kv")}
"""Sites that lie within the modules that can be severed."""


@dataclass(frozen=True)
class Restoration:
    """One restoration.

    Args:
        site: The state that becomes clean: ``"resid"``, ``"attn"``, ``"mlp"``; ``"z"``, ``"q"``, ``"k"``, ``"v"`` of a
            head or group; ``"kv"``: keys and values of a group; ``"post"`` of a neuron.
        layers: In these layers (one for all but ``"attn"`` and ``"mlp"``).
        position: At this position of the corrupted tokens; None for all of them.
        head: Only the entries of this head, key-value group or neuron.
        severed: At the position, MLPs or attention layers that the restored state reaches put out what they put out in
            the corrupted run.
    """

    site: RestoredSite
    layers: range
    position: int | None = None
    head: int | None = None
    severed: Severed | None = None

    @property
    def start(self) -> int:
        """The first layer to compute."""
        return self.layers.start + (self.site in ("attn", "mlp"))

    @property
    def first(self) -> int:
        """The first position to compute."""
        return self.position or 0

    @property
    def sites(self) -> tuple[HookSite, ...]:
        """Where the restored states are."""
        return ("k", "v") if self.site == "kv" else (self.site,)

    def freezes(self, layer: int) -> bool:
        """Whether the severed module of a layer keeps its corrupted output: from the restored layer on, but where the
        restored state lies within it."""
        if self.severed is None or layer < self.layers.start:
            return False
        return not (self.site in _INSIDE[self.severed] and layer in self.layers)


def severed_by(cells: Iterable[Restoration]) -> tuple[Severed, ...]:
    """What some cells sever, whose outputs in the corrupted run are needed."""
    return tuple(dict.fromkeys(cell.severed for cell in cells if cell.severed is not None))


def changes_of(
    cell: Restoration,
    clean: Mapping[tuple[HookSite, int], Tensor],
    corrupted: Mapping[tuple[HookSite, int], Tensor],
    entries: Entries,
    n_layers: int,
) -> dict[tuple[HookSite, int], Change]:
    """The changes of a corrupted run that make a restoration.

    Args:
        cell: The restoration.
        clean: States of the clean run, [1, tokens, width].
        corrupted: Of the corrupted runs [samples, tokens, d_model], what is severed.
        entries: Where parts are.
        n_layers: The model's layers.
    """
    changes: dict[tuple[HookSite, int], Change] = {}
    for layer in cell.layers:
        for site in cell.sites:
            part = None if cell.head is None else entries(site, cell.head)
            changes[site, layer] = _putting(clean[site, layer], cell.position, part)
    if cell.severed is not None:
        for layer in filter(cell.freezes, range(n_layers)):
            place = cell.severed, layer
            changes[place] = _putting(corrupted[place], cell.position, None)
    return changes


def _putting(states: Tensor, position: int | None, part: Tensor | None) -> Change:
    """A change that puts states [rows or 1, tokens, width] at a position (None for all), or a part of them there."""
    at = slice(None) if position is None else slice(position, position + 1)

    def put(value: Tensor) -> Tensor:
        value = value.clone()
        if part is None:
            value[:, at] = states[:, at].to(value)
        else:
            value[:, at, part] = states[:, at][..., part].to(value)
        return value

    return put


def cone_tokens(cells: Sequence[Restoration], layers: int, tokens: int) -> int:
    """How many times a token goes through a layer, for one corrupted run."""
    return sum((layers - cell.start) * (tokens - cell.first) for cell in cells)
