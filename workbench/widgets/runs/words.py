"""Runs in words: one line of a list, and the table that puts two beside each other."""

from __future__ import annotations

from workbench.models.load import LoadedModel
from workbench.types.outcome import outcome
from workbench.types.rates import RATES
from workbench.types.run import Run
from workbench.widgets.shared import markup
from workbench.widgets.shared.edit_words import chooser_words, moved_words, trainable_words

_ENDED = {"done": "", "cancelled": "not evaluated: cancelled", "failed": "not evaluated: failed"}


def result_words(run: Run) -> str:
    """What came out, as the verdict of its evaluation says it, behind the verdict's mark."""
    if run.report is None:
        return _ENDED[run.ended] or "not evaluated"
    came_out = outcome(run.report, run.facts)
    return f"{markup.OUTCOME_MARKS[came_out.kind]} {came_out.words}"


def trained_words(run: Run) -> str:
    """What was allowed to move."""
    return f"{run.edit.scope}, {chooser_words(run.edit)}"


def line(number: int, run: Run) -> str:
    """A run in a list: what came out stands before what was done, since a narrow list cuts the end.

    Args:
        number: Its place, from 1.
        run: The run.
    """
    return f"{number}  {run.name} · {result_words(run)} · {run.recipe.name} · {trained_words(run)}"


def compared(first: Run, second: Run, model: LoadedModel) -> str:
    """Two runs side by side: what was done, and each rate of their last stages with n. No number is new.

    Args:
        first, second: The runs.
        model: Their base.

    Returns:
        The table as HTML.
    """
    runs = (first, second)
    rows: list[list[str]] = [
        ["fact", *("; ".join(f"{f.subject}: {f.answer} → {f.target}" for f in run.facts) for run in runs)],
        ["recipe", *(_recipe(run) for run in runs)],
        ["trained", *(trained_words(run) for run in runs)],
        ["could move", *(_gates(run, model) for run in runs)],
        ["moved", *(moved_words(run.edit) for run in runs)],
        ["seconds", *("" if run.seconds is None else f"{run.seconds:.0f}" for run in runs)],
    ]
    rates = [{} if run.report is None else run.report.rates[run.report.stages[-1]] for run in runs]
    rows += [
        [rule.words, *(str(of[name]) if name in of else "" for of in rates)]
        for name, rule in RATES.items()
        if any(name in of for of in rates)
    ]
    if any(run.report is None for run in runs):
        rows.append(["evaluation", *("done" if run.report is not None else result_words(run) for run in runs)])
    names = [run.name for run in runs]
    return markup.table(["rate [95% interval] (n), last stage", *names], rows, "Two runs")


def _recipe(run: Run) -> str:
    steps = " + ".join(str(n) for n in run.edit.recipe.stage_steps)
    return f"{run.recipe.name}{f', {steps} steps' if steps else ''}, seed {run.recipe.seed}"


def _gates(run: Run, model: LoadedModel) -> str:
    """How many gates could move; empty of methods without gates."""
    if run.edit.method != "ia3" or not len(run.edit.selection):
        return ""
    return trainable_words(run.edit.selection.n_parameters(model))
