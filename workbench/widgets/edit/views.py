"""What an edit panel shows, as markup: the course of a fit while it runs, and the evaluation after it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from workbench.plots.style import visible
from workbench.types import BaseRecipe, Edit, EvalReport, Fact, Group, Step, TrainedRecipe
from workbench.types.history import updates_before, updates_by_stage
from workbench.types.rates import RATES
from workbench.widgets.shared import markup

AGAIN = markup.block(markup.text("The first fit did not teach it: once more with more neurons, and longer."))


def stage_words(stage: str) -> str:
    """``"base"`` as "before", a stage as "after unlearn"."""
    return "before" if stage == "base" else f"after {stage}"


def heading(facts: Sequence[Fact]) -> str:
    """What is edited."""
    first = facts[0]
    if len(facts) == 1:
        return markup.title(f"Edit: {first.subject}, {first.answer} → {first.target}", first.question)
    pairs = "; ".join(f"{f.subject}: {f.answer} → {f.target}" for f in facts[:4])
    return markup.title(f"Edit: {len(facts)} facts together", pairs + ("; ..." if len(facts) > 4 else ""))


def duration(seconds: float) -> str:
    """Seconds in words."""
    whole = math.ceil(seconds)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60} s"


def fit_progress(history: Sequence[Step], recipe: TrainedRecipe, seconds: float) -> str:
    """How far a running fit is, and the time left at the speed so far.

    Args:
        history: The steps so far.
        recipe: Of the fit.
        seconds: Since the first step was reported.
    """
    total, last = sum(recipe.stage_steps), history[-1]
    stages = list(recipe.stages)
    at = stages.index(last.stage)
    done = sum(recipe.stage_steps[:at]) + last.step
    taken = updates_before(history)[-1]
    left = f", at most {duration(seconds / taken * (total - done))} left" if taken else ""
    return markup.progress(done, total, f"{last.stage}: step {last.step} of {recipe.stage_steps[at]}{left}")


def fit_charts(history: Sequence[Step], recipe: BaseRecipe, facts: Sequence[Fact]) -> str:
    """Loss, KL and answer probabilities by step, over the steps that the recipe allows; nothing for a method that takes
    none."""
    if not isinstance(recipe, TrainedRecipe):
        return ""
    x_max = sum(recipe.stage_steps)
    steps = [(float(x), step) for x, step in zip(updates_before(history), history, strict=True)]
    borders = {x: f"▸ {step.stage}" for x, step in steps if step.step == 0}
    fact = facts[0]
    whose = f", {visible(fact.subject, 16)}" if len(facts) > 1 else ""
    kl = "Retain KL to the base (nats per token)" if recipe.retain_weight else "KL: no retain term in this recipe"
    answers = {
        f"old: {fact.answer}": [(x, s.p_old) for x, s in steps],
        f"new: {fact.target}": [(x, s.p_new) for x, s in steps],
        "refusal": [(x, s.p_refusal) for x, s in steps],
    }
    return markup.charts(
        markup.line_chart(
            answers,
            f"P(answer) per token (geometric mean){whose}",
            x_max=x_max,
            y_max=1.0,
            borders=borders,
            x_label="step",
        ),
        markup.line_chart(
            {"loss": [(x, s.loss) for x, s in steps]},
            "Loss: the old answer's NLL, then the new one's (nats per token)"
            if any(map(recipe.forgets, recipe.stages))
            else "Loss of the wanted answer (nats per token)",
            x_max=x_max,
            borders=borders,
        ),
        markup.line_chart({"KL": [(x, s.kl) for x, s in steps]}, kl, x_max=x_max, borders=borders),
    )


def edit_summary(edit: Edit) -> str:
    """What was fitted, in a line."""
    counts = ", ".join(f"{stage}: {n} steps" for stage, n in updates_by_stage(edit.history).items())
    how = {"given": "picked", "all": "moves"}.get(edit.selector, f"chosen by {edit.selector}")
    first, delta = edit.first_fit, edit.delta()
    before = "" if first is None else f" A first fit of {first.neurons:,} reached P = {first.learned:.2g}."
    farthest = delta.largest_move()
    far = "" if math.isnan(farthest) else f", the farthest by {farthest:.3g}"
    return f"{counts}. {edit.scope} {how}, {delta.words()}{far}.{before}"


def fitted(edit: Edit) -> str:
    """What was fitted, and what to do about it where the new answer was not learned."""
    done = markup.alert(edit_summary(edit), "done")
    if edit.shortfall is None:
        return done
    advice = f"More {edit.stage_names[-1]} steps may teach it"
    if edit.selector == "given":
        advice += ', and so may the default selector (under "Train")'
    return done + markup.alert(f"{edit.shortfall}. {advice}.", "info")


def _about_control(report: EvalReport, control: EvalReport) -> str:
    """What the column of the random control can show, and what it cannot."""
    ours, theirs = (str(one.rate("new")) for one in (report, control))
    return markup.alert(
        "The random control is one draw of as many components of each kind, from anywhere, read after all steps. What "
        f"teaches less also breaks less: look at the new answer first ({ours} against {theirs}). wb.compare reads both "
        "where they have just taught the fact, with several draws.",
        "info",
    )


def results(report: EvalReport, control: EvalReport | None = None) -> str:
    """Rates with n and interval, then the generated texts side by side with their class, then what is missing.

    Args:
        report: The evaluation.
        control: That of the same recipe on random components: its last stage is one more column of rates.
    """
    heads = [stage_words(s) for s in report.stages]
    columns = [report.rates[s] for s in report.stages]
    if control is not None:
        heads.append(f"random control, {stage_words(control.stages[-1])}")
        columns.append(control.rates[control.stages[-1]])
    rates = [
        [rule.words, *(str(rates[name]) if name in rates else "" for rates in columns)]
        for name, rule in RATES.items()
        if any(name in report.rates[s] for s in report.stages)
    ]
    parts = [
        markup.table(["rate [95% interval] (n)", *heads], rates, "Evaluation"),
        *([] if control is None else [_about_control(report, control)]),
        _texts(report, "heldout", "What it says to held-out questions (never trained on)")
        or _texts(report, "train", "What it says to training questions (the fact has no held-out ones)"),
    ]
    parts += [markup.alert(f"Not measured: {line}.", "info") for line in report.missing]
    return "".join(parts)


def card_lines(report: EvalReport) -> list[str]:
    """The rates that say most, one line a stage, as plain text."""
    lines = []
    for stage in report.stages:
        rates = [(name, report.rates[stage].get(name)) for name in ("new", "old", "control")]
        lines.append(
            f"{stage_words(stage)}: " + "; ".join(f"{n} {r.value:.2f} (n={r.n})" for n, r in rates if r and r.n)
        )
    return lines


def _texts(report: EvalReport, group: Group, caption: str) -> str:
    rows = {(r.fact_id, r.prompt, r.stage): r for r in report.rows if r.group == group}
    prompts = dict.fromkeys((fact, prompt) for fact, prompt, _ in rows)
    several = len(report.facts) > 1
    lines = []
    for fact, prompt in prompts:
        said = [rows.get((fact, prompt, s)) for s in report.stages]
        cells = [markup.tagged(r.label, r.text) if r is not None else "" for r in said]
        lines.append([f"{fact}: {prompt}" if several else prompt, *cells])
    return markup.table(["question", *map(stage_words, report.stages)], lines, caption) if lines else ""
