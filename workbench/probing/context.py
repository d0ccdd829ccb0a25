"""Back into context: held-out questions without, and with, the old fact stated in the prompt."""

from __future__ import annotations

from dataclasses import replace

from workbench.facts import wordings as prompts
from workbench.facts.wordings import Prompt
from workbench.probing.battery import Battery, interleaved


def probe_context(battery: Battery) -> None:
    """Held-out questions without, and with, the old fact stated in the prompt."""
    lists: list[list[Prompt]] = []
    for fact in battery.facts:
        asked = [replace(p, group=battery.group(fact)) for pair in prompts.stated(fact) for p in pair]
        lists.append(asked)
    battery.ask("context", interleaved(*lists))
