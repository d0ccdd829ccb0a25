"""Probes on the bundled model with an edit by hand: what they read is what the model does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import workbench as wb
from workbench.types import EditStage, GateDelta, Recipe, Selection

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


def test_lens_and_strength_of_a_shut_head(model: Any, edit: Any) -> None:
    before = model.fingerprint
    control = wb.load_facts()["spain-capital"]
    report = wb.probe(model, edit, probes=["lens", "strength"], control=control, progress=False)
    assert model.fingerprint == before
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
