"""Aggregating answer rows to rates. Definitions are in ``EvalReport``'s docstring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.types import COLLATERAL_GROUPS, AnswerClass, AnswerRow, Group, Rate
from workbench.types.intervals import bootstrap, paired_difference, share

Key = tuple[str, Group, str]
Values = dict[Key, float]


def by_fact(values: Values) -> dict[str, list[float]]:
    """Values by the fact that was asked about."""
    out: dict[str, list[float]] = {}
    for key, value in values.items():
        out.setdefault(key[0], []).append(value)
    return out


def key_of(row: AnswerRow) -> Key:
    """What pairs a row with those of other stages and arms."""
    return row.fact_id, row.group, row.prompt


def rates_of(
    rows: Sequence[AnswerRow],
    stages: Sequence[str],
    names_target: Callable[[str], bool],
    *,
    collateral: bool = False,
    seed: int = 0,
) -> dict[str, dict[str, Rate]]:
    """All rates by stage.

    Args:
        rows: Rows of every stage.
        stages: ``"base"`` first.
        names_target: Whether a text names an edited fact's new answer.
        collateral: Also the rates of what follows from the edited facts.
        seed: Of the bootstrap.
    """
    base = {key_of(r): r for r in rows if r.stage == "base"}
    at = {stage: [r for r in rows if r.stage == stage] for stage in stages}
    rates = {stage: _at_stage(found, base, names_target, seed) for stage, found in at.items()}
    if collateral:
        for stage, found in at.items():
            rates[stage] |= {name: _share(values, seed) for name, values in collateral_of(found, base).items()}
    return rates


def outcomes_of(
    rows: Sequence[AnswerRow], base: Mapping[Key, AnswerRow], names_target: Callable[[str], bool]
) -> dict[str, dict[Key, float]]:
    """What each rate averages: by rate and row, 1 or 0, nats per token for ``kl``, and for ``gibberish`` 1, 0 or -1,
    the excess over the base at the same prompt.

    Args:
        rows: Of one stage.
        base: The base's rows by key.
        names_target: Whether a text names an edited fact's new answer.
    """

    def over(groups: Sequence[Group], says: Callable[[AnswerRow], bool], among: Callable[[AnswerRow], bool]) -> Values:
        return {key_of(r): float(says(r)) for r in rows if r.group in groups and among(base[key_of(r)])}

    def every(_: AnswerRow) -> bool:
        return True

    def was_right(row: AnswerRow) -> bool:
        return row.label == "old"

    distinct: dict[tuple[str, str], AnswerRow] = {}  # a neighbour may be a control too: what it says counts once
    for row in rows:
        if row.group not in COLLATERAL_GROUPS:
            first = distinct.setdefault((row.fact_id, row.prompt), row)
            if first.kl is None and row.kl is not None:
                distinct[row.fact_id, row.prompt] = row
    unedited = [r for r in distinct.values() if r.group in ("control", "neighbour")]
    return {
        "new": over(["heldout"], lambda r: r.label == "new", every),
        "old": over(["heldout"], lambda r: r.label in ("old", "both"), every),
        "refusal": over(["heldout"], lambda r: r.label == "refusal", every),
        "forget": over(["heldout"], lambda r: r.label in ("new", "refusal", "other"), was_right),
        "train_new": over(["train"], lambda r: r.label == "new", every),
        "cloze_new": over(["cloze"], lambda r: r.label == "new", every),
        "control": over(["control"], was_right, was_right),
        "neighbour": over(["neighbour"], was_right, was_right),
        "gibberish": {
            key_of(r): float(r.label == "gibberish") - float(base[key_of(r)].label == "gibberish")
            for r in distinct.values()
        },
        "bleed": {key_of(r): float(names_target(r.text)) for r in unedited if not names_target(base[key_of(r)].text)},
        "kl": {key_of(r): r.kl for r in unedited if r.kl is not None},
    }


def collateral_of(rows: Sequence[AnswerRow], base: Mapping[Key, AnswerRow]) -> dict[str, Values]:
    """What each rate of collateral averages: by rate and row, 1 or 0. As in ``outcomes_of``, of one stage."""

    def over(group: Group, label: AnswerClass, among: Callable[[AnswerRow], bool]) -> Values:
        return {key_of(r): float(r.label == label) for r in rows if r.group == group and among(base[key_of(r)])}

    return {
        "reversed_old": over("reversed", "old", lambda b: b.label == "old"),
        "reversed_new": over("reversed_target", "new", lambda b: b.label != "new"),
        "twohop_old": over("twohop", "old", lambda b: b.label == "old"),
        "twohop_new": over("twohop", "new", lambda b: b.label == "old"),
    }


def _at_stage(
    rows: Sequence[AnswerRow], base: dict[Key, AnswerRow], names_target: Callable[[str], bool], seed: int
) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    for name, values in outcomes_of(rows, base, names_target).items():
        if name == "gibberish":
            rates[name] = excess(by_fact(values), seed=seed)
        elif name == "kl":
            rates[name] = bootstrap(by_fact(values), seed=seed)
        else:
            rates[name] = _share(values, seed)
    return rates


def _share(values: Values, seed: int) -> Rate:
    return share([(key[0], bool(value)) for key, value in values.items()], seed=seed)


def excess(values: Mapping[Any, Sequence[float]], *, seed: int = 0) -> Rate:
    """Mean of the excess over the base, 1, 0 or -1 for each prompt, by cluster."""
    more = {key: [max(value, 0.0) for value in of] for key, of in values.items()}
    less = {key: [max(-value, 0.0) for value in of] for key, of in values.items()}
    return paired_difference(more, less, seed=seed, within=(-1.0, 1.0))
