"""What came of an edit, in one line and one of four kinds, from the counts of its evaluation. Reads numbers, runs
nothing.

The rule, for a report's last stage:

- **good**: what was wanted is there in at least ``MOSTLY`` of the held-out questions, the old answer is left in at most
  ``GONE`` of them, and at least ``KEPT`` of the controls that the base answered right still are.
- **bad**: it is there in less than ``SOME`` of them, or no more often than in the base; or less than ``RUINED`` of the
  controls are still right.
- **partly**: all between. Also what would be good, had it been measured: without controls nobody knows the price, and
  training questions, which stand in where a fact has no held-out ones, say little.
- **none**: nothing can be said: no edit, no question of an edited fact, or nothing to forget.

What is wanted is the new answer, alone. After an ``unlearn`` stage it is that the old answer is gone, of the questions
that the base answered with it, and not by gibberish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from workbench.types.fact import Fact
from workbench.types.rate_values import Key, key_of
from workbench.types.report import AnswerRow, EvalReport, Group

OutcomeKind = Literal["good", "partly", "bad", "none"]
MOSTLY = 0.75
"""Of the questions: so many must give what is wanted, for a good outcome."""
GONE = 0.1
"""Of the questions: in at most so many the old answer may be left, for a good outcome."""
KEPT = 0.8
"""Of the controls that the base answered right: so many must still be, for a good outcome."""
SOME = 0.25
"""Of the questions: where fewer give what is wanted, the outcome is bad."""
RUINED = 0.5
"""Of the controls: where fewer are still right, the outcome is bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Some of several.

    Args:
        hits: How many.
        n: Of how many.
    """

    hits: int
    n: int

    @property
    def value(self) -> float:
        """The share; 0 of none is 0."""
        return self.hits / self.n if self.n else 0.0

    def __str__(self) -> str:
        return f"{self.hits} of {self.n}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome says what came of an edit; see the module for its rule.

    Args:
        kind: ``"good"``, ``"partly"``, ``"bad"`` or ``"none"``.
        words: A line from the counts.
        stage: The stage that it is about.
        group: The questions that were counted: ``"heldout"``, or ``"train"`` where there are none.
        new: Questions answered with the new answer alone.
        old: Questions whose answer names the old one, beside the new one too.
        both: Those of them that name both.
        new_before: Questions that the base answers with the new answer.
        refused, gibberish: Questions that were refused, and answered by gibberish.
        controls, neighbours: Those still right, of those that the base answered right.

    Example:
        >>> from workbench.types.outcome import outcome
        >>> found = outcome(report, edit.facts)
        >>> found.kind, found.new.hits, found.new.n, found.controls.value
        ('partly', 2, 2, 0.5)
        >>> print(found.words)
        Rome in 2 of 2 held-out questions, Paris in 0; controls 1 of 2 still right, neighbours 0 of 1.
    """

    kind: OutcomeKind
    words: str
    stage: str
    group: Group
    new: Share
    old: Share
    both: int
    new_before: int
    refused: int
    gibberish: int
    controls: Share
    neighbours: Share


def outcome(report: EvalReport, facts: Sequence[Fact] = ()) -> Outcome:
    """Put a report's last stage into one line, and say of which kind it is.

    Args:
        report: The evaluation.
        facts: The edited facts, for the names of their answers; without them, and for several, it is "the new answer".

    Returns:
        The outcome, from the counts of the report's rows.

    Example:
        >>> from workbench.types.outcome import outcome
        >>> outcome(report).words[:40], outcome(report).controls
        ('The new answer in 2 of 2 held-out questi', Share(hits=1, n=2))
    """
    stage = report.stages[-1] if report.stages else "base"
    base, now = (_rows_at(report, name) for name in ("base", stage))
    group: Group = "heldout" if any(row.group == "heldout" for row in now.values()) else "train"
    asked = {key: row for key, row in now.items() if row.group == group}
    found = Outcome(
        kind="none",
        words="",
        stage=stage,
        group=group,
        new=Share(hits=_n(asked, "new"), n=len(asked)),
        old=Share(hits=_n(asked, "old", "both"), n=len(asked)),
        both=_n(asked, "both"),
        new_before=sum(base[key].label == "new" for key in asked if key in base),
        refused=_n(asked, "refusal"),
        gibberish=_n(asked, "gibberish"),
        controls=_still_right(base, now, "control"),
        neighbours=_still_right(base, now, "neighbour"),
    )
    known = [key for key in asked if key in base and base[key].label in ("old", "both")]
    gone = Share(hits=sum(asked[key].label in ("new", "refusal", "other") for key in known), n=len(known))
    forget = stage.split()[0] == "unlearn"
    if stage != "base" and asked and (known or not forget):
        found = replace(found, kind=_kind(found, gone if forget else found.new, forget))
    return replace(found, words=_words(found, report, facts, forget))


def _kind(found: Outcome, reached: Share, forget: bool) -> OutcomeKind:
    unmoved = not forget and found.new.hits <= found.new_before
    if unmoved or reached.value < SOME or (found.controls.n and found.controls.value < RUINED):
        return "bad"
    whole = reached.value >= MOSTLY and found.old.value <= GONE and found.group == "heldout"
    return "good" if whole and found.controls.n and found.controls.value >= KEPT else "partly"


def _rows_at(report: EvalReport, stage: str) -> dict[Key, AnswerRow]:
    return {key_of(row): row for row in report.rows if row.stage == stage}


def _n(rows: dict[Key, AnswerRow], *labels: str) -> int:
    return sum(row.label in labels for row in rows.values())


def _still_right(base: dict[Key, AnswerRow], now: dict[Key, AnswerRow], group: Group) -> Share:
    right = [key for key, row in base.items() if row.group == group and row.label == "old" and key in now]
    return Share(hits=sum(now[key].label == "old" for key in right), n=len(right))


def _words(found: Outcome, report: EvalReport, facts: Sequence[Fact], forget: bool) -> str:
    """The line; ``found`` has no words yet."""
    n, one = found.old.n, len(facts) == 1
    old = facts[0].answer if one else "the old answer"
    new = facts[0].target if one else "the new answer"
    if not n:
        return _sentence("No question of the edited fact was asked", _price(found))
    kind = "held-out" if found.group == "heldout" else "training"
    of = f" of {len(report.facts)} facts" if len(report.facts) > 1 else ""
    questions = f"{n} {kind} {'question' if n == 1 else 'questions'}{of}"
    beside = f" (in {found.both} beside {new})" if found.both else ""
    others = {"refused in": found.refused, "gibberish in": found.gibberish}
    rest = "".join(f", {words} {hits}" for words, hits in others.items() if hits)
    if found.stage == "base":
        return _sentence(f"Before any edit: {old} in {found.old.hits} of {questions}{rest}", "")
    if forget and found.kind == "none":
        return _sentence(f"Nothing to forget: the base does not say {old} to any of {questions}{rest}", _price(found))
    before = f" (in {found.new_before} before the edit)" if found.new_before else ""
    still = found.old.value >= 0.5 and found.new.value < 0.5
    if still:
        line = f"Still {old} in {found.old.hits} of {questions}{beside}"
        line += "" if forget else f"; {new} in {found.new.hits}"
    elif forget:
        line = f"{old} in {found.old.hits} of {questions}{beside}"
    else:
        line = f"{new} in {found.new.hits} of {questions}{before}, {old} in {found.old.hits}{beside}"
    return _sentence(line + rest, _price(found))


def _price(found: Outcome) -> str:
    """What of the rest is still right."""
    controls = f"controls {found.controls} still right" if found.controls.n else "no controls asked"
    few = found.neighbours.n and found.neighbours.value < KEPT
    return controls + (f", neighbours {found.neighbours}" if few else "")


def _sentence(line: str, price: str) -> str:
    return f"{line[:1].upper()}{line[1:]}{f'; {price}' if price else ''}."
