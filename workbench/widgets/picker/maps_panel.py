"""MapsPanel: maps with one measure, computed in the background; what a ``CircuitPicker`` picks from.

All maps show the same metric, corruption, partner and form. This half of the panel computes and shows them and says
what they are; it holds no selection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import EllipsisType
from typing import Any, cast

from ipywidgets import HTML

from workbench.models.load import LoadedModel
from workbench.types import Contrast, EffectMap, Fact, Form, Selection
from workbench.types.contrast import Traced, as_traced
from workbench.types.effect import Corruption
from workbench.widgets.picker.attention import Attention
from workbench.widgets.picker.captions import heading, measure_line, measure_of, notes
from workbench.widgets.picker.linked_maps import LinkedMaps
from workbench.widgets.picker.maker import PATTERNS, MapMaker
from workbench.widgets.picker.maps import MAPS, MapName, Sources
from workbench.widgets.picker.measure_row import MeasureRow
from workbench.widgets.picker.ranked_list import RankedList
from workbench.widgets.picker.status_line import StatusLine
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.markup import Message
from workbench.widgets.shared.measure import Measure
from workbench.widgets.shared.panel import Panel
from workbench.widgets.shared.voice import person


class MapsPanel(Panel):
    """Maps, their measure, and the list of their largest effects.

    Args:
        sources: What the maps are made of.
        eager: Whether another fact's maps are computed at once.
        traits: Of the subclass.
    """

    def __init__(self, sources: Sources, *, eager: bool, **traits: Any) -> None:
        super().__init__(**traits)
        self._eager = eager
        self._attention_callbacks: list[Callable[[], object]] = []
        self._measure_callbacks: list[Callable[[Measure], object]] = []
        self._progress_callbacks: list[Callable[[], object]] = []
        picked = self._picked
        chosen = lambda: self._try(self._site_chosen)  # noqa: E731
        self._linked = LinkedMaps(sources.model, picked, chosen, self._hovered, self._cell_chosen)
        self.trace, self.heads, self.mlps = self._linked.trace, self._linked.heads, self._linked.mlps
        self.ranked = RankedList(sources.model, picked, lambda name: self._try(lambda: self._ranked_chosen(name)))
        self._line = StatusLine(lambda: self._try(self.cancel))
        self._maker = MapMaker(sources, self._linked, self._lock, self._computed, self._show_progress, self._show_line)
        self._heading, self._notes, self._measured = HTML(), HTML(), HTML()
        self._missing = layout.quiet_button(
            "Compute missing maps",
            icon="refresh",
            tooltip="Heads, MLPs, neurons and the residual trace, so far as they are not there",
        )
        self._measures = MeasureRow(
            sources.measure,
            lambda measure: self._try(lambda: setattr(self, "measure", measure)),
            self._linked.set_scale,
            self._linked.site,
            self._missing,
        )
        self._measures.show(sources.measure, own_corruption=bool(sources.contrasts))
        self._missing.on_click(lambda _: self._compute_missing())

    def __repr__(self) -> str:
        traced = self._maker.sources.traced
        more = f" and {len(traced) - 3} more" if len(traced) > 3 else ""
        return f"{type(self).__name__}({', '.join(one.id for one in traced[:3])}{more})"

    # What it holds

    @property
    def model(self) -> LoadedModel:
        """The model whose maps are shown."""
        return self._maker.sources.model

    @property
    def maps(self) -> dict[str, EffectMap]:
        """The maps that are there, by name."""
        return self._maker.maps

    @property
    def status(self) -> str:
        """What is being computed, in words; empty when nothing is."""
        return self._line.words

    @property
    def fact(self) -> Traced:
        """The fact or the contrast, or several of one kind as a list. Setting it computes the maps again, or with
        ``compute=False`` empties them."""
        sources = self._maker.sources
        if len(sources.traced) == 1:
            return sources.traced[0]
        return list(sources.contrasts) if sources.contrasts else list(sources.facts)

    @fact.setter
    def fact(self, fact: Traced) -> None:
        with self._lock:
            shown: tuple[MapName, ...] = self._maker.asked or self._maker.first
            self.show(fact, {})
            if self._eager:
                self.compute(*shown)

    @property
    def measure(self) -> Measure:
        """The metric and the corruption of all maps. Setting it computes the maps that were shown again; the selection
        stays. Where no subject can be swapped in, the maps are corrupted by noise, and the choice stays."""
        return self._maker.sources.measure

    @measure.setter
    def measure(self, measure: Measure) -> None:
        if measure != self.measure:
            self._change(measure=measure)

    @property
    def corruption(self) -> Corruption:
        """The corruption of ``measure``: ``"swap"`` or ``"noise"``. Settable."""
        return self.measure.corruption

    @corruption.setter
    def corruption(self, corruption: Corruption) -> None:
        self.measure = replace(self.measure, corruption=corruption)

    @property
    def partner(self) -> Fact | None:
        """The fact whose subject is swapped in: the one given, or the one that the first map has chosen; None before
        that, for several facts and with noise. Setting it computes the maps that were shown again, None with another
        choice."""
        return self._maker.sources.partner

    @partner.setter
    def partner(self, partner: Fact | None) -> None:
        if partner != self.partner:
            self._change(partner=partner)

    @property
    def form(self) -> Form | None:
        """``"chat"``, ``"cloze"``, or None for the first in which the base says the answer. Setting it computes the
        maps that were shown again."""
        return self._maker.sources.form

    @form.setter
    def form(self, form: Form | None) -> None:
        if form != self.form:
            self._change(form=form)

    @property
    def job(self) -> Job[None] | None:
        """The computation of the maps; ``picker.job.wait()`` waits for it and raises its first error."""
        return self._maker.job

    @property
    def attention(self) -> Attention | None:
        """The heads' attention on the text that is shown, where it is there: of one fact or contrast."""
        return self._linked.attention

    @property
    def corrupted_by(self) -> Corruption:
        """How the maps are corrupted: as ``corruption`` says, but for a contrast, which has its own, and for a fact
        into which nothing can be swapped, which gets noise."""
        return self._maker.sources.corruption

    def on_attention(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` when ``attention`` has come."""
        self._attention_callbacks.append(callback)

    def on_measure(self, callback: Callable[[Measure], object]) -> None:
        """Call ``callback(measure)`` after another measure was chosen, by hand or by Python."""
        self._measure_callbacks.append(callback)

    def on_progress(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` whenever other maps are shown, asked for or there: what measures them may have changed. A
        job calls it without the panel's lock."""
        self._progress_callbacks.append(callback)

    # What it does

    def compute(self, *names: MapName) -> Job[None]:
        """Compute maps in the background, one after the other, and show each as it is done.

        A trace is drawn layer by layer. Heads, MLPs and attention layers are shown by their gradient attribution at
        first; when all else is done, each is patched, and the exact effects take the place of the estimates, layer by
        layer too (of one fact, and of at most ``maps.EXACT_CELLS`` heads). Until the last layer is there, the largest
        ones are chosen by the estimates.

        Args:
            names: ``"heads"``, ``"mlps"``, ``"neurons"``, ``"attentions"``, or a trace: ``"resid"``, ``"mlp"``,
                ``"attn"``. None: heads, MLPs, neurons and the residual trace.

        Returns:
            The job that computes them; one that is going takes them up.

        Raises:
            ValueError: An unknown name.
        """
        if unknown := [n for n in names if n not in MAPS]:
            raise ValueError(f"Unknown map(s) {unknown}; allowed are {list(MAPS)}.")
        with self._lock:
            job = self._maker.compute(names or self._maker.first)
            self._say(None)
            return job

    def compute_attention(self) -> None:
        """Read the heads' attention in the background, where it is not there and one fact or contrast is shown."""
        self._maker.compute_patterns()

    def cancel(self) -> None:
        """Stop computing maps; those that are there stay."""
        self._maker.cancel()

    def show(
        self,
        fact: Traced,
        maps: Mapping[str, EffectMap],
        *,
        partner: Fact | None = None,
        form: Form | EllipsisType | None = ...,
    ) -> None:
        """Show a fact or a contrast with maps that were computed before, and go on with their measure; the selection
        stays.

        Args:
            fact: One fact or contrast, or several.
            maps: By name; others are ignored.
            partner: The fact to swap in; None for the one of the maps, or the first that fits.
            form: As in the constructor; by default as it is.
        """
        with self._lock:
            shown = {name: maps[name] for name in MAPS if name in maps}
            traced, measure, instead = as_shown(fact), self.measure, ""
            if shown:
                made = measure_of(next(iter(shown.values())), measure)
                if isinstance(traced[0], Contrast):  # its corruption is its own, and the choice for facts stays
                    made = replace(made, corruption=measure.corruption)
                elif made.corruption == "noise" and measure.corruption == "swap":
                    instead = self._maker.fell_back(traced)
                measure = replace(made, corruption="swap") if instead else made
            self._show(
                replace(
                    self._maker.sources,
                    traced=traced,
                    measure=measure,
                    instead=instead,
                    partner=partner,
                    form=self.form if isinstance(form, EllipsisType) else form,
                ),
                shown,
            )

    # What a subclass does

    def _picked(self, change: Callable[[Selection], Selection]) -> None:
        """A pick in the browser: from the selection before to the one after it."""
        raise NotImplementedError

    def _computed(self, name: str, exact: bool) -> None:
        """A map came, or the attention patterns; ``exact`` where it takes the place of an estimate. Called with the
        lock."""
        if name == PATTERNS:
            self._patterns_came()
            for callback in self._attention_callbacks:
                callback()
            return
        self._show_maps()
        self._show_code()

    def _patterns_came(self) -> None:
        """The attention of all heads is there."""

    def _other_maps(self) -> None:
        """Other maps are shown, or none."""

    def _cell_chosen(self, name: MapName, index: tuple[int, ...]) -> None:
        """The cursor went to a cell of a map."""

    # Inside

    def _change(self, **sources: Any) -> None:
        """The same fact with other settings: what was shown is computed again."""
        with self._lock:
            shown: tuple[MapName, ...] = self._maker.asked
            self._show(replace(self._maker.sources, **{"instead": "", "partner": None, **sources}), {})
            if shown:
                self.compute(*shown)

    def _show(self, sources: Sources, maps: dict[str, EffectMap]) -> None:
        before = self.measure
        self._maker.show(sources, maps)
        self._linked.clear()
        self._other_maps()
        for name, effect in maps.items():
            self._linked.show(cast(MapName, name), effect)
        self._measures.show(sources.measure, own_corruption=bool(sources.contrasts))
        self._show_heading()
        self._show_maps()
        self._show_progress()
        self._show_code()
        self._say(None)
        if sources.measure != before:
            for callback in self._measure_callbacks:
                callback(sources.measure)

    def _compute_missing(self) -> None:
        with self._lock:
            if names := self._maker.missing:
                self.compute(*names)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # would vanish in the log console
            self._say(error)
        else:
            self._say(None)

    def _say(self, error: BaseException | None) -> None:
        """Show and keep an error of an action. Without one, those of maps that could not be made stay."""
        with self._lock:
            failures = self._maker.failures
            words = [failure.words for failure in failures]
            if error is not None:
                words.insert(0, person(error))
            self._error = error or next((failure.error for failure in failures), None)
            instead = self._maker.sources.instead
            messages = [Message("\n".join(words), "error")] if words else []
            self._tell(*messages, *([Message(instead)] if instead else []))

    def _hovered(self) -> None:
        """Patterns of maps that were computed elsewhere are made when somebody points at a head."""
        self._maker.compute_patterns()

    # What it shows

    def _show_heading(self) -> None:
        self._heading.value = markup.panel_title(*heading(self._maker.sources))

    def _show_maps(self) -> None:
        """What is said about the maps, and the list of their largest effects."""
        self._measured.value = measure_line(self._maker.sources, self.maps)
        self._notes.value = notes(self._maker.sources, self.maps)
        self.ranked.show(self.maps, self._why_missing(self.ranked.name))

    def _why_missing(self, name: MapName) -> str:
        waiting = self._maker.waiting
        if name in waiting:
            return "computing" if waiting[0] == name else "waiting"
        if name in self._maker.failed:
            return "failed, see above"
        return "cancelled" if self._maker.cancelled else "not computed"

    def _show_line(self) -> None:
        with self._lock:  # time ticks in a thread of its own
            self._line.show(self._maker.progress)

    def _show_progress(self) -> None:
        with self._lock:
            self._show_line()
            layout.show(self._missing, bool(self._maker.missing))
            for name in self._linked.named():
                self._linked.blank(name, self._why_missing(name))
            self.ranked.show(self.maps, self._why_missing(self.ranked.name))
            self._maker.settle()
            if self._maker.failed or self._maker.sources.instead:
                self._say(None)
        for callback in self._progress_callbacks:
            callback()

    def _site_chosen(self) -> None:
        with self._lock:
            name = self._linked.trace_name
            if name in self.maps:
                self._linked.show(name, self.maps[name])
            else:
                self.compute(name)

    def _ranked_chosen(self, name: MapName) -> None:
        with self._lock:
            if name not in self.maps and name not in self._maker.waiting:
                self.compute(name)


def as_shown(fact: Traced) -> tuple[Fact, ...] | tuple[Contrast, ...]:
    """What is shown as a tuple; raises as ``as_traced``."""
    given = as_traced(fact, "CircuitPicker")
    contrasts = tuple(one for one in given if isinstance(one, Contrast))
    return contrasts or tuple(one for one in given if isinstance(one, Fact))
