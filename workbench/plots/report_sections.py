"""Results as pages: for each page a table of its sections, in order.

A section is added by a function that gives it (none, or several, where there is nothing or more to show) and a row in
its page's table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd

from workbench.plots.compare import probabilities_figure
from workbench.plots.page import Code, Section, write_html_report
from workbench.types import ArmTable, Edit, EffectMap, EvalReport, Fact, Group, ProbeReport
from workbench.types.rates import RATES

Result = TypeVar("Result")


def sections_of(result: Result, table: Iterable[Callable[[Result], list[Section]]]) -> list[Section]:
    """The sections of a page.

    Args:
        result: What the page is about.
        table: Its sections.
    """
    return [section for sections in table for section in sections(result)]


# --- what is left after an edit ---------------------------------------------------------------------------------------


def probe_question(report: ProbeReport) -> list[Section]:
    """What was asked, and of whom."""
    fact, control = report.fact, report.control
    about = (
        f"{fact.question} Before: {fact.answer}. The edit teaches: {fact.target}. "
        + (f"Control, never edited: {control.question}" if control else "No control fact.")
        + " Rates count only prompts on which the base model itself is right."
    )
    return [("What was asked", [about])]


def probe_findings(report: ProbeReport) -> list[Section]:
    """One sentence each."""
    return [("What was found", list(report.findings) or ["Nothing was measured."])]


def probe_rates(report: ProbeReport) -> list[Section]:
    """All rates by stage."""
    return [("Rates", [report.summary()])]


def probe_null(report: ProbeReport) -> list[Section]:
    """What the probes find where there is nothing to find; or that no null was measured."""
    if report.null is None:
        return [("Null", ["No null was measured, so no finding says how rare it is."])]
    why = [f"No null, {name}: {reason}." for name, reason in report.null.skipped.items()]
    return [("Null", [report.null_table(), *why])]


def probe_figures(report: ProbeReport) -> list[Section]:
    """Every figure of the report, and the lens of the control beside the edited fact's."""
    sections: list[Section] = [(f"Figure: {name}", [report.plot(name)]) for name in report.figures]
    if report.control is not None and any(x.prompt.fact_id == report.control.id for x in report.lenses):
        sections.append(("Figure: lens of the control", [report.plot("lens", group="control")]))
    return sections


def probe_texts(report: ProbeReport) -> list[Section]:
    """What was said, probe by probe; one that was interrupted has rows, too."""
    asked = dict.fromkeys(r.probe for r in report.rows)
    return [(f"Texts: {probe}", [report.answers(probe, group=None)]) for probe in asked]


PROBE_PAGE = (probe_question, probe_findings, probe_rates, probe_null, probe_figures, probe_texts)


def write_probe_page(report: ProbeReport, path: str | Path) -> Path:
    """Write findings, rates, figures and all texts of a probe report. Returns the path."""
    title = f"What is left of {report.fact.subject}: {report.fact.answer}"
    return write_html_report(path, title=title, sections=sections_of(report, PROBE_PAGE))


# --- control arms -----------------------------------------------------------------------------------------------------


def arms_verdict(table: ArmTable) -> list[Section]:
    """The verdict in words, and the figure."""
    return [("Verdict", [table.verdict, table.plot()])]


def arms_summary(table: ArmTable) -> list[Section]:
    """One line per arm, and what could not be run."""
    return [("Arms", [table.summary(), *table.notes])]


def arms_runs(table: ArmTable) -> list[Section]:
    """One line per run."""
    return [("Runs", [table.to_frame()])]


def arms_texts(table: ArmTable) -> list[Section]:
    """What every run says to held-out questions."""
    texts: list[pd.DataFrame] = []
    for run in table.rows:
        answers = run.report.answers("heldout").iloc[:, [0, 1, -1]].set_axis(["fact", "question", "answer"], axis=1)
        draw = "" if run.seed is None else f", draw {run.seed}"
        texts.append(answers.assign(arm=table.words_of(run.arm) + draw))
    return [("What they say to held-out questions", [pd.concat(texts, ignore_index=True)])]


ARMS_PAGE = (arms_verdict, arms_summary, arms_runs, arms_texts)


def write_arms_page(table: ArmTable, path: str | Path) -> Path:
    """Write verdict, figure, tables and answers of a comparison. Returns the path."""
    title = f"Control arms: {', '.join(table.facts)}"
    return write_html_report(path, title=title, sections=sections_of(table, ARMS_PAGE))


# --- the whole loop ---------------------------------------------------------------------------------------------------

NOT_SHOWN = ("refusal", "train_new")
FOLLOWS: dict[Group, str] = {
    "reversed": "Asked backwards, from the old answer",
    "reversed_target": "Asked backwards, from the new answer",
    "twohop": "What follows from the fact, in two hops",
}


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One fact traced, edited and evaluated.

    Args:
        fact: The fact.
        model: The model in words.
        maps: What located it: the trace, and the attributions.
        edit: The edit.
        probabilities: Of the answers, by stage.
        report: The evaluation.
        code: The Python that repeats it.
        sample: Which of the known controls were asked, in words.
    """

    fact: Fact
    model: str
    maps: Sequence[EffectMap]
    edit: Edit
    probabilities: Mapping[str, Mapping[str, float]]
    report: EvalReport
    code: str
    sample: str


def rates_table(report: EvalReport) -> pd.DataFrame:
    """The report's rates in words, one column per stage."""
    summary = report.summary()
    table = summary.loc[[name for name in RATES if name not in NOT_SHOWN and name in summary.index]]
    words = {name: rule.words for name, rule in RATES.items()}
    return table.rename(index=words).rename_axis("rate (95% interval, n)")


def loop_fact(loop: Loop) -> list[Section]:
    """The fact and the model."""
    fact = loop.fact
    about = f"{fact.question} The model says {fact.answer}; the edit teaches {fact.target}."
    return [("The fact", [about, loop.model])]


def loop_maps(loop: Loop) -> list[Section]:
    """The maps that located it."""
    return [("Where it is", [effect.plot() for effect in loop.maps])]


def loop_edit(loop: Loop) -> list[Section]:
    """The fit, and the answers' probabilities."""
    edit = loop.edit
    course = [edit.plot()] if edit.history else []
    written = [writes_table(edit)] if edit.writes else []
    return [("The edit", [repr(edit), *course, *written, probabilities_figure(loop.probabilities)])]


def writes_table(edit: Edit) -> pd.DataFrame:
    """What a closed form wrote into each module."""
    import pandas as pd

    return pd.DataFrame(
        {
            "module": f"L{w.layer} {w.name}",
            "stage": w.stage,
            "|dW| / |W|": w.relative_norm,
            "denominator": w.denominator,
            "stable rank": w.stable_rank,
            "tokens of the covariance": "identity" if w.tokens is None else w.tokens,
        }
        for w in edit.writes
    )


def loop_rates(loop: Loop) -> list[Section]:
    """The rates as a table and a figure, how many controls they are of, and how many could not be any."""
    said = [words for words in (loop.report.left_out_words, loop.report.flip_words) if words]
    return [("What it did", [rates_table(loop.report).reset_index(), loop.sample, *said, loop.report.plot()])]


def loop_texts(loop: Loop) -> list[Section]:
    """Answers to held-out questions, and to those that follow from the fact."""
    report = loop.report
    asked = {row.group for row in report.rows}
    heldout: Section = ("What was said, held-out questions", [report.answers()])
    return [heldout, *((words, [report.answers(group)]) for group, words in FOLLOWS.items() if group in asked)]


def loop_missing(loop: Loop) -> list[Section]:
    """What could not be measured."""
    return [("What was not measured", list(loop.report.missing) or ["Nothing is missing."])]


def loop_code(loop: Loop) -> list[Section]:
    """How to repeat it."""
    return [("The same in Python", [Code(loop.code)])]


LOOP_PAGE = (loop_fact, loop_maps, loop_edit, loop_rates, loop_texts, loop_missing, loop_code)


def write_loop_page(loop: Loop, path: str | Path) -> Path:
    """Write the whole loop. Returns the path."""
    title = f"{loop.fact.subject}: {loop.fact.answer} to {loop.fact.target}"
    return write_html_report(path, title=title, sections=sections_of(loop, LOOP_PAGE))
