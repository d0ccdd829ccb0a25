"""MapsRun: the maps before and after an edit, as they are chosen and computed; the half of a ``CompareView`` that runs.

The maps are computed in the background, without a press once the view is looked at, and are there again when the menus
come back to them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ipywidgets import HTML

from workbench.comparing.maps import MapComparison
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact, FactSet, Form
from workbench.widgets.compare.before_after import SITE_WORDS, BeforeAfterMaps, maps_title, step_words
from workbench.widgets.compare.comparisons import Comparisons
from workbench.widgets.compare.menus import MapMenus
from workbench.widgets.compare.wanted import Compared, Wanted
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.picker.maps import head_groups
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.measure import Measure
from workbench.widgets.shared.run_panel import RunPanel, RunWords


class MapsRun(RunPanel[MapComparison]):
    """Computes maps and shows them.

    Args:
        model: The edits' base.
        edit, fact: What is compared, and on which fact.
        pool: Where swap partners come from; None for the bundled facts.
    """

    WORDS = RunWords(
        label="Compare",
        icon="columns",
        tip="Compute both maps, at the stage and the strength above",
        cancel_tip="Stop after the layer going on",
        refused="A comparison is running already; wait for it or cancel it.",
        cancelling="Cancelling: it stops after the layer that is going on.",
    )
    TICK_SECONDS = 1.0

    def __init__(self, model: LoadedModel, edit: Edit, fact: Fact, pool: FactSet | None) -> None:
        super().__init__()
        self._model, self._pool, self._edit, self._fact = model, pool, edit, fact
        self._shown: Compared | None = None
        self._comparisons = Comparisons(model, pool)
        self._measure_callbacks: list[Callable[[Measure], object]] = []
        self._loading = self._in_sight = self._again = self._given_up = False
        self._maps, self._title = BeforeAfterMaps(), HTML()
        self._menus = MapMenus(self._maps_chosen, self._measure_chosen)

    @property
    def site(self) -> str:
        """Which map: ``"resid"``, ``"mlp"``, ``"attn"`` or ``"head"``. Settable."""
        return str(self._menus.site.value)

    @site.setter
    def site(self, site: str) -> None:
        self._menus.site.value = site

    @property
    def measure(self) -> Measure:
        """The metric and the corruption of the maps. Settable; the maps follow when the view is next looked at."""
        return self._menus.measure

    @measure.setter
    def measure(self, measure: Measure) -> None:
        self._menus.measure = measure
        self._set_apart()

    @property
    def partner(self) -> Fact | None:
        """The fact whose subject is swapped in; None for one of the pool. Settable, as ``measure``."""
        return self._menus.partner

    @partner.setter
    def partner(self, partner: Fact | None) -> None:
        self._menus.partner = partner
        self._set_apart()

    @property
    def form(self) -> Form | None:
        """``"chat"``, ``"cloze"``, or None for the first that holds the answer. Settable, as ``measure``."""
        return self._menus.form

    @form.setter
    def form(self, form: Form | None) -> None:
        self._menus.form = form
        self._set_apart()

    @property
    def result(self) -> MapComparison | None:
        """The maps shown; they say at which strength they are."""
        return self._shown.result if self._shown is not None else None

    @property
    def grids(self) -> tuple[HeatGrid, ...]:
        """The maps shown: before, after, after minus before."""
        return self._maps.grids

    def on_measure(self, callback: Callable[[Measure], object]) -> None:
        """Call ``callback(measure)`` when another measure was chosen in the view's own menus."""
        self._measure_callbacks.append(callback)

    def compare(self) -> Job[MapComparison]:
        """Compute the chosen maps in the background. While others are computed, this only says so."""
        return self.run()

    def cancel(self) -> None:
        """Ask the comparison to stop where it next looks. No effect when none is going on."""
        self._again = False
        super().cancel()

    # What a view says

    def _at(self) -> tuple[str, float]:
        """The stage and the strength of the maps that are wanted now."""
        raise NotImplementedError

    # The maps' job

    def _order(self) -> Callable[[threading.Event], MapComparison]:
        wanted = self._wanted()
        order = self._comparisons.order(self._edit, wanted, self._lock, self._step)
        self._given_up, self._done = False, (0, 1)
        self._say(f"{SITE_WORDS[wanted.site]}: before the edit.")
        return lambda cancel: order(cancel).result

    def _step(self, done: int, total: int) -> None:
        self._done = done, total
        self._tick()

    def _tick(self) -> None:
        with self._lock:
            if self._busy and self._job is not None and self._going and self._due():
                self._say(step_words(self._job.seconds, *self._done))

    def _finished(self, job: Job[MapComparison]) -> None:
        self._show_compared()

    def _ended(self, job: Job[MapComparison]) -> None:
        super()._ended(job)
        with self._lock:
            if self._given_up:  # nobody asked for its end
                self._tell()
                self._say_plainly("")
            if self._again:
                self._again = False
                self._compare_unasked()

    def _give_up(self) -> None:
        """Cancel what is going on, since something else is looked at; it may be begun again."""
        if self._busy and self._job is not None:
            self._given_up = True
            self._job.cancel()
            self._comparisons.give_up()

    def _compare_unasked(self) -> None:
        """Start what is wanted where it is neither there nor was begun, in the place of what is going on."""
        with self._lock:
            if not self._in_sight or not self._comparisons.untried(self._edit, self._wanted()):
                return
            self._give_up()
            self._again = self._busy
            if not self._busy:
                self.run()

    # What it shows

    def _wanted(self) -> Wanted:
        return self._menus.wanted(self._fact, *self._at())

    def _show_compared(self) -> None:
        """The maps of what the menus say, where they are computed; else none, so that maps, menus and code agree. Maps
        of another strength than the slider's stay, and say so."""
        if self._loading:
            return
        with self._lock:
            wanted = self._wanted()
            found = self._comparisons.nearest(self._edit, wanted)
            if found is not self._shown:
                self._shown = found
                self._maps.show(found, pool=self._pool, groups=head_groups(self._model))
            self._title.value = maps_title(found, wanted)
            self._show_code()

    def _maps_chosen(self) -> None:
        self._show_compared()
        self._compare_unasked()

    def _measure_chosen(self) -> None:
        for callback in self._measure_callbacks:
            callback(self.measure)

    def _set_apart(self) -> None:
        """Something was set from outside, when the view need not be in sight."""
        self._in_sight = False
        self._show_compared()
