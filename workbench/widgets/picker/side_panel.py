"""SidePanel: what is pinned: a head's attention, what a component writes, and its value in each map, side by side.

It shows what it is given; the picker computes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from ipywidgets import HTML, VBox

from workbench.plots.style import short_number, visible
from workbench.tracing.writes import writes
from workbench.types import Component, EffectMap, TokenLogit, Writes
from workbench.types.selection import KIND_NAMES, Kind
from workbench.widgets.grid.grid import GridCell, HeatGrid
from workbench.widgets.picker.attention import TOP, Attention
from workbench.widgets.picker.maps import TITLES, MapName, Sources
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.voice import person

MOST = 3
"""Components side by side; of more the oldest goes."""
_ROW_HEIGHT = 14


class Card(VBox):
    """One pinned component. Made once and used for others again: widgets are never freed in a notebook.

    Args:
        on_unpin: Called with the component that is to go.
    """

    def __init__(self, on_unpin: Callable[[Component], object]) -> None:
        self.component: Component | None = None
        self.asked = False
        """Whether somebody was asked what it writes."""
        self._attention: Attention | None = None
        self._query = 0
        self._title, self._attended, self.writes, self.values = HTML(), HTML(), HTML(), HTML()
        self._unpin = layout.quiet_button("Unpin", icon="times", tooltip="Take it from the side panel")
        self._unpin.on_click(lambda _: self.component is not None and on_unpin(self.component))
        self.grid = HeatGrid(
            [[0.0]], rows=["…"], cols=["…"], row_title="From", col_title="to", kind="key token", scale="viridis"
        )
        self.grid.naming, self.grid.row_kind = "{row} to {col}", "query"
        self.grid.on_pick(self._picked)
        super().__init__([layout.row(self._title, self._unpin), self.grid, self._attended, self.writes, self.values])

    def show(self, component: Component | None, attention: Attention | None) -> None:
        """Show a component with what is there of its attention; None empties the card."""
        same = component == self.component
        self.component, self._attention = component, attention
        layout.show(self, component is not None)
        if component is None:
            return
        title = f"{component}: {KIND_NAMES[component.kind]}"
        self._title.value = markup.block(
            f'<div class="wb-title" role="heading" aria-level="4">{markup.text(title)}</div>'
        )
        if not same:
            self.forget()
        head = component.kind == "H" and attention is not None
        layout.show(self.grid, head)
        layout.show(self._attended, head)
        if head and attention is not None:
            self._show_attention(component, attention)

    def forget(self) -> None:
        """What was said of the component."""
        self.asked = False
        self.writes.value = self.values.value = ""

    def _show_attention(self, component: Component, attention: Attention) -> None:
        weights, start = attention.of(component), attention.start
        shown = [visible(token) for token in attention.tokens]
        self._query = min(max(self._query, start), len(weights) - 1) if self._query else len(weights) - 1
        with self.grid.hold_sync():
            self.grid.selected = []
            self.grid.title = f"Where {component} attends: click a row for its query"
            self.grid.cell_height = _ROW_HEIGHT
            self.grid.set_values(
                weights[start:], limit=1.0, rows=shown[start:], cols=shown, marked=attention.prompt.subject, groups=()
            )
        self._show_query()

    def _picked(self, cells: Sequence[GridCell]) -> None:
        """A click chooses the query of its row."""
        if self._attention is None:
            return
        row = self._query - self._attention.start
        others = [r for r, _ in cells if r != row]
        self._query = (others[0] if others else row) + self._attention.start
        self._show_query()

    def _show_query(self) -> None:
        attention, component = self._attention, self.component
        if attention is None or component is None:
            return
        row = self._query - attention.start
        self.grid.selected = [[row, column] for column in range(self.grid.shape[1])]
        weights = attention.of(component)[self._query]
        items = [
            f"{markup.token(attention.tokens[i]).html} {markup.text(short_number(float(weights[i]), share=True))}"
            for i in attention.most(component, self._query)
        ]
        said = f"From {markup.token(attention.tokens[self._query]).html} to: {', '.join(items)}"
        self._attended.value = markup.block(f"<p>{said}</p>")


class SidePanel(VBox):
    """The pinned components.

    Args:
        lock: Held while something changes: the job's thread brings what the kernel's has asked for.
        on_change: Called with what is pinned, after every change.
    """

    def __init__(self, lock: threading.RLock, on_change: Callable[[tuple[Component, ...]], object]) -> None:
        self._lock, self._on_change = lock, on_change
        self._pinned: tuple[Component, ...] = ()
        self._attention: Attention | None = None
        self.cards: list[Card] = []
        self._row = layout.columns()
        super().__init__([self._row])
        layout.show(self, False)

    @property
    def pinned(self) -> tuple[Component, ...]:
        """What is pinned, the oldest first. Settable; of more than ``MOST`` the last stay."""
        return self._pinned

    @pinned.setter
    def pinned(self, components: Sequence[Component]) -> None:
        new = tuple(dict.fromkeys(components))[-MOST:]
        with self._lock:
            if new != self._pinned:
                self._pinned = new
                self._show()
                self._on_change(new)

    def toggle(self, component: Component) -> None:
        """Pin a component, or take it away."""
        with self._lock:
            rest = [other for other in self._pinned if other != component]
            self.pinned = rest if component in self._pinned else [*rest, component]

    def show_attention(self, attention: Attention | None) -> None:
        """Show the attention of a text; None: there is none."""
        with self._lock:
            self._attention = attention
            self._show()

    def unasked(self) -> list[Component]:
        """The pinned components of which nobody was asked yet what they write; they count as asked from now."""
        with self._lock:
            fresh = [card for card in self.cards if card.component is not None and not card.asked]
            for card in fresh:
                card.asked = True
            return [card.component for card in fresh if card.component is not None]

    def forget(self) -> None:
        """Another fact is shown: what is pinned stays, what was said of it goes."""
        with self._lock:
            for card in self.cards:
                card.forget()
            self.show_attention(None)

    def show_writes(self, component: Component, shown: str) -> None:
        """Show what a component writes, as markup."""
        for card in self._cards_of(component):
            card.writes.value = shown

    def show_values(self, values: Callable[[Component], str]) -> None:
        """Show each component's values, as markup."""
        for card in self.cards:
            if card.component is not None:
                card.values.value = values(card.component)

    def _cards_of(self, component: Component) -> list[Card]:
        return [card for card in self.cards if card.component == component]

    def _show(self) -> None:
        while len(self.cards) < len(self._pinned):
            card = Card(self.toggle)
            card.layout.flex = "1 1 340px"
            self.cards.append(card)
            self._row.children = (*self._row.children, card)
        for place, card in enumerate(self.cards):
            card.show(self._pinned[place] if place < len(self._pinned) else None, self._attention)
        layout.show(self, bool(self._pinned))


_OWN: dict[str, Kind] = {"head": "H", "neuron": "N", "mlp": "MLP", "attn": "ATTN"}
_WHOLE: dict[Kind, Kind] = {
    "H": "ATTN",
    "Q": "ATTN",
    "K": "ATTN",
    "V": "ATTN",
    "KV": "ATTN",
    "N": "MLP",
    "GATEUP": "MLP",
}


def values_in(component: Component, maps: Mapping[str, EffectMap]) -> list[tuple[str, float, str]]:
    """A component's value in each map that has one for it, or for the layer's module that it is a part of.

    Args:
        component: Any.
        maps: By name.

    Returns:
        For each map what the value is, the value, and in a trace the token of the largest one.
    """
    found: list[tuple[str, float, str]] = []
    for name, effect in maps.items():
        kind = _OWN.get(effect.unit)
        if kind is None or kind not in (component.kind, _WHOLE.get(component.kind)):
            continue
        title, row = TITLES.get(cast(MapName, name), name), effect.values[component.layer]
        if kind != component.kind:
            title += f", all of {Component(component.layer, kind)}"
        if kind in ("H", "N"):
            found.append((title, float(row[component.index or 0]), ""))
        elif row.ndim:
            at = int(row.nan_to_num(nan=float("-inf")).argmax())
            found.append((title, float(row[at]), effect.labels[effect.axes[1]][at]))
        else:
            found.append((title, float(row), ""))
    return found


def written(sources: Sources, component: Component) -> str:
    """What a component writes at the end of the traced text, as markup; or why that cannot be said."""
    try:
        return writes_markup(writes(sources.model, component, fact=sources.traced[0], form=sources.text_form, k=TOP))
    except ValueError as error:  # it has no output of its own, or the contrast is states
        return markup.hint(person(error))


def writes_markup(found: Writes) -> str:
    """What a component writes, as two lines of tokens."""

    def listed(tokens: Sequence[TokenLogit]) -> str:
        return ", ".join(f"{markup.token(t.token).html} {markup.text(short_number(t.value))}" for t in tokens)

    after = f" after {markup.token(found.prompt.tokens[-1]).html}" if found.prompt is not None else ""
    active = f" (activation {short_number(found.activation)})" if found.activation is not None else ""
    return markup.block(
        f"<p>Writes{after}{markup.text(active)}, in {markup.text(found.unit)}: "
        f"{listed(found.raised)}</p><p>Lowers: {listed(found.lowered)}</p>"
    )


def values_markup(
    component: Component, maps: Mapping[str, EffectMap], others: Mapping[str, float] | None = None
) -> str:
    """A component's values as a table.

    Args:
        component: Any.
        maps: Those that are shown.
        others: Its values elsewhere, by what they are of.
    """
    found = values_in(component, maps)
    rows: list[tuple[object, ...]] = [
        (title, short_number(value), markup.token(token) if token else "") for title, value, token in found
    ]
    rows += [(name, short_number(value), "") for name, value in (others or {}).items()]
    width = 3 if any(token for *_, token in found) else 2  # only a trace has a place
    headers = ("map", "value", "largest at")[:width]
    return markup.table(headers, [row[:width] for row in rows], f"Effect of {component}") if rows else ""
