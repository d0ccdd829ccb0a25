"""While an edit panel runs and when it fails or is cancelled: what it refuses, draws, says and keeps."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets
import pytest

from tests.helpers.edit_panels import panel
from tests.helpers.panels import EVIL, FACTS, FRANCE, QUICK, SPAIN, Held, control, descendants, own, shown, tiny, until
from tests.helpers.tiny_facts import capitals
from tests.helpers.wire import click, enter
from workbench.editing.rewrite import rewrite
from workbench.editing.training.loop import NonFiniteLoss
from workbench.types import Edit, Selection, Step
from workbench.types.cancelling import Cancelled
from workbench.widgets.edit import job as edit_job
from workbench.widgets.edit import panel as edit_panel
from workbench.widgets.edit.panel import EditPanel
from workbench.widgets.shared import run_panel
from workbench.widgets.shared.voice import person


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def test_whoever_wants_the_edit_is_called_with_the_panel() -> None:
    one, seen = panel(), []
    one.on_done(lambda p: seen.append((p.edit, p.report, p.running)))
    one.run().wait(60)
    assert seen == [(one.edit, one.report, False)] and one.edit is not None


def test_an_error_in_such_a_callback_is_shown_and_raised() -> None:
    def broken(_: EditPanel) -> None:
        raise LookupError(f"no such view {EVIL}")

    one = panel()
    one.on_done(broken)
    with pytest.raises(LookupError):
        one.run().wait(60)
    assert isinstance(one.error, LookupError) and 'role="alert"' in shown(one) and one.edit is not None


def test_a_second_run_is_refused_politely(monkeypatch: pytest.MonkeyPatch) -> None:
    held, one = Held(monkeypatch), panel()
    click(control(one, "Run"))
    first = one.job
    until(lambda: held.calls)
    click(control(one, "Run"))  # a message that was on its way when the button was switched off
    assert one.run() is first is one.job and held.calls == 1 and one.error is None and one.running
    assert "running already" in shown(one) and 'role="status"' in shown(one)
    assert control(one, "Run").disabled and control(one, "seed").disabled
    held.go.set()
    assert first is not None
    first.wait(10)
    assert not one.running and not control(one, "seed").disabled


def test_cancelling_a_fit() -> None:
    one = panel(recipe=replace(QUICK, steps=(90_000, 4)))
    click(control(one, "Run"))
    until(lambda: "<svg" in shown(one) and one.phase_words.startswith("unlearn "))
    assert re.fullmatch(r"unlearn [\d]+ of 90000", one.phase_words) and "left" in shown(one)
    assert one.status == one.phase_words or one.status.startswith("unlearn")
    click(control(one, "Cancel"))
    assert control(one, "Cancel").disabled
    assert one.job is not None
    with pytest.raises(Cancelled):
        one.job.wait(20)
    assert one.job.state == "cancelled" and one.error is None and one.edit is None and one.report is None
    assert "Cancelled in stage" in shown(one) and not control(one, "Run").disabled and one.phase_words == ""
    assert "<svg" not in shown(one) and "wb-steps" not in shown(one)
    one.recipe = QUICK
    assert one.run().wait(60) is one.report and one.report is not None, "and it runs again"


def test_cancelling_the_evaluation_keeps_the_edit() -> None:
    cancel, edits, said = threading.Event(), [], []

    def fitted(edit: Edit) -> None:
        edits.append(edit)
        cancel.set()

    with pytest.raises(Cancelled, match="edit is kept"):
        edit_job.fit_and_evaluate(
            tiny(), capitals()[:1], Selection("L1MLP"), QUICK, pool=FACTS, max_controls=1, cancel=cancel,
            on_step=lambda step: None if step.stage == "unlearn" else False, on_edit=fitted,
            follow=lambda *given: said.append(given),
        )  # fmt: skip
    assert len(edits) == 1, "what on_step returns cancels nothing"
    assert said == [("evaluate", 0, 0, "looking for facts to compare with")]


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
def test_whatever_ends_the_random_control_the_report_stays(ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = panel("L1N3 L1N4 L2N5")
    enter(control(one, "random control"), value=True)
    fits: list[Any] = []

    def fit(*given: Any, **options: Any) -> Edit:
        fits.append(given)
        if len(fits) == 2:
            assert one.report is not None and one.edit is not None
            if ends == "failed":
                raise RuntimeError("no memory")
            one.cancel()
        return rewrite(*given, **options)

    monkeypatch.setattr(edit_job, "rewrite", fit)
    click(control(one, "Run"))
    assert one.job is not None
    with pytest.raises((Cancelled, RuntimeError)):
        one.job.wait(60)
    assert one.job.state == ends and one.report is not None and one.control_report is None
    assert ("are kept" if ends == "cancelled" else "no memory") in shown(one)
    assert str(one.report.rates["learn"]["kl"]) in shown(one) and "Not evaluated" not in shown(one)


def test_a_failing_fit_is_shown_kept_and_raised_again() -> None:
    one = panel("L0MLP L1MLP L2MLP")
    enter(control(one, "learning rate"), value=3e37)
    click(control(one, "Run"))
    assert one.job is not None
    with pytest.raises(NonFiniteLoss):
        one.job.wait(60)
    assert one.job.state == "failed" and isinstance(one.error, NonFiniteLoss) and one.error is one.job.error
    assert 'role="alert"' in shown(one) and "NonFiniteLoss" not in own(one) and one.edit is None
    assert one.message == person(one.error)
    enter(control(one, "learning rate"), value=0.05)
    one.run().wait(60)
    assert one.error is None and 'role="alert"' not in shown(one)


def test_another_fact_empties_the_panel_but_not_while_an_edit_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    one = panel()
    one.run().wait(60)
    one.fact = SPAIN
    assert one.fact == SPAIN and one.edit is None and one.report is None and one.job is None
    assert "Madrid" in shown(one) and "<svg" not in shown(one) and "spain-capital" in one.code
    held = Held(monkeypatch)
    job = one.run()
    until(lambda: held.calls)
    with pytest.raises(RuntimeError, match="Cancel it or wait"):
        one.fact = FRANCE
    assert one.fact == SPAIN and "Cancel it or wait" in shown(one)
    held.go.set()
    job.wait(10)
    with pytest.raises(ValueError, match="at least one fact"):
        one.fact = []


def test_drawing_is_at_most_five_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    one, drawn = panel(), []

    def steps(*_: Any, on_step: Any, **__: Any) -> None:
        for i in range(400):
            on_step(Step("unlearn", i, float(i), 0.0, p_old=1 / (i + 1)))

    for area in descendants(one):
        if isinstance(area, ipywidgets.HTML):
            area.observe(lambda change: "<svg" in change["new"] and drawn.append(change["new"]), names="value")
    monkeypatch.setattr(edit_panel, "fit_and_evaluate", steps)
    monkeypatch.setattr(run_panel, "SECONDS_BETWEEN_DRAWINGS", 1000.0)
    one.run().wait(20)
    assert len(drawn) == 1
    monkeypatch.setattr(run_panel, "SECONDS_BETWEEN_DRAWINGS", 0.0)
    drawn.clear()
    one.run().wait(60)
    assert len(drawn) == 400
