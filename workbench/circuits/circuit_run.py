"""A forward pass in which chosen edges carry something else than what their sender writes: a circuit by itself.

Every reader's input is the residual stream plus, for each of its edges that is cut, what stands in for the sender's
write minus what the sender writes *in this pass*. So a sender that reads through cut edges itself is read, over edges
that are not, as it then is (Hanna et al. 2024, arXiv 2403.17806; Conmy et al. 2023, arXiv 2304.14997).
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.circuits.rewire import Given, rewired
from workbench.circuits.wiring import Part, Place, Wired
from workbench.models.engine import HookSite, KeysValues

MOST_NUMBERS = 2**27
"""So many numbers of writes are held at once, about: rows are computed in groups."""


def run_cut(wired: Wired, start: Tensor, stand_ins: Tensor, cut: Tensor, *, prefix: KeysValues | None = None) -> Tensor:
    """Logits of the last position of one text with some edges cut, [rows, d_vocab].

    Args:
        wired: The model.
        start: The residual stream entering layer 0, [1, tokens, d_model].
        stand_ins: What cut edges carry of each sender, [senders, tokens or 1, d_model].
        cut: Which edges are cut in each row, [rows, receivers, senders], booleans.
        prefix: Keys and values of the tokens before, which are the same in all runs.
    """
    per_row = len(stand_ins) * start.shape[1] * start.shape[2]
    size = max(1, MOST_NUMBERS // per_row)
    return torch.cat([_Pass(wired, start, stand_ins, some).logits(prefix) for some in cut.split(size)])


class _Pass:
    """One pass of several rows."""

    def __init__(self, wired: Wired, start: Tensor, stand_ins: Tensor, cut: Tensor) -> None:
        self._wired, self._graph = wired, wired.graph
        self._start = start.repeat(len(cut), 1, 1)
        self._stand_ins = stand_ins
        self._cut = cut.to(start.device, start.dtype)
        self._used = cut.any(0)
        self._states: dict[tuple[HookSite, int], Tensor] = {}
        self._written = 0
        self._differences = start.new_zeros(len(stand_ins), *self._start.shape)

    def logits(self, prefix: KeysValues | None) -> Tensor:
        sites: tuple[HookSite, ...] = ("z", "attn", "mlp")
        layers = range(self._wired.n_layers)
        parts: tuple[Part, Part] = ("attn", "mlp")
        places: list[Place] = [(part, layer) for layer in layers for part in parts]
        with (
            torch.no_grad(),
            self._wired.keeping([(site, layer) for site in sites for layer in layers]) as self._states,
            rewired(self._wired, self._start.shape, places, self._given, True),
        ):
            return self._wired.run(self._start, prefix=prefix)

    def _given(self, part: Part | None, layer: int) -> Given | None:
        """What the readers of a part are given beside the residual stream, when they are about to read."""
        self._see(len(self._graph.senders) if part is None else self._graph.n_before(layer, part))
        first = layer * (self._graph.attention_readers + 1)
        count = self._graph.attention_readers if part == "attn" else 1
        first += self._graph.attention_readers if part == "mlp" else 0
        readers = [i for i in range(count) if bool(self._used[first + i].any())]
        if not readers:
            return None
        upto = self._written
        cut = self._cut[:, [first + i for i in readers], :upto]
        flat = self._differences[:upto].transpose(0, 1).flatten(2)  # [rows, senders, tokens x d_model]
        given = (cut @ flat).unflatten(-1, self._start.shape[1:]).transpose(0, 1)
        return Given(readers, [slice(None)] * len(readers), list(given))

    def _see(self, upto: int) -> None:
        """Note what senders up to here wrote."""
        width = self._graph.shape.n_heads + 1
        while self._written < upto:
            at, layer = self._written, (self._written - 1) // width
            if at == 0:
                new = self._start[None]
            elif (at - 1) % width == 0:
                new = self._wired.head_writes(layer, self._states["z", layer], self._states["attn", layer])
            else:
                new = self._states["mlp", layer][None] * self._wired.scale
            end = at + len(new)
            self._differences[at:end] = self._stand_ins[at:end, None] - new.to(self._stand_ins)
            self._written = end
