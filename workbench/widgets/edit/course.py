"""Course: how a fit that is going on has gone so far, for its chart and its phases."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.editing.methods.ia3 import harder
from workbench.types import Fact, Step, TrainedRecipe
from workbench.widgets.edit import views as edit_views

AGAIN = "The first fit did not teach it: once more with more neurons, and longer."


class Course:
    """The steps of a fit so far; of the second fit, once it has begun because the first did not teach the facts.

    Args:
        recipe: Of the fit.
        facts: What is taught; the chart follows the first.
    """

    def __init__(self, recipe: TrainedRecipe, facts: Sequence[Fact]) -> None:
        self.recipe = recipe
        self.steps: list[Step] = []
        self.again = False
        """Whether the second fit has begun."""
        self._facts = facts

    def add(self, step: Step) -> bool:
        """Take up a step.

        Returns:
            Whether it is the first of the second fit: a second beginning of the first stage.
        """
        second = bool(self.steps) and step.step == 0 and step.stage == self.recipe.stage_names[0]
        if second:
            self.steps, self.again, self.recipe = [], True, harder(self.recipe)
        self.steps.append(step)
        return second

    @property
    def phase(self) -> tuple[str, int, int]:
        """The stage that is going on, the steps it has made, and how many it makes at most."""
        last = self.steps[-1]
        of = self.recipe.steps_of(last.stage)
        return f"{last.stage} again" if self.again else last.stage, last.step, of

    def chart(self) -> str:
        """The answers' probabilities so far."""
        return edit_views.answer_chart(self.steps, self.recipe, self._facts)
