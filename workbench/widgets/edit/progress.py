"""RunProgress: the phases of the edit that is being made, and the curve of its fit so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ipywidgets import HTML, VBox

from workbench.types import BaseRecipe, Fact, Step, TrainedRecipe
from workbench.widgets.edit.course import AGAIN, Course
from workbench.widgets.edit.timeline import Phase, Speeds, Timeline
from workbench.widgets.shared import markup
from workbench.widgets.shared.stepper import stepper
from workbench.widgets.shared.timing import Span


class RunProgress(VBox):
    """Empty until a run begins; afterwards it holds how long each phase took.

    Args:
        speeds: How long kinds of work take; each run adds to it.
        clock: Gives seconds.
    """

    def __init__(self, speeds: Speeds, clock: Callable[[], float] = time.perf_counter) -> None:
        self.speeds, self.clock = speeds, clock
        self._timeline: Timeline | None = None
        self._course: Course | None = None
        self._stepper, self._curve = HTML(), HTML()
        super().__init__([self._stepper, self._curve])

    @property
    def words(self) -> str:
        """What is going on, such as ``"learn 2 of 4"``; empty when nothing is."""
        return "" if self._timeline is None else self._timeline.words

    @property
    def markup(self) -> str:
        """The phases as they stand."""
        return self._stepper.value

    def estimate(self, phases: Sequence[Phase]) -> str:
        """How long phases would take together, and whether that was measured or guessed."""
        total, known = self.speeds.total(phases), "step" in self.speeds.measured
        return f"{total.words}{'' if known else ', guessed from the speed of this model'}"

    def left(self) -> Span:
        """How long the run still takes."""
        return Span() if self._timeline is None else self._timeline.left()

    def begin(self, phases: Sequence[Phase], recipe: BaseRecipe, facts: Sequence[Fact]) -> None:
        """A run begins with the first of its phases."""
        self._timeline = Timeline(phases, self.speeds, self.clock)
        self._course = Course(recipe, facts) if isinstance(recipe, TrainedRecipe) else None
        self._timeline.at(phases[0].name)
        self.draw()

    def step(self, step: Step, due: Callable[[], bool]) -> None:
        """Take up a step of the fit; the curve and the phases are drawn if they are due."""
        if self._timeline is None or self._course is None:
            return
        if self._course.add(step):
            self._timeline.again(self._course.recipe)
        began, shown = self._timeline.at(*self._course.phase), due()
        if began or shown:
            self.draw()
        if shown:
            self._curve.value = markup.hint(AGAIN if self._course.again else "") + self._course.chart()

    def follow(self, phase: str, done: float, total: float, words: str, due: Callable[[], bool]) -> None:
        """Take up how far a phase is (``Timeline.at``)."""
        if self._timeline is not None:
            began = self._timeline.at(phase, done, total, words)
            if began or due():
                self.draw()

    def draw(self) -> None:
        """Show the phases as they stand."""
        if self._timeline is not None:
            self._stepper.value = stepper(self._timeline.rows(), self._timeline.foot)

    def fitted(self) -> None:
        """The fit is done: its curve is shown elsewhere."""
        self._curve.value = ""

    def end(self, done: bool) -> None:
        """The run has ended; of one that is not done nothing stays."""
        self._curve.value = ""
        if self._timeline is not None and done:
            self._timeline.end()
            self._stepper.value = stepper(self._timeline.rows())
        else:
            self.clear()

    def clear(self) -> None:
        """Nothing is shown."""
        self._timeline = self._course = None
        self._stepper.value = self._curve.value = ""
