"""Ablate selection: the numbers are those of ``wb.ablate``, random selections stand beside, and the code repeats it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.panels import control, until
from tests.helpers.panels import shown as text
from tests.helpers.pickers import FACTS, FRANCE, fresh, ready, tiny
from tests.helpers.tiny_facts import capital
from tests.helpers.wire import click, enter
from workbench.plots.style import short_number
from workbench.types import AblationKind
from workbench.types.cancelling import Cancelled
from workbench.widgets.picker import ablation_view
from workbench.widgets.picker.ablation_view import DRAWS
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.shared.measure import Measure


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def ablated(shown: CircuitPicker) -> wb.Ablation:
    """Press the button and wait."""
    click(control(shown, "Ablate selection"))
    assert shown.ablation.job is not None
    return shown.ablation.job.wait(60)


def test_without_a_selection_the_button_is_off_and_says_why() -> None:
    shown = fresh()
    button = control(shown, "Ablate selection")
    assert button.disabled and "Pick heads, MLPs, neurons or layers in the maps first." in text(shown)
    shown.selection = "L1H2"
    assert not button.disabled and "in the maps first" not in text(shown)
    shown.selection = "L1Q2"
    assert button.disabled and "L1Q2 has no output of its own to ablate." in text(shown)
    with pytest.raises(ValueError, match="no output"):
        shown.ablation.run().wait(30)
    several = CircuitPicker(tiny(), FACTS[:2], pool=FACTS, compute=False)
    several.selection = "L1H2"
    assert control(several, "Ablate selection").disabled and "of one fact" in text(several)


def test_another_kind_may_be_possible_where_one_is_not() -> None:
    noisy = wb.Contrast(clean="The capital of France is", noise=2.0, noise_at="France", answer=" Paris")
    shown = CircuitPicker(tiny(), noisy, compute=False)
    shown.selection = "L1H2"
    button, kinds = control(shown, "Ablate selection"), control(shown, "Set to")
    enter(kinds, index=2)
    assert button.disabled and "choose zero or mean" in text(shown)
    enter(kinds, index=0)
    assert not button.disabled and "choose zero or mean" not in text(shown)


@pytest.mark.parametrize("kind", ["zero", "mean", "swap"])
def test_it_shows_what_ablate_measures_beside_random_selections(kind: AblationKind) -> None:
    shown = fresh()
    shown.selection = "L1H2 L0MLP L1KV1 L2ATTN L0N3"
    enter(control(shown, "Set to"), index=["zero", "mean", "swap"].index(kind))
    result = ablated(shown)
    partner = FACTS[ready()["heads"].prompts[0].partner or ""]
    options: dict[str, Any] = {"ablation": kind, "against": "partner", "partner": partner, "pool": FACTS}
    expected = wb.ablate(tiny(), FRANCE, shown.selection, control=DRAWS, **options)
    assert (result.clean, result.ablated) == (expected.clean, expected.ablated)
    assert result.clean == pytest.approx(ready()["heads"].clean, abs=1e-4), "the metric of the maps"
    assert [c.ablated for c in result.controls] == [c.ablated for c in expected.controls]
    words = text(shown)
    for number in (result.clean, result.ablated, result.left, result.controls[0].ablated and result.left):
        assert short_number(number) in words
    assert f"{DRAWS} random selections of the same size" in words
    names: dict[str, Any] = {"given": tiny()}
    exec(shown.code.replace("model = wb.load_model('tiny')", "model = given"), names)
    assert names["ablation"].ablated == result.ablated and names["selection"] == shown.selection
    assert [c.ablated for c in names["ablation"].controls] == [c.ablated for c in result.controls]


def test_the_code_repeats_an_ablation_of_what_was_selected_then() -> None:
    shown = fresh({})
    shown.measure = Measure("probability", "noise")
    shown.selection = "L1H2"
    result = ablated(shown)
    assert result.metric == "probability" and result.prompt.other_token == "Rome"  # the target: nothing is swapped
    assert result.corruption == "noise" and result.left is not None
    assert f"(recovery {short_number(result.left)}: 1 clean, 0 with noise on the subject)" in text(shown)
    shown.selection = "L0H1 L0H2"
    assert "wb.ablate(model, fact, wb.Selection('L1H2'), ablation='zero'" in shown.code
    names: dict[str, Any] = {"given": tiny()}
    exec(shown.code.replace("model = wb.load_model('tiny')", "model = given"), names)
    assert names["ablation"].ablated == result.ablated and names["ablation"].left == result.left
    assert "Without L1H2: probability" in text(shown)
    shown.fact = FACTS[1]
    assert shown.ablation.result is None and "Without L1H2" not in text(shown) and "wb.ablate" not in shown.code


def test_as_many_other_components_need_not_be_there() -> None:
    shown = fresh()
    shown.selection = "L0MLP L1MLP L2MLP"
    result = ablated(shown)
    assert result.controls == () and "random selections" not in text(shown) and "control=" not in shown.code


def test_swap_without_a_partner_says_what_to_do() -> None:
    lonely = capital("Spain", "Madrid", "Rome", id="lonely", relation="own")
    shown = CircuitPicker(tiny(), lonely, pool=FACTS, compute=False)
    shown.selection = "L1H2"
    enter(control(shown, "Set to"), index=2)
    click(control(shown, "Ablate selection"))
    assert shown.ablation.job is not None
    until(lambda: shown.ablation.job is not None and not shown.ablation.job.running)
    assert "choose zero or mean" in text(shown) and shown.ablation.error is not None
    for kind in ("mean", "zero"):  # which need none, though no map has found yet that there is none
        enter(control(shown, "Set to"), index=["zero", "mean"].index(kind))
        result = ablated(shown)
        assert result.ablation == kind and result.prompt.other_token == "Rome" and len(result.controls) == DRAWS
        assert f"ablation={kind!r}, metric='logit_diff', against='target'" in shown.code
    shown.compute("heads").wait(60)  # which finds that there is none
    result = ablated(shown)
    assert result.prompt.other_token == "Rome" and shown.ablation.error is None and "choose zero" not in text(shown)


def test_the_first_result_comes_at_once_and_cancel_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real, go, calls = ablation_view.ablate, threading.Event(), []

    def slowly(*given: Any, **options: Any) -> wb.Ablation:
        calls.append(options.get("control", 0))
        if options.get("control"):
            assert go.wait(30)
        return real(*given, **options)

    monkeypatch.setattr(ablation_view, "ablate", slowly)
    shown = fresh()
    shown.selection = "L1H2"
    click(control(shown, "Ablate selection"))
    until(lambda: calls == [0, DRAWS])
    first = shown.ablation.result
    assert first is not None and first.controls == () and "Without L1H2" in text(shown)
    assert control(shown, "Ablate selection").disabled
    shown.selection = "L1H3"  # picks go on meanwhile
    job = shown.ablation.job
    assert job is not None and shown.ablation.run() is job
    shown.ablation.cancel()
    go.set()
    with pytest.raises(Cancelled):
        job.wait(30)
    assert shown.ablation.result is first and "Cancelled after" in text(shown) and shown.ablation.error is None
    assert "control=" not in shown.code and not control(shown, "Ablate selection").disabled
