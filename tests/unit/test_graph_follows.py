"""The graph of a Workbench shows what the maps show, measured in the same way, also when that changes."""

from __future__ import annotations

from pathlib import Path

import pytest

import workbench as wb
from tests.helpers.panels import FACTS, FRANCE, shown, tiny, until
from tests.helpers.tiny_facts import capital

POOL = wb.FactSet(FACTS, name="capitals")


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> wb.Workbench:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    return wb.Workbench(tiny(), POOL, fact=FRANCE, autosave=False)


def test_in_sight_it_is_scored_again_when_the_maps_are_measured_otherwise(app: wb.Workbench) -> None:
    app.tab, app.circuit_tab.shown = "picker", "both"
    until(lambda: app.graph.edges is not None)
    assert app.graph.edges is not None and app.graph.edges.corruption == "swap"
    app.picker.corruption = "noise"
    until(lambda: app.graph.edges is not None and app.graph.edges.corruption == "noise")
    assert "noise on the subject" in shown(app.graph)
    app.picker.form = "cloze"
    assert app.graph.setting_differs(form="chat") and not app.graph.setting_differs(form="cloze")
    assert "noise on the subject, as cloze" in shown(app.graph)


def test_edges_stay_when_the_maps_take_the_partner_that_they_took(app: wb.Workbench) -> None:
    edges = app.graph.run().wait(60)
    assert app.picker.partner is None
    app.picker.compute("heads").wait(60)
    partner = app.picker.partner
    assert partner is not None and app.graph.edges is edges
    assert f"france-capital; swap with {partner.subject}" in shown(app.graph)
    other = next(fact for fact in FACTS if fact not in (FRANCE, partner))
    app.picker.partner = other
    assert app.graph.edges is None and f"swap with {other.subject}" in shown(app.graph)
    assert app.graph.job is not None and not app.graph.busy, "out of sight nothing is scored"


def test_where_the_maps_take_noise_the_graph_does(app: wb.Workbench) -> None:
    app.tab, app.circuit_tab.shown = "picker", "both"
    app.fact = capital("Spain", "Madrid", "Rome", id="lonely", relation="own")
    until(lambda: app.graph.edges is not None and app.graph.edges.corruption == "noise")
    assert app.picker.corrupted_by == "noise" and app.graph.error is None
    assert "lonely; noise on the subject" in shown(app.graph)
