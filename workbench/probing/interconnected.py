"""Interconnected facts: what should change with the edited fact, and what must stay."""

from __future__ import annotations

from workbench.facts import graph
from workbench.facts import wordings as prompts
from workbench.facts.wordings import Prompt
from workbench.probing.battery import Battery, as_control, interleaved


def probe_interconnected(battery: Battery) -> None:
    """Paraphrases and two-hop questions, which should change, and the same answer elsewhere, which must stay."""
    lists: list[list[Prompt]] = []
    for fact in battery.facts:
        asked = [Prompt("paraphrase", q, fact) for q in prompts.held_out(fact)]
        hops = graph.hops(battery.paths(fact), fact)
        asked += [Prompt("multi-hop", h.question, h.judge) for h in hops]
        if not hops:
            battery.lacks(fact, "interconnected: multi-hop", graph.no_path(battery.paths(fact), fact))
        if fact is battery.fact:
            same = graph.same_answer(battery.untouched, fact)
            if not same:
                where = f"no other untouched fact of {battery.pool.name!r} has the answer {fact.answer!r}"
                battery.skipped["interconnected: same answer"] = where
            asked += [Prompt("same answer", f.question, f, group="same") for f in same]
            lists.append(asked)
        else:
            lists.append(as_control(asked))
    battery.ask("interconnected", interleaved(*lists))
