"""CircuitPicker shows one measure in all maps, says it once, and takes noise where nothing can be swapped in."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.panels import control, own
from tests.helpers.panels import shown as text
from tests.helpers.pickers import FACTS, FRANCE, consistent, fresh, names, pick, ready, tiny
from tests.helpers.tiny_facts import capital
from tests.helpers.wire import enter
from workbench.widgets.picker.maps import Sources
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.shared.measure import Measure

LONELY = capital("Spain", "Madrid", "Rome", id="lonely", relation="own")  # known, but alone in its relation


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def test_all_maps_show_one_measure_which_is_said_once() -> None:
    words = text(fresh())
    assert words.count("0 corrupted, 1 clean") == 1
    assert "Neurons: " not in words, "nothing has a measure of its own"
    read = wb.where_read(ready()["resid"], ready()["heads"], ready()["mlps"]).words
    assert "median head" in read and read in html.unescape(words)
    assert "Read at" not in text(fresh({"heads": ready()["heads"]}))
    old = replace(ready()["neurons"], method="attribution - controls", corruption="noise", normalised=False)
    words = text(fresh({**ready(), "neurons": old}))  # of a session that was saved by an earlier version
    assert "Neurons: logit of" in words and "minus its mean over control facts" in words


def test_maps_made_with_noise_are_gone_on_with_in_noise() -> None:
    made = Sources(tiny(), (FRANCE,), Measure("logit_diff", "noise"), pool=FACTS)
    maps = {"heads": made.compute("heads"), "resid": made.compute("resid")}
    shown = fresh(maps)
    assert shown.corruption == control(shown, "Corrupt by").value == "noise"
    assert shown.measure == Measure("logit_diff", "noise") and control(shown, "Metric").value == "logit_diff"
    assert "corruption='noise'" in shown.code and "swap" not in shown.code and "normalise" not in shown.code
    assert "Logit difference of Paris over Rome, in logits; noise on the subject" in text(shown)
    shown.show(FRANCE, ready())
    assert shown.corruption == control(shown, "Corrupt by").value == "swap" and "partner=partner" in shown.code


def test_several_facts_and_both_corruptions_by_their_code() -> None:
    shown = CircuitPicker(tiny(), FACTS[:2], pool=FACTS, corruption="noise", compute=False)
    shown.compute("heads", "resid").wait(120)
    found: dict[str, Any] = {"given": tiny()}
    exec(shown.code.replace("model = wb.load_model('tiny')", "model = given"), found)
    assert torch.equal(found["heads"].values, shown.maps["heads"].values)
    traced = found["trace_resid"].values, shown.maps["resid"].values
    assert torch.equal(*(values.nan_to_num(nan=99.0) for values in traced))  # roles that no text has are NaN
    assert "means over 2 facts" in text(shown) and "noise" in text(shown)
    enter(shown.heads, hover=[0, 0])
    assert "standard error" in shown.heads.tip and shown.heads.pattern is None
    assert shown.fact == list(FACTS[:2])


def test_a_fact_without_a_partner_is_corrupted_by_noise_and_it_is_said() -> None:
    shown = CircuitPicker(tiny(), LONELY, pool=FACTS)
    assert shown.job is not None
    shown.job.wait(120)
    assert set(shown.maps) == {"neurons", "heads", "mlps", "resid"}
    assert {effect.corruption for effect in shown.maps.values()} == {"noise"}
    assert "No subject of as many tokens as 'Spain' to swap in: noise instead. Give a swap subject" in shown.message
    assert shown.error is None and "Note:" in own(shown) and "noise on the subject" in own(shown)
    assert shown.measure == Measure("recovery", "swap") and control(shown, "Corrupt by").value == "swap"
    pick(shown.heads, [0, 0])
    assert "noise instead" in shown.message  # a pick does not hide it
    names_: dict[str, Any] = {"given": tiny()}
    exec(shown.code.replace("model = wb.load_model('tiny')", "model = given"), names_)
    assert torch.equal(names_["heads"].values, shown.maps["heads"].values)
    maps_of_it = dict(shown.maps)

    shown.fact = FRANCE  # the choice is kept for the next fact
    shown.job.wait(120)
    assert shown.maps["heads"].corruption == "swap" and shown.message == ""
    shown.show(LONELY, maps_of_it)
    assert shown.corruption == "swap" and "noise instead" in shown.message
    assert "corruption='noise'" in shown.code

    shown.show(LONELY, {}, partner=FRANCE)  # a partner of one's own is swapped in
    shown.compute("heads").wait(120)
    assert shown.maps["heads"].prompts[0].partner == "france-capital" and shown.message == ""
    assert shown.partner == FRANCE
    longer = capital("Spain and Italy", "Rome", "Berlin", id="longer")
    shown.partner = longer
    assert shown.job is not None
    shown.job.wait(120)
    assert shown.maps["heads"].corruption == "noise" and "has not as many tokens as 'Spain'" in shown.message
    alike = capital("Italy", "Madrid", "Rome", id="alike")
    shown.partner = alike
    shown.job.wait(120)
    assert shown.maps["heads"].corruption == "noise" and "'Italy' cannot be swapped in: its answer" in shown.message
    with pytest.raises(ValueError, match="corruption must be"):
        shown.corruption = mistyped("blur")


def test_another_measure_is_that_of_all_maps_and_keeps_the_selection() -> None:
    shown, heard = fresh(), []
    shown.on_measure(heard.append)
    shown.selection = "L1H2"
    enter(control(shown, "Metric"), index=1)
    assert shown.job is not None
    shown.job.wait(120)
    assert heard == [Measure("logit_diff", "swap")] and shown.measure == heard[0]
    assert set(shown.maps) == set(ready()) and not any(m.normalised for m in shown.maps.values())
    assert {m.metric for m in shown.maps.values()} == {"logit_diff"} and names(shown.selection) == "L1H2"
    assert "Logit difference of Paris over" in own(shown) and shown.heads.unit == "logits"
    shown.measure = Measure("probability", "noise")
    shown.job.wait(120)
    assert {(m.metric, m.corruption) for m in shown.maps.values()} == {("probability", "noise")}
    assert len({(m.clean, round(m.corrupted or 0, 5)) for m in shown.maps.values()}) == 1, "one corrupted run"
    assert (control(shown, "Metric").value, control(shown, "Corrupt by").value) == ("probability", "noise")
    names_: dict[str, Any] = {"given": tiny()}
    exec(shown.code.replace("model = wb.load_model('tiny')", "model = given"), names_)
    assert torch.equal(names_["neurons"].values, shown.maps["neurons"].values)
    assert torch.equal(names_["trace_attn"].values, shown.maps["attn"].values)
    assert [measure.name for measure in heard] == ["logit_diff", "probability"]
    consistent(shown)


def test_the_form_is_that_of_all_maps() -> None:
    shown = fresh({"heads": ready()["heads"]})
    assert ready()["heads"].prompts[0].form == "chat"
    shown.form = "cloze"
    assert f"{FRANCE.prompt} …" in text(shown) and FRANCE.question not in text(shown)
    assert shown.job is not None
    shown.job.wait(120)
    assert shown.maps["heads"].prompts[0].form == "cloze" and "form='cloze'" in shown.code
    shown.show(FRANCE, {})
    assert shown.form == "cloze", "as it is"
    shown.show(FRANCE, {}, form=None)
    assert shown.form is None
