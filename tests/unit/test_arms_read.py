"""Where control arms are read: one mark for all, at which an arm is stopped, looked at and evaluated."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.small_fits import recipe, same
from tests.unit.test_arm_tables import by_hand
from tests.unit.test_arm_tables import row as row_by_hand
from tests.unit.test_arms import FRANCE, QUICK, RETAIN, SELECTION, compared, tiny
from workbench.comparing import arms as arms_module
from workbench.comparing import runs as runs_module
from workbench.comparing.arms import ARMS, Arm
from workbench.editing.applied import Dial, applied
from workbench.editing.rewrite import rewrite
from workbench.types import Edit, Step


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def scripted(monkeypatch: pytest.MonkeyPatch, *accuracies: float) -> None:
    """Validation accuracies in the order in which they are looked at; afterwards the last one."""
    left = list(accuracies)
    monkeypatch.setattr(runs_module, "new_accuracy", lambda *a, **k: left.pop(0) if len(left) > 1 else left[0])


def test_an_arm_is_read_at_the_first_step_that_reaches_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at after 2, 4, ... steps; the third look reaches it: what is reported is the edit of a fit of 6 steps."""
    scripted(monkeypatch, 0.5, 0.94, 0.95, 0.0)
    table = compared(arms=("selected",), recipe=recipe(steps=(2, 20)))
    (row,) = table.rows
    assert (row.step, row.reached, row.validation) == (6, True, 0.95)
    six = rewrite(tiny(), FRANCE, SELECTION, recipe=recipe(steps=(2, 6)), retain=RETAIN, progress=False)
    with applied(tiny(), six) as edited:
        for answer in (r for r in row.report.rows if r.stage == "learn" and r.form == "chat"):
            assert wb.ask(edited, answer.prompt) == answer.text


@pytest.mark.parametrize("arm", ["lora", "full"])
def test_a_baseline_is_read_at_the_mark_too(arm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 0.5, 1.0, 0.0)
    (row,) = compared(arms=(arm,), recipe=recipe(steps=(2, 20))).rows
    assert (row.step, row.reached, row.validation) == (4, True, 1.0)


def test_early_stop_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 0.0)
    steps: list[Step] = []
    compared(arms=("selected",), recipe=replace(QUICK, early_stop=1e-9), on_step=steps.append)
    assert Counter(s.stage for s in steps) == {"unlearn": 3, "learn": 6}


def test_an_arm_is_evaluated_as_it_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that averages its last steps gives the last step's gates, as an arm that is stopped on the way does."""
    scripted(monkeypatch, 0.0)
    looked: list[Edit] = []
    averaged = recipe(steps=(2, 6), average=3)
    monkeypatch.setattr(arms_module, "Dial", lambda model, edit: looked.append(edit) or Dial(model, edit))
    (row,) = compared(arms=("selected",), recipe=averaged).rows
    assert (row.reached, row.step) == (False, 6)
    last = rewrite(tiny(), FRANCE, SELECTION, recipe=recipe(steps=(2, 6)), retain=RETAIN, progress=False)
    assert same(looked[-1], last)
    assert not same(last, rewrite(tiny(), FRANCE, SELECTION, recipe=averaged, retain=RETAIN, progress=False))
    with applied(tiny(), last) as edited:
        for answer in (r for r in row.report.rows if r.stage == "learn" and r.form == "chat"):
            assert wb.ask(edited, answer.prompt) == answer.text


def test_arms_that_never_reach_the_mark_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks: the selection reaches it at once; of three draws only the second does, at its last look."""
    scripted(monkeypatch, 1.0, *(0, 0, 0), *(0, 0, 1.0), 0.0)
    table = compared(arms=("selected", "random-anywhere"))
    assert [r.reached for r in table.rows] == [True, False, True, False]
    assert [r.step for r in table.rows] == [2, 5, 5, 5]
    assert [r.seed for r in table.runs("random-anywhere")] == [1]
    assert [r.seed for r in table.runs("random-anywhere", reached=False)] == [0, 2]
    assert list(table.summary().index) == ["the selection", "random, anywhere", "random, anywhere, not reached"]
    assert list(table.summary().runs) == ["1", "1", "2"]
    assert {(d.reached, d.runs, d.facts) for d in table.differences()} == {(1, 3, ("france-capital",))}
    assert "2 of 3 draws did not reach the new fact." in table.verdict
    none = by_hand(
        row_by_hand("selected", [1], [0.1], reached=False),
        row_by_hand("random-anywhere", [1], [0.1], 0, reached=False),
    )
    assert "reached 95% new answers on validation questions on 0 of 1 fact(s)" in none.verdict
    assert "cannot tell: 1 of 1 draws did not reach the new fact, and no fact is left" in none.verdict


def test_an_arm_without_a_path_is_evaluated_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of the table is a new arm: here one that takes no steps to be read along, as closed forms do."""
    stops: list[Any] = []
    fit_selected = ARMS["selected"].fit
    assert fit_selected is not None

    def fit(fitting: Any, plan: Any, stop: Any) -> Any:
        stops.append(stop)
        return fit_selected(fitting, plan, stop)

    at_once = Arm(name="at-once", words="at once", plan=arms_module.as_selected("at-once"), fit=fit, path=False)
    monkeypatch.setitem(ARMS, "at-once", at_once)
    scripted(monkeypatch, 0.96)
    table = compared(arms=("at-once",))
    (row,) = table.rows
    assert stops == [None]
    assert (row.reached, row.validation, row.step, row.updates) == (True, 0.96, 5, 7)
    assert row.report.stages == ("base", "learn") and table.summary().index.tolist() == ["at once"]
