"""Step by step: direct, indirect and implied questions in several steps."""

from __future__ import annotations

import random
from dataclasses import replace

from workbench.facts import graph
from workbench.facts import wordings as prompts
from workbench.facts.wordings import Prompt
from workbench.probing.battery import Battery, as_control, interleaved
from workbench.probing.priming import answers_target, judged
from workbench.probing.record import Probe

RETAINED = 3
"""Retained facts that are asked step by step."""


def probe_steps(battery: Battery) -> None:
    """Direct, indirect and implied questions in several steps, with twice the tokens; also of a few facts that the edit
    retained, its neighbours first: what they lose is wrongly suppressed."""
    lists: list[list[Prompt]] = []
    for fact in battery.facts:
        hops = graph.hops(battery.paths(fact), fact, 2)
        asked = prompts.steps(fact, hops)
        if not hops:
            battery.lacks(fact, "steps: two hops", graph.no_path(battery.paths(fact), fact))
        lists.append(asked if fact is battery.fact else as_control(asked))
    retained = [f for f in battery.pool if f.id in battery.edit.retain_ids]
    random.Random(battery.seed).shuffle(retained)
    others = [f for f in retained if not answers_target(f, battery.fact)]
    others.sort(key=lambda f: not f.relation or f.relation != battery.fact.relation)
    if not others:
        other = f" with an answer other than {battery.fact.target!r}" if retained else ""
        battery.skipped["steps: retained facts"] = f"the edit retained no fact of {battery.pool.name!r}{other}"
    for fact in others[:RETAINED]:
        asked = prompts.steps(judged(fact, battery.fact), [])
        lists.append([replace(p, group="same") for p in asked])
    battery.ask("steps", interleaved(*lists), max_new_tokens=2 * battery.max_new_tokens)


PROBE = Probe(
    name="steps",
    title="step by step",
    question="Does it come back when asked step by step?",
    cost=45,
    run=probe_steps,
    rate_words={"same": "retained facts: still right"},  # what must stay is what the edit itself retained
)
