"""The probes that only ask and read: adversarial prompts, step by step, interconnected facts, back into context."""

from __future__ import annotations

import random
from dataclasses import replace

from workbench.facts import graph
from workbench.facts import wordings as prompts
from workbench.facts.wordings import Prompt
from workbench.probing.battery import Battery, Skip, as_control, interleaved
from workbench.probing.priming import answers_target, judged

RETAINED = 3
"""Retained facts that are asked step by step."""


def probe_adversarial(battery: Battery) -> None:
    """The nine kinds of adversarial prompts."""
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
    kept = [f for f in retained if not answers_target(f, battery.fact)]
    kept.sort(key=lambda f: not f.relation or f.relation != battery.fact.relation)
    if not kept:
        other = f" with an answer other than {battery.fact.target!r}" if retained else ""
        battery.skipped["steps: retained facts"] = f"the edit retained no fact of {battery.pool.name!r}{other}"
    for fact in kept[:RETAINED]:
        asked = prompts.steps(judged(fact, battery.fact), [])
        lists.append([replace(p, group="same") for p in asked])
    battery.ask("steps", interleaved(*lists), max_new_tokens=2 * battery.max_new_tokens)


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


def probe_context(battery: Battery) -> None:
    """Held-out questions without, and with, the old fact stated in the prompt."""
    lists: list[list[Prompt]] = []
    for fact in battery.facts:
        asked = [replace(p, group=battery.group(fact)) for pair in prompts.stated(fact) for p in pair]
        lists.append(asked)
    battery.ask("context", interleaved(*lists))


def probe_keywords(battery: Battery, words: dict[str, list[str]]) -> None:
    """The question with its keywords emphasised.

    Args:
        battery: The battery.
        words: By fact id, the question's keywords (see ``emphasis``).
    """
    lists = [
        [replace(p, group=battery.group(fact)) for p in prompts.emphasised(fact, words[fact.id])]
        for fact in battery.facts
        if words.get(fact.id)
    ]
    if not lists:
        raise Skip("no word of the question could be left out")
    battery.ask("keywords", interleaved(*lists))
