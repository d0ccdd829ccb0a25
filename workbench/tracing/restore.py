"""Effects of restorations on corrupted runs, in batches that fit into memory: by cones, or plainly where a model does
not allow that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from workbench.models.engine import KeysValues, Recording
from workbench.models.layerwise import Layerwise
from workbench.tracing.cone import Cone
from workbench.tracing.memory import free_memory
from workbench.tracing.packed import Unsupported
from workbench.tracing.restoration import Measure, Restoration, changes_of, severed_by

ROWS = (2048, 16384)
"""Tokens at once on a CPU and on an accelerator: more makes no matrix product faster."""
LEAST_ROWS = 128
"""Below so many at once a matrix product is slower than it could be; they take little memory."""


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


def effects(
    engine: Layerwise,
    clean: Recording,
    corrupted: Tensor,
    prefix: KeysValues | None,
    cells: Sequence[Restoration],
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
    severed = severed_by(cells)
    total = corrupted.shape[1] + (prefix[0][0].shape[2] if prefix else 0)
    rows = default_rows(engine, total) if max_rows is None else max_rows
    size = max(1, rows // corrupted.shape[1])
    for begin in range(0, len(corrupted), size):
        of = slice(begin, begin + size)
        try:
            cone = Cone(engine, clean, corrupted[of], prefix, max_rows=rows, severed=severed)
            baseline = measure(cone.inputs.logits)
            for indices, measured in cone.effects(cells, measure):
                yield Finished(indices, of, measured - baseline, baseline)
        except Unsupported:
            recorded = engine.record(corrupted[of], ("resid", *severed), prefix=prefix)
            baseline = measure(recorded.logits)
            for indices, measured in plain_effects(engine, clean, recorded, prefix, cells, measure):
                yield Finished(indices, of, measured - baseline, baseline)


def default_rows(engine: Layerwise, tokens: int) -> int:
    """How many tokens are computed at once: as many as make a large matrix, and fit into a quarter of the free memory;
    at least ``LEAST_ROWS``.

    Args:
        engine: Of the model.
        tokens: Length of the text.
    """
    fit = free_memory(engine.device) // 4 // engine.row_bytes(tokens)
    return max(LEAST_ROWS, min(ROWS[engine.device.type != "cpu"], fit))


def plain_effects(
    engine: Layerwise,
    clean: Recording,
    corrupted: Recording,
    prefix: KeysValues | None,
    cells: Sequence[Restoration],
    measure: Measure,
) -> Iterator[tuple[list[int], Tensor]]:
    """What ``Cone.effects`` gives, by one forward pass for every cell from its lowest layer on. The corrupted runs were
    recorded with what enters layers, and with what the cells sever."""
    for i, cell in enumerate(cells):
        changes = changes_of(cell, clean.states, corrupted.states, engine.entries, engine.n_layers)
        start = cell.layers.start
        resid = corrupted.states["resid", start]
        yield [i], measure(engine.run(resid, start=start, prefix=prefix, changes=changes))[None]
