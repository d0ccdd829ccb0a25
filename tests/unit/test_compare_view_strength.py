"""CompareView's slider and menus: what strength shows, and that no wrong value from either side changes anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traitlets import TraitError

from tests.helpers.panels import control, own, shown
from tests.helpers.wire import enter, shown_after
from tests.unit.test_compare_view import FACT, choose, edit, tiny, view
from workbench.editing.applied import applied
from workbench.evaluation.probabilities import answer_probabilities
from workbench.language import generation
from workbench.widgets.compare import strength as strength_bars
from workbench.widgets.shared.voice import person


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@pytest.mark.parametrize("stage", ["unlearn", "learn"])
def test_the_slider_shows_answer_probabilities(stage: str) -> None:
    panel = view()
    choose(control(panel, "After"), stage)
    for strength in (0.0, 0.35, 1.0):
        enter(control(panel, "Strength"), value=strength)
        with applied(tiny(), edit(), stage, strength) as edited:
            assert panel.probabilities == dict(answer_probabilities(edited, FACT)["before"])
        assert f"strength {strength:.2f}" in shown(panel)
    at_once = answer_probabilities(tiny(), FACT, edit=edit())[f"after {stage}"]
    assert panel.probabilities == pytest.approx(dict(at_once))


@pytest.mark.parametrize(
    "bad", [-1, 1.5, pytest.param(10**400, id="huge"), float("inf"), float("nan"), "x", None, [1], {"a": 1}, True]
)
def test_a_strength_that_is_none_changes_nothing_and_the_browser_shows_pythons(bad: Any) -> None:
    panel = view()
    enter(control(panel, "Strength"), value=0.35)
    before = panel.probabilities, shown(panel), panel.code
    assert shown_after(control(panel, "Strength"), value=bad) == {"value": 0.35}
    assert panel.strength == 0.35
    assert "from 0 to 1" in str(control(panel, "Strength").error)
    assert (panel.probabilities, shown(panel), panel.code) == before
    assert shown_after(control(panel, "Strength"), value=0.4) == {"value": 0.4}
    assert (panel.strength, control(panel, "Strength").error) == (0.4, None)


@pytest.mark.parametrize("state", [{"step": float("nan")}, {"description": "<img>", "value": 0.2}])
def test_the_browser_sets_nothing_of_the_slider_but_its_value(state: dict[str, Any]) -> None:
    slider = control(view(), "Strength")
    before = {name: getattr(slider, name) for name in state}
    assert shown_after(slider, **state) == before
    assert {name: getattr(slider, name) for name in state} == before


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_strength_that_is_none_is_refused_from_python_too(bad: float) -> None:
    panel = view()
    with pytest.raises(TraitError, match="from 0 to 1"):
        panel.strength = bad
    assert panel.strength == 1.0
    panel.strength = np.float64(0.25)
    assert panel.strength == 0.25


@pytest.mark.parametrize("name", ["Map", "After", "Corruption", "Traced"])
@pytest.mark.parametrize("bad", [99, -1, "first", None, [1], 0.5, True, pytest.param(10**400, id="huge")])
def test_an_option_that_is_none_changes_nothing_and_the_browser_shows_pythons(name: str, bad: Any) -> None:
    panel = view()
    menu = control(panel, name)
    enter(menu, index=1)
    before = menu.value, panel.code, panel.probabilities
    assert shown_after(menu, index=bad) == {"index": 1}
    assert (menu.index, (menu.value, panel.code, panel.probabilities)) == (1, before)
    assert menu.error is not None
    assert shown_after(menu, index=0) == {"index": 0}
    assert (menu.index, menu.error) == (0, None)


@pytest.mark.parametrize("error", [KeyError("layer 7"), RuntimeError("out of memory")])
def test_any_error_of_the_slider_is_shown(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise error

    panel = view()
    with monkeypatch.context() as patch:
        patch.setattr(strength_bars, "answer_probabilities", fail)
        enter(control(panel, "Strength"), value=0.5)
        assert panel.error is error
        assert panel.message == person(error) and str(error.args[0]) in own(panel)
        assert panel.probabilities == {} and "<svg" not in shown(panel)
    enter(control(panel, "Strength"), value=0.6)
    assert panel.error is None and panel.probabilities


def test_the_base_writes_the_prompt_once_and_the_edited_model_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generated, made = [], []
    real_generate, real_dial = generation.generate, strength_bars.Dial
    monkeypatch.setattr(generation, "generate", lambda *a, **k: generated.append(a) or real_generate(*a, **k))
    monkeypatch.setattr(strength_bars, "Dial", lambda *a: made.append(a) or real_dial(*a))
    tiny().cache.clear()
    panel = view()
    for strength in (0.2, 0.4, 0.6):
        panel.strength = strength
    assert sum(len(prompts) for _, prompts in generated) == 1
    assert len(made) == 1
    panel.stage = "unlearn"
    panel.stage = "learn"
    assert len(made) == 2
    panel.edit = edit()
    assert len(made) == 2 and panel.probabilities and len(made) == 3, "another one is made when it is looked at"
