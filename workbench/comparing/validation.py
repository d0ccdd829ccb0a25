"""Reading an edit along its path: at the first step at which it gives the new answer to validation questions.

Arms that are read after equal numbers of steps differ in how far they got, and what gets farther costs more. So each is
read where it has just taught the fact. The questions that decide this are neither trained on nor reported:

- Every other held-out question, from the first on in the fact's own order; the others are reported. Of a fact with
  fewer than two, its question in contexts that training does not use.
- Of these, the ones that the base answers with the old answer, if there are any: in a wording that the untouched model
  does not understand, no edit can be seen. The same ones decide for every arm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from workbench.evaluation.answering import Answering, Ask
from workbench.facts.training_wordings import UNSEEN_CONTEXTS
from workbench.language.answers import classify
from workbench.language.replies import counted_text
from workbench.models.load import LoadedModel
from workbench.types import Fact

THRESHOLD = 0.95


@dataclass(frozen=True)
class Reading:
    """How the arms of one fact are read.

    Args:
        fact: The edited fact with the held-out questions that are reported.
        questions: The validation questions.
    """

    fact: Fact
    questions: tuple[str, ...]


def reading_of(answering: Answering, fact: Fact) -> Reading:
    """Split a fact's held-out questions into those that decide and those that are reported (see above)."""
    if len(fact.heldout) >= 2:
        candidates, reported = fact.heldout[::2], fact.heldout[1::2]
    else:
        candidates, reported = tuple(c.format(question=fact.question) for c in UNSEEN_CONTEXTS), fact.heldout
    asks = [Ask("chat", q) for q in candidates]
    answers = answering.completions(answering.base, asks)
    counted = [counted_text(answering.base, c.text, "chat") for c in answers]
    understood = tuple(q for q, text in zip(candidates, counted, strict=True) if classify(text or "", fact) == "old")
    return Reading(replace(fact, heldout=reported), understood or candidates)


def new_accuracy(answering: Answering, model: LoadedModel, reading: Reading) -> float:
    """Share of the validation questions that a model answers with the new fact, by greedy free generation."""
    answers = answering.completions(model, [Ask("chat", q) for q in reading.questions])
    counted = [counted_text(answering.base, c.text, "chat") for c in answers]
    return sum(classify(text or "", reading.fact) == "new" for text in counted) / len(answers)


class Reader:
    """Looks at one arm every few steps of its last stage.

    Args:
        accuracy: New-fact accuracy of a view.
        threshold: Reached at this accuracy.
        every: Looks after this many steps, twice as many and so on, and after the last.
        last: The most steps of the stage.
    """

    def __init__(self, accuracy: Callable[[LoadedModel], float], threshold: float, every: int, last: int) -> None:
        self._accuracy, self._threshold, self._every, self._last = accuracy, threshold, every, last
        self.step, self.validation, self.reached = 0, 0.0, False

    def stop(self, done: int, view: Callable[[], LoadedModel]) -> bool:
        """Whether the arm is to be read after so many steps; ``view`` makes the model as it is then."""
        self.step = done
        if done % self._every and done != self._last:
            return False
        return self.look(view())

    def look(self, model: LoadedModel) -> bool:
        """Measure a model, and say whether it reached the threshold."""
        self.validation = self._accuracy(model)
        self.reached = self.validation >= self._threshold
        return self.reached
