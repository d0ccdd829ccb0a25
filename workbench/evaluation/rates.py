"""Aggregating answer rows to rates. Definitions are in ``EvalReport``'s docstring."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workbench.evaluation.metrics import bootstrap, paired_difference, share
from workbench.types import AnswerRow, Group, Rate

Key = tuple[str, Group, str]


def _key(row: AnswerRow) -> Key:
    return row.fact_id, row.group, row.prompt


def rates_of(
    rows: Sequence[AnswerRow], stages: Sequence[str], names_target: Callable[[str], bool], *, seed: int = 0
) -> dict[str, dict[str, Rate]]:
    """All rates by stage.

    Args:
        rows: Rows of every stage.
        stages: ``"base"`` first.
        names_target: Whether a text names an edited fact's new answer.
        seed: Of the bootstrap.
    """
    base = {_key(r): r for r in rows if r.stage == "base"}
    return {stage: _at_stage([r for r in rows if r.stage == stage], base, names_target, seed) for stage in stages}


def _at_stage(
    rows: Sequence[AnswerRow], base: dict[Key, AnswerRow], names_target: Callable[[str], bool], seed: int
) -> dict[str, Rate]:
    def over(groups: Sequence[Group], says: Callable[[AnswerRow], bool], among: Callable[[AnswerRow], bool]) -> Rate:
        return share([(r.fact_id, says(r)) for r in rows if r.group in groups and among(base[_key(r)])], seed=seed)

    def every(_: AnswerRow) -> bool:
        return True

    def was_right(row: AnswerRow) -> bool:
        return row.label == "old"

    unedited = [r for r in rows if r.group in ("control", "neighbour")]
    kl = {}
    for r in unedited:
        if r.kl is not None:
            kl.setdefault(r.fact_id, []).append(r.kl)
    return {
        "new": over(["heldout"], lambda r: r.label == "new", every),
        "old": over(["heldout"], lambda r: r.label in ("old", "both"), every),
        "refusal": over(["heldout"], lambda r: r.label == "refusal", every),
        "forget": over(["heldout"], lambda r: r.label in ("new", "refusal", "other"), was_right),
        "train_new": over(["train"], lambda r: r.label == "new", every),
        "cloze_new": over(["cloze"], lambda r: r.label == "new", every),
        "control": over(["control"], was_right, was_right),
        "neighbour": over(["neighbour"], was_right, was_right),
        "gibberish": _excess_gibberish(rows, base, seed),
        "bleed": over(["control", "neighbour"], lambda r: names_target(r.text), lambda b: not names_target(b.text)),
        "kl": bootstrap(kl, seed=seed),
    }


def _excess_gibberish(rows: Sequence[AnswerRow], base: dict[Key, AnswerRow], seed: int) -> Rate:
    """Share of gibberish minus the base's, paired by prompt."""
    now: dict[str, list[float]] = {}
    before: dict[str, list[float]] = {}
    for row in rows:
        now.setdefault(row.fact_id, []).append(float(row.label == "gibberish"))
        before.setdefault(row.fact_id, []).append(float(base[_key(row)].label == "gibberish"))
    return paired_difference(now, before, seed=seed)
