"""The dry run in the edit panel."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

import workbench as wb
from tests.helpers.panels import FACTS, FRANCE, SPAIN, control, descendants, tiny
from workbench.types import DryRun
from workbench.types.cancelling import Cancelled
from workbench.types.dry_run import Reach
from workbench.types.write import Write
from workbench.widgets.edit import dry_run_panel
from workbench.widgets.edit.dry_run_panel import plan_markup

ROME = wb.recipes.ROME(layers=(1,), steps=2, covariance="identity", clozes=False)


@pytest.fixture
def panel() -> wb.EditPanel:
    """An edit panel on a recipe that is solved in no time."""
    return wb.EditPanel(tiny(), FRANCE, pool=FACTS, recipe=ROME)


def click(panel: wb.EditPanel, label: str) -> None:
    control(panel, label).click()


def test_a_click_shows_what_the_edit_would_write_and_leaves_the_edit_unmade(panel: wb.EditPanel) -> None:
    click(panel, "Dry run")
    plan = panel.planner.wait(60)
    by_hand = wb.dry_run(tiny(), FRANCE, recipe=ROME, pool=FACTS, progress=False)
    assert (plan.reach, plan.writes) == (by_hand.reach, by_hand.writes)
    words = "".join(
        getattr(w, "value", "") for w in descendants(panel.planner.outcome) if isinstance(getattr(w, "value", ""), str)
    )
    assert "How far it reaches" in words and "L1 mlp.down_proj" in words and "identity" in words
    assert panel.edit is None and not panel.busy


def test_its_code_repeats_it(panel: wb.EditPanel) -> None:
    assert "plan = wb.dry_run(model, fact, None, recipe=wb.Recipe.named('rome', " in panel.planner.code
    assert "pool=pool)" in panel.planner.code and "fact = " in panel.planner.code


def test_another_fact_takes_it_away_and_another_setting_marks_it(panel: wb.EditPanel) -> None:
    click(panel, "Dry run")
    panel.planner.wait(60)
    control(panel, "seed").value = 7
    assert panel.planner.run_words.startswith("Dry run: ") and "seed" in panel.planner.run_words
    panel.fact = SPAIN
    assert panel.planner.plan is None and panel.planner.run_words == ""


def test_settings_that_do_not_work_keep_the_button_off(panel: wb.EditPanel) -> None:
    panel.selection_source = wb.Selection("")
    assert control(panel, "Dry run").disabled and "Nothing is picked" in panel.planner.problem


def test_cancelled_it_shows_nothing(panel: wb.EditPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    def until_cancelled(*given: Any, cancel: Any, **options: Any) -> DryRun:
        cancel.wait(30)
        raise Cancelled("stopped")

    monkeypatch.setattr(dry_run_panel, "dry_run", until_cancelled)
    click(panel, "Dry run")
    panel.planner.cancel()
    with pytest.raises(Cancelled):
        panel.planner.wait(30)
    assert panel.planner.plan is None


def test_a_plan_that_comes_late_is_not_shown_for_another_fact(
    panel: wb.EditPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, plans, go = list[bool](), dry_run_panel.dry_run, threading.Event()

    def late(*given: Any, cancel: threading.Event, **options: Any) -> DryRun:
        go.wait(30)
        asked.append(cancel.is_set())
        return plans(*given, **options)

    monkeypatch.setattr(dry_run_panel, "dry_run", late)
    click(panel, "Dry run")
    panel.fact = SPAIN
    go.set()
    panel.planner.wait(60)
    assert asked == [True] and panel.planner.plan is None
    assert panel.planner.run_words == "" == panel.planner.status
    click(panel, "Dry run")
    panel.planner.wait(60)
    assert panel.planner.plan is not None


def test_where_there_is_no_fact_nothing_is_planned(panel: wb.EditPanel) -> None:
    panel.no_fact.words = "The other tabs are about a pair."
    assert control(panel, "Dry run").disabled and "needs a fact" in panel.planner.problem
    with pytest.raises(ValueError, match="needs a fact"):
        panel.planner.run().wait(30)
    panel.no_fact.words = ""
    assert not control(panel, "Dry run").disabled


def test_warnings_come_first_and_names_are_escaped() -> None:
    reach = (
        Reach(fact_id="a", group="edited", change=math.nan, opening=1.0),
        Reach(fact_id="<b>", group="control", change=math.nan, opening=0.9),
    )
    write = Write(
        layer=3, module="mlp", name="m", stage="learn", denominator=9.0, tokens=50, covariance_rank=40, condition=8.0
    )
    plan = DryRun(
        facts=("a",),
        method="ROME",
        selection=wb.Selection("L3MLP"),
        selector="given",
        moves="rank 1 added",
        reach=reach,
        writes=(write,),
        known=False,
        notes=("One was left out.",),
    )
    shown = plan_markup(plan)
    assert shown.index("1 of 1 controls") < shown.index("rank 1 added") < shown.index("L3 m (learn)")
    assert (
        "&lt;b&gt; 0.9" in shown
        and "<b> 0.9" not in shown
        and "random directions" in shown
        and "One was left out." in shown
    )
