"""Lens readings by stage: what each layer would answer."""

from __future__ import annotations

from workbench.probing.battery import Battery, Skip
from workbench.probing.record import Probe
from workbench.tracing.lens import lens


def probe_lens(battery: Battery) -> None:
    """The lens at every stage, for the fact and the control."""
    for fact in battery.facts:
        try:
            form, refusal = battery.traced(fact).form, battery.answers_at(fact)["refusal"]
        except Skip as why:
            if fact is battery.fact:
                raise
            battery.skipped["lens: control"] = str(why)
            continue
        for model in battery.models.values():
            battery.check()
            battery.lenses.append(lens(model, fact, form=form, refusal=refusal))


PROBE = Probe(
    name="lens",
    title="layer-by-layer lens",
    question="Does a layer still say it, though the model does not?",
    cost=2,
    run=probe_lens,
)
