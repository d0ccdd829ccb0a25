"""The probes, in the order in which they run: a row for each file."""

from __future__ import annotations

from workbench.probing import (
    adversarial,
    context,
    interconnected,
    keywords,
    lens,
    priming,
    relearning,
    requantise,
    steps,
    strength,
)
from workbench.probing.record import Probe

PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        lens.PROBE,
        adversarial.PROBE,
        steps.PROBE,
        interconnected.PROBE,
        context.PROBE,
        keywords.PROBE,
        relearning.PROBE,
        requantise.PROBE,
        strength.PROBE,
        priming.PROBE,
    )
}

MOST_QUICK = 20
"""Generated answers, at one stage, of a quick probe at most."""
QUICK: tuple[str, ...] = tuple(name for name, probe in PROBES.items() if probe.cost <= MOST_QUICK)
"""The probes that take little time: a first look."""
