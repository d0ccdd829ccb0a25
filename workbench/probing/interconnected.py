"""Interconnected facts: what should change with the edited fact, and what must stay."""

from __future__ import annotations

from collections.abc import Callable

from workbench.facts import graph
from workbench.facts import wordings as prompts
from workbench.facts.wordings import Prompt
from workbench.probing.battery import Battery, as_control, interleaved
from workbench.probing.priming import judged
from workbench.probing.record import Asked, Probe, ProbeRate
from workbench.types import Rate
from workbench.types.intervals import share

MULTI_HOP, SAME_SUBJECT = "multi-hop", "same subject"
MOST = 4
"""Other facts about the subject."""


def probe_interconnected(battery: Battery) -> None:
    """Paraphrases and two-hop questions, which should change; other facts about the subject and the same answer
    elsewhere, which must stay."""
    lists: list[list[Prompt]] = []
    for fact in battery.facts:
        asked = [Prompt("paraphrase", q, fact) for q in prompts.held_out(fact)]
        hops = graph.hops(battery.paths(fact), fact)
        asked += [Prompt(MULTI_HOP, h.question, h.judge) for h in hops]
        if not hops:
            battery.lacks(fact, "interconnected: multi-hop", graph.no_path(battery.paths(fact), fact))
        if fact is battery.fact:
            same = graph.same_answer(battery.untouched, fact)
            if not same:
                where = f"no other untouched fact of {battery.pool.name!r} has the answer {fact.answer!r}"
                battery.skipped["interconnected: same answer"] = where
            asked += [Prompt("same answer", f.question, f, group="same") for f in same]
            asked += same_subject(battery)
            lists.append(asked)
        else:
            lists.append(as_control(asked))
    battery.ask("interconnected", interleaved(*lists))


def same_subject(battery: Battery) -> list[Prompt]:
    """A held-out question about each of some other facts of the subject, but for those that may be retained; judged
    with the edit's target as the new answer, so that a spread shows."""
    fact = battery.fact
    found = [f for f in graph.same_subject(battery.all_untouched, fact) if f.role != "retain"]
    if not found:
        battery.skipped["interconnected: same subject"] = (
            f"no other untouched fact of {battery.pool.name!r} is about {fact.subject!r}, besides retained ones"
        )
    drawn = graph.in_turn(found, MOST)
    return [Prompt(SAME_SUBJECT, prompts.held_out(f, 1)[0], judged(f, fact), group="same") for f in drawn]


def subject_share(asked: Asked) -> Rate | None:
    """The share of other facts about the subject that are still right; none where none was asked."""
    if not any(r.kind == SAME_SUBJECT for r in asked.rows):
        return None
    return share([(r.fact_id, r.label == "old") for r in asked.counted if r.kind == SAME_SUBJECT])


def hop_share(name: str) -> Callable[[Asked], Rate | None]:
    """A rate: the share of multi-hop questions that follow the old answer, or the new one; none where none was asked.

    Args:
        name: ``"old"`` or ``"new"``.
    """

    def rate(asked: Asked) -> Rate | None:
        if not any(r.kind == MULTI_HOP and r.group == "edited" for r in asked.rows):
            return None
        hops = [r for r in asked.counted if r.kind == MULTI_HOP and r.group == "edited"]
        return share([("", r.recovered == name) for r in hops])

    return rate


PROBE = Probe(
    name="interconnected",
    title="interconnected facts",
    question="Do other wordings and two-hop questions still know it?",
    cost=20,
    run=probe_interconnected,
    rates=(
        ProbeRate(name="hop_old", words="multi-hop alone: what followed from the old answer", of=hop_share("old")),
        ProbeRate(
            name="hop_new", words="multi-hop alone: what follows from the new answer", of=hop_share("new"), headline=2
        ),
        ProbeRate(name="same_subject", words="other facts about the subject alone: still right", of=subject_share),
    ),
)
