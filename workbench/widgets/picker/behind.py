"""FactsBehind: the facts that make a cell of an average, by value; a click on one opens its own maps.

It shows what it is given, and says which fact was clicked; the picker opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from ipywidgets import HTML, VBox

from workbench.plots.style import short_number, visible
from workbench.types import Component, EffectMap
from workbench.types.facts_of_cell import facts_of_cell, has_facts
from workbench.widgets.grid.bar_list import BarList, BarRow
from workbench.widgets.picker.maps import TITLES, MapName
from workbench.widgets.shared import layout, markup

MOST = 50
"""Facts from each end of the list; of an average over more than twice as many the middle is left out."""
HINT = "Click a cell to list the facts that make it."


class FactsBehind(VBox):
    """The list of facts behind one cell. Out of the page as long as no map is a mean over facts.

    Args:
        on_open: Called with the id of the fact that was clicked.
        on_back: Called when the average is to be shown again.
    """

    def __init__(self, on_open: Callable[[str], object], on_back: Callable[[], object]) -> None:
        self._on_open, self._on_back = on_open, on_back
        self._ids: dict[str, str] = {}
        self.cell: tuple[MapName, tuple[int, ...]] | None = None
        """The map and the index of the cell whose facts are listed."""
        self.opened: str | None = None
        """The fact whose own maps are shown."""
        self._words = HTML()
        self.bars = BarList(title="Behind a cell", kind="fact", order="value", height=220)
        self._back = layout.quiet_button(
            "Back to the average", icon="arrow-left", tooltip="Show the mean over all facts"
        )
        self._back.on_click(lambda _: self._on_back())
        super().__init__([layout.row(self._words, self._back), self.bars])
        self.bars.on_pick(self._picked)
        self.clear({})

    def clear(self, maps: Mapping[str, EffectMap]) -> None:
        """No cell is chosen.

        Args:
            maps: What is shown; where one is a mean over facts, the panel says that its cells can be clicked.
        """
        self.cell = self.opened = None
        layout.show(self, any(has_facts(effect) for effect in maps.values()))
        layout.show(self.bars, False)
        layout.show(self._back, False)
        self._words.value = markup.block(markup.hint(HINT))

    def show(self, name: MapName, effect: EffectMap, index: Sequence[int], notes: Mapping[str, str]) -> None:
        """List the facts of a cell.

        Args:
            name: The map.
            effect: The same; without the values of its facts nothing changes.
            index: The cell.
            notes: What to say of each fact that is pointed at, by id.
        """
        if not has_facts(effect):
            return
        self.cell = (name, tuple(index))
        values = facts_of_cell(effect, index)
        listed = [*values.items()]
        if len(listed) > 2 * MOST:
            listed = listed[:MOST] + listed[-MOST:]
        self._ids = {visible(id): id for id, _ in listed}
        unit, of = effect.value_words.unit, f" of {len(values)}: the {MOST} largest and the {MOST} smallest"
        self.bars.set_rows(
            [BarRow(id, value, notes.get(id, "")) for id, value in listed],
            title=f"Facts behind {cell_words(effect, index)}" + (of if len(listed) < len(values) else ""),
            unit=unit,
            selected=[],
        )
        layout.show(self, True)
        layout.show(self.bars, bool(listed))
        self._words.value = markup.block(
            f"<p>{markup.text(f'{TITLES[name]}: {mean_words(effect, index, len(values))}')}</p>"
        )

    def mark_open(self, id: str) -> None:
        """Say that the own maps of a fact are shown; the list stays."""
        self.opened = id
        self.bars.mark([visible(id)])
        layout.show(self, True)
        layout.show(self.bars, bool(self.bars.names))
        layout.show(self._back, True)
        self._words.value = markup.block(f"<p>The maps of {markup.text(id)} alone.</p>")

    def _picked(self, names: list[str]) -> None:
        """A click opens a fact, and one on the open fact leads back."""
        now = [self._ids[name] for name in names if self._ids.get(name) not in (None, self.opened)]
        if now:
            self._on_open(now[0])
        elif self.opened is not None:
            self._on_back()
        self.bars.mark([] if self.opened is None else [visible(self.opened)])


def cell_words(effect: EffectMap, index: Sequence[int]) -> str:
    """A cell by name: "L23H4", "L23MLP", "L23 at last token"."""
    if "position" in effect.axes:
        at = dict(zip(effect.axes, index, strict=True))
        return f"{effect.labels['layer'][at['layer']]} at {visible(effect.labels['position'][at['position']])}"
    return " ".join(map(str, effect.components(tuple(index))))


def mean_words(effect: EffectMap, index: Sequence[int], n: int) -> str:
    """The mean of a cell with its 95% interval, and over how many facts."""
    place, bounds = tuple(index), effect.interval
    low, high = ("n/a", "n/a") if bounds is None else (short_number(float(bound[place])) for bound in bounds)
    few = "" if n == effect.n else f" of {effect.n}; the others have no such token"
    return (
        f"{cell_words(effect, index)} is {short_number(float(effect.values[place]))} {effect.value_words.unit} "
        f"(95% interval {low} to {high}), a mean over {n} facts{few}."
    )


def index_of(component: Component) -> tuple[int, ...]:
    """The cell of a component in a map of the whole model."""
    return (component.layer,) if component.index is None else (component.layer, component.index)


def picker_maps(mean: object) -> dict[str, EffectMap]:
    """The maps of a result, or of an average, by the name that a picker has for each; those it has no place for are
    left out.

    Args:
        mean: A map, or a dictionary of maps.
    """
    every: list[Any] = [*cast("Mapping[str, Any]", mean).values()] if isinstance(mean, Mapping) else [mean]
    whole: dict[str, MapName] = {"head": "heads", "mlp": "mlps", "neuron": "neurons", "attn": "attentions"}
    found: dict[str, EffectMap] = {}
    for effect in every:
        if isinstance(effect, EffectMap):
            name = effect.unit if "position" in effect.axes else whole.get(effect.unit)
            if name is not None and name in TITLES:
                found.setdefault(name, effect)
    return found
