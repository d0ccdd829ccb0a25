"""Rows in batches: everything below the edited layers computed once, parts of like length, the order of a fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from workbench.editing.training.rows import Row
from workbench.language.padding import common_beginning, pad
from workbench.models.engine import Resumable
from workbench.types.cancelling import PREPARING, CancelFlag, check_cancel

PART_TOKENS = {"cpu": 320}
"""Tokens (padding included) that are computed at once, by device; ``MANY_TOKENS`` on others. Smaller parts have less
padding and need less memory, larger ones have more efficient matrix products."""
MANY_TOKENS = 2048
R = TypeVar("R")


def retain_batches(near: Sequence[R], far: Sequence[R], size: int, seed: int) -> Iterator[list[R]]:
    """Endless batches of retain rows: half neighbours, half others, or all of the one kind that there is."""
    n_near = min(len(near), size - size // 2) if far else size
    near_batches, far_batches = Shuffled(near, n_near, seed), Shuffled(far, size - n_near, seed + 1)
    for neighbours, others in zip(near_batches, far_batches, strict=False):
        yield [*neighbours, *others]


def hardest_batches(
    near: Sequence[R], far: Sequence[R], size: int, seed: int, latest: Mapping[R, float]
) -> Iterator[list[R]]:
    """Endless batches of retain rows, of which half are the rows whose KL was largest when they were last seen.

    Args:
        near, far: Rows of neighbours, and of others; the other half is drawn as by ``retain_batches``.
        size: Rows a batch.
        seed: Of the order.
        latest: The KL of each row that was seen; read again for each batch.
    """
    unseen = iter(Shuffled([*near, *far], size - size // 2, seed))  # fills up while few rows were seen
    for drawn in retain_batches(near, far, size // 2, seed + 7):
        hardest = sorted((row for row in latest if row not in drawn), key=lambda row: -latest[row])
        rest = [row for row in [*hardest, *next(unseen)] if row not in drawn]
        yield [*drawn, *dict.fromkeys(rest)][:size]


def left_batches(rows: Sequence[R], size: int, seed: int, done: Callable[[], Collection[R]]) -> Iterator[list[R]]:
    """Endless batches of the rows that are not done: before each pass through them it is asked which are; of all rows
    where none is left.

    Args:
        rows: The rows.
        size: Rows a batch, at most.
        seed: Of the order.
        done: Gives those that are left out of a pass.
    """
    rng = random.Random(seed)
    while True:
        left_out = done()
        left = [row for row in rows if row not in left_out] or list(rows)
        rng.shuffle(left)
        for start in range(0, len(left), size):
            yield left[start : start + size]


class Shuffled(Generic[R]):
    """Endless batches of rows, every row once a pass, in an order fixed by a seed; empty batches of no rows."""

    def __init__(self, rows: Sequence[R], size: int, seed: int) -> None:
        self._rows, self._size = list(rows), min(size, len(rows))
        self._rng = random.Random(seed)
        self._queue: list[R] = []

    def __iter__(self) -> Iterator[list[R]]:
        while True:
            while len(self._queue) < self._size:
                order = self._rows.copy()
                self._rng.shuffle(order)
                self._queue += order
            batch, self._queue = self._queue[: self._size], self._queue[self._size :]
            yield batch


@dataclass(frozen=True, eq=False)
class PreparedRow:
    """A row with everything below the start layer computed. Equal to itself only: two facts may have equal rows.

    Args:
        row: The row.
        resid: Its residual stream entering the start layer, [tokens, d_model], without the shared prefix and without
            the last token, after which nothing is predicted.
    """

    row: Row
    resid: Tensor


@dataclass
class Batch:
    """Rows ready to resume at a layer.

    Args:
        resid: [rows, longest, d_model] entering the start layer, without the shared prefix, padded on the right.
        row, position: The places whose logits predict the answer tokens that count, within ``resid``.
        count: How many those are, of each row.
    """

    resid: Tensor
    row: Tensor
    position: Tensor
    count: list[int]


class Prepared:
    """Prepares rows: computes everything below the start layer once, for it does not change during a fit.

    Args:
        engine: Runs the base model.
        rows: The rows.
        start: The lowest edited layer.
        shared: How many first tokens all rows have in common; they are computed once per step.
        cancel: Looked at between its parts; raises ``Cancelled``.

    Attributes:
        rows: The prepared rows, in the given order.
        beginning: The residual stream of the shared tokens entering the start layer, [1, shared, d_model]; None if
            there are none.
    """

    def __init__(
        self, engine: Resumable, rows: Sequence[Row], start: int, shared: int, *, cancel: CancelFlag | None = None
    ) -> None:
        self.start, self.shared = start, shared
        self._device = engine.device
        with torch.no_grad():  # what all begin with is the same in each: it is taken from the first
            first = engine.entering(torch.tensor([rows[0].prompt]), start) if shared else None
        self.beginning = None if first is None else first[:, :shared]
        texts = [(r.prompt + r.answer)[:-1] for r in rows]
        resids: list[Tensor] = [torch.empty(0)] * len(texts)
        with torch.no_grad():
            for part in parts([len(t) for t in texts], self._device):
                check_cancel(cancel, PREPARING)
                padded = pad([texts[i] for i in part], 0, "right")[0]
                resid = engine.entering(padded, start)  # causal: what follows a token is unseen
                for i, x in zip(part, resid, strict=True):
                    resids[i] = x[shared : len(texts[i])].clone()
        self.rows = [PreparedRow(row, resid) for row, resid in zip(rows, resids, strict=True)]

    def parts(self, rows: Sequence[PreparedRow]) -> list[list[int]]:
        """Places within ``rows``, grouped to be computed together: rows of like length, few enough at a time."""
        return parts([len(row.resid) for row in rows], self._device)

    def batch(self, rows: Sequence[PreparedRow]) -> Batch:
        """Pad and stack some rows."""
        resid = torch.nn.utils.rnn.pad_sequence([row.resid for row in rows], batch_first=True)
        row_of, position, count = [], [], []
        for i, row in enumerate(row.row for row in rows):
            n, first = len(row.counted), len(row.prompt) + row.departs - 1 - self.shared
            row_of += [i] * n
            position += range(first, first + n)
            count.append(n)
        row_ids, positions = (torch.tensor(x, device=self._device) for x in (row_of, position))
        return Batch(resid, row_ids, positions, count)


def tokens_at_once(device: torch.device) -> int:
    """Tokens that a device computes at once (``PART_TOKENS``)."""
    return PART_TOKENS.get(device.type, MANY_TOKENS)


def parts(lengths: Sequence[int], device: torch.device) -> list[list[int]]:
    """Indices of rows of these lengths in groups of like length, shortest first, none of which has more tokens with
    its padding than ``PART_TOKENS`` allows (but at least one row)."""
    most = tokens_at_once(device)
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if groups and (len(groups[-1]) + 1) * lengths[i] <= most:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def shared_prefix(rows: Sequence[Row]) -> int:
    """How many first tokens all prompts have in common, leaving each at least one token of its own."""
    return common_beginning([row.prompt for row in rows])
