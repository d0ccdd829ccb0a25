"""Stored reports, counted again: by today's classifier and rates, and over many edits together.

A report holds every text, what was asked, the commit and the versions. So nothing needs the model again: a better
classifier, a new rate or another interval is applied to what was said.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from workbench.evaluation.answer_rows import names_target, unsaid
from workbench.evaluation.questions import collateral_questions
from workbench.facts.known import load_facts
from workbench.facts.sealed_wordings import asked_sealed, with_sealed_heldout
from workbench.language.answers import classify, find_old, first_sentence
from workbench.language.replies import without_thought
from workbench.types import AnswerRow, EvalReport, Fact, FactSet, Group, Rate
from workbench.types.crossed import crossed_mean
from workbench.types.fact_set import as_fact_set
from workbench.types.plain import check_seed, shortened
from workbench.types.rate_values import Answered, answered_at, key_of
from workbench.types.rates import RATES, rates_of
from workbench.types.report import GROUPS, RELATED_GROUPS, SampleRow, TextRow
from workbench.types.torch_settings import own_torch_settings

UNTOUCHED: tuple[Group, ...] = ("neighbour", "control", *RELATED_GROUPS)
"""Groups that are judged by what the edit taught, for they were taught nothing."""

PROTOCOL = ("wordings", "max_new_tokens")
"""Settings of an evaluation without which answers are not comparable; reports of earlier versions do not say all."""


@own_torch_settings()
def rescore(
    report: EvalReport, facts: FactSet | Sequence[Fact] | None = None, *, groups: Iterable[Group] | Group = GROUPS
) -> EvalReport:
    """Classify a report's texts anew, and count its rates anew; no model is asked.

    Args:
        report: A report, from a file or just made.
        facts: A set that holds the facts that were asked, by their ids; by default the bundled and the sealed ones.
        groups: Of which rows and samples are classified anew; the others keep their class.

    Returns:
        The report with new classes and rates. Rows of collateral whose question the facts no longer make keep their
        class. What says how it was measured stays.

    Raises:
        ValueError: ``facts`` lacks some that were asked, or has an edited one with another answer or target; or there
            is no such group.

    Example:
        >>> again = wb.rescore(report, facts)
        >>> again.rows == report.rows, again.rate("new") == report.rate("new")
        (True, True)
    """
    chosen = {groups} if isinstance(groups, str) else set(groups)
    if unknown := sorted(chosen - {*GROUPS}):
        raise ValueError(f"groups must be some of {list(GROUPS)}, got {unknown}.")
    known = _facts_of(report, facts)
    edited = [known[id] for id in report.facts]
    told = [known[id] for id in _taught(report)]
    base = {key_of(row): row for row in report.rows if row.stage == "base"}
    judges = _judges(report, known, edited)

    def judged(row: AnswerRow) -> AnswerRow:
        judge = judges.get((row.fact_id, row.group, row.prompt)) or judges.get((row.fact_id, row.group, None))
        if row.group not in chosen or judge is None:
            return row
        taught = unsaid(told, base[key_of(row)].text) if row.group in UNTOUCHED else None
        said = without_thought(row.text)
        text = first_sentence(said) if row.form == "cloze" else said
        return replace(row, label=classify(text, judge, nll=row.nll, taught=taught))

    def sampled(row: SampleRow) -> SampleRow:
        judge = judges.get((row.fact_id, row.group, None))
        if row.group not in chosen or judge is None:
            return row
        return replace(row, old=tuple(bool(find_old(text, judge)) for text in row.texts))

    rows, samples = tuple(map(judged, report.rows)), tuple(map(sampled, report.samples))
    settings = report.provenance.get("settings", {})
    rates = rates_of(
        rows,
        report.stages,
        partial(names_target, edited=edited),
        texts=report.texts,
        collateral=any(row.source == "bundled" for row in report.texts),
        samples=samples,
        probabilities=report.probabilities,
        seed=settings.get("seed", 0),
        **_split(report),
    )
    return replace(report, rows=rows, samples=samples, rates=rates)


@own_torch_settings()
def crossed_rates(
    reports: Iterable[EvalReport], facts: FactSet | Sequence[Fact] | None = None, *, seed: int = 0
) -> dict[str, dict[str, Rate]]:
    """Rates over many edits together, with intervals that take both edited facts and asked facts as drawn.

    A table over edits whose interval takes edited facts alone speaks of these controls only; see
    ``workbench.types.crossed``.

    Args:
        reports: One of each edit, of the same stages.
        facts: As in ``rescore``.
        seed: Of the bootstrap.

    Returns:
        By stage, then by rate; a rate that only some reports have (long text, say) is that of those. Rates of questions
        about the edited fact itself take edited facts alone: nothing is crossed there.

    Raises:
        TypeError: Something that is no report.
        ValueError: No reports, reports of other stages, other bases, other wordings or other lengths of answers, two
            of the same edit, or ``facts`` lacks some that were asked, or has an edited one with another answer or
            target.

    Example:
        >>> rates = wb.crossed_rates([report], facts)
        >>> print(rates["learn"]["control"])
        0.50 [0.09, 0.91] (n=2)
    """
    check_seed(seed)
    if isinstance(reports, EvalReport):
        raise ValueError("crossed_rates takes a list of reports; write [report].")
    reports = list(reports)
    given: list[object] = [*reports]
    if odd := [one for one in given if not isinstance(one, EvalReport)]:
        raise TypeError(f"crossed_rates takes reports, got {shortened(odd[0])}; EvalReport.load(file) reads one.")
    if not reports:
        raise ValueError("crossed_rates needs at least one report, got none.")
    stages = reports[0].stages
    if odd := [report for report in reports if report.stages != stages]:
        raise ValueError(f"The reports must have the same stages; one has {stages}, another {odd[0].stages}.")
    for setting in PROTOCOL:
        said = {report.provenance.get("settings", {}).get(setting) for report in reports} - {None}
        if len(said) > 1:
            raise ValueError(
                f"The reports must be asked alike; they have {setting} {', '.join(map(repr, sorted(said)))}. Cross "
                "those of each by themselves."
            )
    bases = {report.base_fingerprint: "+".join(report.facts) for report in reports if report.base_fingerprint}
    if len(bases) > 1:
        raise ValueError(
            f"The reports must be of edits of one base; those of {', '.join(sorted(bases.values())[:3])} have "
            "different ones. Cross the reports of each base by themselves."
        )
    names = ["+".join(report.facts) for report in reports]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"One report of each edit is crossed; there are several of {twice}.")
    targets = [[known[id] for id in r.facts] for r in reports for known in (_facts_of(r, facts, edited_only=True),)]
    out: dict[str, dict[str, Rate]] = {}
    for stage in stages:
        answers = {
            name: answered_at(
                report.rows,
                stage,
                partial(names_target, edited=edited),
                samples=report.samples,
                refusals={fact: of["refusal"] for fact, of in report.probabilities.get(stage, {}).items()},
                **_split(report),
            )
            for name, report, edited in zip(names, reports, targets, strict=True)
        }
        texts = {name: _texts(report, stage) for name, report in zip(names, reports, strict=True)}
        rates = {name: report.rates.get(stage, {}) for name, report in zip(names, reports, strict=True)}
        out[stage] = {
            rate: _crossed(rate, {name: answers[name] for name in having}, texts, seed)
            for rate in RATES
            if (having := [name for name in names if rate in rates[name]])
        }
        if stage == "base":
            out[stage] = {n: r.defined() if RATES[n].fixed_at_base else r for n, r in out[stage].items()}
    return out


def _crossed(rate: str, answers: dict[str, Answered], texts: dict[str, list[tuple[TextRow, float]]], seed: int) -> Rate:
    rule = RATES[rate]
    cells: dict[tuple[Hashable, Hashable], list[float]] = {}
    for name, answered in answers.items():
        if rule.values is not None:
            for key, value in rule.values(answered).items():
                cells.setdefault((name, key[0]), []).append(float(value))
        else:
            for row, before in texts[name]:
                if (row.source != "bundled") == rule.long_texts:
                    value = row.nll - before if rule.kind == "change" else row.nll
                    cells.setdefault((name, row.sentence), []).extend([value] * row.n_tokens)
    return crossed_mean(cells, seed=seed, within=rule.within)


def _texts(report: EvalReport, stage: str) -> list[tuple[TextRow, float]]:
    """Each stretch of text at a stage, with its likelihood under the base."""
    here, before = ([row for row in report.texts if row.stage == at] for at in (stage, "base"))
    return [(row, other.nll) for row, other in zip(here, before, strict=True)]


def _split(report: EvalReport) -> dict[str, Any]:
    """What splits a report's rates."""
    soft = None if report.flips is None else {flip.fact_id for flip in report.flips}
    return {"closed": report.closed_relations, "soft": soft, "retained": report.retained_relations}


def _taught(report: EvalReport) -> list[str]:
    """Ids of all that was taught, by which untouched facts are judged; reports that do not say taught what they
    evaluated."""
    return report.provenance.get("settings", {}).get("taught", list(report.facts))


def _facts_of(report: EvalReport, facts: FactSet | Sequence[Fact] | None, *, edited_only: bool = False) -> FactSet:
    """A set that holds what a report asked."""
    known = load_facts() + load_facts(split="sealed") if facts is None else as_fact_set(facts)
    asked = {*report.facts, *(() if edited_only else (*_taught(report), *(row.fact_id for row in report.rows)))}
    if lacking := sorted(asked - set(known.ids)):
        raise ValueError(
            f"{known.name!r} lacks facts that the report asked: {lacking[:5]}. Give facts=, the set they came from."
        )
    check_answers(report, known)
    return known


def check_answers(report: EvalReport, known: FactSet) -> None:
    """Raise a ValueError for a set that has a fact that was taught with another answer or target than the report's, or
    asked with another answer."""
    settings = report.provenance.get("settings", {})
    then: Mapping[str, Any] = settings.get("answers", {})  # older reports do not say
    for id, (answer, target) in then.items():
        if id in known and (known[id].answer, known[id].target) != (answer, target):
            raise ValueError(
                f"The report is of {id!r} with the answer {answer!r} and the target {target!r}, and {known.name!r} has "
                f"it with {known[id].answer!r} and {known[id].target!r}. Give facts=, the set it came from."
            )
    asked: Mapping[str, str] = settings.get("asked", {})
    for id, answer in asked.items():
        if id in known and known[id].answer != answer:
            raise ValueError(
                f"The report asked {id!r} as a fact with the answer {answer!r}, and {known.name!r} has it with "
                f"{known[id].answer!r}. Give facts=, the set it came from."
            )


def _judges(report: EvalReport, known: FactSet, edited: Sequence[Fact]) -> dict[tuple[str, Group, str | None], Fact]:
    """By fact and group (of collateral by question too), the fact by whose answers a text is judged."""
    settings = report.provenance.get("settings", {})
    sealed, seed = settings.get("wordings") == "sealed", settings.get("seed", 0)
    judges: dict[tuple[str, Group, str | None], Fact] = {}
    for row in report.rows:
        fact = known[row.fact_id]
        if row.group in UNTOUCHED:
            judges[row.fact_id, row.group, None] = asked_sealed(fact, seed=seed) if sealed else fact
        elif row.group in ("train", "heldout", "cloze"):
            judges[row.fact_id, row.group, None] = with_sealed_heldout(fact) if sealed else fact
    if any(row.group not in (*UNTOUCHED, "train", "heldout", "cloze") for row in report.rows):
        asked = collateral_questions(edited, known.core, [])
        judges |= {(q.fact.id, q.group, q.ask.prompt): q.judge for q in asked}
    return judges
