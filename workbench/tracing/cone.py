"""Many restorations at once, each computed only where it differs from the corrupted run: the fast path of tracing.

A clean state put into layer l at position t changes only the layers above l and the positions from t on: a cone. All
else is the corrupted run's, which is recorded once. Exact savings:

* Tokens before t are not computed: their keys and values are the corrupted run's own, at every layer.
* Layers below are not computed, and for a window of outputs its first layer neither: what it puts out with the clean
  state at a position is computed for all positions at once, since without the attention they do not see each other.
* In the last layer, only the last token is computed in full, of the others only keys and values.
* The head is applied to the last token alone.

The tokens of all cells lie side by side in one packed batch, [1, tokens, d_model], which grows on the way up: a cell
joins at its first layer. So every linear map sees one large matrix whatever the shape of the single cones. Only
attention knows cells; cells of one position share the keys and values before it.

The slow, obvious version is ``plain_effects`` in ``restore.py``. It also serves models whose attention cannot be
replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from workbench.models.engine import Change, HookSite, KeysValues, Recording
from workbench.models.layerwise import LayerInputs, Layerwise
from workbench.tracing.packed import OWN_ATTENTION, Pack, PackedAttention, Unsupported, by_token, register
from workbench.tracing.restoration import Measure, Restoration, Severed

LOGITS_A_BATCH = 2**23
SITES: tuple[HookSite, ...] = ("attn", "mlp", "z", "q", "k", "v", "post")
"""Where states may be put within a layer."""
_Put = tuple[Tensor, Tensor | None, Tensor]
"""Rows, which entries of each (None for all), and the states."""


class _Seen(Exception):
    """Ends a layer once its keys and values are seen."""


class Cone:
    """The effects of cells on one batch of corrupted runs.

    Args:
        engine: Of the model.
        clean: The clean run with the sites of the cells.
        corrupted: Residual stream of the corrupted runs entering layer 0, [samples, tokens, d_model].
        prefix: Keys and values of the tokens before.
        max_rows: Most tokens in the packed batch; a single cell's may be more.
        severed: What the cells sever: its outputs in the corrupted runs are recorded.
    """

    def __init__(
        self,
        engine: Layerwise,
        clean: Recording,
        corrupted: Tensor,
        prefix: KeysValues | None,
        *,
        max_rows: int,
        severed: Sequence[Severed] = (),
    ) -> None:
        if engine.own_attention not in OWN_ATTENTION or not engine.takes_options:
            raise Unsupported(f"attention implementation {engine.own_attention!r}")
        self.engine, self.clean, self.max_rows = engine, clean, max_rows
        self.samples, self.tokens = corrupted.shape[:2]
        with engine.keeping([(site, layer) for site in severed for layer in range(engine.n_layers)]) as self._frozen:
            self.inputs: LayerInputs = engine.record_inputs(corrupted, prefix=prefix)
        self._allowed = [self._mask(given.get("attention_mask")) for given in self.inputs.arguments]
        self._restored: dict[tuple[HookSite, Severed | None], tuple[int, Tensor]] = {}
        self._name = register()

    def effects(self, cells: Sequence[Restoration], measure: Measure) -> Iterator[tuple[list[int], Tensor]]:
        """The measure of every cell's last-position logits, in batches from the lowest start layer up.

        Yields:
            Indices of cells, and their measures [cells, samples].
        """
        last = self.tokens - 1
        without = [i for i, c in enumerate(cells) if c.start == self.engine.n_layers and c.position not in (None, last)]
        if without:  # restored where nothing reads it
            yield without, measure(self.inputs.logits).expand(len(without), -1)
        rest = set(without)
        order = sorted((i for i in range(len(cells)) if i not in rest), key=lambda i: (cells[i].start, cells[i].first))
        batch: list[int] = []
        rows = 0
        for i in order:
            size = self.samples * (self.tokens - cells[i].first)
            if batch and rows + size > self.max_rows:
                yield batch, self._sweep([cells[i] for i in batch], measure)
                batch, rows = [], 0
            batch.append(i)
            rows += size
        if batch:
            yield batch, self._sweep([cells[i] for i in batch], measure)

    def _sweep(self, cells: list[Restoration], measure: Measure) -> Tensor:
        """Measures [cells, samples] of cells in order of their start layers."""
        top = self.engine.n_layers - 1
        whole = self._pack(cells)
        hidden = self.inputs.resid[0].new_empty(0, self.inputs.resid[0].shape[-1])
        joined = 0
        for layer in range(min(cells[0].start, top), top):
            hidden, joined = self._join(hidden, cells, joined, layer)
            hidden = self._call(layer, hidden, cells[:joined], whole)
        hidden, joined = self._join(hidden, cells, joined, top)
        if joined:
            past = whole, self._keys_values(top, hidden, cells[:joined], whole)
            rows = torch.cat([whole.rows(i)[:, -1] for i in range(joined)])
            hidden = self._call(top, hidden[rows], cells[:joined], self._pack(cells, last=True), past)
        hidden = torch.cat([hidden, *(self._entering(c)[:, -1] for c in cells[joined:])])
        size = max(1, min(self.max_rows, LOGITS_A_BATCH // self.inputs.logits.shape[-1]))
        return torch.cat([measure(self.engine.unembed(part)) for part in hidden.split(size)]).view(len(cells), -1)

    def _pack(self, cells: Sequence[Restoration], *, last: bool = False) -> Pack:
        return Pack([c.first for c in cells], self.samples, self.tokens, self.engine.device, last=last)

    def _join(self, hidden: Tensor, cells: list[Restoration], joined: int, layer: int) -> tuple[Tensor, int]:
        """The packed batch [tokens, d_model] with the cells that start at a layer, and how many cells it has."""
        new = [self._entering(c).flatten(0, 1) for c in cells[joined:] if c.start == layer]
        return (torch.cat([hidden, *new]) if new else hidden), joined + len(new)

    def _entering(self, cell: Restoration) -> Tensor:
        """The state entering a cell's start layer, [samples, tokens from its position on, d_model]."""
        state = self.inputs.resid[cell.start][:, cell.first :]
        if cell.site == "resid":
            source = self.clean.states["resid", cell.start]
        elif cell.site in ("attn", "mlp"):
            source = self._after(cell)
        else:  # what is restored is within the layer
            return state
        if cell.position is None:
            return source.expand_as(state)
        state = state.clone()
        state[:, 0] = source[:, cell.position]
        return state

    def _after(self, cell: Restoration) -> Tensor:
        """The state after a cell's first layer, whose output at its site is clean, [samples, tokens, d_model]: right
        for each position as if it alone were clean, for the rest of the layer does not mix positions."""
        (site,), layer = cell.sites, cell.layers.start
        if self._restored.get((site, cell.severed), (None,))[0] != layer:
            all_positions = [Restoration("resid", range(layer, layer + 1))]
            clean = self.clean.states[site, layer][0].repeat(self.samples, 1)[None]
            hidden = self.inputs.resid[layer].flatten(0, 1)
            changes: dict[tuple[HookSite, int], Change] = {(site, layer): lambda _: clean}
            if cell.severed is not None and cell.freezes(layer):
                frozen = self._frozen[cell.severed, layer].flatten(0, 1)[None]
                changes[cell.severed, layer] = lambda _: frozen
            after = self._call(layer, hidden, all_positions, self._pack(all_positions), changes=changes)
            self._restored[site, cell.severed] = (layer, after.view(self.samples, self.tokens, -1))
        return self._restored[site, cell.severed][1]

    def _call(
        self,
        layer: int,
        hidden: Tensor,
        cells: Sequence[Restoration],
        pack: Pack,
        past: tuple[Pack, tuple[Tensor, Tensor]] | None = None,
        *,
        changes: Mapping[tuple[HookSite, int], Change] | None = None,
    ) -> Tensor:
        """One layer on the packed batch [tokens, d_model].

        Args:
            cells: Those in the batch.
            pack: Where their tokens are.
            past: The cells' keys and values and where those are, if not those of the batch.
            changes: Of the layer's outputs; by default those that restore them.
        """
        own = past and past[1]
        attention = PackedAttention(
            self.inputs.keys_values[layer], self._allowed[layer], pack, len(cells), keys=past and past[0], own=own
        )
        arguments = self._arguments(layer, pack.positions[: len(hidden)]) | {"cone": attention}
        with self.engine.attention(self._name):
            restoring = self._changes(layer, cells, pack) if changes is None else changes
            out = self.engine.call_layer(layer, hidden[None], arguments, restoring)
        if not attention.called:
            raise Unsupported("attention that is not transformers' own")
        return out[0]

    def _keys_values(
        self, layer: int, hidden: Tensor, cells: Sequence[Restoration], pack: Pack
    ) -> tuple[Tensor, Tensor]:
        """A layer's keys and values of the packed batch, each [tokens, kv heads, d_head]."""
        seen: list[tuple[Tensor, Tensor]] = []

        def see(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
            seen.append((by_token(key), by_token(value)))
            raise _Seen

        arguments = self._arguments(layer, pack.positions[: len(hidden)]) | {"cone": see}
        with self.engine.attention(self._name), suppress(_Seen):
            self.engine.call_layer(layer, hidden[None], arguments, self._changes(layer, cells, pack, ("k", "v")))
        if not seen:
            raise Unsupported("attention that is not transformers' own")
        return seen[0]

    def _changes(
        self, layer: int, cells: Sequence[Restoration], pack: Pack, sites: Sequence[HookSite] = SITES
    ) -> dict[tuple[HookSite, int], Change]:
        """Clean states for cells that restore something in this layer, and corrupted ones for those that sever it."""
        out: dict[tuple[HookSite, int], Change] = {}
        present: set[HookSite | None] = {site for cell in cells for site in (*cell.sites, cell.severed)}
        of_cells: list[HookSite] = [site for site in sites if site in present]
        for site in of_cells:
            puts: list[_Put] = []
            restoring = [i for i, cell in enumerate(cells) if site in cell.sites and layer in cell.layers]
            freezing = [i for i, cell in enumerate(cells) if cell.severed == site and cell.freezes(layer)]
            for of, states in ((restoring, self.clean.states), (freezing, self._frozen)):
                at = [(i, self._rows(i, cells[i], pack)) for i in of]
                at = [(i, rows) for i, rows in at if len(rows)]
                if at:
                    puts.append(
                        self._put(states[site, layer], [(cells[i], pack.first[i], rows) for i, rows in at], site)
                    )
            if puts:
                out[site, layer] = _putting(puts)
        return out

    def _rows(self, i: int, cell: Restoration, pack: Pack) -> Tensor:
        """Rows of the packed batch in which a cell has another state, [samples, tokens]; none where nothing reads it
        any more."""
        rows = pack.rows(i)
        if cell.position is None:
            return rows
        return rows[:, :1] if cell.position >= pack.first[i] else rows[:0]

    def _put(self, states: Tensor, places: Sequence[tuple[Restoration, int, Tensor]], site: HookSite) -> _Put:
        """States [samples or 1, tokens, width] for the rows of some cells, each with the first position of its rows."""
        samples = torch.arange(self.samples)[:, None]
        positions = [torch.arange(first, first + rows.shape[1]).repeat(self.samples) for _, first, rows in places]
        of = [samples.expand(rows.shape).flatten() for _, _, rows in places]
        rows = torch.cat([rows.flatten() for _, _, rows in places])
        at = torch.cat(positions).to(states.device)
        values = states[0][at] if len(states) == 1 else states[torch.cat(of).to(states.device), at]
        parts = self.engine.parts(site)
        if parts is None:
            return rows, None, values
        heads = torch.cat([torch.full((rows.numel(),), cell.head or 0) for cell, _, rows in places])
        entries = parts[heads.to(parts.device)]
        return rows, entries, values.gather(1, entries)

    def _arguments(self, layer: int, positions: Tensor) -> dict[str, Any]:
        """A layer's arguments for the packed batch: what belongs to a token, in the order of its tokens."""

        def packed(name: str, value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(packed(name, one) for one in value)
            if not isinstance(value, Tensor):
                return value
            if value.shape[:2] != (1, self.tokens):
                raise Unsupported(f"layer argument {name!r} of shape {tuple(value.shape)}")
            return value[:, positions]

        unused = {"past_key_values": None, "layer_past": None, "attention_mask": None, "use_cache": False}
        given = self.inputs.arguments[layer]
        return {name: unused[name] if name in unused else packed(name, value) for name, value in given.items()}

    def _mask(self, mask: Any) -> Tensor:
        """Whether a token (of all from the first corrupted one) sees another (of all), [tokens, all tokens]."""
        total = self.inputs.keys_values[0][0].shape[2]
        causal = torch.ones(self.tokens, total, dtype=torch.bool, device=self.engine.device)
        causal = causal.tril(total - self.tokens)
        if mask is None:
            return causal
        if not isinstance(mask, Tensor) or mask.shape[-2:] != causal.shape:
            raise Unsupported(f"attention mask {type(mask).__name__}")
        mask = mask[0, 0]
        return mask if mask.dtype == torch.bool else mask == 0


def _putting(puts: Sequence[_Put]) -> Change:
    """Put states into some rows of the packed batch [1, tokens, width]."""

    def change(value: Tensor) -> Tensor:
        value = value.clone()
        for rows, entries, states in puts:
            if entries is None:
                value[0, rows] = states
            else:
                value[0, rows[:, None], entries] = states
        return value

    return change
