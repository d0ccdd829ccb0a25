"""CircuitPicker computes its maps: in the background, drawn as they come, estimates first, as its code repeats them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.panels import code_block, control, own, until
from tests.helpers.panels import shown as text
from tests.helpers.pickers import FACTS, FRANCE, consistent, fresh, names, ready, tiny
from tests.helpers.tiny_facts import capital
from tests.helpers.wire import click, enter
from workbench.language.prompts import AnswerNotSaid
from workbench.tracing.attribution import AttributionUnit
from workbench.types import EffectMap
from workbench.types.cancelling import Cancelled
from workbench.widgets.picker import map_queue, maps
from workbench.widgets.picker.maps import MapName, Sources, left_out
from workbench.widgets.picker.picker import CircuitPicker

LONELY = capital("Spain", "Madrid", "Rome", id="lonely", relation="own")  # known, but alone in its relation


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def test_maps_are_computed_shown_and_repeated_by_the_code() -> None:
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS)
    assert shown.job is not None
    shown.job.wait(120)
    assert set(shown.maps) == {"heads", "mlps", "neurons", "resid"} and shown.status == ""
    enter(shown.heads, hover=[0, 1])
    assert shown.heads.pattern is not None  # computed beforehand
    shown.top("neurons", 5)
    code = shown.code.replace("model = wb.load_model('tiny')", "model = given")
    names_: dict[str, Any] = {"given": tiny()}
    exec(code, names_)
    assert list(names_["selection"]) == list(shown.selection)
    assert len({m.prompts[0].partner for m in shown.maps.values()}) == 1
    for name, variable in (("heads", "heads"), ("mlps", "mlps"), ("neurons", "neurons"), ("resid", "trace_resid")):
        assert torch.equal(names_[variable].values, shown.maps[name].values)
    block = code_block(shown)
    assert block.source == ""
    enter(block, opened=True)
    assert "wb.causal_trace" in block.source
    shown.selection = "L1H2"
    assert "L1H2" in block.source
    enter(block, opened=False)
    assert block.source == ""


def test_exact_effects_take_the_place_of_the_estimates() -> None:
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    seen: list[str] = []
    shown.heads.observe(lambda change: seen.append(change["new"]), names="title")
    shown.compute("heads", "mlps").wait(120)
    shows = ["Heads (attribution)", *(f"Heads: {n} of 3 exact" for n in (1, 2, 3))]
    assert [title for title in seen if "(" in title or "exact" in title] == [*shows, "Heads (patching)"]
    partner = FACTS[shown.maps["heads"].prompts[0].partner or ""]
    units: dict[str, AttributionUnit] = {"heads": "head", "mlps": "mlp"}
    for name, unit in units.items():
        options: dict[str, Any] = {"corruption": "swap", "partner": partner, "pool": FACTS, "progress": False}
        options["normalise"] = True
        exact = wb.attribute(tiny(), FRANCE, unit, method="patching", **options)
        assert torch.equal(shown.maps[name].values, exact.values)
    found: dict[str, Any] = {"given": tiny()}
    exec(shown.code.replace("model = wb.load_model('tiny')", "model = given"), found)
    assert torch.equal(found["heads"].values, shown.maps["heads"].values)
    several = CircuitPicker(tiny(), FACTS[:2], pool=FACTS, corruption="noise", compute=False)
    several.compute("heads").wait(120)
    assert several.maps["heads"].method == "attribution"


def exactly(monkeypatch: pytest.MonkeyPatch, steps: threading.Semaphore, go: threading.Semaphore, fail: bool) -> Any:
    """Patching that waits after each layer, and may fail after the second; the exact map."""
    real = Sources.compute
    options: dict[str, Any] = {"corruption": "noise", "normalise": True, "pool": FACTS, "progress": False}
    exact = wb.attribute(tiny(), FRANCE, "head", method="patching", **options)

    def slowly(sources: Sources, name: MapName, *, exact: bool = False, on_layer: Any = None) -> EffectMap:
        def told(unit: str, layer: int, values: torch.Tensor) -> None:
            on_layer(unit, layer, values)
            steps.release()
            assert go.acquire(timeout=30)
            if fail and layer == 1:
                raise RuntimeError("broke")

        return real(sources, name, exact=exact, on_layer=told if exact else None)

    monkeypatch.setattr(Sources, "compute", slowly)
    return exact


@pytest.mark.parametrize("fails", [False, True])
def test_exact_effects_take_the_estimates_place_layer_by_layer(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The map is the estimate until all layers are there; a patching that fails leaves the estimate in sight."""
    steps, go = threading.Semaphore(0), threading.Semaphore(0)
    exact = exactly(monkeypatch, steps, go, fails)
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, corruption="noise", compute=False)
    shown.selection = "L1H2"
    job = shown.compute("heads")
    for done in (1, 2):
        assert steps.acquire(timeout=30)
        estimate, values = shown.maps["heads"], torch.tensor(shown.heads.values)
        assert torch.equal(values[:done], exact.values[:done].float()) and estimate.method == "attribution"
        assert torch.equal(values[done:], estimate.values[done:].float())
        assert shown.heads.title == f"Heads: {done} of 3 exact"
        assert shown.heads.selected == [[1, 2]]
        assert estimate.stderr is None, "which would not be that of an exact layer"
        go.release(done)
    if fails:
        with pytest.raises(RuntimeError, match="broke"):
            job.wait(30)
        assert shown.heads.title == "Heads (attribution)"
        assert torch.equal(torch.tensor(shown.heads.values), shown.maps["heads"].values.float())
    else:
        job.wait(30)
        assert shown.heads.title == "Heads (patching)"
        assert torch.equal(torch.tensor(shown.heads.values), exact.values.float())
    consistent(shown)


def test_a_choice_from_an_estimate_stays_when_exact_effects_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code no longer says ``heads.top(3)``, which would be other heads now."""
    shown = fresh()
    shown.top("heads", 3)
    chosen = names(shown.selection)
    assert "heads.top(3)" in shown.code
    estimate = ready()["heads"]
    exact_map = replace(estimate, values=-estimate.values, method="patching")
    monkeypatch.setattr(
        Sources, "compute", lambda sources, name, *, exact=False, on_layer=None: exact_map if exact else estimate
    )
    shown.compute("heads").wait(30)
    assert shown.maps["heads"] is exact_map and names(shown.selection) == chosen
    assert "heads.top(3)" not in shown.code and 'method="patching"' in shown.code
    consistent(shown)


def test_a_button_computes_the_maps_that_a_session_lacks() -> None:
    shown = fresh({"heads": ready()["heads"]})
    button = control(shown, "Compute missing maps")
    assert button.layout.display is None
    click(button)
    assert button.layout.display == "none", "they are asked for"
    assert shown.job is not None
    shown.job.wait(60)
    assert set(shown.maps) == {"heads", "mlps", "neurons", "resid"} and shown.maps["heads"] is ready()["heads"]
    assert button.layout.display == "none"
    assert control(fresh(), "Compute missing maps").layout.display == "none"


def test_a_trace_is_drawn_as_its_layers_are_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, go, drawn = ready()["resid"], threading.Semaphore(0), threading.Semaphore(0)

    def slowly(sources: Sources, name: MapName, *, on_layer: Any = None, **options: Any) -> EffectMap:
        for layer in range(2):
            on_layer("resid", layer, whole.values[layer])
            drawn.release()
            assert go.acquire(timeout=30)
        return whole

    monkeypatch.setattr(Sources, "compute", slowly)
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    shown.selection = "L1ATTN L1MLP"
    job, start = shown.compute("resid"), left_out(whole)
    for done in (1, 2):
        assert drawn.acquire(timeout=30)
        values = torch.tensor(shown.trace.values)
        assert torch.equal(values[:done], whole.values[:done, start:].float())
        assert bool(values[done:].isnan().all())
        assert shown.trace.title == f"Trace: residual stream: {done} of 3 layers"
        assert shown.trace.selected == [[1, i] for i in range(shown.trace.shape[1])]
        assert "resid" not in shown.maps and "trace_resid" not in shown.code
        go.release()
    job.wait(30)
    assert torch.equal(torch.tensor(shown.trace.values), whole.values[:, start:].float())
    assert shown.trace.title == "Trace: residual stream (swap)"
    consistent(shown)


def test_cancel_stops_within_a_map_and_keeps_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, drawn, go = ready()["resid"], threading.Semaphore(0), threading.Semaphore(0)
    layers: list[int] = []

    def slowly(sources: Sources, name: MapName, *, on_layer: Any = None, **options: Any) -> EffectMap:
        if name != "resid":
            return ready()[name]
        for layer in range(3):
            layers.append(layer)
            on_layer("resid", layer, whole.values[layer])
            drawn.release()
            assert go.acquire(timeout=30)
        return whole

    monkeypatch.setattr(Sources, "compute", slowly)
    monkeypatch.setattr(maps, "EXACT_CELLS", 0)
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    cancel = control(shown._line, "Cancel")
    assert shown._line.layout.visibility == "hidden"
    job = shown.compute("heads", "resid", "mlps")
    assert drawn.acquire(timeout=30)
    assert shown._line.layout.visibility == "visible"
    until(lambda: re.search(r"1 of 3 layers at \d+ positions, about \d+ s left", shown.status))
    assert "map 3 of 4" in shown.status and " s" in shown.status  # the attention patterns are one of them
    click(cancel)
    go.release(3)
    with pytest.raises(Cancelled):
        job.wait(30)
    assert layers == [0, 1], "it stopped where it looked next"
    assert set(shown.maps) == {"heads"} and shown.status == "" and shown.error is None
    assert shown.trace.title == "Trace: residual stream: cancelled" and shown.mlps.title == "MLPs: cancelled"
    go.release(3)
    click(control(shown, "Compute missing maps"))
    assert shown.job is not None and shown.job is not job
    shown.job.wait(30)
    assert set(shown.maps) == {"heads", "mlps", "resid", "neurons"}


def test_another_fact_does_not_wait_for_the_map_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, go, done = threading.Semaphore(0), threading.Semaphore(0), []

    def slowly(sources: Sources, name: MapName, *, on_layer: Any = None, **options: Any) -> EffectMap:
        if sources.facts[0] == FRANCE:
            drawn.release()
            assert go.acquire(timeout=30)
            on_layer("resid", 0, ready()["resid"].values[0])
            done.append("France")
        return ready()[name]

    monkeypatch.setattr(Sources, "compute", slowly)
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    shown.compute("resid")
    assert drawn.acquire(timeout=30)
    shown.show(FACTS[1], {})
    job = shown.compute("resid")
    go.release()
    job.wait(30)
    assert done == [] and set(shown.maps) == {"resid"}


def test_the_model_stays_as_it_is() -> None:
    before = tiny().fingerprint
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    shown.compute("heads", "mlps").wait(60)
    assert tiny().fingerprint == before and not any(p.grad is not None for p in tiny().hf.parameters())


# Asked, changed and shown meanwhile


class Held:
    """In place of the computation: each map waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.calls = threading.Semaphore(0), []
        self.fail: set[str] = set()
        monkeypatch.setattr(Sources, "compute", lambda sources, name, **options: self(sources, name))
        monkeypatch.setattr(maps, "EXACT_CELLS", 0)

    def __call__(self, sources: Sources, name: MapName) -> EffectMap:
        self.calls.append((sources.facts[0].id, name))
        assert self.go.acquire(timeout=30)
        if name in self.fail:
            raise RuntimeError(f"{name} <b>broke</b>")
        return ready()[name]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    ready()
    held = Held(monkeypatch)
    yield held
    held.go.release(100)


def test_the_fact_changes_while_maps_are_computed(held: Held) -> None:
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS)
    job = shown.job
    assert job is not None
    until(lambda: held.calls == [("france-capital", "heads")])
    assert "Computing: heads" in shown.status and shown.heads.title == "Heads: computing"
    assert shown.mlps.title.endswith(": waiting") and shown.trace.title.endswith(": waiting")
    shown.selection = "L1H2"
    shown.fact = FACTS[1]
    held.fail = {"heads"}
    held.go.release()  # of the fact before: neither its result nor its error is of interest
    until(lambda: len(held.calls) == 2)
    assert held.calls[1:] == [("italy-capital", "heads")] and shown.maps == {} and shown.error is None
    held.fail = set()
    held.go.release(4)
    job.wait(30)  # the same job has taken up the other fact
    assert set(shown.maps) == {"heads", "mlps", "resid", "neurons"} and names(shown.selection) == "L1H2"
    assert "Italy" in text(shown)
    consistent(shown)


def test_a_failing_map_is_named_and_the_others_are_computed(held: Held) -> None:
    held.fail = {"mlps"}
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    job = shown.compute("mlps", "resid")
    held.go.release(2)
    with pytest.raises(RuntimeError, match="broke"):
        job.wait(30)
    assert set(shown.maps) == {"resid"} and isinstance(shown.error, RuntimeError)
    assert "MLPs: mlps <b>broke" in shown.message
    assert "MLPs: mlps &lt;b&gt;broke" in own(shown) and 'role="alert"' in own(shown)
    held.fail = set()
    held.go.release()
    shown.compute("mlps").wait(30)
    assert set(shown.maps) == {"mlps", "resid"} and shown.error is None and shown.message == ""


def test_asking_while_it_computes_and_after(held: Held) -> None:
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    assert shown.job is None
    first = shown.compute("mlps")
    assert shown.compute("mlps", "resid") is first
    enter(control(shown, "Trace site"), index=2)  # attention: asked for by showing it
    assert shown.job is first
    held.go.release(3)
    first.wait(30)
    assert [name for _, name in held.calls] == ["mlps", "resid", "attn"]
    assert shown.trace.title == "Trace: attention output (swap)"
    held.go.release()
    second = shown.compute("mlp")
    assert second is not first
    second.wait(30)
    assert "mlp" in shown.maps


def test_maps_of_a_session_take_the_place_of_those_being_computed(held: Held) -> None:
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    job = shown.compute("mlps", "resid")
    until(lambda: held.calls)
    shown.show(FRANCE, {"heads": ready()["heads"]})
    held.go.release(2)
    job.wait(30)
    assert set(shown.maps) == {"heads"} and len(held.calls) == 1 and shown.status == ""


def test_time_goes_by_while_a_map_is_computed(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its seconds are drawn again though nothing else happens."""
    monkeypatch.setattr(map_queue, "TICK_SECONDS", 0.02)
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS)
    until(lambda: "Computing: heads" in shown.status)
    for hours in (1, 2):
        shown._maker._queue._began -= 3600
        until(lambda hours=hours: f" · {hours * 36}" in shown.status)
    held.go.release(10)
    assert shown.job is not None
    shown.job.wait(60)
    until(lambda: shown.status == "")


def test_why_a_map_is_missing_is_said_to_a_person(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(sources: Sources, name: MapName, **options: Any) -> EffectMap:
        raise AnswerNotSaid("See known_facts.", fact=FRANCE, texts={"chat": "Rome"})

    monkeypatch.setattr(Sources, "compute", refused)
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, corruption="noise", compute=False)
    with pytest.raises(AnswerNotSaid):
        shown.compute("heads").wait(60)
    until(lambda: "Heads: The model does not say" in text(shown))
    assert "Choose a fact with ✓ in tab 1" in text(shown) and "known_facts" not in text(shown)
