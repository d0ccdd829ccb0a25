"""StrengthBars: a slider for the strength of an edit, and the probability of each answer at that strength."""

from __future__ import annotations

from collections.abc import Callable

from ipywidgets import HTML

from workbench.editing.applied import Dial
from workbench.evaluation.evaluate import answer_probabilities
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact
from workbench.widgets.compare.slider import Slider
from workbench.widgets.shared import charts


class StrengthBars:
    """The slider and the bars; whoever shows them calls ``show``. The edited model is made once for each stage.

    Args:
        model: The edit's base.
        on_slide: Called without arguments after the slider was moved.
    """

    def __init__(self, model: LoadedModel, on_slide: Callable[[], object]) -> None:
        self.slider, self.bars = Slider("Strength"), HTML()
        self.probabilities: dict[str, float] = {}
        self._model = model
        self._dials: dict[str, Dial] = {}
        self.slider.observe(lambda _: on_slide(), names="value")

    def clear(self) -> None:
        """Forget the edited models, since another edit follows."""
        self._dials = {}

    def show(self, edit: Edit, fact: Fact, stage: str) -> None:
        """Show a fact's answers after a stage at the slider's strength. What it raises leaves no bars behind."""
        self.probabilities, strength = {}, self.slider.value
        try:
            if stage not in self._dials:
                self._dials[stage] = Dial(self._model, edit, stage)
            self.probabilities = dict(answer_probabilities(self._dials[stage].at(strength), fact)["before"])
        finally:
            heading = f"P(answer) after {stage} at strength {strength:.2f}"
            self.bars.value = charts.bars(self.probabilities, heading) if self.probabilities else ""
