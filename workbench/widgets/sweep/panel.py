"""SweepPanel: a sweep in the background, with its progress, what failed, the average so far, Cancel and resume."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from ipywidgets import HTML, VBox

from workbench.files.paths import user_path, whole_path
from workbench.models.load import LoadedModel
from workbench.pace import duration
from workbench.sweeps.described import function_path
from workbench.sweeps.folder import SweepFolder
from workbench.sweeps.items import check_takes, checked_options, items_of
from workbench.sweeps.model_source import given_source
from workbench.sweeps.results import SweepResults
from workbench.sweeps.sweep import sweep
from workbench.types import Contrast, Fact, FactSet
from workbench.widgets.picker.behind import picker_maps
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.code import facts_code, is_bundled, needs_facts, own_pool, pool_code, start_code
from workbench.widgets.shared.contrast_words import contrasts_code
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.run_panel import RunPanel, RunWords
from workbench.widgets.shared.text_card import text_card_png
from workbench.widgets.sweep.average import average_picker, averaged, show_average
from workbench.widgets.sweep.views import average_view, failures_view

SECONDS_BETWEEN_AVERAGES = 5.0
SHARE_OF_AVERAGES = 0.1
"""An average reads every result: it may take so much of the time at most."""


class SweepPanel(RunPanel[SweepResults]):
    """The panel runs a sweep in the background. Run goes on after what is finished already; Cancel stops it after the
    items that are going on, and Run resumes.

    Args:
        function, facts_or_contrasts, out, executor, model: As ``wb.sweep`` takes them.
        options: For the function.

    Raises:
        TypeError, ValueError: As ``wb.sweep``, of the items and the options; anything else is shown when it runs.

    Example:
        >>> panel = wb.SweepPanel(wb.attribute, facts[:2], out="heads", model=model, pool=facts)
        >>> panel.run().wait()
        Sweep('heads', workbench.tracing.attribution:attribute, 2 of 2 items)
        >>> panel.average.n, panel.results.failed
        (2, {})
    """

    WORDS = RunWords(
        label="Run",
        icon="play",
        tip="Compute what is not finished yet, in the background; what failed is tried again",
        cancel_tip="Stop after the items going on; Run resumes",
        refused="The sweep is running already; wait for it or cancel.",
        cancelling="Cancelling: it stops after the items that are going on.",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        facts_or_contrasts: Any,
        *,
        out: str | Path,
        executor: Executor | None = None,
        model: LoadedModel | str | Path | None = None,
        **options: Any,
    ) -> None:
        self._items = items_of(facts_or_contrasts)
        checked_options(function, options)
        check_takes(function, self._items)
        super().__init__()
        self._function, self._executor, self._options = function, executor, options
        self._folder, self._out = SweepFolder(out).path, user_path(out)
        self._named = model
        self._model = whole_path(model) if isinstance(model, (str, Path)) else model
        self._done = self._failed_now = 0
        self._average: Any = None
        self._next_average = 0.0
        self._failures, self._averages = HTML(), HTML()
        self._picker: CircuitPicker | None = None
        self._place = VBox()
        self._maps = layout.quiet_button(
            "Show the average as maps", icon="th", tooltip="Click a cell: the facts that make it, and the maps of each"
        )
        layout.show(self._maps, False)
        self._maps.on_click(lambda _: self._maps_wanted())
        self._lay_out_run([], [self._failures, self._averages, self._maps, self._place])
        self._heading.value = markup.panel_title("Sweep", f"{self._name} over {len(self._items)} items, in {self._out}")
        self.on_end(lambda _: self._look())
        self._look()
        self._show_code()

    def __repr__(self) -> str:
        return f"SweepPanel({self._name}, {len(self._items)} items, {str(self._out)!r})"

    @property
    def _name(self) -> str:
        return function_path(self._function).rpartition(":")[2]

    @property
    def results(self) -> SweepResults | None:
        """What is in the folder now; None before the first run."""
        try:
            return SweepResults(self._folder)
        except FileNotFoundError:
            return None

    @property
    def average(self) -> Any:
        """The mean that is shown (``SweepResults.mean``); None where there is none yet, or the results have none."""
        return self._average

    @property
    def picker(self) -> CircuitPicker | None:
        """The average as maps, whose cells lead to the facts that make them; None before ``show_maps``."""
        return self._picker

    def show_maps(self) -> CircuitPicker:
        """Show the average of what has finished as maps. Later it can be called again, for the average of then.

        Returns:
            The picker that shows them. Its model is loaded for it where the sweep's is named by a folder or hub id.

        Raises:
            ValueError: Nothing has finished, or the results have no map that a picker shows.
        """
        results = self.results
        if results is None:
            raise ValueError("Nothing has finished yet: run the sweep first.")
        mine = {item.id for item in self._items}
        facts = [id for id in results.facts.ids if id in mine]
        if self._picker is None:
            model = self._model if isinstance(self._model, LoadedModel) else given_source(self._model).load()
            self._picker = average_picker(model, results, facts, pool=self._pool)
            self._place.children = (self._picker,)
        else:
            show_average(self._picker, results, *averaged(results, facts), self._pool)
        return self._picker

    @property
    def _pool(self) -> FactSet | None:
        """The pool that the function is given."""
        pool = self._options.get("pool")
        return pool if isinstance(pool, FactSet) else None

    @property
    def code(self) -> str:
        """Python that repeats it, and goes on after what is finished."""
        start = start_code(self._model) if isinstance(self._model, LoadedModel) else "import workbench as wb\n\n"
        return start + self.shown_code

    @property
    def shown_code(self) -> str:
        """Its part after the model."""
        named = "" if self._named is None else f", model={str(self._named)!r}"
        model = ", model=model" if isinstance(self._model, LoadedModel) else named
        module, _, function = function_path(self._function).partition(":")
        given = "".join(f", {name}={_argument(name, value)}" for name, value in self._given().items())
        executor = "" if self._executor is None else ", executor=executor"
        call = f"sweep({function}, items, out={str(self._out)!r}{executor}{model}{given})"
        return f"from {module} import {function}\n\n{self._items_code()}results = wb.{call}\n"

    def _given(self) -> dict[str, Any]:
        """The options without a pool that is the bundled one, which is the default."""
        if self._pool is None or own_pool(self._pool):
            return self._options
        return {name: value for name, value in self._options.items() if name != "pool"}

    def _items_code(self) -> str:
        """The lines that make the items, and the pool."""
        values = [item.value for item in self._items]
        pool = self._pool if own_pool(self._pool) else None
        of_ids = [getattr(value, "id", None) for value in values] == [item.id for item in self._items]
        if of_ids and all(isinstance(value, Fact) for value in values):
            if not all(map(is_bundled, values)):
                return facts_code(values, pool, name="items")
            items = f"items = wb.load_facts().filter(ids={[item.id for item in self._items]!r})\n"
        elif of_ids and all(isinstance(value, Contrast) for value in values):
            items = f"{contrasts_code(values)}items = contrast\n"
        else:
            items = "items = ...  # those that the panel was given\n"
        load = "facts = wb.load_facts()\n" * needs_facts((), pool)
        return items if pool is None else f"{load}{pool_code(pool)}{items}"

    def _settings(self) -> dict[str, Any]:
        return {}

    def _order(self) -> Callable[[threading.Event], SweepResults]:
        began = time.perf_counter()
        results = self.results
        there = sum(item.id in results for item in self._items) if results is not None else 0
        self._done, self._failed_now = there, 0

        def tell(id: str, good: bool) -> None:
            self._done += good
            self._failed_now += not good
            if self._due() and self._going:
                self._say(self._progress_words(there, time.perf_counter() - began))
            if time.perf_counter() > self._next_average:
                self._look()

        def swept(cancel: threading.Event) -> SweepResults:
            options: dict[str, Any] = {"cancel": cancel, "on_item": tell, "progress": False, **self._options}
            given = [self._function, {item.id: item.value for item in self._items}]
            return sweep(*given, out=self._folder, executor=self._executor, model=self._model, **options)

        return swept

    def _progress_words(self, there: int, seconds: float) -> markup.Progress:
        now, total = self._done - there + self._failed_now, len(self._items)
        ended = self._done + self._failed_now
        failed = f", {self._failed_now} failed" if self._failed_now else ""
        left = f", about {duration(seconds / now * (total - ended))} left" if now else ""
        return markup.Progress(f"{self._done} of {total}{failed}{left}", ended, total)

    def _look(self) -> None:
        """Show what failed, and the average of what has finished."""
        results = self.results
        if results is None or not results.made_by(self._function, self._options):
            return  # another sweep's folder: Run says so
        began = time.perf_counter()
        mine = {item.id for item in self._items}
        self._failures.value = failures_view({id: one for id, one in results.failed.items() if id in mine})
        finished = [id for id in results if id in mine]
        try:
            self._average = results.mean(finished) if finished else None
            self._averages.value = average_view(self._average, len(finished)) if finished else ""
            layout.show(self._maps, bool(picker_maps(self._average)))
        except (TypeError, ValueError) as error:  # of maps that no mean is of, and what has none
            self._average = None
            self._averages.value = markup.block(markup.hint(f"No average: {error}"))
        took = time.perf_counter() - began
        self._next_average = time.perf_counter() + max(SECONDS_BETWEEN_AVERAGES, took / SHARE_OF_AVERAGES)

    def _maps_wanted(self) -> None:
        try:
            self.show_maps()
        except (OSError, TypeError, ValueError) as error:
            self._fail(error)

    def _finished(self, job: Job[SweepResults]) -> None:
        """All is shown by `_look`, however a run ends."""

    def _picture(self) -> bytes:
        return text_card_png("SweepPanel", [repr(self), "Run this cell to use the panel."])


def _argument(name: str, value: Any) -> str:
    """An option in code: as it is where that can be read, else a variable of its name."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return repr(value) if all(isinstance(v, (bool, int, float, str, type(None))) for v in values) else name
