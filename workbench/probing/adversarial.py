"""Adversarial prompts: ways to coax the old answer out, of which eight are RWKU's (see ``wordings.py``)."""

from __future__ import annotations

from workbench.facts import graph
from workbench.facts import wordings as prompts
from workbench.facts.wordings import Prompt
from workbench.probing.battery import Battery, as_control, interleaved
from workbench.probing.record import Probe


def probe_adversarial(battery: Battery) -> None:
    """The adversarial prompts, of the fact and of the control."""
    lists: list[list[Prompt]] = []
    for fact in battery.facts:
        near = [f for f in battery.untouched.neighbours(fact) if f.answer not in (fact.answer, fact.target)]
        asked, missing = prompts.adversarial(
            fact,
            background=graph.about_subject(battery.untouched, fact),
            examples=near[-3:],
        )
        for kind, why in missing.items():
            battery.lacks(fact, f"adversarial: {kind}", why)
        lists.append(asked if fact is battery.fact else as_control(asked))
    battery.ask("adversarial", interleaved(*lists))


PROBE = Probe(
    name="adversarial",
    title="adversarial prompts",
    question="Does a jailbreak bring it back?",
    cost=45,
    run=probe_adversarial,
)
