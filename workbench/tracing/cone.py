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

The slow, obvious version is ``plain_effects``. It also serves models whose attention cannot be replaced.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.layerwise import LayerInputs, Layerwise
from workbench.resume import Change, HookSite, KeysValues, Recording

ATTENTION = "workbench_cone"
OWN_ATTENTION = ("sdpa", "eager")
"""The implementations that this one replaces: softmax of scaled products under the mask that the layer is given."""
HARMLESS = {"cone", "dropout", "is_causal", "position_ids", "sliding_window", "use_cache", "output_attentions"}
"""Options of attention that change nothing here: a window is in the mask already."""
ROWS = (2048, 16384)
"""Tokens at once on a CPU and on an accelerator: more makes no matrix product faster."""
LOGITS_A_BATCH = 2**23
Measure = Callable[[Tensor], Tensor]


class Unsupported(Exception):
    """The model does something that this file does not know."""


class _Seen(Exception):
    """Ends a layer once its keys and values are seen."""


@dataclass(frozen=True)
class Cell:
    """One restoration.

    Args:
        site: The state that becomes clean: ``"resid"``, ``"attn"``, ``"mlp"`` or ``"z"``.
        layers: In these layers (one for ``"resid"`` and ``"z"``).
        position: At this position of the corrupted tokens; None for all of them.
        head: Only this head's entries (of ``"z"``).
    """

    site: HookSite
    layers: range
    position: int | None = None
    head: int | None = None

    @property
    def start(self) -> int:
        """The first layer to compute."""
        return self.layers.start + (self.site in ("attn", "mlp"))

    @property
    def first(self) -> int:
        """The first position to compute."""
        return self.position or 0


@dataclass(frozen=True)
class Finished:
    """Effects of some cells.

    Attributes:
        cells: Their indices.
        samples: The corrupted runs that this is about.
        effects: [cells, samples], in units of the measure.
        baseline: The measure of the corrupted runs themselves, [samples].
    """

    cells: list[int]
    samples: slice
    effects: Tensor
    baseline: Tensor


def cone_tokens(cells: Sequence[Cell], layers: int, tokens: int) -> int:
    """How many times a token goes through a layer, for one corrupted run."""
    return sum((layers - cell.start) * (tokens - cell.first) for cell in cells)


def effects(
    engine: Layerwise,
    clean: Recording,
    corrupted: Tensor,
    prefix: KeysValues | None,
    cells: Sequence[Cell],
    measure: Measure,
    *,
    max_rows: int | None = None,
) -> Iterator[Finished]:
    """What every cell changes about a measure of the last position's logits, in batches from the lowest layer up.

    Args:
        engine: Of the model.
        clean: The clean run with the sites of the cells.
        corrupted: Residual stream of the corrupted runs entering layer 0, [samples, tokens, d_model].
        prefix: Keys and values of the tokens before.
        cells: What to restore, one restoration a run.
        measure: From logits [rows, d_vocab] to one number a row.
        max_rows: Most tokens computed at once (a single cell's may be more); by default ``default_rows``.
    """
    total = corrupted.shape[1] + (prefix[0][0].shape[2] if prefix else 0)
    rows = default_rows(engine, total) if max_rows is None else max_rows
    size = max(1, rows // corrupted.shape[1])
    for begin in range(0, len(corrupted), size):
        of = slice(begin, begin + size)
        try:
            cone = Cone(engine, clean, corrupted[of], prefix, max_rows=rows)
            baseline = measure(cone.inputs.logits)
            for indices, measured in cone.effects(cells, measure):
                yield Finished(indices, of, measured - baseline, baseline)
        except Unsupported:
            recorded = engine.record(corrupted[of], ("resid",), prefix=prefix)
            baseline = measure(recorded.logits)
            for indices, measured in plain_effects(engine, clean, recorded, prefix, cells, measure):
                yield Finished(indices, of, measured - baseline, baseline)


def default_rows(engine: Layerwise, tokens: int) -> int:
    """How many tokens are computed at once: as many as make a large matrix, and fit into a quarter of the free memory.

    Args:
        engine: Of the model.
        tokens: Length of the text.
    """
    return max(1, min(ROWS[engine.device.type != "cpu"], free_memory(engine.device) // 4 // engine.row_bytes(tokens)))


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


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
        self.engine, self.clean, self.max_rows = engine, clean, max_rows
        self.samples, self.tokens = corrupted.shape[:2]
        self.inputs: LayerInputs = engine.record_inputs(corrupted, prefix=prefix)
        self.allowed = [self._mask(given.get("attention_mask")) for given in self.inputs.arguments]
        self._restored: dict[HookSite, tuple[int, Tensor]] = {}
        _register()

    def effects(self, cells: Sequence[Cell], measure: Measure) -> Iterator[tuple[list[int], Tensor]]:
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

    def _sweep(self, cells: list[Cell], measure: Measure) -> Tensor:
        """Measures [cells, samples] of cells in order of their start layers."""
        top = self.engine.n_layers - 1
        whole = _Pack(cells, self.samples, self.tokens, self.engine.device)
        hidden = self.inputs.resid[0].new_empty(0, self.inputs.resid[0].shape[-1])
        joined = 0
        for layer in range(min(cells[0].start, top), top):
            hidden, joined = self._join(hidden, cells, joined, layer)
            hidden = self._call(layer, hidden, whole, joined)
        hidden, joined = self._join(hidden, cells, joined, top)
        done = hidden
        if joined:
            last = _Pack(cells, self.samples, self.tokens, self.engine.device, last=True)
            keys_values = self._keys_values(top, hidden, whole)
            rows = torch.cat([whole.rows(i)[:, -1] for i in range(joined)])
            done = self._call(top, hidden[rows], last, joined, whole, keys_values)
        done = torch.cat([done, *(self._entering(c)[:, -1] for c in cells[joined:])])
        size = max(1, min(self.max_rows, LOGITS_A_BATCH // self.inputs.logits.shape[-1]))
        return torch.cat([measure(self.engine.finish(part)) for part in done.split(size)]).view(len(cells), -1)

    def _join(self, hidden: Tensor, cells: list[Cell], joined: int, layer: int) -> tuple[Tensor, int]:
        """The packed batch [tokens, d_model] with the cells that start at a layer, and how many cells it has."""
        new = [self._entering(c).flatten(0, 1) for c in cells[joined:] if c.start == layer]
        return (torch.cat([hidden, *new]) if new else hidden), joined + len(new)

    def _entering(self, cell: Cell) -> Tensor:
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
            pack = _Pack([Cell("resid", range(layer, layer + 1))], self.samples, self.tokens, self.engine.device)
            clean = self.clean.states[site, layer][0].repeat(self.samples, 1)[None]
            hidden = self.inputs.resid[layer].flatten(0, 1)
            after = self._call(layer, hidden, pack, 1, changes={(site, layer): lambda _: clean})
            self._restored[site] = (layer, after.view(self.samples, self.tokens, -1))
        return self._restored[site][1]

    def _call(
        self,
        layer: int,
        hidden: Tensor,
        queries: _Pack,
        joined: int,
        keys: _Pack | None = None,
        keys_values: tuple[Tensor, Tensor] | None = None,
        changes: Mapping[tuple[HookSite, int], Change] | None = None,
    ) -> Tensor:
        """One layer on the packed batch [tokens, d_model] of the first ``joined`` cells."""
        attention = _Attention(self, layer, queries, keys or queries, joined, keys_values)
        arguments = self._arguments(layer, queries.positions[: len(hidden)]) | {"cone": attention}
        if changes is None:
            changes = self._changes(layer, queries, joined)
        with self.engine.attention(ATTENTION) as own:
            if own not in OWN_ATTENTION:
                raise Unsupported(f"attention implementation {own!r}")
            out = self.engine.call_layer(layer, hidden[None], arguments, changes)
        if not attention.called:
            raise Unsupported("attention that is not transformers' own")
        return out[0]

    def _keys_values(self, layer: int, hidden: Tensor, pack: _Pack) -> tuple[Tensor, Tensor]:
        """A layer's keys and values of the packed batch, each [tokens, kv heads, d_head]."""
        seen: list[tuple[Tensor, Tensor]] = []

        def see(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
            seen.append((_by_token(key), _by_token(value)))
            raise _Seen

        arguments = self._arguments(layer, pack.positions[: len(hidden)]) | {"cone": see}
        with self.engine.attention(ATTENTION), suppress(_Seen):
            self.engine.call_layer(layer, hidden[None], arguments)
        return seen[0]

    def _changes(self, layer: int, pack: _Pack, joined: int) -> dict[tuple[HookSite, int], Change]:
        """Clean states for the joined cells that restore this layer's outputs."""
        out: dict[tuple[HookSite, int], Change] = {}
        for site in ("attn", "mlp", "z"):
            rows: list[Tensor] = []
            positions: list[Tensor] = []
            heads: list[Tensor] = []
            for i in range(joined):
                cell, at = pack.cells[i], pack.rows(i)
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

        unused = {"past_key_values": None, "attention_mask": None, "use_cache": False}
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


class _Pack:
    """Where the tokens of cells are in the packed batch: cell after cell, and in it sample after sample.

    Args:
        last: Only the last token of every cell is in it.
    """

    def __init__(
        self, cells: Sequence[Cell], samples: int, tokens: int, device: torch.device, *, last: bool = False
    ) -> None:
        self.cells = cells
        self.first = [tokens - 1 if last else cell.first for cell in cells]
        self._rows: list[Tensor] = []
        positions: list[Tensor] = []
        members: dict[int, list[int]] = {}
        begin = 0
        for i, (cell, first) in enumerate(zip(cells, self.first, strict=True)):
            length = tokens - first
            self._rows.append(torch.arange(begin, begin + samples * length, device=device).view(samples, length))
            positions.append(torch.arange(first, tokens, device=device).repeat(samples))
            members.setdefault(cell.first, []).append(i)
            begin += samples * length
        self.positions = torch.cat(positions)
        self._groups = {first: (of, torch.stack([self._rows[i] for i in of])) for first, of in members.items()}

    def rows(self, i: int) -> Tensor:
        """Rows of one cell's tokens, [samples, tokens]."""
        return self._rows[i]

    def group(self, first: int, joined: int) -> Tensor:
        """Rows of those of the first ``joined`` cells that begin at a position, [cells, samples, tokens]."""
        of, rows = self._groups[first]
        return rows[: bisect_left(of, joined)]

    @property
    def begins(self) -> list[int]:
        """The positions at which cells begin."""
        return list(self._groups)


class _Attention:
    """Attention of the packed batch in one layer, for the queries of one pack and the keys and values of another."""

    def __init__(
        self, cone: Cone, layer: int, queries: _Pack, keys: _Pack, joined: int, own: tuple[Tensor, Tensor] | None
    ) -> None:
        self.before = cone.inputs.keys_values[layer]
        self.hidden_from = ~cone.allowed[layer]
        self.offset = self.hidden_from.shape[1] - cone.tokens
        self.queries, self.keys, self.joined, self.own = queries, keys, joined, own
        self.called = False

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Outputs [1, packed tokens, heads, d_head]; arguments [1, heads, packed tokens, d_head]."""
        self.called = True
        queries = _by_token(query) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        own = self.own or (_by_token(key), _by_token(value))
        out = torch.empty(query.shape[2], query.shape[1], value.shape[-1], dtype=value.dtype, device=value.device)
        for first in self.queries.begins:
            at = self.queries.group(first, self.joined)
            if len(at):
                before = (x[:, :, : self.offset + first] for x in self.before)
                out[at] = self._of_group(queries[at], *(x[self.keys.group(first, self.joined)] for x in own), *before)
        return out[None]

    def _of_group(self, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Outputs [cells, samples, queries, heads, d_head] of cells that begin at one position.

        Args:
            query: [cells, samples, queries, heads, d_head], scaled.
            key, value: [cells, samples, tokens, kv heads, d_head], the cells' own.
            keys, values: [samples, kv heads, tokens before, d_head], the corrupted runs'.
        """
        cells, samples, n, _, width = query.shape
        groups, before = key.shape[3], keys.shape[2]
        # Query heads of one key-value head count as further queries, and for the tokens before so do cells.
        query = query.view(cells, samples, n, groups, -1, width).permute(1, 3, 0, 4, 2, 5)
        per_cell = query.reshape(samples, groups, cells, -1, width)
        scores = per_cell @ key.permute(1, 3, 0, 4, 2)
        if before:
            shared = query.reshape(samples, groups, -1, width) @ keys.transpose(-1, -2)
            scores = torch.cat([shared.view(*scores.shape[:-1], before), scores], -1)
        scores = scores.view(samples, groups, cells, -1, n, scores.shape[-1])
        scores.masked_fill_(self.hidden_from[-n:], float("-inf"))
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
        out = weights[..., before:].flatten(3, 4) @ value.permute(1, 3, 0, 2, 4)
        if before:
            out += (weights[..., :before].reshape(samples, groups, -1, before) @ values).view_as(out)
        out = out.view(samples, groups, cells, -1, n, value.shape[-1])
        return out.permute(2, 0, 4, 1, 3, 5).flatten(3, 4)


def _by_token(value: Tensor) -> Tensor:
    """[1, heads, tokens, d_head] as [tokens, heads, d_head]."""
    return value[0].transpose(0, 1)


def _putting(clean: Tensor, parts: int, rows: Tensor, positions: Tensor, heads: Tensor) -> Change:
    """Put clean states [positions, width] of some positions into some rows; of each the part of one head."""

    def put(value: Tensor) -> Tensor:
        value = value.clone()
        source = clean.view(len(clean), parts, -1)
        value.view(value.shape[1], parts, -1)[rows, heads] = source[positions, heads]
        return value

    return put


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, *, scaling: Any = None, **options: Any
) -> tuple[Tensor, None]:
    """The implementation of attention that layers are given while a cone calls them."""
    unknown = [name for name, given in options.items() if name not in HARMLESS and given is not None]
    if unknown or "cone" not in options:
        raise Unsupported(f"options of attention: {unknown}")
    return options["cone"](query, key, value, scaling), None


def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attend)


def plain_effects(
    engine: Layerwise,
    clean: Recording,
    corrupted: Recording,
    prefix: KeysValues | None,
    cells: Sequence[Cell],
    measure: Measure,
) -> Iterator[tuple[list[int], Tensor]]:
    """What ``Cone.effects`` gives, by one forward pass for every cell from its lowest layer on."""
    for i, cell in enumerate(cells):
        changes: dict[tuple[HookSite, int], Change] = {}
        for layer in cell.layers:
            state = clean.states[cell.site, layer][0]
            parts = engine.n_heads if cell.site == "z" else 1
            changes[cell.site, layer] = _restoring(state, parts, cell)
        start = cell.layers.start
        resid = corrupted.states["resid", start]
        yield [i], measure(engine.run(resid, start=start, prefix=prefix, changes=changes))[None]


def _restoring(clean: Tensor, parts: int, cell: Cell) -> Change:
    at = slice(None) if cell.position is None else cell.position
    part = slice(None) if cell.head is None else cell.head

    def restore(value: Tensor) -> Tensor:
        value = value.clone()
        split = value.view(*value.shape[:2], parts, -1)
        split[:, at, part] = clean.view(len(clean), parts, -1)[at, part]
        return value

    return restore
