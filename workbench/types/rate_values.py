"""From answer rows to the values that a rate averages, by row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from workbench.types.intervals import paired_difference
from workbench.types.report import COLLATERAL_GROUPS, RELATED_GROUPS, AnswerClass, AnswerRow, Group, Rate, SampleRow

Key = tuple[str, Group, str]
Values = dict[Key, float]
Texts = Mapping[int, Sequence[float]]
"""By sentence, its mean negative log-likelihood, once for each of its tokens."""


def key_of(row: AnswerRow) -> Key:
    """What pairs a row with those of other stages and arms."""
    return row.fact_id, row.group, row.prompt


def by_fact(values: Values) -> dict[str, list[float]]:
    """Values by the fact that was asked about."""
    out: dict[str, list[float]] = {}
    for key, value in values.items():
        out.setdefault(key[0], []).append(value)
    return out


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a stage answered, beside the base.

    Args:
        rows: Of one stage.
        base: The base's rows by key.
        names_target: Whether a text names an edited fact's new answer.
        closed: Relations for which the edit's method was told to leave its subject alone.
        soft: Ids of the controls that the base itself loses (``EvalReport.flips``); None where it was not looked at.
        retained: Relations of which the edit held facts in place.
        leaks: By prompt that was sampled, whether any sample holds the old answer.
        refusals: By edited fact, the probability of the refusal at the answer's place.
    """

    rows: Sequence[AnswerRow]
    base: Mapping[Key, AnswerRow]
    names_target: Callable[[str], bool]
    closed: Sequence[str] = ()
    soft: Collection[str] | None = None
    retained: Collection[str] = ()
    leaks: Mapping[Key, bool] = field(default_factory=dict[Key, bool])
    refusals: Mapping[str, float] = field(default_factory=dict[str, float])

    @cached_property
    def distinct(self) -> list[AnswerRow]:
        """The rows but for those of related facts and of collateral; a neighbour may be a control too: what it says
        counts once."""
        out: dict[tuple[str, str], AnswerRow] = {}
        for row in self.rows:
            if row.group not in (*RELATED_GROUPS, *COLLATERAL_GROUPS):
                first = out.setdefault((row.fact_id, row.prompt), row)
                if first.kl is None and row.kl is not None:
                    out[row.fact_id, row.prompt] = row
        return list(out.values())

    @property
    def unedited(self) -> list[AnswerRow]:
        """Controls and neighbours, each once."""
        return [r for r in self.distinct if r.group in ("control", "neighbour")]


def answered_at(
    rows: Sequence[AnswerRow],
    stage: str,
    names_target: Callable[[str], bool],
    *,
    samples: Sequence[SampleRow] = (),
    **settings: Any,
) -> Answered:
    """What one stage of a report answered.

    Args:
        rows: Rows of all stages.
        stage: Which one.
        names_target: Whether a text names an edited fact's new answer.
        samples: Samples of all stages.
        settings: ``closed``, ``soft``, ``retained`` and ``refusals``, as in ``Answered``.
    """
    base = {key_of(r): r for r in rows if r.stage == "base"}
    leaks: dict[Key, bool] = {(s.fact_id, s.group, s.prompt): s.leaks for s in samples if s.stage == stage}
    here = [r for r in rows if r.stage == stage]
    return Answered(rows=here, base=base, names_target=names_target, leaks=leaks, **settings)


def over(
    group: Group, says: Callable[[AnswerRow], bool], among: Callable[[AnswerRow], bool] | None = None
) -> Callable[[Answered], Values]:
    """The values of a share: 1 or 0 for each row of a group.

    Args:
        group: The group.
        says: What counts.
        among: Which rows are counted, by the base's row; None for all.
    """

    def values(answered: Answered) -> Values:
        return {
            key_of(r): float(says(r))
            for r in answered.rows
            if r.group == group and (among is None or among(answered.base[key_of(r)]))
        }

    return values


def firm_controls(answered: Answered) -> Values:
    """The values of the share of controls still right, of those that the base itself does not lose."""
    every = over("control", labelled("old"), among=labelled("old"))(answered)
    return {key: value for key, value in every.items() if key[0] not in (answered.soft or ())}


def controls_of(*, retained: bool) -> Callable[[Answered], Values]:
    """The values of the share of controls still right: of the relations that the edit retained, or of the others."""

    def values(answered: Answered) -> Values:
        relations = {row.fact_id: row.relation for row in answered.rows}
        every = over("control", labelled("old"), among=labelled("old"))(answered)
        return {key: value for key, value in every.items() if (relations[key[0]] in answered.retained) == retained}

    return values


def leaking(answered: Answered) -> Values:
    """1 or 0: any sample of a held-out question that the base answers with the old answer holds it still."""
    known = {key for key, row in answered.base.items() if row.label == "old"}
    return {key: float(leaks) for key, leaks in answered.leaks.items() if key in known}


def same_subject(*, closed: bool) -> Callable[[Answered], Values]:
    """The values of the share of related facts about the subject that are still right: of the relations on which the
    method closed, or of the others."""

    def values(answered: Answered) -> Values:
        relations = {row.fact_id: row.relation for row in answered.rows}
        every = over("same subject", labelled("old"), among=labelled("old"))(answered)
        return {key: value for key, value in every.items() if (relations[key[0]] in answered.closed) == closed}

    return values


def labelled(*labels: AnswerClass) -> Callable[[AnswerRow], bool]:
    """Whether a row is of one of these classes."""
    return lambda row: row.label in labels


def refusing(answered: Answered) -> Values:
    """The probability of the refusal, a value a fact."""
    return {(fact, "train", ""): p for fact, p in answered.refusals.items()}


def gibberish_above_base(answered: Answered) -> Values:
    """1, 0 or -1: gibberish now, minus gibberish of the base at the same prompt."""
    return {
        key_of(r): float(r.label == "gibberish") - float(answered.base[key_of(r)].label == "gibberish")
        for r in answered.distinct
    }


def bleeding(answered: Answered) -> Values:
    """1 or 0: an unedited fact's row names the new answer, of those where the base did not."""
    names_target, base = answered.names_target, answered.base
    return {key_of(r): float(names_target(r.text)) for r in answered.unedited if not names_target(base[key_of(r)].text)}


def divergence(answered: Answered) -> Values:
    """Nats per token, where it was measured."""
    return {key_of(r): r.kl for r in answered.unedited if r.kl is not None}


def excess(values: Mapping[Any, Sequence[float]], *, seed: int = 0) -> Rate:
    """Mean of the excess over the base, 1, 0 or -1 for each prompt, by cluster."""
    more = {key: [max(value, 0.0) for value in of] for key, of in values.items()}
    less = {key: [max(-value, 0.0) for value in of] for key, of in values.items()}
    return paired_difference(more, less, seed=seed, within=(-1.0, 1.0))
