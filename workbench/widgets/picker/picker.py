"""CircuitPicker: the maps of a fact side by side; clicking their cells selects components.

Python owns the selection. Every map shows the same one: a cell is marked when all components that it stands for are
selected, so a pick in one map shows in the others at once. In a trace a cell stands for its layer's module (a residual
state for the attention and the MLP that read it), so the layer's whole row is marked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast, get_args

import traitlets
from ipywidgets import HTML, Button, HBox, ToggleButtons

from workbench.editing.task import check_selection
from workbench.models.load import LoadedModel
from workbench.types import EffectMap, Fact, FactSet, Form, Selection
from workbench.types.effect import Corruption
from workbench.widgets.picker.captions import notes
from workbench.widgets.picker.code import Choice, choice_code, maps_code
from workbench.widgets.picker.linked_maps import SITES, STYLE, LinkedMaps
from workbench.widgets.picker.maker import FIRST, MapMaker
from workbench.widgets.picker.maps import MAPS, TITLES, MapName, Sources
from workbench.widgets.picker.selection_bar import SelectionBar
from workbench.widgets.picker.top_k import TopKControls
from workbench.widgets.shared import markup
from workbench.widgets.shared.code import facts_code, start_code
from workbench.widgets.shared.code_block import CodeBlock
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.markup import Message
from workbench.widgets.shared.panel import Panel


class CircuitPicker(Panel):
    """The panel shows where a fact lives, and a click picks what to edit.

    Args:
        model: The model; it is not changed.
        fact: One fact, or several (then maps are means, and trace positions are roles). ``picker.fact = other``
            computes the maps again and keeps the selection.
        corruption, form: As in ``causal_trace``. Swaps need a partner in the pool; ``"noise"`` always works. Neurons
            are always corrupted by noise.
        pool: Where swap partners and contrast facts come from; the bundled facts by default.
        compute: Compute the maps at once, in the background; False waits for ``picker.compute(...)``.

    Raises:
        ValueError: No fact, or an unknown corruption.

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
        fact: Fact | FactSet | Sequence[Fact],
        *,
        corruption: Corruption = "swap",
        form: Form | None = None,
        pool: FactSet | None = None,
        compute: bool = True,
    ) -> None:
        sources = Sources(model, _facts(fact), _checked(corruption), form, pool)
        super().__init__(selection=Selection())
        self._eager, self._status_words = compute, ""
        self._choice: Choice | None = None
        self._linked = LinkedMaps(model, self._picked, lambda: self._try(self._site_chosen), self._hovered)
        self.trace, self.heads = self._linked.trace, self._linked.heads
        self.mlps, self.neurons = self._linked.mlps, self._linked.neurons
        self._maker = MapMaker(sources, self._linked, self._lock, self._computed, self._show_progress)
        self.bar = SelectionBar(model, self._bar_changed, self._bar_acted)
        self._from = TopKControls(
            lambda name, k: self._try(lambda: self.top(name, k)),
            lambda name, threshold: self._try(lambda: self.above(name, threshold)),
        )
        self._heading, self._notes, self._status = HTML(), HTML(), HTML()
        self._corruption = ToggleButtons(
            options=[("Swap", "swap"), ("Noise", "noise")],
            value=corruption,
            description="Corrupt by",
            tooltips=["Another subject in the prompt; needs a partner in the pool", "Noise on the subject's tokens"],
            style=STYLE,
            layout={"width": "max-content", "margin": "2px 24px 2px 2px"},
        )
        self._missing = Button(
            description="Compute missing maps",
            icon="refresh",
            tooltip="Heads, MLPs, neurons and the residual trace, so far as they are not there",
            layout={"width": "max-content", "display": "none"},
        )
        self._code = CodeBlock(lambda: self.code, lazy=True)  # a click does not send what nobody sees
        row = HBox([self._corruption, self._linked.site, self._missing], layout={"flex_flow": "row wrap"})
        state = (self._alert, self._status, self._notes)
        self._lay_out(self._heading, row, *state, self._linked, self._from, self.bar, self._code)
        self.observe(self._selection_set, names="selection")
        self._corruption.observe(lambda change: self._try(partial(setattr, self, "corruption", change["new"])), "value")
        self._missing.on_click(lambda _: self._compute_missing())
        self._show_heading()
        self._show_progress()
        if compute:
            self.compute()

    def __repr__(self) -> str:
        facts = ", ".join(f.id for f in self._maker.sources.facts[:3])
        more = f" and {len(self._maker.sources.facts) - 3} more" if len(self._maker.sources.facts) > 3 else ""
        return f"CircuitPicker({facts}{more}: {len(self.selection)} selected)"

    # What it holds

    @property
    def maps(self) -> dict[str, EffectMap]:
        """The maps that are there, by name."""
        return self._maker.maps

    @property
    def status(self) -> str:
        """What is being computed, in words; empty when nothing is."""
        return self._status_words

    @property
    def fact(self) -> Fact | list[Fact]:
        """The fact, or the facts. Setting it computes the maps again, or with ``compute=False`` empties them."""
        facts = self._maker.sources.facts
        return facts[0] if len(facts) == 1 else list(facts)

    @fact.setter
    def fact(self, fact: Fact | FactSet | Sequence[Fact]) -> None:
        with self._lock:
            shown: tuple[MapName, ...] = self._maker.asked or FIRST
            self.show(fact, {})
            if self._eager:
                self.compute(*shown)

    @property
    def corruption(self) -> Corruption:
        """``"swap"`` or ``"noise"``. Setting it computes the maps that were shown again."""
        return self._maker.sources.corruption

    @corruption.setter
    def corruption(self, corruption: Corruption) -> None:
        if _checked(corruption) == self.corruption:
            return
        with self._lock:
            shown: tuple[MapName, ...] = self._maker.asked
            staying = {"neurons": self.maps["neurons"]} if "neurons" in self.maps else {}
            self._maker.sources = replace(self._maker.sources, corruption=corruption)
            self._corruption.value = corruption
            self.show(self.fact, staying)
            missing: list[MapName] = [name for name in shown if name not in staying]
            if missing:
                self.compute(*missing)

    @property
    def job(self) -> Job[None] | None:
        """The computation of the maps; ``picker.job.wait()`` waits for it and raises its first error."""
        return self._maker.job

    @property
    def code(self) -> str:
        """Python that makes the maps that are shown and the selection."""
        start = start_code(self._maker.sources.model)
        if self._maker.sources.model.applied:
            start = "import workbench as wb\n\nmodel = ...  # the edited model that this picker was given\n"
        given = facts_code(self._maker.sources.facts, self._maker.sources.pool)
        return f"{start}{given}{self.shown_code()}"

    def shown_code(self, saved: Collection[str] = ()) -> str:
        """Its part after the model and the facts.

        Args:
            saved: Maps that ``session.maps`` holds: they are read from there.
        """
        maps = maps_code(self._maker.sources, self.maps, saved)
        return f"{maps}{choice_code(self.selection, self._choice)}"

    # What it does

    def compute(self, *names: MapName) -> Job[None]:
        """Compute maps in the background, one after the other, and show each as it is done.

        A trace is drawn layer by layer. Heads and MLPs are shown by their gradient attribution at first; when all else
        is done, each is patched, and the exact effects take the place of the estimates, layer by layer too (of one
        fact, and of at most ``maps.EXACT_CELLS`` heads). Until the last layer is there, the largest ones are chosen by
        the estimates.

        Args:
            names: ``"heads"``, ``"mlps"``, ``"neurons"``, or a trace: ``"resid"``, ``"mlp"``, ``"attn"``. None: the
                first three and the residual trace.

        Returns:
            The job that computes them; one that is going takes them up.

        Raises:
            ValueError: An unknown name.
        """
        if unknown := [n for n in names if n not in MAPS]:
            raise ValueError(f"Unknown map(s) {unknown}; allowed are {list(MAPS)}.")
        with self._lock:
            job = self._maker.compute(names or FIRST)
            self._say(None)
            return job

    def show(self, fact: Fact | FactSet | Sequence[Fact], maps: Mapping[str, EffectMap]) -> None:
        """Show a fact with maps that were computed before, and go on with their corruption; the selection stays."""
        with self._lock:
            shown = {name: maps[name] for name in MAPS if name in maps}
            made_with = [effect.corruption for name, effect in shown.items() if name != "neurons"]
            corruption = next(filter(None, made_with), self.corruption)
            sources = replace(self._maker.sources, facts=_facts(fact), corruption=corruption, partner=None)
            self._maker.show(sources, shown)
            self._corruption.value = corruption
            self._choice = None
            self._say(None)
            self._linked.clear()
            for name, effect in shown.items():
                self._linked.show(cast(MapName, name), effect)
            self._notes.value = notes(self.maps)
            self._show_heading()
            self._show_progress()
            self._show_code()

    def top(self, name: MapName, k: int) -> None:
        """Select the k largest effects of a map.

        Raises:
            ValueError: The map is not computed, or k is out of range. Nothing changes then.
        """
        self._select_from(name, f"top({k!r})", lambda effect: effect.top(k))

    def above(self, name: MapName, threshold: float) -> None:
        """Select all effects of at least a threshold in a map.

        Raises:
            ValueError: The map is not computed, the threshold is no number, or no effect is that large. Nothing changes
                then.
        """

        def choose(effect: EffectMap) -> Selection:
            chosen = effect.above(threshold)
            if not len(chosen):
                largest = float(effect.values.nan_to_num(nan=float("-inf")).max())
                raise ValueError(
                    f"No effect in {TITLES[name]!r} is at least {threshold!r}; the largest is {largest:.3g}."
                )
            return chosen

        self._select_from(name, f"above({threshold!r})", choose)

    # Inside

    def _compute_missing(self) -> None:
        with self._lock:
            if names := self._maker.missing:
                self.compute(*names)

    @traitlets.validate("selection")
    def _valid_selection(self, proposal: Any) -> Selection:
        given = proposal["value"]
        chosen = given if isinstance(given, Selection) else Selection(given)
        if len(chosen) and chosen is not self.bar.selection:  # the bar has checked its own
            check_selection(self._maker.sources.model, chosen)
        return chosen

    def _selection_set(self, change: Any) -> None:
        self.bar.selection = change["new"]

    def _bar_changed(self, selection: Selection) -> None:
        """From the bar, which holds it: show it everywhere."""
        with self._lock:
            self.selection = selection
            self._linked.mark(selection)
            self._show_code()

    def _picked(self, change: Callable[[Selection], Selection]) -> None:
        with self._lock:
            self._try(lambda: setattr(self.bar, "selection", change(self.selection)))

    def _select_from(self, name: MapName, call: str, choose: Callable[[EffectMap], Selection]) -> None:
        with self._lock:
            if name not in self.maps:
                how = "choose its trace site above" if name in SITES.values() else f"compute({name!r})"
                raise ValueError(f"The map {TITLES[name]!r} is not computed yet. Wait for it, or {how}.")
            selection = choose(self.maps[name])
            self._choice = Choice(name, call, tuple(selection))
            self.bar.selection = selection
            self._show_code()

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
                words.insert(0, f"{error}")
            if any(failure.needs_noise for failure in failures):
                words.append("Here: press Noise at Corrupt by.")
            self._error = error or next((failure.error for failure in failures), None)
            self._tell(*([Message("\n".join(words), "error")] if words else []))

    def _bar_acted(self, error: BaseException | None) -> None:
        self._say(None)
        self._error = error or self._error  # which the bar shows

    def _hovered(self) -> None:
        """Patterns of maps that were computed elsewhere are made when somebody points at a head."""
        self._maker.compute_patterns()

    def _computed(self, name: MapName, exact: bool) -> None:
        if exact and self._choice is not None and self._choice.name == name:
            self._choice = None  # it was made from the estimate, which this map replaces
        self._notes.value = notes(self.maps)
        self._show_code()

    # What it shows

    def _show_heading(self) -> None:
        facts = self._maker.sources.facts
        what = "; ".join(f.question for f in facts[:3]) + (f" and {len(facts) - 3} more" if len(facts) > 3 else "")
        note = f"{facts[0].answer} -> {facts[0].target}" if len(facts) == 1 else f"means over {len(facts)} facts"
        self._heading.value = markup.panel_title(what, note)

    def _show_progress(self) -> None:
        with self._lock:
            waiting, failed = self._maker.waiting, self._maker.failed
            now = f"Computing: {TITLES.get(cast(MapName, waiting[0]), waiting[0]).lower()}" if waiting else ""
            self._status_words, self._status.value = now, markup.progress(None, 1, now) if now else ""
            self._missing.layout.display = None if self._maker.missing else "none"
            for name in self._linked.named():
                why = "waiting" if name in waiting else "failed, see above" if name in failed else "not computed"
                self._linked.blank(name, "computing" if waiting[:1] == (name,) else why)
            self._maker.settle()
            if failed:
                self._say(None)

    def _site_chosen(self) -> None:
        with self._lock:
            name = self._linked.trace_name
            if name in self.maps:
                self._linked.show(name, self.maps[name])
            else:
                self.compute(name)

    def _picture(self) -> bytes:
        return self.heads.to_png()


def _facts(fact: Fact | FactSet | Sequence[Fact]) -> tuple[Fact, ...]:
    facts = (fact,) if isinstance(fact, Fact) else tuple(fact)
    if not facts:
        raise ValueError("CircuitPicker needs at least one fact, got none.")
    return facts


def _checked(corruption: Corruption) -> Corruption:
    if corruption not in get_args(Corruption):
        raise ValueError(f"corruption must be one of {get_args(Corruption)}, got {corruption!r}.")
    return corruption
