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
from workbench.tracing.restoration import Measure, Restoration

LOGITS_A_BATCH = 2**23


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
    """

    def __init__(
        self, engine: Layerwise, clean: Recording, corrupted: Tensor, prefix: KeysValues | None, *, max_rows: int
    ) -> None:
        if engine.own_attention not in OWN_ATTENTION or not engine.takes_options:
            raise Unsupported(f"attention implementation {engine.own_attention!r}")
        self.engine, self.clean, self.max_rows = engine, clean, max_rows
        self.samples, self.tokens = corrupted.shape[:2]
        self.inputs: LayerInputs = engine.record_inputs(corrupted, prefix=prefix)
        self._allowed = [self._mask(given.get("attention_mask")) for given in self.inputs.arguments]
        self._restored: dict[HookSite, tuple[int, Tensor]] = {}
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
            past = whole, self._keys_values(top, hidden, whole)
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
        if cell.site == "z":
            return state
        if cell.site == "resid":
            source = self.clean.states["resid", cell.start]
        else:
            source = self._after(cell.site, cell.layers.start)
        if cell.position is None:
            return source.expand_as(state)
        state = state.clone()
        state[:, 0] = source[:, cell.position]
        return state

    def _after(self, site: HookSite, layer: int) -> Tensor:
        """The state after a layer whose output at a site is clean, [samples, tokens, d_model]: right for each position
        as if it alone were clean, for the rest of the layer does not mix positions."""
        if self._restored.get(site, (None,))[0] != layer:
            all_positions = [Restoration("resid", range(layer, layer + 1))]
            clean = self.clean.states[site, layer][0].repeat(self.samples, 1)[None]
            hidden = self.inputs.resid[layer].flatten(0, 1)
            changes: dict[tuple[HookSite, int], Change] = {(site, layer): lambda _: clean}
            after = self._call(layer, hidden, all_positions, self._pack(all_positions), changes=changes)
            self._restored[site] = (layer, after.view(self.samples, self.tokens, -1))
        return self._restored[site][1]

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

    def _keys_values(self, layer: int, hidden: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
        """A layer's keys and values of the packed batch, each [tokens, kv heads, d_head]."""
        seen: list[tuple[Tensor, Tensor]] = []

        def see(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
            seen.append((by_token(key), by_token(value)))
            raise _Seen

        arguments = self._arguments(layer, pack.positions[: len(hidden)]) | {"cone": see}
        with self.engine.attention(self._name), suppress(_Seen):
            self.engine.call_layer(layer, hidden[None], arguments)
        if not seen:
            raise Unsupported("attention that is not transformers' own")
        return seen[0]

    def _changes(self, layer: int, cells: Sequence[Restoration], pack: Pack) -> dict[tuple[HookSite, int], Change]:
        """Clean states for the cells that restore this layer's outputs."""
        out: dict[tuple[HookSite, int], Change] = {}
        sites: tuple[HookSite, ...] = ("attn", "mlp", "z")
        for site in sites:
            rows: list[Tensor] = []
            positions: list[Tensor] = []
            heads: list[Tensor] = []
            for i, cell in enumerate(cells):
                at = pack.rows(i)
                if cell.site != site or layer not in cell.layers:
                    continue
                if cell.position is not None:
                    if cell.position < pack.first[i]:  # what it puts out there is not read any more
                        continue
                    at = at[:, :1]
                rows.append(at.flatten())
                positions.append(torch.arange(pack.first[i], pack.first[i] + at.shape[1]).repeat(self.samples))
                heads.append(torch.full((at.numel(),), cell.head or 0))
            if rows:
                clean = self.clean.states[site, layer][0]
                parts = self.engine.n_heads if site == "z" else 1
                out[site, layer] = _putting(
                    clean, parts, *(torch.cat(x).to(clean.device) for x in (rows, positions, heads))
                )
        return out

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


def _putting(clean: Tensor, parts: int, rows: Tensor, positions: Tensor, heads: Tensor) -> Change:
    """Put clean states [positions, width] of some positions into some rows; of each the part of one head."""

    def put(value: Tensor) -> Tensor:
        value = value.clone()
        source = clean.view(len(clean), parts, -1)
        value.view(value.shape[1], parts, -1)[rows, heads] = source[positions, heads]
        return value

    return put
