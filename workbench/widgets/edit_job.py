"""What Run does: fit an edit, then evaluate it; both can be cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from workbench.editing.fit import Cancelled, rewrite
from workbench.evaluation.answering import Answering, Ask, Reply
from workbench.evaluation.evaluate import evaluate
from workbench.models import LoadedModel
from workbench.types import Edit, EvalReport, FactSet, Recipe, Selection, Step


def fit_and_evaluate(
    model: LoadedModel,
    facts: FactSet,
    selection: Selection | None,
    recipe: Recipe,
    *,
    pool: FactSet | None,
    max_controls: int | None,
    cancel: threading.Event,
    on_step: Callable[[Step], object],
    on_edit: Callable[[Edit], object],
    say: Callable[[str], object],
) -> EvalReport:
    """``rewrite``, then ``evaluate``.

    Args:
        model, facts, selection, recipe, pool, max_controls: As for these two functions.
        cancel: Ends the fit at its next step, and the evaluation before its next stage.
        on_step: Called with each step of the fit.
        on_edit: Called with the fitted edit, before its evaluation.
        say: Called with what is being done, in words.

    Raises:
        Cancelled: ``cancel`` was set.
        ValueError: An empty selection, and all that the two functions refuse.
    """
    if selection is not None and not len(selection):
        raise ValueError(
            'Nothing is picked, so nothing could move. Pick components on the maps, or choose "Default selector" '
            'under "Train".'
        )

    def step(one: Step) -> None:  # rewrite takes False as "cancel"
        on_step(one)

    edit = rewrite(model, facts, selection, recipe=recipe, pool=pool, on_step=step, cancel=cancel, progress=False)
    on_edit(edit)
    answering = _Stoppable(model, cancel, len(edit.stages) + 1, say)
    return evaluate(model, edit=edit, pool=pool, max_controls=max_controls, answering=answering, progress=False)


class _Stoppable(Answering):
    """Answers as ever, but looks whether to stop before each stage, and says which one it asks."""

    def __init__(self, base: LoadedModel, cancel: threading.Event, stages: int, say: Callable[[str], object]) -> None:
        super().__init__(base)
        self._cancel, self._stages, self._say, self._asked = cancel, stages, say, 0

    def replies(self, model: LoadedModel, asks: Sequence[Ask], progress: Any = None) -> list[Reply]:
        if self._cancel.is_set():
            raise Cancelled("Cancelled during the evaluation: the edit is kept on .edit, there is no report.")
        self._asked += 1
        self._say(f"Evaluating: model {self._asked} of {self._stages} answers {len(asks)} prompts.")
        return super().replies(model, asks, progress)
