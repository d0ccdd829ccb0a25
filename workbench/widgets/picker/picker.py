"""CircuitPicker: the maps of a fact or a contrast side by side; clicking their cells selects components.

Python owns the selection. Every map shows the same one: a cell is marked when all components that it stands for are
selected, so a pick in one map shows in the others at once. In a trace a cell stands for its layer's module (a residual
state for the attention and the MLP that read it), so the layer's whole row is marked. All maps show one measure: the
same metric, corruption, partner and form.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import traitlets
from ipywidgets import HTML

from workbench.models.load import LoadedModel
from workbench.types import Component, Contrast, EffectMap, Fact, FactSet, Form, Selection
from workbench.types.contrast import Traced
from workbench.types.effect import Corruption
from workbench.widgets.grid.grid import GESTURES
from workbench.widgets.picker.ablation_view import AblationView
from workbench.widgets.picker.behind import FactsBehind, index_of
from workbench.widgets.picker.code import Choice, choice_code, choose, maps_code
from workbench.widgets.picker.lens_view import LensView
from workbench.widgets.picker.linked_maps import SITES
from workbench.widgets.picker.maps import TITLES, MapName, Sources
from workbench.widgets.picker.maps_panel import MapsPanel, as_shown
from workbench.widgets.picker.selection_bar import SelectionBar, check_shown
from workbench.widgets.picker.side_panel import SidePanel, values_markup, written
from workbench.widgets.picker.top_k import TopKControls
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.code_block import CodeBlock
from workbench.widgets.shared.contrast_words import traced_code, traced_start
from workbench.widgets.shared.measure import Measure, MeasureName


class CircuitPicker(MapsPanel):
    """The panel shows where a fact lives, or what tells two prompts apart, and a click picks what to edit.

    Args:
        model: The model; it is not changed.
        fact: A fact or a contrast, or several of one kind (then maps are means with standard errors, and trace
            positions are roles or named positions). ``picker.fact = other`` computes the maps again and keeps the
            selection; the bar says for which of them a component was picked.
        corruption, form: Of facts, as in ``causal_trace``; a contrast has its own. Where no subject can be swapped in,
            noise stands in for the swap, and the panel says so.
        metric: ``"recovery"``, ``"logit_diff"`` or ``"probability"``: with the corruption, the one measure of all maps
            (``picker.measure``).
        pool: Where swap partners come from; the bundled facts by default.
        compute: Compute the maps at once, in the background; False waits for ``picker.compute(...)``.
        bar: Whether the panel has its selection bar (``picker.bar``) above the maps; False for who shows it elsewhere.

    Raises:
        ValueError: No fact or contrast, both kinds at once, or an unknown corruption or metric.
        TypeError: What is given is neither.

    Example:
        >>> picker = wb.CircuitPicker(model, fact, pool=facts, compute=False)
        >>> picker.selection = "L1H3 L2MLP"
        >>> picker
        CircuitPicker(france-capital: 2 selected)
        >>> print(picker.code.splitlines()[-1])
        selection = wb.Selection('L1H3 L2MLP')
    """

    selection = traitlets.Any(help="What is selected, a Selection; settable, as text too.")

    def __init__(
        self,
        model: LoadedModel,
        fact: Traced,
        *,
        corruption: Corruption = "swap",
        metric: MeasureName = "recovery",
        form: Form | None = None,
        pool: FactSet | None = None,
        compute: bool = True,
        bar: bool = True,
    ) -> None:
        sources = Sources(model, as_shown(fact), Measure(metric, corruption), form, pool)
        super().__init__(sources, eager=compute, selection=Selection())
        self._choice: Choice | None = None
        self._go_callbacks: list[Callable[[CircuitPicker, str], object]] = []
        self.other_values: Callable[[Component], Mapping[str, float]] | None = None
        """Gives a component's values elsewhere, by what they are of, for the side panel; settable."""
        self.own_maps: Callable[[str], Mapping[str, EffectMap]] | None = None
        """Gives the maps of one fact of an average, by its id, where they are there already; settable. Else they are
        computed when the fact is opened."""
        self._given_code = ""
        self._average: tuple[Sequence[Fact] | Sequence[Contrast], dict[str, EffectMap]] | None = None
        self.behind = FactsBehind(
            lambda id: self._try(lambda: self.open_fact(id)), lambda: self._try(self.show_average)
        )
        self.ablation = AblationView(lambda: (self._maker.sources, self.selection), self._show_code)
        self.lens = LensView(lambda: self._maker.sources, self._show_code)
        self.side = SidePanel(self._lock, self._pins_changed)
        self.bar = SelectionBar(model, self._bar_changed, self._bar_acted)
        self._name_subject()
        self._from = TopKControls(
            lambda name, k, add, role: self._try(lambda: self.top(name, k, add=add, role=role)),
            lambda name, threshold, add, role: self._try(lambda: self.above(name, threshold, add=add, role=role)),
        )
        self._go = layout.quiet_button("Edit these", icon="arrow-right", tooltip="Go on with what is selected")
        layout.show(self._go, False)
        self._go.disabled = True
        self._code = CodeBlock(lambda: self.code, lazy=True)  # a click does not send what nobody sees
        self._lay_out_all(bar)
        self._listen()
        self._show_heading()
        self._show_maps()
        self._show_progress()
        if compute:
            self.compute()

    def _lay_out_all(self, bar: bool) -> None:
        above = (self._heading, self._measures, self._alert, self._measured, self._line)
        maps = layout.columns(self._linked, self.ranked, widths=("3 1 600px", "1 1 240px"))
        below = (HTML(markup.hint(GESTURES)), self.behind, self.side, self.ablation, self.lens, self._from, self._notes)
        if bar:
            self.bar.add_class("wb-sticky")
        self._lay_out(*above, *((self.bar,) if bar else ()), maps, *below, self._go, self._code)

    def _listen(self) -> None:
        self.observe(self._selection_set, names="selection")
        self._go.on_click(lambda _: [callback(self, "editor") for callback in self._go_callbacks])
        for shown in (self.trace, self.heads, self.mlps, self.ranked.bars):
            shown.on_undo(lambda: self._try(self.bar.undo))
            shown.on_redo(lambda: self._try(self.bar.redo))
        for grid in (self.trace, self.heads, self.mlps):
            grid.on_pin(lambda cell, grid=grid: self._pin(self._linked.components(grid, cell)))
        self.ranked.bars.on_pin(lambda name: self._pin((Component.parse(name),)))
        self.ranked.bars.observe(self._ranked_cursor, names="cursor")

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}: {len(self.selection)} selected)"

    # What it holds

    @property
    def code(self) -> str:
        """Python that makes the maps that are shown and the selection."""
        sources = self._maker.sources
        if self.given_code and len(sources.traced) > 1:
            return f"{traced_start(sources.model, 'picker')}{self.given_code}{choice_code(self.selection, None)}"
        return traced_code(sources.model, sources.traced, sources.pool, "picker") + self.shown_code()

    @property
    def given_code(self) -> str:
        """Python that makes this picker of ``model``, where it shows an average that it was given; settable."""
        return self._given_code

    @given_code.setter
    def given_code(self, code: str) -> None:
        self._given_code = code
        self._show_code()

    def shown_code(self, saved: Collection[str] = ()) -> str:
        """Its part after the model and the facts.

        Args:
            saved: Maps that ``session.maps`` holds: they are read from there.
        """
        maps = maps_code(self._maker.sources, self.maps, saved)
        lines = f"{maps}{choice_code(self.selection, self._choice)}"
        if (made := self.ablation.made) is not None:
            lines += made.code(self.selection, has_partner="partner = " in maps)
        return lines + self.lens.code()

    def on_go(self, callback: Callable[[CircuitPicker, str], object]) -> None:
        """Call ``callback(picker, "editor")`` when the button "Edit these" is pressed; it is shown from now on."""
        self._go_callbacks.append(callback)
        layout.show(self._go, True)

    # What it does

    @property
    def pinned(self) -> tuple[Component, ...]:
        """What the side panel shows, the oldest first; settable, as text too."""
        return self.side.pinned

    @pinned.setter
    def pinned(self, components: Iterable[Component | str] | str) -> None:
        chosen = Selection(components)
        if len(chosen):
            check_shown(self._maker.sources.model, chosen)
        self.side.pinned = tuple(chosen)

    def open_fact(self, id: str) -> None:
        """Show the own maps of one of the facts that an average is over; ``show_average`` leads back.

        Raises:
            ValueError: None of the facts has this id.
        """
        with self._lock:
            facts, maps = self._average or (self._maker.sources.traced, dict(self.maps))
            fact = next((fact for fact in facts if fact.id == id), None)
            if fact is None:
                raise ValueError(f"The average is over {len(facts)} facts, and none of them is {id!r}.")
            cell, asked = self.behind.cell, self._maker.asked
            own = {} if self.own_maps is None else self.own_maps(id)
            self.show(fact, own)
            self._average = (facts, maps)
            self._show_behind(cell)
            self.behind.mark_open(id)
            if not own and asked:
                self.compute(*asked)

    def show_average(self) -> None:
        """Show the average again, after ``open_fact``. No effect where none was left."""
        with self._lock:
            if self._average is not None:
                cell, (facts, maps) = self.behind.cell, self._average
                self.show(facts, maps)
                self._show_behind(cell)

    def top(self, name: MapName, k: int, *, add: bool = False, role: str | None = None) -> None:
        """Select the k largest effects of a map.

        Args:
            name: The map.
            k: How many.
            add: Add them to what is selected, instead of taking its place.
            role: Of a trace: at the tokens of this role ("last subject token", "last token"). A residual trace needs
                one, see ``EffectMap.top``.

        Raises:
            ValueError: The map is not computed, k is out of range, or the map does not have that role or needs one.
                Nothing changes then.
        """
        self._select_from(name, f"top({k!r}{_at(role)})", lambda effect: effect.top(k, role=role), add)

    def above(self, name: MapName, threshold: float, *, add: bool = False, role: str | None = None) -> None:
        """Select all effects of at least a threshold in a map.

        Args:
            name: The map.
            threshold: In units of the measure.
            add, role: As in ``top``.

        Raises:
            ValueError: The map is not computed, the threshold is no number, or no effect is that large. Nothing changes
                then.
        """

        def choose(effect: EffectMap) -> Selection:
            chosen = effect.above(threshold, role=role)
            if not len(chosen):
                where = "" if role is None else f" at the {role}"
                raise ValueError(
                    f"No effect in {TITLES[name]!r}{where} is at least {threshold!r}; the largest is "
                    f"{float(effect.at(role=role).nan_to_num(nan=float('-inf')).max()):.3g}."
                )
            return chosen

        self._select_from(name, f"above({threshold!r}{_at(role)})", choose, add)

    # Inside

    @traitlets.validate("selection")
    def _valid_selection(self, proposal: Any) -> Selection:
        given = proposal["value"]
        chosen = given if isinstance(given, Selection) else Selection(given)
        if len(chosen) and chosen is not self.bar.selection:  # the bar has checked its own
            check_shown(self._maker.sources.model, chosen)
        return chosen

    def _selection_set(self, change: Any) -> None:
        self.bar.selection = change["new"]

    def _bar_changed(self, selection: Selection) -> None:
        """From the bar, which holds it: show it everywhere."""
        with self._lock:
            self.selection = selection
            self._linked.mark(selection)
            self.ranked.mark(selection)
            self._go.disabled = not len(selection)
            self.ablation.recheck()
            self._show_code()

    def _picked(self, change: Callable[[Selection], Selection]) -> None:
        with self._lock:
            self._try(lambda: setattr(self.bar, "selection", change(self.selection)))

    def _select_from(self, name: MapName, call: str, select: Callable[[EffectMap], Selection], add: bool) -> None:
        with self._lock:
            if name not in self.maps:
                how = "choose its trace site above" if name in SITES.values() else f"compute({name!r})"
                raise ValueError(f"The map {TITLES[name]!r} is not computed yet. Wait for it, or {how}.")
            chosen, before = select(self.maps[name]), self.selection if add else Selection()
            self._choice = choose(name, call, chosen, add_to=before, before=self._choice)
            self.bar.selection = before | chosen
            self._show_code()

    def _bar_acted(self, error: BaseException | None) -> None:
        self._say(None)
        self._error = error or self._error  # which the bar shows

    def _computed(self, name: str, exact: bool) -> None:
        if exact and self._choice is not None and name in self._choice.names:
            self._choice = None  # it was made from the estimate, which this map replaces
        super()._computed(name, exact)

    def _other_maps(self) -> None:
        self._choice = None
        self._name_subject()
        self.ablation.clear()
        self.lens.clear()
        self.side.forget()
        self._average = None
        self.behind.clear(self.maps)
        self._ask_about(self.pinned)

    def _cell_chosen(self, name: MapName, index: tuple[int, ...]) -> None:
        with self._lock:
            if self._average is None:  # else the list is that of the average, and what is clicked is one fact's
                self._show_behind((name, index))

    def _ranked_cursor(self, change: Any) -> None:
        if change["new"] is not None:
            self._cell_chosen(self.ranked.name, index_of(Component.parse(change["new"])))

    def _show_behind(self, cell: tuple[MapName, tuple[int, ...]] | None) -> None:
        """List the facts of a cell of the average."""
        facts, maps = self._average or (self._maker.sources.traced, self.maps)
        if cell is not None and (effect := maps.get(cell[0])) is not None:
            notes = {one.id: f"{one.subject}: {one.answer}" for one in facts if isinstance(one, Fact)}
            self.behind.show(cell[0], effect, cell[1], notes)

    def _name_subject(self) -> None:
        first, *more = self._maker.sources.traced
        name = first.subject if isinstance(first, Fact) else first.id
        self.bar.subject = f"{name} and {len(more)} more" if more else name

    def _patterns_came(self) -> None:
        self.side.show_attention(self._linked.attention)

    def _show_maps(self) -> None:
        super()._show_maps()
        if self.behind.cell is None and self._average is None:
            self.behind.clear(self.maps)
        self.side.show_values(self._values_of)

    # The side panel

    def _pin(self, components: Sequence[Component]) -> None:
        for component in components:
            self._try(partial(self.side.toggle, component))

    def _pins_changed(self, pinned: tuple[Component, ...]) -> None:
        self.heads.pinned = [[c.layer, c.index or 0] for c in pinned if c.kind == "H"]
        self.mlps.pinned = [[c.layer, 0] for c in pinned if c.kind == "MLP"]
        self.ranked.pinned = pinned
        self.side.show_attention(self._linked.attention)
        self.side.show_values(self._values_of)
        self._ask_about(pinned)

    def _ask_about(self, pinned: Sequence[Component]) -> None:
        """Compute what the side panel shows and is not there yet."""
        if any(c.kind == "H" for c in pinned):
            self._maker.compute_patterns()
        if len(self._maker.sources.traced) == 1:
            for component in self.side.unasked():
                make = partial(written, self._maker.sources, component)
                self._maker.ask(f"what {component} writes", make, partial(self.side.show_writes, component))

    def _values_of(self, component: Component) -> str:
        others = self.other_values(component) if self.other_values is not None else None
        return values_markup(component, self.maps, others)

    def _picture(self) -> bytes:
        return self.heads.to_png()


def _at(role: str | None) -> str:
    """A role as the last argument of a call."""
    return "" if role is None else f", role={role!r}"
