"""Probes on the bundled model with an edit by hand: what they read is what the model does."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

import workbench as wb
from workbench.editing.methods.table import Recipe
from workbench.evaluation.ordinary_text import ordinary_passages
from workbench.types import EditStage, GateDelta, Selection

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def edit(model: Any, facts: Any) -> Any:
    """One stage that shuts L23H4, the head that carries about half of the Paris-versus-Tokyo logit difference."""
    gate = torch.ones(model.shape.site_size("z"))
    gate[4 * 64 : 5 * 64] = 0.0
    return wb.Edit(
        stages=(EditStage("learn", GateDelta({(23, "z"): gate})),),
        selection=Selection("L23H4"),
        selector="given",
        recipe=Recipe(stages=("learn",)),
        facts=(facts["france-capital"],),
        retain_ids=(),
        history=(),
        base_fingerprint=model.fingerprint,
        base_name=model.name,
    )


def test_lens_and_strength_of_a_shut_head(model: Any, edit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # One step of the tuned lens, and fewer texts: twenty take minutes. Least squares comes before them.
    monkeypatch.setattr("workbench.probing.lens_choice.tuned_lens", partial(wb.tuned_lens, steps=1, max_tokens=8000))
    before = model.fingerprint
    control = wb.load_facts()["spain-capital"]
    report = wb.probe(model, edit, probes=["lens", "strength"], control=control, progress=False)
    assert model.fingerprint == before
    choice = report.lens_choice
    assert choice is not None and choice.kind == "tuned" and {x.kind for x in report.lenses} == {"tuned"}
    assert choice.kl is not None and choice.logit_kl is not None and choice.held_out > 100
    assert all(tuned < logit for tuned, logit in zip(choice.kl[:-1], choice.logit_kl[:-1], strict=True))
    assert "the logit lens" in report.findings[0] and report.findings[0].startswith("lens: read through the tuned lens")
    plain = wb.probe(model, edit, probes="lens", lens="logit", control=control, progress=False)
    assert plain.lens().probabilities["old"][-1] == pytest.approx(report.lens().probabilities["old"][-1], abs=1e-5)
    base, after = report.lens("base"), report.lens("learn")
    assert base.ranks["old"][-1] == 0
    assert base.tokens["old"] == " Paris"
    assert int(base.turn.removeprefix("L")) > 15, "late layers decide"
    assert after.probabilities["old"][-1] < base.probabilities["old"][-1]
    assert after.probabilities["old"][:24] == base.probabilities["old"][:24], "nothing changes before layer 23 is over"
    curve = report.curve("strength")
    assert curve.y["p_old"][0] == pytest.approx(base.probabilities["old"][-1], abs=1e-3)
    assert curve.y["p_old"][-1] == pytest.approx(after.probabilities["old"][-1], abs=1e-3)


def test_two_hop_questions_are_asked_and_the_base_answers_some(model: Any, edit: Any) -> None:
    report = wb.probe(model, edit, probes="interconnected", control=wb.load_facts()["spain-capital"], progress=False)
    hops = [r for r in report.rows if r.kind == "multi-hop" and r.group == "edited" and r.stage == "base"]
    assert len(hops) == 4
    assert any(r.informative for r in hops)
    assert all(r.prompt.startswith("What is the capital of the country") or "home country" in r.prompt for r in hops)
    assert report.rate("interconnected", "old", "base").value == 1


def test_collateral_of_a_shut_head(model: Any, edit: Any) -> None:
    """Backwards, two hops and ordinary text: the base gives figures, and so small an edit leaves most of them."""
    report = wb.evaluate(model, edit=edit, max_controls=1, collateral=True, progress=False)
    rows = {group: [r for r in report.rows if r.group == group] for group in ("reversed", "reversed_target", "twohop")}
    assert [len(found) for found in rows.values()] == [8, 8, 8], "four clozes, four paths, two stages"
    assert all("is Paris." in r.prompt or "in is Paris." in r.prompt for r in rows["reversed"])
    assert rows["reversed_target"][0].prompt == 'What belongs in the gap? "The capital of ____ is Rome."'
    base = {name: report.rate(name, "base") for name in ("reversed_old", "twohop_old", "text_nll", "text_nll_change")}
    assert base["twohop_old"].value == 1 and base["twohop_old"].n > 0
    assert base["reversed_old"].n == 0 or base["reversed_old"].value == 1
    text, change = base["text_nll"], report.rate("text_nll_change")
    assert 2 < text.value < 5, "nats per token of a small model on plain prose"
    assert text.clusters == sum(map(len, ordinary_passages())) and text.n > 400
    assert base["text_nll_change"].value == 0
    assert abs(change.value) < 0.1 and change.low < change.high
    assert report.rate("text_nll").value == pytest.approx(text.value + change.value)
    assert report.missing == (
        "same answer as france-capital: 'bundled facts' has 2, but they may be retained, so they are never evaluated",
    )
