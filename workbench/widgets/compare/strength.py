"""StrengthBars: a slider for the strength of an edit, and the probability of each answer there and before."""

from __future__ import annotations

from collections.abc import Callable

from ipywidgets import HTML

from workbench.editing.applied import Dial
from workbench.evaluation.evaluate import answer_probabilities
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact
from workbench.widgets.compare.bars import answer_bars
from workbench.widgets.compare.slider import Slider
from workbench.widgets.compare.words import after_words, at_words


class StrengthBars:
    """The slider and the bars; whoever shows them calls ``show``. The edited model is made once for each stage.

    Args:
        model: The edit's base.
        on_slide: Called without arguments after the slider was moved.
    """

    def __init__(self, model: LoadedModel, on_slide: Callable[[], object]) -> None:
        self.slider, self.bars = Slider("Strength"), HTML()
        self.probabilities: dict[str, float] = {}
        """Of the answers at the slider's strength."""
        self.base: dict[str, float] = {}
        """Of the same answers before the edit."""
        self._model = model
        self._dials: dict[str, Dial] = {}
        self._before: dict[Fact, dict[str, float]] = {}
        self.slider.observe(lambda _: on_slide(), names="value")

    def clear(self) -> None:
        """Forget the edited models, since another edit follows."""
        self._dials, self._before = {}, {}

    def show(self, edit: Edit, fact: Fact, stage: str) -> None:
        """Show a fact's answers after a stage at the slider's strength. What it raises leaves no bars behind."""
        self.probabilities, self.base, strength = {}, {}, self.slider.value
        try:
            if stage not in self._dials:
                self._dials[stage] = Dial(self._model, edit, stage)
            dial = self._dials[stage]
            if fact not in self._before:  # strength 0 is the base to the bit, and knows which refusal the edit teaches
                self._before[fact] = dict(answer_probabilities(dial.at(0.0), fact)["before"])
            self.base = self._before[fact]
            self.probabilities = dict(answer_probabilities(dial.at(strength), fact)["before"])
        finally:
            heading, name = f"P(answer) after {at_words(stage, strength)}", after_words(stage, strength)
            shown = self.probabilities
            self.bars.value = answer_bars(self.base, shown, heading, name) if shown else ""
