"""Effects as recovery: each fact's effect divided by its own clean minus corrupted metric, wherever they are given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from torch import Tensor

from tests.helpers.plain_hooks import FACTS, FRANCE, ITALY, SPAIN, single
from tests.helpers.tiny_facts import FAMILIES, by_hand
from workbench.plots.effect_words import describe, scale_title
from workbench.plots.effects import effect_figure
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import causal_trace
from workbench.tracing.roles import by_role
from workbench.tracing.setup import Setup
from workbench.types import EffectMap
from workbench.types.metric_words import RECOVERY, hardly_differ

OLDER = Path(__file__).parents[1] / "data" / "version_3" / "heads.safetensors"
CORRUPTIONS: list[dict[str, Any]] = [
    {"corruption": "noise", "samples": 3, "noise": 2.0},
    {"corruption": "swap", "partner": SPAIN},
]
CORRUPTED = pytest.mark.parametrize("how", CORRUPTIONS, ids=["noise", "swap"])
METRICS = pytest.mark.parametrize("metric", ["logit_diff", "probability"])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def divided(raw: EffectMap) -> Tensor:
    assert raw.corrupted is not None
    return raw.values / (raw.clean - raw.corrupted)


def near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4, equal_nan=True)


@FAMILIES
@METRICS
@CORRUPTED
def test_a_trace_is_divided_by_what_the_corruption_takes(family: str, metric: Any, how: dict[str, Any]) -> None:
    given: dict[str, Any] = {**how, "metric": metric, "form": "cloze", "pool": FACTS, "progress": False}
    raw = causal_trace(single(family), FRANCE, ("resid", "mlp", "attn"), **given)
    found = causal_trace(single(family), FRANCE, ("resid", "mlp", "attn"), normalise=True, **given)
    for site, effects in found.items():
        near(effects.values, divided(raw[site]))
        assert effects.normalised and not raw[site].normalised
        assert (effects.clean, effects.corrupted) == (raw[site].clean, raw[site].corrupted), "in units of the metric"
        if effects.per_fact is not None:
            assert effects.stderr is not None
            torch.testing.assert_close(effects.per_fact.mean(0), effects.values)
            torch.testing.assert_close(effects.stderr, effects.per_fact.std(0) / 3**0.5, atol=1e-6, rtol=1e-4)
        assert effects.provenance["settings"]["normalise"] is True


@FAMILIES
@METRICS
@CORRUPTED
@pytest.mark.parametrize("method", ["attribution", "patching"])
def test_attribution_is_too(family: str, metric: Any, how: dict[str, Any], method: Any) -> None:
    units: Any = ("head", "mlp", "attn") + (("neuron",) if method == "attribution" else ())
    given: dict[str, Any] = {"metric": metric, "form": "cloze", "pool": FACTS, "progress": False, "method": method}
    raw = attribute(single(family), FRANCE, units, **given, **how)
    found = attribute(single(family), FRANCE, units, normalise=True, **given, **how)
    assert set(found) == set(units)
    for unit in units:
        near(found[unit].values, divided(raw[unit]))
        assert found[unit].normalised and found[unit].corrupted == raw[unit].corrupted
        assert float(raw[unit].values.abs().max()) > 0


def test_by_hand_the_one_head_brings_everything_back() -> None:
    """L1H0 carries 16 of the 16 logits between the two runs; the state at France does until it has been read, and then
    the one at the last token."""
    given: dict[str, Any] = {"corruption": "swap", "partner": SPAIN, "form": "cloze", "pool": FACTS, "progress": False}
    heads = attribute(by_hand(), FRANCE, method="patching", normalise=True, **given)
    expected = torch.zeros(3, 2)
    expected[1, 0] = 1
    torch.testing.assert_close(heads.values, expected, atol=1e-5, rtol=0)
    assert (heads.clean, heads.corrupted) == pytest.approx((8, -8), abs=1e-4)
    trace = causal_trace(by_hand(), FRANCE, metric="logit_diff", normalise=True, **given)
    expected = torch.zeros(3, 5)
    expected[:2, 3], expected[2, 4] = 1, 1
    torch.testing.assert_close(trace.values, expected, atol=1e-5, rtol=0)


def test_several_facts_are_divided_before_the_mean() -> None:
    """Each by its own difference: the mean of the shares is not the share of the means."""
    options: dict[str, Any] = {"pool": FACTS, "progress": False, "samples": 2, "noise": 1.0, "form": "cloze"}
    facts = [FRANCE, SPAIN, ITALY]
    raw = [attribute(single(), f, **options) for f in facts]
    found = attribute(single(), facts, normalise=True, **options)
    near(found.values, torch.stack([divided(m) for m in raw]).mean(0))
    of_means = torch.stack([m.values for m in raw]).mean(0) / sum(m.clean - (m.corrupted or 0) for m in raw) * 3
    assert (found.values - of_means).abs().max() > 1e-3
    traced = [causal_trace(single(), f, metric="logit_diff", **options) for f in facts]
    found = causal_trace(single(), facts, metric="logit_diff", normalise=True, **options)
    expected = torch.stack([by_role(divided(m), m.prompts[0], found.roles) for m in traced]).nanmean(0)
    near(found.values, expected)
    assert found.normalised and found.clean == pytest.approx(sum(m.clean for m in traced) / 3, rel=1e-5)


def test_controls_are_divided_by_their_own_difference() -> None:
    options: dict[str, Any] = {"pool": FACTS, "progress": False, "samples": 2, "noise": 1.0, "unit": "neuron"}
    own, spain, italy = (attribute(single(), f, **options) for f in (FRANCE, SPAIN, ITALY))
    found = attribute(single(), FRANCE, contrast=[SPAIN, ITALY], normalise=True, **options)
    near(found.values, divided(own) - (divided(spain) + divided(italy)) / 2)


@pytest.mark.parametrize("max_rows", [None, 8])
def test_layers_that_are_told_of_are_recovery_too(max_rows: int | None) -> None:
    given: dict[str, Any] = {
        "corruption": "noise",
        "samples": 3,
        "normalise": True,
        "max_rows": max_rows,
        "pool": FACTS,
        "progress": False,
    }
    told: dict[Any, Tensor] = {}

    def tell(place: Any, layer: int, values: Tensor) -> None:
        told[place, layer] = values.clone()

    traced = causal_trace(single(), FRANCE, ("resid", "mlp"), metric="logit_diff", on_layer=tell, **given)
    patched = attribute(single(), FRANCE, ("head", "attn"), method="patching", on_layer=tell, **given)
    maps: dict[str, EffectMap] = {**traced, **patched}
    assert len(told) == 3 * len(maps)
    for (place, layer), values in told.items():
        assert torch.equal(values, maps[place].values[layer])


def test_direct_attribution_has_no_zero_to_count_from() -> None:
    with pytest.raises(ValueError, match=r"method='dla' has no corrupted run.*Use normalise=False"):
        attribute(single(), FRANCE, method="dla", normalise=True, pool=FACTS, progress=False)


def test_what_hardly_differs_is_refused_with_both_numbers() -> None:
    """By noise that is almost none, and by a swap to a subject that the metric does not tell from this one."""
    given: dict[str, Any] = {"noise": 1e-6, "form": "cloze", "pool": FACTS, "progress": False, "normalise": True}
    message = (
        r"'france-capital': the corruption \(noise\) hardly changes the logit difference, from 14 \(clean\) to 14 "
    )
    with pytest.raises(ValueError, match=message):
        causal_trace(single(), FRANCE, metric="logit_diff", **given)
    for method in ("attribution", "patching"):
        with pytest.raises(ValueError, match=message):
            attribute(single(), FRANCE, method=method, **given)
    prompt = attribute(single(), FRANCE, corruption="swap", partner=SPAIN, pool=FACTS, progress=False).prompts[0]
    setup = Setup(prompt, 0, torch.zeros(1), torch.zeros(1), "probability", True)
    with pytest.raises(
        ValueError, match=r"\(swap for 'spain-capital'\) hardly.*probability, from 0.9 \(clean\) to 0.895 "
    ):
        setup.divisor(0.9, 0.895)
    assert setup.divisor(0.9, 0.5) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("clean", "corrupted", "expected"),
    [
        (8.0, -8.0, False),
        (1.0, 0.5, False),
        (0.02, 1e-5, False),
        (-3.0, 3.0, False),
        (1.0, 0.99, True),
        (0.99, 1.0, True),
        (0.0, 0.0, True),
        (1e-7, 0.0, True),
        (float("nan"), 1.0, True),
    ],
)
def test_hardly_differ(clean: float, corrupted: float, expected: bool) -> None:
    assert hardly_differ(clean, corrupted) is expected


def test_figures_and_tables_say_recovery() -> None:
    given: dict[str, Any] = {"samples": 2, "pool": FACTS, "progress": False, "normalise": True}
    trace = causal_trace(single(), FRANCE, metric="logit_diff", **given)
    units = attribute(single(), FRANCE, ("head", "neuron", "attn"), **given)
    assert scale_title(trace) == "recovery: 0 corrupted, 1 clean" and trace.value_words is RECOVERY
    assert "(logits)" in describe(trace)[-1] and "recovery of logit_diff" in repr(trace)
    for effects in (trace, *units.values()):
        text = effect_figure(effects).to_json()
        assert text is not None and "recovery: 0 corrupted, 1 clean" in text.replace("<br>", " ")
        assert "logit_diff effect" not in text and "recovery <b" in text.replace("\\u003c", "<")
        frame = effects.to_frame()
        assert "effect" not in frame and frame["recovery"].tolist() == effects.values.flatten().tolist()


def test_a_normalised_map_needs_its_corrupted_end() -> None:
    raw = attribute(single(), FRANCE, method="dla", pool=FACTS, progress=False)
    with pytest.raises(ValueError, match="normalised map needs corrupted="):
        replace(raw, normalised=True)


def test_it_is_saved_and_maps_from_before_are_not_normalised(tmp_path: Path) -> None:
    found = attribute(single(), FRANCE, samples=2, pool=FACTS, progress=False, normalise=True)
    again = EffectMap.load(found.save(tmp_path / "m"))
    assert again.normalised and torch.equal(again.values, found.values)
    with safetensors.safe_open(OLDER, framework="pt") as file:
        assert json.loads(file.metadata()["workbench"])["schema_version"] == 3
    older = EffectMap.load(OLDER)
    assert older.normalised is False and older.words is not None
    assert older.words.scale == "effect on logit difference (logits)"
    assert (older.clean, older.corrupted) == pytest.approx((14, -14), abs=1e-4)
    assert float(older.values.sum()) == pytest.approx(64.66376495361328)
    assert EffectMap.load(older.save(tmp_path / "o")).words == older.words
