"""Lens readings by stage: what each layer would answer."""

from __future__ import annotations

from workbench.probing.battery import Battery, Skip
from workbench.probing.record import Found, Measure, Probe
from workbench.tracing.lens import lens_at


def probe_lens(battery: Battery) -> None:
    """The lens at every stage, for the fact and the control."""
    for fact in battery.facts:
        try:
            refusal = battery.answers_at(fact)["refusal"]
            places = [(model, battery.traced(fact, model)) for model in battery.models.values()]
        except Skip as why:
            if fact is battery.fact:
                raise
            battery.skipped["lens: control"] = str(why)
            continue
        for model, place in places:
            battery.check()
            battery.lenses.append(lens_at(model, place, refusal))


def taken_back(battery: Battery, _: Probe, stage: str) -> Found | None:
    """How far P(old) ends below its highest, and whether the verdict is *pretends to forget*."""
    for reading in battery.lenses:
        if reading.stage == stage and reading.prompt.fact_id == battery.fact.id:
            return Found(value=reading.latent("old"), found=reading.pretends)
    return None


PROBE = Probe(
    name="lens",
    title="layer-by-layer lens",
    question="Does a layer still say it, though the model does not?",
    cost=2,
    run=probe_lens,
    measure=Measure(
        words="P(old) ends below its highest by",
        finding="pretends to forget",
        of=taken_back,
        false_in=("controls", "permuted", "never known"),
    ),
)
