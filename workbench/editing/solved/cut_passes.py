"""Passes that compute no more than what a vector at the subject changes: exact, and several times sooner.

Layers below the vector, and the tokens before the subject, are computed once. All texts are run together, each after
its own keys and values, from the subject on; only the logits that the loss reads are made.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from workbench.editing.solved.published_target import Factors, Texts, adding, changing
from workbench.editing.solved.spots import Spot, SpotEngine
from workbench.language.padding import pad, pad_token
from workbench.models.engine import KeysValues, past_options
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view


class RowEngine(SpotEngine):
    """Resumes rows that have each their own tokens before, of different numbers."""

    def hidden_after(
        self, resid: Tensor, rows: Tensor, positions: Tensor, *, start: int, before: KeysValues, lengths: Tensor
    ) -> Tensor:
        """States after the last norm at chosen places, as ``hidden_at`` gives them, [places, d_model].

        Args:
            resid: The residual stream entering layer ``start``, [rows, tokens, d_model], padded on the right.
            rows, positions: The places, counted within ``resid``.
            start: First layer to compute.
            before: Keys and values of each row's tokens before, padded on the left.
            lengths: How many those are, [rows].
        """
        longest, width = before[-1][0].shape[2], resid.shape[1]
        # Padding lies at the far left, so that what a row sees is side by side, as windows of attention count it.
        there = torch.arange(longest + width, device=resid.device) >= (longest - lengths)[:, None]
        options = {"attention_mask": there.long(), **past_options(before, len(resid))}
        if "position_ids" in inspect.signature(self._parent.forward).parameters:
            options["position_ids"] = lengths[:, None] + torch.arange(width, device=resid.device)
        with self._from_layer(start, resid):
            hidden = self._parent(inputs_embeds=resid, **options).last_hidden_state
        return hidden[rows, positions]


class CutPasses:
    """Passes as ``VectorPasses`` has them. Arguments as in ``WholePasses``."""

    def __init__(self, model: LoadedModel, texts: Texts, layer: int, *, residual: bool) -> None:
        self._model, self._layer, self._residual = model, layer, residual
        self._view: Any = shared_view(model.runner)
        self._engine = RowEngine(model, self._view)
        self._first = layer + residual
        self._start: Tensor | None = None
        # The last text has no target: it is read at its subject.
        read = [at or (end,) for (_, at), end in zip(texts.targets, texts.subject, strict=True)]
        self._counts = [len(at) for at in read]
        device = model.device
        self._rows = torch.tensor([i for i, at in enumerate(read) for _ in at], device=device)
        places = [p - end for at, end in zip(read, texts.subject, strict=True) for p in at]
        self._positions = torch.tensor(places, device=device)
        self._lengths = torch.tensor(texts.subject, device=device)
        with torch.no_grad():
            self._prepare(texts, max(places) + 1)

    def _prepare(self, texts: Texts, width: int) -> None:
        """Compute what no vector changes: the residual stream from the subject on, keys and values before it."""
        ids = texts.padded(self._model)
        entering = self._engine.entering(ids, self._first)  # causal: what follows a token is unseen
        # Beyond a row's own tokens stands whatever its last one has: nothing reads it.
        at = (self._lengths[:, None] + torch.arange(width, device=ids.device)).clamp(max=ids.shape[1] - 1)
        self._resid = entering.gather(1, at[..., None].expand(-1, -1, entering.shape[2]))
        longest = int(self._lengths.max())
        self._before: KeysValues | None = None
        if longest:
            # What is computed of a row beyond its subject is shifted out on the right.
            shift = (torch.arange(longest, device=ids.device) - (longest - self._lengths[:, None])).clamp(min=0)
            self._before = [
                (_shifted(keys, shift), _shifted(values, shift))
                for keys, values in self._engine.resumed_keys_values(entering[:, :longest], self._first)
            ]

    @property
    def start(self) -> Tensor:
        """See ``VectorPasses``."""
        assert self._start is not None
        return self._start

    def likely(self, vector: Tensor) -> tuple[list[Tensor], Tensor]:
        """See ``VectorPasses``."""

        def add(state: Tensor) -> Tensor:
            states = state.view(*self._resid.shape[:2], -1)
            if self._start is None:
                self._start = states[0, 0].detach().clone()
            return torch.cat([states[:, :1] + vector, states[:, 1:]], 1).view(state.shape)

        if self._residual:
            hidden = self._hidden(add(self._resid))
        else:
            with changing(self._model, self._view, self._layer, add, residual=False):
                hidden = self._hidden(self._resid)
        found = torch.log_softmax(self._engine.logits_of(hidden), dim=-1).split(self._counts)
        return list(found[:-1]), found[-1][0]

    def _hidden(self, resid: Tensor) -> Tensor:
        if self._before is None:
            return self._engine.hidden_at(resid, self._rows, self._positions, start=self._first)
        return self._engine.hidden_after(
            resid,
            self._rows,
            self._positions,
            start=self._first,
            before=self._before,
            lengths=self._lengths,
        )


def _shifted(states: Tensor, shift: Tensor) -> Tensor:
    """Keys or values [rows, heads, tokens, d_head] with each row's tokens taken from other places [rows, tokens]."""
    return states.expand(len(shift), -1, -1, -1).gather(
        2, shift[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
    )


class CutReader:
    """Reads keys and states of a fact's texts up to the subject, from the lowest written layer on and no further than
    is read.

    Args:
        model: The model.
        texts: The texts; the first is the bare prompt.
        lowest: The lowest layer that is read or written.
    """

    def __init__(self, model: LoadedModel, texts: Texts, lowest: int) -> None:
        self._model, self._lowest = model, lowest
        self._view: Any = shared_view(model.runner)
        self._engine = SpotEngine(model, self._view)
        self._subject = torch.tensor(texts.subject)
        given = [row[: end + 1] for row, end in zip(texts.rows, texts.subject, strict=True)]
        with torch.no_grad():
            self._resid = self._engine.entering(pad(given, pad_token(model), "right")[0], lowest)

    def keys(self, layer: int, written: Factors) -> Tensor:
        """As ``WholeReader.keys``."""
        return self._read(Spot("mlp in", layer), len(self._subject), written)

    def after(self, layer: int, written: Factors) -> Tensor:
        """As ``WholeReader.after``."""
        return self._read(Spot("resid", layer), 1, written)[0]

    def output(self, layer: int, written: Factors) -> Tensor:
        """As ``WholeReader.output``."""
        return self._read(Spot("mlp", layer), 1, written)[0]

    @torch.no_grad()
    def _read(self, spot: Spot, rows: int, written: Factors) -> Tensor:
        """States of the first texts at the subject, [rows, width] in float64."""
        ends = self._subject[:rows]
        with adding(self._model, self._view, written):
            state = self._engine.read(self._resid[:rows, : int(ends.max()) + 1], [spot], start=self._lowest)[spot]
        return state.view(rows, int(ends.max()) + 1, -1)[torch.arange(rows), ends].double().cpu()
