"""Course: how a fit that is going on has gone so far, for its charts and its line of progress."""

from __future__ import annotations

import time
from collections.abc import Sequence

from workbench.editing.methods.ia3 import harder
from workbench.types import Fact, Step, TrainedRecipe
from workbench.widgets.edit import views as edit_views
from workbench.widgets.shared.markup import Progress

AGAIN = "The first fit did not teach it: once more with more neurons, and longer."


class Course:
    """The steps of a fit so far; of the second fit, once it has begun because the first did not teach the facts.

    Args:
        recipe: Of the fit.
        facts: What is taught; the charts follow the first.
    """

    def __init__(self, recipe: TrainedRecipe, facts: Sequence[Fact]) -> None:
        self.recipe = recipe
        self.steps: list[Step] = []
        self._facts, self._again, self._began = facts, False, 0.0

    def add(self, step: Step) -> None:
        """Take up a step. A second beginning of the first stage is that of the second fit."""
        if self.steps and step.step == 0 and step.stage == self.recipe.stages[0]:
            self.steps, self._again, self.recipe = [], True, harder(self.recipe)
        if not self.steps:
            self._began = time.perf_counter()
        self.steps.append(step)

    def charts(self) -> str:
        """The steps as charts."""
        return edit_views.fit_charts(self.steps, self.recipe, self._facts)

    def progress(self) -> Progress:
        """How far the fit is, and the time left at the speed so far."""
        seconds = time.perf_counter() - self._began
        return edit_views.fit_progress(self.steps, self.recipe, seconds, note=AGAIN if self._again else "")
