"""What Run does: fit an edit, beside it a random control if asked for, then evaluate; all can be cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from workbench.editing.rewrite import rewrite
from workbench.evaluation.answering import Answering, Ask, Reply
from workbench.evaluation.evaluate import evaluate
from workbench.language.generation import MAX_NEW_TOKENS
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Edit, EvalReport, FactSet, Selection, Step
from workbench.types.cancelling import Cancelled

TELL_EVERY = 5


def fit_and_evaluate(
    model: LoadedModel,
    facts: FactSet,
    selection: Selection | None,
    recipe: BaseRecipe,
    *,
    pool: FactSet | None,
    max_controls: int | None,
    cancel: threading.Event,
    on_step: Callable[[Step], object],
    on_edit: Callable[[Edit], object],
    on_report: Callable[[EvalReport], object] | None = None,
    on_control: Callable[[EvalReport], object] | None = None,
    say: Callable[[str], object],
) -> EvalReport:
    """``rewrite``, then ``evaluate``; with ``on_control`` both again on a random selection of the same size.

    Args:
        model, facts, selection, recipe, pool, max_controls: As for these two functions.
        cancel: Ends the fit at its next step, and the evaluation before its next stage.
        on_step: Called with each step of the fit.
        on_edit: Called with the fitted edit, before its evaluation.
        on_report: Called with the edit's evaluation, before the control: whatever ends the control, it stays.
        on_control: Called with the evaluation of the same recipe on as many random components of each kind, from
            anywhere, drawn by the recipe's seed; None for no control.
        say: Called with what is being done, in words.

    Raises:
        Cancelled: ``cancel`` was set.
        ValueError: All that the two functions refuse, and ``check_control``.
    """

    def report_step(step: Step) -> None:  # rewrite takes False as "cancel"
        on_step(step)

    def report_control_step(step: Step) -> None:
        if step.step % TELL_EVERY == 0:
            say(f"Fitting the random control: {step.stage} step {step.step}.")

    fit: dict[str, Any] = {"recipe": recipe, "pool": pool, "cancel": cancel, "progress": False}
    if on_control is not None:
        check_control(model, selection, recipe)  # refused before the fit, not after it
    edit = rewrite(model, facts, selection, on_step=report_step, **fit)
    fit["recipe"] = edit.recipe  # with more steps where the default did not teach the facts
    on_edit(edit)
    answering = StoppableAnswers(model, cancel, (1 if on_control is None else 2) * (len(edit.stages) + 1), say)
    settings: dict[str, Any] = {"pool": pool, "max_controls": max_controls, "answering": answering, "progress": False}
    report = evaluate(model, edit=edit, **settings)
    if on_report is not None:
        on_report(report)
    if on_control is not None:
        drawn = edit.selection.random_like(model, seed=recipe.seed)
        try:
            on_control(
                evaluate(model, edit=rewrite(model, facts, drawn, on_step=report_control_step, **fit), **settings)
            )
        except Cancelled:
            raise Cancelled("Cancelled in the random control: the edit and its report are kept.") from None
    return report


def check_control(model: LoadedModel, selection: Selection | None, recipe: BaseRecipe) -> None:
    """Raise a ValueError where no random control can be drawn beside a selection; None is the recipe's own choice."""
    if selection is not None:
        selection.random_like(model, seed=recipe.seed)
    elif not recipe.selects:
        raise ValueError(
            f"A random control needs components to draw others like them, and this recipe moves everything "
            f"({recipe.without_selection.lower()}). Pick components, or leave the random control out."
        )


class StoppableAnswers(Answering):
    """Answers as ever, but looks whether to stop before each stage, and says which one it asks."""

    def __init__(self, base: LoadedModel, cancel: threading.Event, stages: int, say: Callable[[str], object]) -> None:
        super().__init__(base)
        self._cancel, self._stages, self._say, self._asked = cancel, stages, say, 0

    def replies(
        self,
        model: LoadedModel,
        asks: Sequence[Ask],
        progress: Any = None,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> list[Reply]:
        if self._cancel.is_set():
            raise Cancelled("Cancelled during the evaluation: the edit is kept on .edit, there is no report.")
        self._asked += 1
        self._say(f"Evaluating: model {self._asked} of {self._stages} answers {len(asks)} prompts.")
        return super().replies(model, asks, progress, max_new_tokens=max_new_tokens)
