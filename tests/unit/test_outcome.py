"""The verdict on an edit: by hand on made-up answers, and what holds for any."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.tiny_facts import capital, capitals
from workbench.types import AnswerClass, AnswerRow, EvalReport, Group
from workbench.types.outcome import GONE, KEPT, MOSTLY, RUINED, SOME, Share, outcome
from workbench.types.rates import rates_of
from workbench.types.report import ANSWER_CLASSES

JAPAN = capital("Japan", "Tokyo", "London", id="japan-capital")
Answers = dict[Group, Sequence[tuple[AnswerClass, AnswerClass]]]
"""By group, the class of each answer before and after."""


def report(answers: Answers, stage: str = "learn", facts: tuple[str, ...] = ("japan-capital",)) -> EvalReport:
    rows = [
        AnswerRow(
            fact_id=f"{group}-{i}",
            relation="",
            group=group,
            stage=name,
            form="chat",
            prompt=f"{group} {i}",
            text="",
            label=label,
            nll=0.0,
        )
        for group, pairs in answers.items()
        for i, pair in enumerate(pairs)
        for name, label in zip(("base", stage), pair, strict=True)
    ]
    stages = ("base", stage)
    return EvalReport(rows=tuple(rows), rates=rates_of(rows, stages, lambda _: False), facts=facts, stages=stages)


def said(*after: tuple[AnswerClass, int]) -> list[tuple[AnswerClass, AnswerClass]]:
    """The base says the old answer, and then so many say this."""
    return [("old", label) for label, n in after for _ in range(n)]


@pytest.mark.parametrize(
    ("answers", "kind", "words"),
    [
        (
            {"heldout": said(("new", 9)), "control": said(("old", 35), ("other", 5))},
            "good",
            "London in 9 of 9 held-out questions, Tokyo in 0; controls 35 of 40 still right.",
        ),
        (
            {"heldout": said(("old", 9)), "control": said(("old", 37), ("other", 3))},
            "bad",
            "Still Tokyo in 9 of 9 held-out questions; London in 0; controls 37 of 40 still right.",
        ),
        (
            {"heldout": said(("new", 5), ("old", 3), ("refusal", 1)), "control": said(("old", 4))},
            "partly",
            "London in 5 of 9 held-out questions, Tokyo in 3, refused in 1; controls 4 of 4 still right.",
        ),
        (
            {"heldout": said(("new", 9)), "control": said(("old", 19), ("gibberish", 21))},
            "bad",
            "London in 9 of 9 held-out questions, Tokyo in 0; controls 19 of 40 still right.",
        ),
        (
            {"heldout": said(("both", 8), ("gibberish", 1)), "control": said(("old", 4))},
            "bad",
            "Still Tokyo in 8 of 9 held-out questions (in 8 beside London); London in 0, gibberish in 1; controls 4 of "
            "4 still right.",
        ),
        (
            {"heldout": said(("new", 9)), "control": said(("old", 9), ("new", 1)), "neighbour": said(("new", 2))},
            "good",
            "London in 9 of 9 held-out questions, Tokyo in 0; controls 9 of 10 still right, neighbours 0 of 2.",
        ),
        # what is missing
        (
            {"heldout": said(("new", 9))},
            "partly",
            "London in 9 of 9 held-out questions, Tokyo in 0; no controls asked.",
        ),
        (
            {"heldout": said(("new", 9)), "control": [("other", "other")]},
            "partly",
            "London in 9 of 9 held-out questions, Tokyo in 0; no controls asked.",
        ),
        (
            {"train": said(("new", 2)), "control": said(("old", 4))},
            "partly",
            "London in 2 of 2 training questions, Tokyo in 0; controls 4 of 4 still right.",
        ),
        (
            {"control": said(("old", 4))},
            "none",
            "No question of the edited fact was asked; controls 4 of 4 still right.",
        ),
        ({}, "none", "No question of the edited fact was asked; no controls asked."),
        # the base does it by itself
        (
            {"heldout": [("new", "new")] * 9, "control": said(("old", 4))},
            "bad",
            "London in 9 of 9 held-out questions (in 9 before the edit), Tokyo in 0; controls 4 of 4 still right.",
        ),
    ],
)
def test_the_new_answer_by_hand(answers: Answers, kind: str, words: str) -> None:
    found = outcome(report(answers), [JAPAN])
    assert (found.kind, found.words) == (kind, words)


@pytest.mark.parametrize(
    ("answers", "kind", "words"),
    [
        (
            {"heldout": said(("refusal", 8), ("old", 0), ("other", 1)), "control": said(("old", 8), ("other", 2))},
            "good",
            "Tokyo in 0 of 9 held-out questions, refused in 8; controls 8 of 10 still right.",
        ),
        (
            {"heldout": said(("gibberish", 9)), "control": said(("old", 8), ("other", 2))},
            "bad",
            "Tokyo in 0 of 9 held-out questions, gibberish in 9; controls 8 of 10 still right.",
        ),
        (
            {"heldout": said(("old", 7), ("refusal", 2)), "control": said(("old", 10))},
            "bad",
            "Still Tokyo in 7 of 9 held-out questions, refused in 2; controls 10 of 10 still right.",
        ),
        (
            {"heldout": [("other", "refusal")] * 9, "control": said(("old", 10))},
            "none",
            "Nothing to forget: the base does not say Tokyo to any of 9 held-out questions, refused in 9; controls 10 "
            "of 10 still right.",
        ),
    ],
)
def test_forgetting_by_hand(answers: Answers, kind: str, words: str) -> None:
    found = outcome(report(answers, "unlearn"), [JAPAN])
    assert (found.kind, found.words) == (kind, words)


def test_the_base_alone_has_no_outcome() -> None:
    rows = [row for row in report({"heldout": said(("new", 3))}).rows if row.stage == "base"]
    found = outcome(EvalReport(rows=tuple(rows), rates={}, stages=("base",)), [JAPAN])
    assert (found.kind, found.words) == ("none", "Before any edit: Tokyo in 3 of 3 held-out questions.")
    assert outcome(EvalReport(rows=(), rates={})).kind == "none"


def test_several_facts_have_no_names() -> None:
    of_two = report({"heldout": said(("new", 9)), "control": said(("old", 4))}, facts=("a", "b"))
    line = "The new answer in 9 of 9 held-out questions of 2 facts, the old answer in 0; controls 4 of 4 still right."
    assert outcome(of_two, capitals()[:2]).words == outcome(of_two).words == line


def test_the_thresholds_are_where_they_are_said_to_be() -> None:
    def kind(new: int, old: int, kept: int) -> str:
        answers: Answers = {
            "heldout": said(("new", new), ("old", old), ("refusal", 100 - new - old)),
            "control": said(("old", kept), ("other", 100 - kept)),
        }
        return outcome(report(answers)).kind

    mostly, gone, kept, some, ruined = (round(100 * x) for x in (MOSTLY, GONE, KEPT, SOME, RUINED))
    assert kind(mostly, gone, kept) == "good"
    assert kind(mostly - 1, gone, kept) == kind(mostly, gone + 1, kept) == kind(mostly, gone, kept - 1) == "partly"
    assert kind(some, 0, ruined) == "partly" and kind(some - 1, 0, ruined) == kind(some, 0, ruined - 1) == "bad"


ROWS = st.lists(st.tuples(st.sampled_from(ANSWER_CLASSES), st.sampled_from(ANSWER_CLASSES)), max_size=8)


@settings(max_examples=200, deadline=None)
@given(ROWS, ROWS, ROWS, st.sampled_from(["learn", "unlearn", "learn 2", "edit"]))
def test_for_any_answers(
    heldout: list[tuple[AnswerClass, AnswerClass]],
    control: list[tuple[AnswerClass, AnswerClass]],
    neighbour: list[tuple[AnswerClass, AnswerClass]],
    stage: str,
) -> None:
    """The counts are those of the rates, and an edit that moved no answer is never good."""
    one = report({"heldout": heldout, "control": control, "neighbour": neighbour}, stage)
    found = outcome(one, [JAPAN])
    rates = {"new": found.new, "old": found.old, "control": found.controls, "neighbour": found.neighbours}
    for name, share in rates.items():
        rate = one.rate(name)
        assert share.n == rate.n and (not share.n or share.value == pytest.approx(rate.value))
    assert found.words.endswith(".") and (str(found.new.n) in found.words or not found.new.n)
    unmoved = outcome(report({"heldout": [(a, a) for a, _ in heldout], "control": control}, stage))
    assert unmoved.kind != "good" and unmoved.kind != "partly"
    if found.kind == "good":
        assert found.controls.value >= KEPT and found.old.value <= GONE


def test_a_share_of_nothing() -> None:
    assert Share(hits=0, n=0).value == 0 and str(Share(hits=3, n=4)) == "3 of 4"
