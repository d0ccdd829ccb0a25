"""StrengthBars: a slider for the strength of an edit, and the probability of each answer there and before."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ipywidgets import HTML

from workbench.editing.applied import Dial
from workbench.evaluation.probabilities import answer_probabilities
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact
from workbench.widgets.compare.slider import Slider
from workbench.widgets.compare.words import at_words
from workbench.widgets.shared import charts
from workbench.widgets.shared.markup import ANSWER_MARKS

FINE = 0.05
"""Of the slider's steps."""
_MARKS: dict[str, str] = {**ANSWER_MARKS}


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

    def take(self, edit: Edit, strength: float) -> None:
        """Another edit follows: its edited models are made anew, and the slider is put to a strength. A context is
        there or it is not, so the slider has two places then."""
        self._dials, self._before = {}, {}
        whole = bool(edit.delta().context)
        self.slider.step = 1.0 if whole else FINE
        self.slider.value = float(round(strength)) if whole else strength

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
            self.bars.value = answer_bars(self.base, self.probabilities, at_words(stage, strength))


def answer_bars(base: Mapping[str, float], edited: Mapping[str, float], at: str) -> str:
    """Bars of the answers' probabilities with the base's as ticks, as markup; empty without any.

    Args:
        base, edited: By the same labels, which begin with the kind of answer (``"old: Paris"``).
        at: Which edited model it is.
    """
    if not edited:
        return ""
    marked = {label: f"{_MARKS.get(label.split(':')[0], ANSWER_MARKS['other'])} {label}" for label in edited}
    values, reference = ({marked[label]: of[label] for label in edited} for of in (edited, base))
    return charts.bars(values, f"P(whole answer) after {at}", reference=reference)
