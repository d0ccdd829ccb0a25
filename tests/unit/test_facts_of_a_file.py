"""Facts of a file of one's own in the panels: edits run, code reads the file again, and twenty thousand are light."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from ipywidgets.embed import dependency_state

import workbench as wb
from tests.helpers.panels import shown
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import ROWS, capitals, knowing
from workbench.editing.retain import default_retain
from workbench.editing.selector import selection_facts
from workbench.facts.known import load_facts
from workbench.models.load import LoadedModel
from workbench.types import DataPrompt, FactSet
from workbench.widgets.shared.code import fact_call, facts_code


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False, bias=True), capitals())


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def counterfact(copies: int = 1) -> FactSet:
    """A file of CounterFact's schema, with so many copies of each capital."""
    records = [
        {
            "case_id": f"{copy}-{i}",
            "requested_rewrite": {
                "prompt": "The capital of {} is",
                "relation_id": "P36",
                "subject": subject if copy == 0 else f"{subject} {copy}",
                "target_true": {"str": answer},
                "target_new": {"str": target},
            },
        }
        for copy in range(copies)
        for i, (subject, answer, target, *_) in enumerate(ROWS)
    ]
    Path("mine.json").write_text(json.dumps(records))
    return load_facts("mine.json")


def executed(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, {"wb": wb}, names)
    return names


def test_an_edit_of_a_file_without_roles_holds_bundled_facts_in_place() -> None:
    facts = counterfact()
    panel = wb.EditPanel(tiny(), facts[2], None, pool=facts)
    panel.recipe = wb.Recipe(steps=2, early_stop=None, retain_size=2)
    panel.run().wait(120)
    assert panel.edit is not None and panel.report is not None and panel.error is None
    assert panel.edit.retain_ids and all(id in load_facts() for id in panel.edit.retain_ids)
    assert "retained facts of 'mine.json': it has none, so bundled ones were held in place" in panel.report.missing
    assert "bundled ones were held in place" in shown(panel)
    assert (
        default_retain(tiny(), [facts[2]], pool=facts, size=2, progress=False).name == "retain set from bundled facts"
    )


def test_what_is_spared_comes_from_where_retained_facts_come_from() -> None:
    facts = counterfact()
    spared = selection_facts(tiny(), [facts[2]], pool=facts, progress=False)
    assert len(spared) and all(id in load_facts() for id in spared.ids)
    controls = wb.contrast_facts(tiny(), facts[2], pool=facts, n=2, progress=False)
    assert len(controls) and all(id in load_facts() for id in controls.ids)


def test_a_pool_with_roles_is_not_mixed() -> None:
    own = FactSet([*[replace(f, role="control") for f in capitals()][:2], replace(capitals()[3], role="retain")])
    kept = default_retain(tiny(), [own[0]], pool=own, size=2, progress=False)
    assert kept.ids == (own[2].id,)
    app = wb.Workbench(tiny(), own, autosave=False)
    assert "bundled facts" not in shown(app.chooser) and "+ facts" not in app.code


def test_code_reads_the_file_again() -> None:
    facts = counterfact()
    names = executed(facts_code([facts[2]], facts))
    assert list(names["pool"]) == list(facts) and names["fact"] == facts[2]
    mixed = facts + load_facts()
    names = executed(facts_code(list(facts[:2]), mixed))
    assert list(names["pool"]) == list(mixed) and names["fact"] == list(facts[:2])
    assert facts_code([facts[2]], mixed).count("\n") == 3
    other = load_facts() + facts
    assert list(executed(facts_code([facts[0]], other))["pool"]) == list(other)
    part = mixed.filter(exclude=[facts.ids[1], "france-capital"])
    assert list(executed(facts_code([facts[0]], part))["pool"]) == list(part)
    shuffled = FactSet([facts[1], load_facts()[0], facts[0]], source=facts.source)
    assert list(executed(facts_code([facts[0]], shuffled))["pool"]) == list(shuffled), "written out"
    changed = replace(facts[2], target="Lyon")
    assert executed(facts_code([changed], facts))["fact"] == changed


def test_a_facts_own_prompts_are_written_too() -> None:
    fact = replace(capitals()[0], data_prompts=(DataPrompt(kind="locality", prompt="a", answers=("b",)),))
    assert eval(fact_call(fact), {"wb": wb}) == fact


def test_a_workbench_of_five_facts_says_where_the_others_come_from() -> None:
    app = wb.Workbench(tiny(), counterfact(), autosave=False)
    assert len(app.facts) == 5 and "retained facts and controls come from the bundled facts" in shown(app.chooser)
    assert "pool = wb.load_facts('mine.json') + facts\n" in app.editor.code


def test_twenty_thousand_facts_are_light() -> None:
    facts = counterfact(4000)
    app = wb.Workbench(tiny(), facts, autosave=False)
    assert len(app.facts) == 20_000
    assert max(len(app.editor.code), len(app.picker.code), len(app.code)) < 2000
    state = dependency_state([app, *app.panels.values()])
    assert len(json.dumps(state, default=str)) < 1_000_000
