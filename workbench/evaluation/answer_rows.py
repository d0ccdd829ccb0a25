"""The rows of an evaluation: what one stage answers to every question, and of which class it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workbench.evaluation.answering import Answering, Ask, Reply
from workbench.evaluation.questions import Question
from workbench.language.answers import matches
from workbench.language.replies import without_thought
from workbench.models.load import LoadedModel
from workbench.types import AnswerRow, Fact

KL_ROWS = 48


def answer_rows(
    answering: Answering,
    model: LoadedModel,
    questions: Sequence[Question],
    stage: str,
    taught: Sequence[Fact],
    bar: Any,
) -> list[AnswerRow]:
    """What one stage answers, beside the base, with the KL of at most ``KL_ROWS`` controls and neighbours.

    Args:
        answering: Asks the models.
        model: The model of the stage.
        questions: What is asked.
        stage: What the rows say about it.
        taught: What the edit taught, by which untouched facts are judged.
        bar: A progress bar.
    """
    asks = list(dict.fromkeys(q.ask for q in questions))
    replies: dict[Ask, Reply] = dict(zip(asks, answering.replies(model, asks, bar), strict=True))
    known: dict[Ask, Reply] = replies
    if stage != "base":  # in the cache: the base was asked first
        known = dict(zip(asks, answering.replies(answering.base, asks), strict=True))
    rows = [
        AnswerRow(
            fact_id=q.fact.id,
            relation=q.fact.relation,
            group=q.group,
            stage=stage,
            form=q.ask.form,
            prompt=q.ask.prompt,
            text=replies[q.ask].text,
            label=replies[q.ask].label(q.judge, unsaid(taught, known[q.ask].text) if q.untouched else None),
            nll=replies[q.ask].nll,
        )
        for q in questions
        if replies[q.ask].counted is not None and known[q.ask].counted is not None
    ]
    if stage != "base":
        spread = [i for i, row in enumerate(rows) if row.group in ("control", "neighbour")]
        measured = spread[:: max(1, -(-len(spread) // KL_ROWS))]  # evenly over the relations
        kl = answering.kl(model, [Ask("chat", rows[i].prompt) for i in measured])
        for i, value in zip(measured, kl, strict=True):
            rows[i] = replace(rows[i], kl=value)
    return rows


def names_target(text: str, edited: Sequence[Fact]) -> bool:
    """Whether what counts of a text, its thought left out, names what one of some facts is edited to."""
    said = without_thought(text)
    return any(matches(said, f.targets, case_sensitive=f.case_sensitive) for f in edited)


def unsaid(taught: Sequence[Fact], text: str) -> list[Fact]:
    """Of what an edit taught, the facts whose target the base itself does not name in a text about something else: the
    Colosseum is in Rome, Italy, before any edit and after."""
    said = without_thought(text)
    return [f for f in taught if not matches(said, f.targets, case_sensitive=f.case_sensitive)]
