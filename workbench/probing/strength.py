"""The answers' probabilities along the strength of the edit."""

from __future__ import annotations

from workbench.editing.applied import Dial
from workbench.language.scoring import continuation_probabilities
from workbench.probing.battery import Battery, Skip
from workbench.probing.record import Measure, Probe, last_of_curve
from workbench.types import Curve, CurveWords

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def probe_strength(battery: Battery) -> None:
    """Full-sequence probabilities of old, new and refusal with the gates interpolated from none (0) to all (1)."""
    for fact in battery.facts:
        try:
            places = battery.places(fact)
        except Skip as why:
            if fact is battery.fact:
                raise
            battery.skipped["strength: control"] = str(why)
            continue
        for stage in battery.stages:
            if battery.edit.delta(stage).context:
                battery.lacks(fact, f"strength: {stage}", "a context is there or it is not: it has no strengths")
                continue
            dial = Dial(battery.model, battery.edit, stage)
            measured: list[list[float]] = []
            for strength in STRENGTHS:
                battery.check()
                measured.append(continuation_probabilities(dial.at(strength), list(places.values())))
            battery.curves.append(
                Curve(
                    probe="strength",
                    name=fact.id,
                    group=battery.group(fact),
                    stage=stage,
                    x_name="strength",
                    x=STRENGTHS,
                    y={name: tuple(column) for name, column in zip(places, zip(*measured, strict=True), strict=True)},
                )
            )


PROBE = Probe(
    name="strength",
    title="strength of the edit",
    question="From which strength of the edit on is it gone?",
    cost=4,
    run=probe_strength,
    measure=Measure(
        words="P(old) at the whole edit",
        finding="the old answer is the likelier one",
        of=last_of_curve(),
        false_in=("never known",),
    ),
    curve=CurveWords(
        figure="lines",
        title="Strength of the edit: {fact}",
        notes=("full-sequence probabilities after the base model's own words",),
        x_label="strength of the edit",
        y_label="probability",
        place=1,
    ),
)
