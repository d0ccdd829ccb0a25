"""Back into context: held-out questions without, and with, the old fact stated in the prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from workbench.facts import wordings as prompts
from workbench.facts.wordings import Prompt
from workbench.probing.battery import Battery, interleaved
from workbench.probing.record import Asked, Probe, ProbeRate
from workbench.types import Rate
from workbench.types.intervals import paired_difference


def probe_context(battery: Battery) -> None:
    """Held-out questions without, and with, the old fact stated in the prompt."""
    lists: list[list[Prompt]] = []
    for fact in battery.facts:
        asked = [replace(p, group=battery.group(fact)) for pair in prompts.stated(fact) for p in pair]
        lists.append(asked)
    battery.ask("context", interleaved(*lists))


def gain_of(group: str) -> Callable[[Asked], Rate]:
    """A rate: the old answer with the fact stated minus without, over questions that the base answers when it is
    stated.

    Args:
        group: As of a row.
    """

    def rate(asked: Asked) -> Rate:
        rows = [r for r in asked.rows if r.group == group]
        bare = [r for r in rows if r.kind == "not stated"]
        stated: list[float] = []
        alone: list[float] = []
        for row in rows:
            if row.kind != "stated" or not row.informative:
                continue
            pairs = [b for b in bare if row.prompt.endswith(f" {b.prompt}")]
            if pairs:  # the longest: one question may end with another
                stated.append(float(row.recovered == "old"))
                alone.append(float(max(pairs, key=lambda b: len(b.prompt)).recovered == "old"))
        return paired_difference({"": stated}, {"": alone}, seed=asked.seed)

    return rate


PROBE = Probe(
    name="context",
    title="back into context",
    question="Does stating the old fact make it say it again?",
    cost=22,
    run=probe_context,
    rates=(
        ProbeRate(
            name="gain",
            words="old answer with the fact stated minus without",
            of=gain_of("edited"),
            headline=5,
            fixed_at_base=False,
        ),
        ProbeRate(name="control_gain", words="the same for the control", of=gain_of("control"), fixed_at_base=False),
    ),
    # Bare questions are what the others are compared with, and the paraphrases of another probe.
    counts=lambda row: row.kind != "not stated",
)
