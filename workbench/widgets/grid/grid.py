"""HeatGrid: one heat map of rows by columns whose cells are picked by click, by box and by keyboard.

Python owns what is selected, see ``picked.py``. The drawing is ``static/grid/``; ``png.py`` draws the same map where no
browser is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import traitlets

from workbench.plots.colours import ColourAxis, ScaleMode, checked_mode, colour_scale
from workbench.widgets.grid.picked import PickedWidget
from workbench.widgets.grid.png import heat_map_png
from workbench.widgets.grid.state import alt_text, as_values, checked_cell, checked_cells, picture_state, words_state
from workbench.widgets.shared.javascript import STATIC

GridCell = tuple[int, int]
GESTURES = (
    "Click: add or remove. Drag: add a box, with Alt or Ctrl remove it. Double click or P: pin at the side. "
    "Arrows and Space: by keyboard. Ctrl+Z: undo."
)
"""What can be done with a map, in one line for below a group of them."""


class HeatGrid(PickedWidget):
    """A heat map with selectable cells.

    Args:
        values: Rows x columns, an array or a tensor. NaN means "no value": hatched, and not selectable by hand.
        rows, cols: One label for each row and column.
        title: Above the map.
        row_title, col_title: What a row and a column is, such as ``"Layer"`` and ``"Head"``.
        unit: What the values are, shown at the colour bar and behind a value.
        selectable: Whether the browser may change the selection.
        groups: First column of each group; a thin line is drawn before each (key-value groups).
        marked: Columns whose label is starred and underlined (the subject's tokens).
        limit: The colours span ``-limit`` to ``limit``, or 0 to ``limit`` where the scale is sequential. None: the
            largest magnitude in ``values``.
        kind: What a cell is, in the singular: ``"head"`` gives "3 heads selected".
        descriptions: A name for each cell (rows x columns) for the tooltip, instead of the row's and column's labels.
        height: Of the coloured area, in pixels. None: from the number of rows.
        alt: What the picture is, for screen readers. None: title, size and axes.
        scale: The colours' name in `workbench.plots.colours`: ``"RdBu"`` for what has a sign, ``"viridis"`` for what
            begins at zero, such as probabilities.
        scale_mode: Where a value lies on the colours, see `workbench.plots.colours.ColourAxis`: ``"linear"``,
            ``"symlog"``, so that what is small beside the largest can be told apart, or ``"clip"``, which ends at the
            99th percentile of the magnitudes. Settable later. The tooltip has the true value in each.
        naming: A cell's name in the tooltip and for screen readers, from its labels: ``"{row}{col}"`` gives "L23H4",
            ``"{row} at {col}"`` gives "L24 at ·is". A label that is a bare number comes with its axis.
        group_name: What a group is: ``"KV"`` labels the groups KV0, KV1 ... above the columns.

    Raises:
        ValueError: Values that are not two-dimensional or infinite, labels that do not match them, no such scale or
            mode of it, or values below zero on a sequential one.
    """

    MODULE = "grid/grid.js"
    _css = STATIC / "grid" / "grid.css"

    data = traitlets.Bytes(help="float32 values, row by row").tag(sync=True)
    shape = traitlets.List(help="[rows, columns]").tag(sync=True)
    rows = traitlets.List(traitlets.Unicode()).tag(sync=True)
    cols = traitlets.List(traitlets.Unicode()).tag(sync=True)
    descriptions = traitlets.List().tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    row_title = traitlets.Unicode().tag(sync=True)
    col_title = traitlets.Unicode().tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    groups = traitlets.List(traitlets.Int()).tag(sync=True)
    group_name = traitlets.Unicode().tag(sync=True)
    marked = traitlets.List(traitlets.Int()).tag(sync=True)
    naming = traitlets.Unicode("{row}, {col}", help="a cell's name from its labels").tag(sync=True)
    limit = traitlets.Float(1.0).tag(sync=True)
    scale_mode = traitlets.Unicode("linear", help="linear, symlog or clip; settable").tag(sync=True)
    clip = traitlets.Float(1.0, help="where a clipped scale ends").tag(sync=True)
    colours = traitlets.Dict(help="the colour scale's low end and its stops, in both themes").tag(sync=True)
    cell_width = traitlets.Float(0.0, help="pixels; 0: what fits").tag(sync=True)
    cell_height = traitlets.Float(0.0, help="pixels; 0: what fits").tag(sync=True)
    row_kind = traitlets.Unicode("", help="what is chosen where `selected` is one row, no pick").tag(sync=True)
    row_unit = traitlets.Unicode("", help="what a row is, where whole rows are picked: they are counted").tag(sync=True)
    words = traitlets.List(help="a word in each cell, rows x columns; empty: none").tag(sync=True)
    tip = traitlets.Unicode(help="a text below the value, for the cell in `hover`").tag(sync=True)
    tip_for = traitlets.Any(None, help="the cell that `tip` and `pattern` belong to").tag(sync=True)
    tip_picks = traitlets.Unicode("", allow_none=True, help="what a click selects; None: say nothing").tag(sync=True)
    pattern = traitlets.Any(None, help="{'tokens': [...], 'weights': [...]} or None").tag(sync=True)

    def __init__(
        self,
        values: Any,
        *,
        rows: Sequence[object],
        cols: Sequence[object],
        title: str = "",
        row_title: str = "Layer",
        col_title: str = "",
        unit: str = "",
        selectable: bool = True,
        groups: Iterable[int] = (),
        marked: Iterable[int] = (),
        limit: float | None = None,
        kind: str = "cell",
        descriptions: Sequence[Sequence[str]] | None = None,
        height: float | None = None,
        alt: str | None = None,
        scale: str = "RdBu",
        scale_mode: ScaleMode = "linear",
        naming: str = "{row}, {col}",
        group_name: str = "",
    ) -> None:
        self._scale = colour_scale(scale)
        array = as_values(values)
        super().__init__(
            **picture_state(array, rows, cols, groups, marked, limit, descriptions, self._scale),
            colours=self._scale.browser,
            title=title,
            row_title=row_title,
            col_title=col_title,
            unit=unit,
            selectable=selectable,
            kind=kind,
            cell_height=height / len(rows) if height else 0.0,
            scale_mode=checked_mode(scale_mode),
            naming=naming,
            group_name=group_name,
            alt=alt if alt is not None else alt_text(title, array.shape, row_title, col_title),
        )
        self._automatic_alt = self.alt if alt is None else None
        self.observe(lambda _: self._follow(), names=["title", "shape", "row_title", "col_title"])

    @property
    def values(self) -> np.ndarray:
        """The values as shown: float32, rows x columns. Read-only; `set_values` changes them."""
        return np.frombuffer(self.data, dtype="<f4").reshape(self.shape)

    def set_values(
        self,
        values: Any,
        limit: float | None = None,
        *,
        rows: Sequence[object] | None = None,
        cols: Sequence[object] | None = None,
        groups: Iterable[int] | None = None,
        marked: Iterable[int] | None = None,
        descriptions: Sequence[Sequence[str]] | None = None,
        words: Sequence[Sequence[str]] = (),
    ) -> None:
        """Show other values, in one redraw. Labels that are not given stay as they are, unless the size changes.

        Selected cells that the new size does not have are dropped from the selection; the others stay selected.

        Args:
            values: Rows x columns.
            limit: As in the constructor.
            rows, cols, groups, marked, descriptions: As in the constructor; needed where the size changes.
            words: One for each cell, written into it, cut where it has no room; none by default.

        Raises:
            ValueError: As in the constructor, or words that do not match the values. Nothing has changed then.
        """
        array = as_values(values)
        same = list(array.shape) == self.shape
        written = words_state(words, array.shape)
        state = picture_state(
            array,
            self.rows if rows is None else rows,
            self.cols if cols is None else cols,
            (self.groups if same else ()) if groups is None else groups,
            (self.marked if same else ()) if marked is None else marked,
            limit,
            (self.descriptions or None if same else None) if descriptions is None else descriptions,
            self._scale,
        )
        with self.hold_sync():
            if not same:  # else a click that comes meanwhile stays
                # First: it must be valid for the old size and for the new one.
                self.selected = [[r, c] for r, c in self.selected if r < array.shape[0] and c < array.shape[1]]
                self.pinned = [[r, c] for r, c in self.pinned if r < array.shape[0] and c < array.shape[1]]
                self.cursor = self.hover = None
            self._clear_tip()
            for name, value in {**state, "words": written}.items():
                setattr(self, name, value)

    def show_tip(
        self, cell: Sequence[int], text: str, pattern: dict[str, Any] | None = None, *, picks: str | None = ""
    ) -> None:
        """Show a text, and an attention pattern, in the tooltip of a cell if the pointer is still there.

        Args:
            cell: The row and column that the text is about.
            text: Shown as it is, never as markup.
            pattern: ``{"tokens": [...], "weights": [...]}``; the weights of one query, or one list for each query.
                The five largest are shown, their tokens made visible.
            picks: What a click on the cell selects or deselects: the browser says which of the two it does. Empty: the
                cell itself. None: nothing is said of clicks.
        """
        if self.hover is not None and list(cell) == self.hover:
            with self.hold_sync():
                self.pattern, self.tip, self.tip_picks, self.tip_for = pattern, text, picks, self.hover

    def to_png(self) -> bytes:
        """The map as a PNG picture, with its labels, colour bar and selection."""
        return heat_map_png(
            self.values,
            rows=self.rows,
            cols=self.cols,
            title=self.title,
            row_title=self.row_title,
            col_title=self.col_title,
            unit=self.unit,
            limit=self.limit,
            groups=self.groups,
            marked=self.marked,
            selected=self.selected,
            scale=self._scale,
            axis=ColourAxis(checked_mode(self.scale_mode), self.limit, self.clip),
        )

    def __repr__(self) -> str:
        return f"HeatGrid({self.shape[0]} x {self.shape[1]}, {len(self.selected)} selected)"

    def _item(self, value: Any) -> list[int] | None:
        return checked_cell(value, self.shape)

    def _items(self, value: Any) -> list[list[int]]:
        return checked_cells(value, self.shape)

    def _given(self, item: Any) -> GridCell:
        row, col = item
        return row, col

    def _leave(self) -> None:
        self._clear_tip()

    def _clear_tip(self) -> None:
        with self.hold_sync():
            self.pattern, self.tip, self.tip_picks, self.tip_for = None, "", "", None

    def _follow(self) -> None:
        """The words for screen readers are those of the map as it is now, unless they were given."""
        if self.alt == self._automatic_alt:
            self.alt = self._automatic_alt = alt_text(self.title, self.shape, self.row_title, self.col_title)

    @traitlets.validate("scale_mode")
    def _valid_mode(self, proposal: Any) -> str:
        try:
            return checked_mode(proposal["value"])
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None

    @traitlets.validate("tip_for")
    def _valid_cell(self, proposal: Any) -> list[int] | None:
        return checked_cell(proposal["value"], self.shape)

    @traitlets.observe("tip", "pattern")
    def _tip_is_for_the_hovered_cell(self, change: Any) -> None:
        if change["new"]:
            self.tip_for = self.hover
