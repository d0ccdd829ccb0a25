"""What an edit panel shows, as markup: the course of a fit while it runs, and the evaluation after it."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence

from workbench.plots.style import visible
from workbench.types import (
    AnswerClass,
    AnswerRow,
    BaseRecipe,
    Edit,
    EvalReport,
    Fact,
    Group,
    Step,
    TrainedRecipe,
    Write,
)
from workbench.types.history import updates_before, updates_by_stage
from workbench.types.outcome import outcome
from workbench.types.rates import RATES
from workbench.widgets.shared import charts, markup
from workbench.widgets.shared.edit_words import chosen_words, moved_words

FIRST_RATES = ("new", "old", "control", "neighbour", "same_subject", "same_answer")
"""What is shown of the table at once; the rest is folded."""
FIRST_TEXTS = 3
PER_TOKEN = "P per token while it was fitted (geometric mean)"
"""What the curve of a fit shows; Compare shows the whole answer's probability."""
RUN_CELL = "Run this cell to use the panel."
"""The last line of a panel's card."""
BADGES: dict[AnswerClass, markup.AnswerKind] = {"old": "old", "new": "new", "refusal": "refusal"}
"""The badge of a class of answers; of the other classes ``"other"``, under their own name."""


def stage_words(stage: str) -> str:
    """``"base"`` as "before", a stage as "after unlearn"."""
    return "before" if stage == "base" else f"after {stage}"


def heading(facts: Sequence[Fact]) -> str:
    """What is edited."""
    first = facts[0]
    if len(facts) == 1:
        return markup.panel_title(f"Edit: {first.subject}, {first.answer} → {first.target}", first.question)
    pairs = "; ".join(f"{f.subject}: {f.answer} → {f.target}" for f in facts[:4])
    return markup.panel_title(f"Edit: {len(facts)} facts together", pairs + ("; ..." if len(facts) > 4 else ""))


def subject(facts: Sequence[Fact]) -> str:
    """What is edited, in a word or two."""
    more = f" and {len(facts) - 1} more" if len(facts) > 1 else ""
    return f"{facts[0].subject}{more}"


def answer_chart(history: Sequence[Step], recipe: BaseRecipe, facts: Sequence[Fact]) -> str:
    """The answers' probabilities by step, by decades, over the steps that the recipe allows; nothing for a method that
    takes none."""
    if not isinstance(recipe, TrainedRecipe) or not history:
        return ""
    fact, steps = facts[0], _by_step(history)
    x_max = max(sum(recipe.stage_steps), steps[-1][0])
    whose = f", {visible(fact.subject, 16)}" if len(facts) > 1 else ""
    answers = {
        f"old: {fact.answer}": [(x, s.p_old) for x, s in steps],
        f"new: {fact.target}": [(x, s.p_new) for x, s in steps],
        "refusal": [(x, s.p_refusal) for x, s in steps],
    }
    heading = f"{PER_TOKEN}{whose}"
    return charts.side_by_side(
        charts.line_chart(
            answers,
            heading,
            x_max=x_max,
            y_max=1.0,
            borders=_borders(steps),
            x_label="step",
            log=True,
        )
    )


def fit_charts(history: Sequence[Step], recipe: BaseRecipe) -> str:
    """Loss and KL by step; nothing for a method that takes none."""
    if not isinstance(recipe, TrainedRecipe) or not history:
        return ""
    steps = _by_step(history)
    x_max = max(sum(recipe.stage_steps), steps[-1][0])
    kl = "Retain KL to the base (nats per token)" if recipe.retain_weight else "KL: no retain term in this recipe"
    loss = (
        "Loss: the old answer's NLL, then the new one's (nats per token)"
        if any(map(recipe.forgets, recipe.stages))
        else "Loss of the wanted answer (nats per token)"
    )
    lines = {loss: ("loss", [(x, s.loss) for x, s in steps]), kl: ("KL", [(x, s.kl) for x, s in steps])}
    return charts.side_by_side(
        *(
            charts.line_chart({name: points}, heading, x_max=x_max, borders=_borders(steps))
            for heading, (name, points) in lines.items()
        )
    )


def _by_step(history: Sequence[Step]) -> list[tuple[float, Step]]:
    return [(float(x), step) for x, step in zip(updates_before(history), history, strict=True)]


def _borders(steps: Sequence[tuple[float, Step]]) -> dict[float, str]:
    """Where each stage begins."""
    return {x: f"▸ {step.stage}" for x, step in steps if step.step == 0}


def edit_summary(edit: Edit) -> str:
    """What was fitted, in a line: the steps of each stage, and the probability of what it teaches that they reached."""
    reached = {stage: f" to P = {p:.2g}" for stage, p in edit.reached.items()}
    steps = updates_by_stage(edit.history)
    counts = ", ".join(f"{stage}: {n} steps{reached.get(stage, '')}" for stage, n in steps.items())
    first = edit.first_fit
    before = "" if first is None else f" A first fit of {first.neurons:,} reached P = {first.learned:.2g}."
    return f"{counts}{'. ' if counts else ''}{chosen_words(edit)}, {moved_words(edit)}.{before}"


def writes_table(writes: Sequence[Write], caption: str) -> str:
    """What a closed form writes into each module, in a fold; nothing for other methods."""
    if not writes:
        return ""
    head = ["module", "|dW| / |W|", "denominator", "stable rank", "covariance: tokens, rank, condition"]
    rows = [
        [
            f"L{w.layer} {w.name}" + ("" if w.stage == "edit" else f" ({w.stage})"),
            *(short_number(value) for value in (w.relative_norm, w.denominator, w.stable_rank)),
            "identity" if w.tokens is None else f"{w.tokens:,}, {w.covariance_rank:,}, {w.condition:.2g}",
        ]
        for w in writes
    ]
    return markup.fold(caption, markup.table(head, rows, caption))


def short_number(value: float) -> str:
    """A number with three digits that count."""
    return "n/a" if math.isnan(value) else f"{value:.3g}"


def made_at(edit: Edit) -> str:
    """When an edit was made, by this clock; empty where it does not say."""
    try:
        made = datetime.datetime.fromisoformat(str(edit.provenance["created"]))
    except (KeyError, ValueError):
        return ""
    return made.astimezone().strftime("%Y-%m-%d %H:%M")


def shortfall(edit: Edit) -> str:
    """What to do about it where the new answer was not learned; nothing where it was."""
    if edit.shortfall is None:
        return ""
    advice = f"More {edit.stage_names[-1]} steps may teach it"
    if edit.picked:
        advice += ', and so may the default selector (under "Train")'
    return markup.alert(f"{edit.shortfall[:1].upper()}{edit.shortfall[1:]}. {advice}.", "info")


def verdict(report: EvalReport, facts: Sequence[Fact]) -> str:
    """What came of the edit, in one line."""
    found = outcome(report, facts)
    return markup.verdict(found.words, found.kind)


def not_evaluated(state: str) -> str:
    """Why an edit has no evaluation: how the job ended that was to make it."""
    how = "failed" if state == "failed" else "was cancelled"
    return markup.verdict(f"Not evaluated: the evaluation {how}.", "none")


def _about_control(report: EvalReport, control: EvalReport) -> str:
    """What the column of the random control can show, and what it cannot."""
    ours, theirs = str(report.rate("new")), str(control.rate("new"))
    return markup.alert(
        "The random control is one draw of as many components of each kind, from anywhere, read after all steps. What "
        f"teaches less also breaks less: look at the new answer first ({ours} against {theirs}). wb.compare reads both "
        "where they have just taught the fact, with several draws.",
        "info",
    )


def rates(report: EvalReport, control: EvalReport | None = None) -> str:
    """Rates with n and interval: those that say most, the rest folded, then what is missing.

    Args:
        report: The evaluation.
        control: That of the same recipe on random components: its last stage is one more column.
    """
    heads = [stage_words(s) for s in report.stages]
    columns = [report.rates[s] for s in report.stages]
    if control is not None:
        heads.append(f"random control, {stage_words(control.stages[-1])}")
        columns.append(control.rates[control.stages[-1]])
    lines = {
        name: [rule.words, *(str(by[name]) if name in by else "" for by in columns)]
        for name, rule in RATES.items()
        if any(name in report.rates[s] for s in report.stages)
    }
    head = ["rate [95% interval] (n)", *heads]
    rest = [line for name, line in lines.items() if name not in FIRST_RATES]
    parts = [markup.table(head, [lines[name] for name in FIRST_RATES if name in lines], "Evaluation")]
    if control is not None:
        parts.append(_about_control(report, control))
    if rest:
        parts.append(markup.fold(f"{len(rest)} more rates", markup.table(head, rest, "More of the evaluation")))
    parts += [markup.alert(f"Not measured: {line}.", "info") for line in report.missing]
    if report.left_out_words:
        parts.append(markup.alert(report.left_out_words, "info"))
    if report.flip_words:
        parts.append(markup.alert(report.flip_words, "info"))
    return "".join(parts)


def card_lines(fact: Fact, recipe: str, report: EvalReport | None) -> list[str]:
    """The fact, the recipe and the rates that say most, one line a stage, as plain text."""
    lines = [fact.question, f"{fact.answer} -> {fact.target}", f"Recipe: {recipe}"]
    if report is None:
        return [*lines, RUN_CELL]
    for stage in report.stages:
        shown = [(name, report.rates[stage].get(name)) for name in ("new", "old", "control")]
        lines.append(
            f"{stage_words(stage)}: " + "; ".join(f"{n} {r.value:.2f} (n={r.n})" for n, r in shown if r and r.n)
        )
    return [*lines, RUN_CELL]


def texts(report: EvalReport) -> str:
    """What every stage says to the held-out questions, the first three at once, the rest folded; to the training
    questions where there are no others."""
    return _texts(report, "heldout", "held-out questions", "What it says to {} (never trained on)") or _texts(
        report, "train", "training questions", "What it says to {} (the fact has no held-out ones)"
    )


def badge_of(label: AnswerClass) -> markup.Markup:
    """The badge of an answer's class."""
    return markup.badge(BADGES.get(label, "other"), label)


def _texts(report: EvalReport, group: Group, name: str, caption: str) -> str:
    rows = {(r.fact_id, r.prompt, r.stage): r for r in report.rows if r.group == group}
    prompts = list(dict.fromkeys((fact, prompt) for fact, prompt, _ in rows))
    several = len(report.facts) > 1
    lines = [
        [f"{fact}: {prompt}" if several else prompt, *(_answer(rows.get((fact, prompt, s))) for s in report.stages)]
        for fact, prompt in prompts
    ]
    head = ["question", *map(stage_words, report.stages)]
    first, rest = lines[:FIRST_TEXTS], lines[FIRST_TEXTS:]
    more = f"{len(rest)} more of these questions"
    shown = markup.table(head, first, caption.format(name)) if first else ""
    return shown + (markup.fold(more, markup.table(head, rest, more)) if rest else "")


def _answer(row: AnswerRow | None) -> markup.Markup | str:
    return "" if row is None else markup.Markup(f"{badge_of(row.label).html}{markup.text(row.text)}")
