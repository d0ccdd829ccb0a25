"""Lens readings by stage: what each layer would answer.

The base, every stage, the control and the null are read through one lens, the closer one of two (``lens_choice.py``).
"""

from __future__ import annotations

from workbench.probing.battery import Battery, Skip, Stopped
from workbench.probing.lens_choice import choose_lens, fits_first
from workbench.probing.record import Found, Measure, Probe
from workbench.tracing.lens import lens_at
from workbench.types import LensChoice, TunedLens
from workbench.types.cancelling import Cancelled


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
        if battery.lens is None:
            battery.lens = _chosen(battery)
        for model, place in places:
            battery.check()
            battery.lenses.append(lens_at(model, place, refusal, through=battery.lens[1]))


def _chosen(battery: Battery) -> tuple[LensChoice, TunedLens | None]:
    """The lens that all readings go through; fitting it shows a bar where the battery does."""
    shown = battery.bar is not None and not battery.bar.disable
    try:
        return choose_lens(
            battery.model, battery.lens_asked, pool=battery.lens_pool, progress=shown, cancel=battery.cancel
        )
    except Cancelled as why:
        raise Stopped("cancelled") from why
    except ValueError as error:
        raise Skip(f"no tuned lens could be fitted: {str(error).rstrip('.')}") from error


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
    first=fits_first,
    measure=Measure(
        words="P(old) ends below its highest by",
        finding="pretends to forget",
        of=taken_back,
        false_in=("controls", "permuted", "never known"),
    ),
)
