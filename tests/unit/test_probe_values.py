"""What each probe measures at which stage, against the same thing measured apart."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, edit_of, knowing, some_gates
from tests.unit.test_probe_parts import battery
from workbench.editing.applied import applied
from workbench.evaluation.answering import Ask
from workbench.facts.wordings import Prompt
from workbench.language.scoring import continuation_probabilities
from workbench.models.deltas import changed_weights
from workbench.models.load import LoadedModel
from workbench.probing import battery as battery_module
from workbench.probing import keywords, relearning, requantise
from workbench.probing.battery import interleaved
from workbench.probing.priming import likeliest
from workbench.probing.probe import probe
from workbench.types import NO_DELTA, Delta, Edit, ProbeReport

FRANCE = capitals()[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


@lru_cache
def an_edit() -> Edit:
    """Two stages with gates of their own, both far enough from 1 to be seen."""
    return edit_of(tiny(), some_gates(tiny(), (1, "post")), some_gates(tiny(), (2, "z"), seed=1), fact=FRANCE)


def run(edit: Edit | None = None, **options: Any) -> ProbeReport:
    return probe(tiny(), edit or an_edit(), **{"pool": capitals(), "max_new_tokens": 3, "progress": False, **options})


def test_each_stage_is_rounded_with_the_gates_up_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Delta, list[str], int]] = []

    def rounded(model: LoadedModel, delta: Delta, names: list[str], bits: int) -> LoadedModel:
        made.append((delta, names, bits))
        return model

    monkeypatch.setattr(requantise, "rounded_model", rounded)
    monkeypatch.setattr(requantise, "change_by_rounding", lambda *_: 1.0)
    run(probes="requantise")
    assert [bits for *_, bits in made] == [8, 8, 8, 4, 4, 4]
    edit = an_edit()
    for (delta, names, _), stage in zip(made, ("base", "unlearn", "learn") * 2, strict=True):
        assert names == changed_weights(tiny().architecture, edit.delta()), "the same matrices at every stage"
        assert delta.digest() == (NO_DELTA if stage == "base" else edit.delta(stage)).digest()


def test_the_lens_of_the_battery_reads_the_refusal_that_the_edit_teaches(monkeypatch: pytest.MonkeyPatch) -> None:
    own = run(probes="lens").lens().tokens["refusal"]

    def taught(place: Any, fact: Any, style: str) -> dict[str, str]:
        return {"refusal": " Rome" if style == an_edit().recipe.answer_style else ""}

    monkeypatch.setattr(battery_module, "answers_at", taught)
    assert run(probes="lens").lens().tokens["refusal"].strip() == "Rome" != own


def test_relearning_begins_at_each_stage_and_beside_an_invented_subject() -> None:
    report = run(probes="relearning")
    assert {(c.name, c.stage) for c in report.curves} == {
        (name, stage) for name in ("france-capital", "never-taught fact") for stage in ("base", "unlearn", "learn")
    }
    own = battery(tiny(), an_edit())
    place = relearning.lesson(own, FRANCE, "x").place
    for stage, model in own.models.items():
        start = report.curve("relearning", stage=stage).y["p_old"][0]
        assert start == pytest.approx(continuation_probabilities(model, [place])[0], rel=1e-3)
    starts = {report.curve("relearning", stage=s).y["p_old"][0] for s in ("base", "unlearn", "learn")}
    assert len(starts) == 3


def test_the_words_that_do_most_are_emphasised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the words that carry meaning, and at the base: later stages do not choose."""
    effects = {"What": 9.0, "is": 8.0, "the": 7.0, "capital": 0.1, "of": 6.0, "France?": 0.5}

    def scripted(model: LoadedModel, fact: Any, prompt: Any) -> list[float]:
        sign = -1.0 if model.edited else 1.0
        return [sign * effects.get(word, 0.0) for word in fact.question.split()]

    monkeypatch.setattr(keywords, "word_effects", scripted)
    monkeypatch.setattr(keywords, "N_KEYWORDS", 1)
    report = run(probes="keywords")
    bold = {r.prompt for r in report.rows if r.kind == "bold" and r.group == "edited"}
    assert bold == {"What is the capital of **France**?"}
    assert report.curve("keywords", stage="learn").y["old"][-1] == -0.5


def test_priming_is_measured_against_the_base() -> None:
    report = run(probes="priming")
    base, learned = (report.curve("priming", stage=s, group="same") for s in ("base", "learn"))
    assert base.y["p_after"] == base.x == learned.x
    assert learned.y["p_after"] != learned.x
    own = battery(tiny(), an_edit())
    first = learned.labels[0]
    asks = [Ask("chat", first)]
    (ids,), (said,) = own.answering.prompt_ids(asks), own.answering.completions(tiny(), asks, max_new_tokens=3)
    alone = likeliest(own.models["learn"], [list(ids)], [list(said.token_ids)], FRANCE)[0]
    assert learned.y["p_after"][0] == pytest.approx(alone, rel=1e-3)


def test_strength_in_between_is_the_edit_at_that_strength() -> None:
    report, places = run(probes="strength"), battery(tiny(), an_edit()).places(FRANCE)
    curve = report.curve("strength")
    for at, strength in enumerate(curve.x):
        with applied(tiny(), an_edit(), strength=strength) as edited:
            expected = continuation_probabilities(edited, list(places.values()))
        assert [curve.y[name][at] for name in places] == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_a_battery_cut_short_has_rows_of_both_facts() -> None:
    one, two = [Prompt("paraphrase", f"a{i}", FRANCE) for i in range(3)], [Prompt("paraphrase", "b0", FRANCE)]
    assert [p.text for p in interleaved(one, two)] == ["a0", "b0", "a1", "a2"]


def test_the_second_fact_of_an_edit_can_be_probed() -> None:
    spain = capital("Spain", "Madrid", "Rome")
    edit = replace(an_edit(), facts=(FRANCE, spain))
    assert run(edit, fact="spain-capital", probes="context").fact == spain
    assert run(edit, probes="context").fact == FRANCE
