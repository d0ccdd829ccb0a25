"""The rates of an evaluation: a table with one record each, and from answer rows to rates.

A rate is added by one row of ``RATES``: reports, tables, the figure and the panels follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from workbench.types.intervals import mean_over, paired_difference, share
from workbench.types.report import COLLATERAL_GROUPS, AnswerClass, AnswerRow, Group, Rate, TextRow

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
    """

    rows: Sequence[AnswerRow]
    base: Mapping[Key, AnswerRow]
    names_target: Callable[[str], bool]

    @cached_property
    def distinct(self) -> list[AnswerRow]:
        """The rows but for those of collateral; a neighbour may be a control too: what it says counts once."""
        out: dict[tuple[str, str], AnswerRow] = {}
        for row in self.rows:
            if row.group not in COLLATERAL_GROUPS:
                first = out.setdefault((row.fact_id, row.prompt), row)
                if first.kl is None and row.kl is not None:
                    out[row.fact_id, row.prompt] = row
        return list(out.values())

    @property
    def unedited(self) -> list[AnswerRow]:
        """Controls and neighbours, each once."""
        return [r for r in self.distinct if r.group in ("control", "neighbour")]


@dataclass(frozen=True, kw_only=True)
class RateRule:
    """One rate of an evaluation.

    Args:
        name: Its name in a report.
        words: What it is, for tables.
        definition: Which rows it is over, and what of them.
        better: Whether a high or a low value is what an edit is for.
        kind: ``"share"`` of rows, from 0 to 1; ``"excess"`` over the base, from -1 to 1; ``"mean"``, from 0 on;
            ``"change"``, without bound.
        tick: Its label in the figure of rates; empty: it is not drawn there.
        values: By row, what it averages.
        of_texts: Instead of ``values``: from the sentences of ordinary text of a stage and of the base, and the seed.
        collateral: Whether it is there only if collateral was asked for.
        fixed_at_base: Whether the base's own value follows from what is counted: what it answered right is right, and
            it has no excess over itself. Such a value has no interval (``Rate.by_definition``).
    """

    name: str
    words: str
    definition: str
    better: Literal["higher", "lower"]
    kind: Literal["share", "excess", "mean", "change"] = "share"
    tick: str = ""
    values: Callable[[Answered], Values] | None = None
    of_texts: Callable[[Texts, Texts, int], Rate] | None = None
    collateral: bool = False
    fixed_at_base: bool = False

    @property
    def bound(self) -> float:
        """The largest value."""
        return 1.0 if self.kind in ("share", "excess") else math.inf

    def of(self, values: Values, seed: int = 0) -> Rate:
        """The rate of such values."""
        if self.kind == "share":
            return share([(key[0], bool(value)) for key, value in values.items()])
        return (excess if self.kind == "excess" else mean_over)(by_fact(values), seed=seed)


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


def labelled(*labels: AnswerClass) -> Callable[[AnswerRow], bool]:
    """Whether a row is of one of these classes."""
    return lambda row: row.label in labels


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


_RULES = (
    RateRule(
        name="new",
        words="new answer, held-out questions",
        definition="held-out prompts answered with the new fact",
        better="higher",
        tick="new answer<br>(held-out)",
        values=over("heldout", labelled("new")),
    ),
    RateRule(
        name="old",
        words="old answer still there, held-out",
        definition="held-out prompts whose answer names the old fact",
        better="lower",
        values=over("heldout", labelled("old", "both")),
    ),
    RateRule(
        name="refusal",
        words="refusal, held-out",
        definition="held-out prompts that are refused",
        better="lower",
        values=over("heldout", labelled("refusal")),
    ),
    RateRule(
        name="forget",
        words="forgotten, of what the base answered",
        definition="neither the old fact nor gibberish, of held-out prompts that the base answered with the old fact",
        better="higher",
        tick="old answer<br>forgotten",
        values=over("heldout", labelled("new", "refusal", "other"), among=labelled("old")),
        fixed_at_base=True,
    ),
    RateRule(
        name="train_new",
        words="new answer, training questions",
        definition="training prompts answered with the new fact",
        better="higher",
        values=over("train", labelled("new")),
    ),
    RateRule(
        name="cloze_new",
        words="new answer, clozes",
        definition="clozes completed with the new fact",
        better="higher",
        values=over("cloze", labelled("new")),
    ),
    RateRule(
        name="control",
        words="controls still right",
        definition="of the control prompts that the base answered correctly",
        better="higher",
        tick="controls<br>kept",
        values=over("control", labelled("old"), among=labelled("old")),
        fixed_at_base=True,
    ),
    RateRule(
        name="neighbour",
        words="neighbours still right",
        definition="of the neighbours' prompts that the base answered correctly",
        better="higher",
        tick="neighbours<br>kept",
        values=over("neighbour", labelled("old"), among=labelled("old")),
        fixed_at_base=True,
    ),
    RateRule(
        name="gibberish",
        words="gibberish above the base's",
        definition="over all rows but those of collateral; a fact that is both control and neighbour counts once",
        better="lower",
        kind="excess",
        tick="gibberish<br>(excess)",
        values=gibberish_above_base,
        fixed_at_base=True,
    ),
    RateRule(
        name="bleed",
        words="new answer where it does not belong",
        definition="control and neighbour rows that name the new answer though the base did not; each fact once",
        better="lower",
        tick="new answer<br>bleeds",
        values=bleeding,
        fixed_at_base=True,
    ),
    RateRule(
        name="kl",
        words="KL to the base, controls and neighbours (nats per token)",
        definition="mean on control and neighbour rows, each fact once; of more than 48 rows on so many or fewer",
        better="lower",
        kind="mean",
        values=divergence,
    ),
    RateRule(
        name="reversed_old",
        words="reversed: subject still given for the old answer",
        definition="of the prompts where the base gave it",
        better="lower",
        values=over("reversed", labelled("old"), among=labelled("old")),
        collateral=True,
        fixed_at_base=True,
    ),
    RateRule(
        name="reversed_new",
        words="reversed: subject given for the new answer",
        definition="of the prompts where the base did not give it",
        better="higher",
        values=over("reversed_target", labelled("new"), among=lambda base: base.label != "new"),
        collateral=True,
        fixed_at_base=True,
    ),
    RateRule(
        name="twohop_old",
        words="two hops: consequence still the old one",
        definition="of the prompts where the base gave the old one",
        better="lower",
        values=over("twohop", labelled("old"), among=labelled("old")),
        collateral=True,
        fixed_at_base=True,
    ),
    RateRule(
        name="twohop_new",
        words="two hops: consequence follows the edit",
        definition="of the prompts where the base gave the old one",
        better="higher",
        values=over("twohop", labelled("new"), among=labelled("old")),
        collateral=True,
        fixed_at_base=True,
    ),
    RateRule(
        name="text_nll",
        words="ordinary text: NLL (nats per token)",
        definition="mean over all tokens; the interval draws whole sentences",
        better="lower",
        kind="mean",
        of_texts=lambda now, base, seed: mean_over(now, seed=seed),
        collateral=True,
    ),
    RateRule(
        name="text_nll_change",
        words="ordinary text: NLL above the base's",
        definition="mean over all tokens, minus the base's",
        better="lower",
        kind="change",
        of_texts=lambda now, base, seed: paired_difference(now, base, seed=seed),
        collateral=True,
        fixed_at_base=True,
    ),
)
RATES: dict[str, RateRule] = {rule.name: rule for rule in _RULES}
"""By name, in the order of reports and tables."""


def rates_of(
    rows: Sequence[AnswerRow],
    stages: Sequence[str],
    names_target: Callable[[str], bool],
    *,
    texts: Sequence[TextRow] = (),
    collateral: bool = False,
    seed: int = 0,
) -> dict[str, dict[str, Rate]]:
    """All rates by stage.

    Args:
        rows: Rows of every stage.
        stages: ``"base"`` first.
        names_target: Whether a text names an edited fact's new answer.
        texts: Sentences of ordinary text at every stage, for collateral.
        collateral: Also the rates of what follows from the edited facts.
        seed: Of the bootstrap.
    """
    base = {key_of(r): r for r in rows if r.stage == "base"}
    base_texts = _texts_at("base", texts)
    out: dict[str, dict[str, Rate]] = {}
    for stage in stages:
        here = [r for r in rows if r.stage == stage]
        answered = Answered(rows=here, base=base, names_target=names_target)
        out[stage] = {}
        for rule in RATES.values():
            if rule.collateral and not collateral:
                continue
            if rule.values is not None:
                out[stage][rule.name] = rule.of(rule.values(answered), seed)
            elif rule.of_texts is not None:
                out[stage][rule.name] = rule.of_texts(_texts_at(stage, texts), base_texts, seed)
            if stage == "base" and rule.fixed_at_base:
                out[stage][rule.name] = out[stage][rule.name].defined()
    return out


def _texts_at(stage: str, texts: Sequence[TextRow]) -> Texts:
    return {i: [r.nll] * r.n_tokens for i, r in enumerate(r for r in texts if r.stage == stage)}
