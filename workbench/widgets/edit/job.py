"""What Run does: fit an edit, beside it a random control if asked for, then evaluate; all can be cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from workbench.editing.rewrite import rewrite
from workbench.evaluation.answering import Answering, Ask, Reply
from workbench.evaluation.evaluate import evaluate
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Edit, EvalReport, FactSet, Selection, Step
from workbench.types.cancelling import Cancelled
from workbench.widgets.edit.timeline import BASE

Follow = Callable[[str, float, float, str], object]
"""Called with how far a phase is: its name, how much is done, of how much (0 where that is not known), and in words
(empty: the numbers)."""


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
    follow: Follow,
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
        follow: Called with how far each phase is.

    Raises:
        Cancelled: ``cancel`` was set.
        ValueError: All that the two functions refuse, and ``check_control``.
    """

    def report_step(step: Step) -> None:  # rewrite takes False as "cancel"
        on_step(step)

    def report_control_step(step: Step) -> None:
        recipe: BaseRecipe = fit["recipe"]
        follow("random control", recipe.steps_done(step.stage, step.step), sum(recipe.stage_steps), "")

    fit: dict[str, Any] = {"recipe": recipe, "pool": pool, "cancel": cancel, "progress": False}
    if on_control is not None:
        check_control(model, selection, recipe)  # refused before the fit, not after it
    edit = rewrite(model, facts, selection, on_step=report_step, **fit)
    fit["recipe"] = edit.recipe  # with more steps where the default did not teach the facts
    on_edit(edit)
    settings: dict[str, Any] = {"pool": pool, "max_controls": max_controls, "progress": False}

    def asked(of: Edit, phase: str) -> EvalReport:
        follow(phase, 0, 0, "looking for facts to compare with")
        answering = StoppableAnswers(model, cancel, len(of.stages) + 1, partial(follow, phase))
        return evaluate(model, edit=of, answering=answering, **settings)

    report = asked(edit, "evaluate")
    if on_report is not None:
        on_report(report)
    if on_control is not None:
        drawn = edit.selection.random_like(model, seed=recipe.seed, where=anywhere(recipe))
        try:
            control = rewrite(model, facts, drawn, on_step=report_control_step, **fit)
            on_control(asked(control, "evaluate it"))
        except Cancelled:
            raise Cancelled("Cancelled in the random control: the edit and its report are kept.") from None
    return report


def anywhere(recipe: BaseRecipe) -> Literal["anywhere", "one-layer"]:
    """Where a random control is drawn from: of a method that moves one module, from one other layer."""
    return "one-layer" if recipe.one_module else "anywhere"


def check_control(model: LoadedModel, selection: Selection | None, recipe: BaseRecipe) -> None:
    """Raise a ValueError where no random control can be drawn beside a selection; None is the recipe's own choice."""
    if selection is not None:
        selection.random_like(model, seed=recipe.seed, where=anywhere(recipe))
    elif not recipe.selects:
        raise ValueError(
            f"A random control needs components to draw others like them, and this recipe chooses what moves by itself "
            f"({recipe.without_selection.lower()}). Pick components, or leave the random control out."
        )


class StoppableAnswers(Answering):
    """Answers as ever, but looks whether to stop before each model and each batch, and tells how far it is.

    Args:
        base: The base model.
        cancel: Whether to stop.
        models: How many are asked, the base among them.
        follow: Called with how much is done, of how much (an edited model's prompt is 1, the base's ``BASE``), and in
            words.
    """

    def __init__(
        self, base: LoadedModel, cancel: threading.Event, models: int, follow: Callable[[float, float, str], object]
    ) -> None:
        super().__init__(base)
        self._cancel, self._models, self._follow, self._asked = cancel, models, follow, 0

    def replies(
        self,
        model: LoadedModel,
        asks: Sequence[Ask],
        progress: Any = None,
        *,
        max_new_tokens: int | None = None,
    ) -> list[Reply]:
        self._asked += 1
        told = _Told(self, len(asks), progress)
        told.update(0)
        return super().replies(model, asks, told, max_new_tokens=max_new_tokens)

    def told(self, answered: int, of: int) -> None:
        """So many prompts of so many were answered by the model that is asked now.

        Raises:
            Cancelled: It is to stop.
        """
        if self._cancel.is_set():
            raise Cancelled("Cancelled during the evaluation: the edit is kept on .edit, there is no report.")
        before, weight = (0.0, BASE) if self._asked == 1 else (BASE + self._asked - 2, 1.0)
        words = f"model {self._asked} of {self._models}: {answered} of {of} prompts"
        self._follow(of * before + weight * answered, of * (BASE + self._models - 1), words)


class _Told:
    """Stands for a progress bar."""

    def __init__(self, answers: StoppableAnswers, prompts: int, bar: Any) -> None:
        self._answers, self._prompts, self._bar, self._done = answers, prompts, bar, 0

    def update(self, n: int) -> None:
        """So many prompts more are answered."""
        self._done += n
        if self._bar is not None and n:
            self._bar.update(n)
        self._answers.told(min(self._done, self._prompts), self._prompts)
