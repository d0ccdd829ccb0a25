"""LensView: the logit lens of the model at every layer and token, on demand, as a map whose cells show their tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ipywidgets import HTML, VBox

from workbench.plots.style import short_number, visible
from workbench.tracing.lens_grid import lens_grid
from workbench.types import LensGrid, NextToken
from workbench.widgets.grid.grid import GridCell, HeatGrid
from workbench.widgets.picker.maps import Sources
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.lens_words import LIKELIEST, settled
from workbench.widgets.shared.voice import person

TOKENS = 5
"""Of a cell."""
_ROW_HEIGHT = 16


class LensView(VBox):
    """A button, the map, and the tokens of the cell that was clicked.

    Args:
        sources: Gives the fact and the form, as they are now.
        on_change: Called after a result has come or gone.
    """

    def __init__(self, sources: Callable[[], Sources], on_change: Callable[[], object]) -> None:
        self.job: Job[LensGrid] | None = None
        self.result: LensGrid | None = None
        """What is shown."""
        self._sources, self._on_change, self._lock = sources, on_change, threading.RLock()
        self._made: Sources | None = None
        self._start = 0  # the first token that is shown
        self._shown_cell: GridCell | None = None
        self._run = layout.quiet_button(
            "Logit lens", icon="th", tooltip="What the model would say at each token if it ended after each layer"
        )
        self._words, self._tokens = HTML(), HTML()
        self.grid = HeatGrid([[0.0]], rows=["…"], cols=["…"], col_title="Token", unit="probability", scale="viridis")
        self.grid.naming = "{row} at {col}"
        self.grid.on_pick(self._picked)
        self.grid.observe(lambda change: self._hovered(change["new"]), names="hover")
        self._run.on_click(lambda _: self.run())
        super().__init__([layout.row(self._run, self._words), self.grid, self._tokens])
        layout.show(self.grid, False)

    def run(self) -> Job[LensGrid]:
        """Read the lens in the background; one that is going on is not begun again."""
        with self._lock:
            if self.job is not None and self.job.running:
                return self.job
            sources = self._sources()
            self._run.disabled = True
            self._words.value = markup.progress(None, 1, "Reading the lens …")
            self.job = Job(lambda _: self._read(sources), on_done=self._ended)
            return self.job

    def clear(self) -> None:
        """Forget the result: another fact is shown."""
        with self._lock:
            self.job = self.result = self._made = None
            self._run.disabled = False
            self._words.value = self._tokens.value = ""
            self._shown_cell = None
            layout.show(self.grid, False)

    def code(self) -> str:
        """The Python of the call; empty where nothing is shown."""
        if self.result is None or self._made is None:
            return ""
        form = f", form={self._made.form!r}" * (self._made.text_form is not None)
        return f"lens = wb.lens_grid(model, {self._made.variable}, k={TOKENS}{form})\n"

    def _read(self, sources: Sources) -> LensGrid:
        first, *more = sources.traced
        if more:
            raise ValueError(f"The lens reads one {sources.variable}.")
        result = lens_grid(sources.model, first, form=sources.text_form, k=TOKENS)
        with self._lock:
            if sources.traced == self._sources().traced:
                self.result, self._made = result, sources
        return result

    def _ended(self, job: Job[LensGrid]) -> None:
        with self._lock:
            if job is not self.job:
                return
            self._run.disabled = False
            if job.state == "failed":
                self._words.value = markup.alert(job.error and person(job.error))
            elif self.result is not None:
                self._words.value = markup.hint(
                    f"{lens_words(self.result)} Colour and word of a cell: the likeliest token there and its "
                    f"probability. Click a cell: its tokens. {LIKELIEST}"
                )
                self._show(self.result)
        self._on_change()

    def _show(self, result: LensGrid) -> None:
        self._start = min(result.subject, default=0)
        cells = [row[self._start :] for row in result.top]
        with self.grid.hold_sync():
            self.grid.selected = []
            self.grid.title = f"Logit lens ({result.stage}), {result.form} form"
            self.grid.cell_height = _ROW_HEIGHT
            self.grid.set_values(
                [[tokens[0].probability for tokens in row] for row in cells],
                limit=1.0,
                rows=result.labels,
                cols=[visible(token) for token in result.tokens[self._start :]],
                marked=[at - self._start for at in result.subject],
                groups=(),
                words=[[visible(tokens[0].token) for tokens in row] for row in cells],
            )
        layout.show(self.grid, True)
        last = (len(result.top) - 1, len(cells[0]) - 1)
        self._picked([last])

    def _at(self, cell: Sequence[int]) -> tuple[NextToken, ...]:
        assert self.result is not None
        return self.result.top[cell[0]][cell[1] + self._start]

    def _hovered(self, cell: Any) -> None:
        if cell is not None and self.result is not None:
            lines = [f"{visible(t.token)}  {short_number(t.probability, share=True)}" for t in self._at(cell)]
            self.grid.show_tip(cell, "\n".join(lines), picks=None)

    def _picked(self, cells: Sequence[GridCell]) -> None:
        """One cell at a time: the one that came."""
        if self.result is None:
            return
        before = self._shown_cell
        cell = next((cell for cell in cells if cell != before), before)
        if cell is None:
            return
        self._shown_cell = cell
        self.grid.selected = [list(cell)]
        after = markup.token(self.result.tokens[cell[1] + self._start]).html
        said = ", ".join(
            f"{markup.token(t.token).html} {markup.text(short_number(t.probability, share=True))}"
            for t in self._at(cell)
        )
        label = markup.text(self.result.labels[cell[0]])
        self._tokens.value = markup.block(f'<p role="status">After {label} at {after}: {said}</p>')


def lens_words(lens: LensGrid) -> str:
    """From which layer on the answer is the likeliest token at the end, in a sentence."""
    return settled(lens.answer_token, lens.settles, int(lens.ranks[-1, -1]))
