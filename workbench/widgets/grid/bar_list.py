"""BarList: a ranked list of names with bars, of which several are picked by click and by keyboard.

Python owns what is selected, see ``picked.py``. The drawing is ``static/bars/``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import traitlets
from traitlets import TraitError

from workbench.plots.style import visible
from workbench.widgets.grid.picked import PickedWidget
from workbench.widgets.grid.state import short
from workbench.widgets.shared.javascript import STATIC
from workbench.widgets.shared.text_card import text_card_png

Order = Literal["magnitude", "value", "given"]
_ORDERS: dict[str, Any] = {
    "magnitude": lambda row: -abs(row.value),
    "value": lambda row: -row.value,
    "given": lambda row: 0,
}
_IN_PICTURE = 20  # rows


class BarRow(NamedTuple):
    """A row: its name, which no other row has, its value, and what to say about it when it is pointed at."""

    name: str
    value: float
    note: str = ""


class BarList(PickedWidget):
    """A ranked list with a bar, a value and a check mark for each name.

    A click or Space selects or takes back. Ties keep the order in which they were given.

    Args:
        rows: `BarRow`, or ``(name, value)`` or ``(name, value, note)``.
        title: Above the list.
        unit: What the values are, for screen readers and ``alt``.
        kind: What a row is, in the singular: ``"head"`` gives "3 of 20 heads selected".
        order: ``"magnitude"``: the largest absolute value first; ``"value"``: the largest value first; ``"given"``.
        limit: The value of a whole bar. None: the largest magnitude.
        selectable: Whether the browser may change the selection.
        height: From which the list scrolls, in pixels; 0: never.
        alt: What the list is, for screen readers. None: the title and the unit.

    Raises:
        ValueError: A name is empty or there twice, a value is not finite, no such order, or a limit that is not
            positive.

    Example:
        >>> strongest = BarList([("L29H1", 2.41), ("L23H4", 16.4), ("L23H5", -1.65)], kind="head")
        >>> [row.name for row in strongest.rows]
        ['L23H4', 'L29H1', 'L23H5']
        >>> strongest.mark(["L23H5", "L0MLP"])
        >>> strongest.selected
        ['L23H5']
    """

    MODULE = "bars/bars.js"
    _css = STATIC / "bars" / "bars.css"

    names = traitlets.List(traitlets.Unicode(), help="in the order that is shown").tag(sync=True)
    values = traitlets.List(traitlets.Float(), help="one for each name").tag(sync=True)
    notes = traitlets.List(traitlets.Unicode(), help="one for each name").tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    limit = traitlets.Float(1.0, help="the value of a whole bar").tag(sync=True)
    list_height = traitlets.Float(0.0, help="pixels; 0: as high as it gets").tag(sync=True)

    def __init__(
        self,
        rows: Iterable[BarRow | Sequence[Any]] = (),
        *,
        title: str = "",
        unit: str = "",
        kind: str = "component",
        order: Order = "magnitude",
        limit: float | None = None,
        selectable: bool = True,
        height: float = 300,
        alt: str | None = None,
    ) -> None:
        if order not in _ORDERS:
            raise ValueError(f"order must be one of {list(_ORDERS)}, not {order!r}.")
        self._order, self._own_alt = order, alt
        super().__init__(
            **self._state(rows, limit),
            title=title,
            unit=unit,
            kind=kind,
            selectable=selectable,
            list_height=height,
            alt=self._words(title, unit),
        )

    @property
    def rows(self) -> tuple[BarRow, ...]:
        """The rows in the order that is shown."""
        return tuple(map(BarRow, self.names, self.values, self.notes))

    def set_rows(
        self,
        rows: Iterable[BarRow | Sequence[Any]],
        *,
        title: str | None = None,
        unit: str | None = None,
        limit: float | None = None,
        selected: Iterable[str] | None = None,
    ) -> None:
        """Show other rows, in one redraw.

        Args:
            rows, limit: As in the constructor.
            title, unit: As in the constructor. None: as they are.
            selected: What is selected then, see `mark`. None: what was selected and is still in the list.

        Raises:
            ValueError: As in the constructor. Nothing has changed then.
        """
        state = self._state(rows, limit)
        there = set(state["names"])
        with self.hold_sync():
            wanted = list(self.selected if selected is None else selected)
            # First: each must be valid for the old rows and for the new ones.
            self.selected = [name for name in self.selected if name in there]
            self.pinned = [name for name in self.pinned if name in there]
            self.cursor = self.cursor if self.cursor in there else None
            self.hover = None
            for name, value in state.items():
                setattr(self, name, value)
            self.title = self.title if title is None else title
            self.unit = self.unit if unit is None else unit
            self.alt = self._words(self.title, self.unit)
            self.mark(wanted)

    def mark(self, names: Iterable[object]) -> None:
        """Show as selected those of these names that the list has; names are compared as text."""
        wanted = {str(name) for name in names}
        self.selected = [name for name in self.names if name in wanted]

    def _state(self, rows: Iterable[BarRow | Sequence[Any]], limit: float | None) -> dict[str, Any]:
        """The traits of these rows, sorted and checked. Raises ValueError."""
        listed = [BarRow(visible(name), float(value), *map(str, note)) for name, value, *note in rows]
        names = [row.name for row in listed]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"Each row needs a name of its own; {twice[0]!r} is there twice.")
        if odd := [row.name for row in listed if not math.isfinite(row.value)]:
            raise ValueError(f"The value of {odd[0]!r} is not finite; leave out what has no value.")
        listed.sort(key=_ORDERS[self._order])
        if limit is None:
            limit = max((abs(row.value) for row in listed), default=0.0) or 1.0
        if not (math.isfinite(limit) and limit > 0):
            raise ValueError(f"limit must be positive and finite, not {limit}.")
        names, values, notes = (list(each) for each in zip(*listed, strict=True)) if listed else ([], [], [])
        return {"names": names, "values": values, "notes": notes, "limit": float(limit)}

    def _words(self, title: str, unit: str) -> str:
        return self._own_alt if self._own_alt is not None else ", ".join(filter(None, [title or "List", unit]))

    def _item(self, value: Any) -> str | None:
        if value is None or (isinstance(value, str) and value in self.names):
            return value
        raise TraitError(f"{short(value)} is not a name of this list.")

    def _items(self, value: Any) -> list[str]:
        if not isinstance(value, list | tuple | set | frozenset):
            raise TraitError(f"A selection is a list of names, not {short(value)}.")
        if len(value) > len(self.names):
            raise TraitError(f"{len(value)} names are too many; this list has {len(self.names)}.")
        wanted = [self._item(each) for each in value]
        if None in wanted or len(set(wanted)) != len(wanted):
            raise TraitError("A selection is a list of different names.")
        return [name for name in self.names if name in set(wanted)]

    def __repr__(self) -> str:
        return f"BarList({len(self.names)} {self.kind}s, {len(self.selected)} selected)"

    def to_png(self) -> bytes:
        """The first rows as a plain picture, for where no widget is drawn."""
        marks = {True: "x", False: " "}
        lines = [f"[{marks[r.name in self.selected]}] {r.name}  {r.value:.3g}" for r in self.rows[:_IN_PICTURE]]
        more = len(self.names) - len(lines)
        return text_card_png(self.title or "List", [*lines, *([f"and {more} more"] if more else [])])
