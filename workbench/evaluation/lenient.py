"""Rates as a lenient count gives them, to be put beside numbers of the literature that were counted so.

They are close to how arXiv 2508.07075 counts, and higher than what ``EvalReport`` says: they ask what was trained on,
take an answer wherever it is named, and count gibberish as forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence

from workbench.evaluation.rescore import check_answers
from workbench.language.answers import matches
from workbench.types import EvalReport, Fact, FactSet, Rate
from workbench.types.fact_set import as_fact_set
from workbench.types.intervals import wilson
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def lenient_rates(report: EvalReport, facts: FactSet | Sequence[Fact]) -> dict[str, Rate]:
    """Count the answers of a report's last stage leniently.

    Args:
        report: An evaluation of one edited fact.
        facts: A set that holds the edited fact and the controls, by their ids.

    Returns:
        Shares with n and Wilson's interval: ``"new fact"`` (trained questions whose answer names the target),
        ``"forgotten"`` (trained questions whose answer does not name the old one, whatever else it is), ``"controls"``
        (controls whose answer names their own).

    Raises:
        ValueError: The report is about several facts, or ``facts`` lacks one of those that were asked, or has the
            edited one with another answer or target.

    Example:
        >>> for name, rate in wb.lenient_rates(report, facts).items():
        ...     print(name, rate)
        new fact 1.00 [0.34, 1.00] (n=2)
        forgotten 1.00 [0.34, 1.00] (n=2)
        controls 0.50 [0.09, 0.91] (n=2)
    """
    if len(report.facts) != 1:
        raise ValueError(f"A lenient count is of one edited fact, but the report is about {list(report.facts)}.")
    facts = as_fact_set(facts)
    last = [row for row in report.rows if row.stage == report.stages[-1]]
    trained = [row for row in last if row.group == "train"]
    controls = [row for row in last if row.group == "control"]
    there = {fact.id for fact in facts}
    lacking = sorted({report.facts[0], *(row.fact_id for row in controls)} - there)
    if lacking:
        raise ValueError(f"{facts.name!r} lacks facts that the report asked: {lacking}. Pass the set they came from.")
    check_answers(report, facts)
    edited = facts[report.facts[0]]

    def share(true: list[bool]) -> Rate:
        return wilson(sum(true), len(true))

    return {
        "new fact": share([matches(row.text, edited.targets) for row in trained]),
        "forgotten": share([not matches(row.text, edited.answers) for row in trained]),
        "controls": share([matches(row.text, facts[row.fact_id].answers) for row in controls]),
    }
