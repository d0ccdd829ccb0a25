"""HeatGrid: one heat map of rows by columns whose cells are picked by click, by box and by keyboard.

Python owns what is selected. The browser asks for a new selection with a numbered pick (``picked`` and ``seq``); Python
checks it, sets ``selected`` and answers with ``ack``. Until then the browser shows the pick as pending, and after
1.5 s it says that the kernel is busy or not connected: a click never looks accepted when nothing has reached Python.
The drawing is ``static/grid/``; ``png.py`` draws the same map where no browser is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anywidget
import numpy as np
import traitlets
from traitlets import TraitError

from workbench.plots.colours import colour_scale
from workbench.widgets.grid.png import heat_map_png, with_picture
from workbench.widgets.grid.state import alt_text, as_values, checked_cell, checked_cells, picture_state, short
from workbench.widgets.shared.javascript import STATIC, read_module
from workbench.widgets.shared.snapshot import Snapshot

GridCell = tuple[int, int]
FROM_BROWSER = frozenset({"picked", "selected", "seq", "cursor", "hover"})
MAX_SEQ = 2**53  # the largest number up to which JavaScript counts in ones


class HeatGrid(anywidget.AnyWidget):
    """A heat map with selectable cells.

    Args:
        values: Rows x columns, an array or a tensor. NaN means "no value": hatched, and not selectable by hand.
        rows, cols: One label for each row and column.
        title: Above the map.
        row_title, col_title: What a row and a column is, such as ``"Layer"`` and ``"Head"``.
        unit: What the values are, shown at the colour bar and behind a value.
        selectable: Whether the browser may change the selection.
        groups: First column of each group; a thick line is drawn before each (key-value groups).
        marked: Columns whose label is starred and underlined (the subject's tokens).
        limit: The colours span ``-limit`` to ``limit``, or 0 to ``limit`` where the scale is sequential. None: the
            largest magnitude in ``values``.
        kind: What a cell is, in the singular: ``"head"`` gives "3 heads selected".
        descriptions: A name for each cell (rows x columns) for the tooltip, instead of the row's and column's labels.
        height: Of the coloured area, in pixels. None: from the number of rows.
        alt: What the picture is, for screen readers. None: title, size and axes.
        scale: The colours' name in `workbench.plots.colours`: ``"RdBu"`` for what has a sign, ``"viridis"`` for what
            begins at zero, such as probabilities.

    Raises:
        ValueError: Values that are not two-dimensional or infinite, labels that do not match them, no such scale, or
            values below zero on a sequential one.
    """

    _esm = read_module("grid/grid.js")
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
    kind = traitlets.Unicode("cell").tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    groups = traitlets.List(traitlets.Int()).tag(sync=True)
    marked = traitlets.List(traitlets.Int()).tag(sync=True)
    limit = traitlets.Float(1.0).tag(sync=True)
    colours = traitlets.Dict(help="the colour scale's low end and its stops, in both themes").tag(sync=True)
    cell_width = traitlets.Float(0.0, help="pixels; 0: what fits").tag(sync=True)
    cell_height = traitlets.Float(0.0, help="pixels; 0: what fits").tag(sync=True)
    selectable = traitlets.Bool(True).tag(sync=True)
    disabled = traitlets.Bool(False, help="shown, but not to be picked from now").tag(sync=True)
    selected: Any = traitlets.Instance(
        object, help="[[row, column], ...], row by row; assign a new list to change it"
    ).tag(sync=True)
    ack = traitlets.Int(0, help="the last pick that Python has answered").tag(sync=True)
    problem = traitlets.Unicode(help="why the last pick was refused or failed").tag(sync=True)
    cursor = traitlets.Any(None, help="[row, column] or None; both sides write it").tag(sync=True)
    tip = traitlets.Unicode(help="a text below the value, for the cell in `hover`").tag(sync=True)
    tip_for = traitlets.Any(None, help="the cell that `tip` and `pattern` belong to").tag(sync=True)
    pattern = traitlets.Any(None, help="{'tokens': [...], 'weights': [...]} or None").tag(sync=True)
    # Written by the browser.
    hover = traitlets.Any(None, help="[row, column] or None").tag(sync=True, echo_update=False)
    picked = traitlets.List(help="the browser's pick; always empty in Python").tag(sync=True, echo_update=False)
    seq = traitlets.Int(0, help="the number of the browser's pick; always 0 in Python").tag(
        sync=True, echo_update=False
    )

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
    ) -> None:
        self.error: Exception | None = None
        self._scale = colour_scale(scale)
        self._pick_callbacks: list[Callable[[list[GridCell]], object]] = []
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
            alt=alt if alt is not None else alt_text(title, array.shape, row_title, col_title),
        )

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
    ) -> None:
        """Show other values, in one redraw. Labels that are not given stay as they are, unless the size changes.

        Selected cells that the new size does not have are dropped from the selection; the others stay selected.

        Args:
            values: Rows x columns.
            limit: As in the constructor.
            rows, cols, groups, marked, descriptions: As in the constructor; needed where the size changes.

        Raises:
            ValueError: As in the constructor. Nothing has changed then.
        """
        array = as_values(values)
        same = list(array.shape) == self.shape
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
        automatic = self.alt == alt_text(self.title, self.shape, self.row_title, self.col_title)
        with self.hold_sync():
            if not same:  # else a click that comes meanwhile stays
                # First: it must be valid for the old size and for the new one.
                self.selected = [[r, c] for r, c in self.selected if r < array.shape[0] and c < array.shape[1]]
                self.cursor = self.hover = None
            self._clear_tip()
            for name, value in state.items():
                setattr(self, name, value)
            if automatic:
                self.alt = alt_text(self.title, self.shape, self.row_title, self.col_title)

    def on_pick(self, callback: Callable[[list[GridCell]], object]) -> None:
        """Call ``callback(cells)`` whenever the browser has changed the selection; never after a change from Python.

        An exception of the callback is shown in the widget and kept on ``.error``.
        """
        self._pick_callbacks.append(callback)

    def show_tip(self, cell: Sequence[int], text: str, pattern: dict[str, Any] | None = None) -> None:
        """Show a text, and an attention pattern, in the tooltip of a cell if the pointer is still there.

        Args:
            cell: The row and column that the text is about.
            text: Shown as it is, never as markup.
            pattern: ``{"tokens": [...], "weights": [...]}``; the weights of one query, or one list for each query.
        """
        if self.hover is not None and list(cell) == self.hover:
            with self.hold_sync():
                self.pattern, self.tip, self.tip_for = pattern, text, self.hover

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
        )

    def snapshot(self) -> Snapshot:
        """The map as it is now, with real text: shown in a cell, it stays in the notebook without a kernel."""
        return Snapshot(self, self.to_png())

    def __repr__(self) -> str:
        return f"HeatGrid({self.shape[0]} x {self.shape[1]}, {len(self.selected)} selected)"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return with_picture(data, repr(self), self.to_png()), metadata

    @contextmanager
    def hold_sync(self) -> Iterator[None]:
        """Send what changes in a ``with`` block as one message.

        JupyterLab hands messages of widgets to a thread beside the one that runs cells. The method of the base class
        sends what changed and then forgets it all, with what the other thread has noted meanwhile.
        """
        if self._holding_sync:
            yield
            return
        self._holding_sync = True
        try:
            yield
        finally:
            self._holding_sync = False
            changed, self._states_to_send = self._states_to_send, set()
            self.send_state(changed)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take a message from the browser. What is not valid changes nothing and is kept on ``.error``."""
        state = dict(sync_data)
        seq = state.pop("seq", None)
        sent = [state.pop(name) for name in ("picked", "selected") if name in state]
        if sent:
            self._take_pick(sent[0], seq)
            if "selected" in sync_data:  # a client that wrote Python's own trait hears what it is now
                self.send_state("selected")
        try:
            if foreign := sorted(set(state) - FROM_BROWSER):
                raise TraitError(
                    f"{', '.join(foreign)}: only Python sets this; the browser may set {set(FROM_BROWSER)}."
                )
            if "hover" in state and checked_cell(state["hover"], self.shape) != self.hover:
                self._clear_tip()
            with self.hold_sync():
                super().set_state(state)
        except Exception as error:
            self._fail(error)
            self.send_state(sorted(set(sync_data) & set(self.keys) - {"picked", "selected", "seq"}))

    def _take_pick(self, cells: Any, seq: Any) -> None:
        before = self.selected
        with self.hold_sync():  # one message: the selection and the answer
            try:
                if seq is not None and (type(seq) is not int or not 0 < seq <= MAX_SEQ):
                    seq, received = None, seq
                    raise TraitError(f"seq must be an integer from 1 to 2**53, not {short(received)}.")
                if self.disabled or not self.selectable:
                    raise TraitError("This map cannot be picked now.")
                self.selected = cells
                self.error, self.problem = None, ""
            except Exception as error:  # refused, or an observer of `selected` failed
                self._fail(error)
            if seq is not None:
                self.ack = seq
        if self.selected != before:
            for callback in self._pick_callbacks:
                try:
                    callback([(r, c) for r, c in self.selected])
                except Exception as error:  # would vanish in the log console
                    self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.error, self.problem = error, f"{type(error).__name__}: {error}"

    def _clear_tip(self) -> None:
        with self.hold_sync():
            self.pattern, self.tip, self.tip_for = None, "", None

    @traitlets.default("selected")
    def _nothing_selected(self) -> list[list[int]]:
        return []

    @traitlets.validate("selected")
    def _valid_selected(self, proposal: Any) -> list[list[int]]:
        return checked_cells(proposal["value"], self.shape)

    @traitlets.validate("cursor", "hover", "tip_for")
    def _valid_cell(self, proposal: Any) -> list[int] | None:
        return checked_cell(proposal["value"], self.shape)

    @traitlets.observe("tip", "pattern")
    def _tip_is_for_the_hovered_cell(self, change: Any) -> None:
        if change["new"]:
            self.tip_for = self.hover
