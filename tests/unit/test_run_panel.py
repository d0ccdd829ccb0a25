"""The base of all panels that run something: states, refusals, errors, progress, and what a new panel has to say."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from ipywidgets import HTML, Checkbox

from tests.helpers.panels import EVIL, control, own, shown, until
from tests.helpers.wire import click
from workbench.types.cancelling import Cancelled
from workbench.widgets.shared import run_panel
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.markup import Message, Progress
from workbench.widgets.shared.panel import Panel
from workbench.widgets.shared.run_panel import RunPanel, RunWords
from workbench.widgets.shared.text_card import text_card_png


class Doubling(RunPanel[int]):
    """The smallest panel: doubles what it was given, once it is let go. It refuses numbers above 1,000."""

    WORDS = RunWords(
        label="Double",
        icon="play",
        tip="Twice as much",
        cancel_tip="Stop",
        refused="Doubling already.",
        cancelling="Cancelling: it stops.",
    )

    def __init__(self, given: Any = 21) -> None:
        super().__init__()
        self.given, self.go, self.shown = given, threading.Event(), HTML()
        self.box = Checkbox(description="option")
        self._lay_out_run([self.box], [self.shown])
        self._show_code()

    @property
    def code(self) -> str:
        return f"doubled = 2 * {self.given!r}\n"

    def _order(self) -> Callable[[threading.Event], int]:
        if self.given is None:
            raise ValueError(f"There is nothing to double {EVIL}.")
        return self._double

    def _double(self, cancel: threading.Event) -> int:
        for i in range(100):
            if self._due():
                self._say(Progress(f"{i} looks", i, 100))
        while not self.go.wait(0.005):
            if cancel.is_set():
                raise Cancelled("As asked.")
        return self.given * 2

    def _finished(self, job: Job[int]) -> None:
        assert job.result is not None
        self.shown.value = f"<p>{job.result}</p>"

    def _clear(self) -> None:
        super()._clear()
        self.shown.value = ""

    def _problem(self) -> str:
        return "Give less than 1,000." if isinstance(self.given, int) and self.given > 1000 else ""

    def _estimate(self) -> str:
        return "about 1 s"

    def _settings(self) -> dict[str, Any]:
        return {"number": str(self.given)}

    def give(self, given: Any) -> None:
        self.given = given
        self._recheck()

    def _enable(self, enabled: bool) -> None:
        self.box.disabled = not enabled

    def _picture(self) -> bytes:
        return text_card_png("Doubling", [])


def test_it_runs_once_at_a_time_and_says_how_it_ended() -> None:
    panel = Doubling()
    with pytest.raises(RuntimeError, match="has not run yet"):
        panel.wait()
    click(control(panel, "Double"))
    job = panel.job
    assert panel.busy and job is not None
    assert (control(panel, "Double").disabled, control(panel, "Cancel").disabled, panel.box.disabled) == (1, 0, 1)
    assert panel.run() is job and panel.message == "Doubling already." and 'role="status"' in own(panel)
    panel.go.set()
    assert panel.wait(10) == 42 and not panel.busy
    assert (control(panel, "Double").disabled, control(panel, "Cancel").disabled, panel.box.disabled) == (0, 1, 0)
    assert re.fullmatch(r"done after \d+ s", panel.status) and "<p>42</p>" in own(panel)
    assert panel.run() is not job and panel.message == "", "the next run takes the alert away"


def test_cancelling_is_no_error() -> None:
    panel = Doubling()
    panel.cancel()
    click(control(panel, "Double"))
    click(control(panel, "Cancel"))
    assert control(panel, "Cancel").disabled and panel.status == "Cancelling: it stops."
    with pytest.raises(Cancelled, match="As asked"):
        panel.wait(10)
    assert panel.error is None and panel.status.startswith("cancelled after") and not panel.busy


def test_what_goes_wrong_is_kept_shown_and_raised_again() -> None:
    panel = Doubling(None)
    for _ in range(2):
        with pytest.raises(ValueError, match="nothing to double"):
            panel.run().wait(10)
    with pytest.raises(ValueError, match="nothing to double"):
        panel.wait()
    assert isinstance(panel.error, ValueError) and not panel.busy and panel.status == "Not started."
    assert panel.message == f"There is nothing to double {EVIL}." and "&lt;img" in own(panel)
    assert 'role="alert"' in own(panel)
    panel.given = [1]
    panel.go.set()
    assert panel.run().wait(10) == [1, 1]
    assert panel.error is None and 'role="alert"' not in own(panel)


def test_an_error_after_the_run_leaves_a_panel_that_can_run_again() -> None:
    class Broken(Doubling):
        def _finished(self, job: Job[int]) -> None:
            raise LookupError("nowhere to show it")

    panel = Broken()
    panel.go.set()
    with pytest.raises(LookupError):
        panel.run().wait(10)
    assert not panel.busy and not control(panel, "Double").disabled


def test_progress_is_drawn_at_most_five_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_panel.SECONDS_BETWEEN_DRAWINGS == 0.2
    for seconds, drawings in ((1000.0, 1), (0.0, 100)):
        monkeypatch.setattr(run_panel, "SECONDS_BETWEEN_DRAWINGS", seconds)
        panel, drawn = Doubling(), []
        panel.go.set()
        bar = control_of_progress(panel)
        bar.observe(lambda change, drawn=drawn: "looks" in change["new"] and drawn.append(change["new"]), names="value")
        panel.run().wait(10)
        assert len(drawn) == drawings


def control_of_progress(panel: Doubling) -> Any:
    """The line beside the buttons."""
    row: Any = next(child for child in panel.children if control(panel, "Cancel") in getattr(child, "children", ()))
    return row.children[-1]


def test_order_and_controls() -> None:
    panel = Doubling()
    kinds = [type(child).__name__ for child in panel.children]
    assert kinds == ["Connection", "HTML", "Checkbox", "HBox", "HTML", "RunMark", "HTML", "HTML"]
    assert list(panel.controls) == ["option", "Double", "Cancel"]
    assert "doubled = 2 * 21" in own(panel)


def test_controls_are_those_of_the_panel_alone() -> None:
    class Outer(Panel):
        def __init__(self, inner: Panel) -> None:
            super().__init__()
            self._lay_out(Checkbox(description="Twice"), Checkbox(description="Twice"), inner, self._alert)
            self._tell(Message("one", "done"), Message("two"))

    outer = Outer(Doubling())
    assert list(outer.controls) == ["Twice"] and outer.controls["Twice"] is outer.children[1]
    assert outer.message == "one\ntwo" and own(outer).count('role="status"') == 2


def finished(given: Any = 21) -> Doubling:
    """A panel that has run once."""
    panel = Doubling(given)
    panel.go.set()
    panel.run().wait(10)
    panel.go.clear()
    return panel


def test_what_cannot_run_is_said_beside_the_button_and_starts_nothing() -> None:
    panel = finished()
    run = control(panel, "Double")
    assert panel.problem == "" and not run.disabled and "about 1 s" in shown(panel)
    panel.give(5000)
    assert panel.problem == "Give less than 1,000." and run.disabled and "about 1 s" not in shown(panel)
    assert "Give less than 1,000." in shown(panel) and panel.message == ""
    click(run)  # a message that was on its way when the button was switched off
    with pytest.raises(ValueError, match="Give less"):
        panel.wait(10)
    assert panel.status == "Not started." and isinstance(panel.error, ValueError) and not panel.busy
    assert panel.message == "Give less than 1,000." and "<p>42</p>" in own(panel)
    panel.give(4)
    assert not run.disabled and "Give less" not in panel.problem
    panel.go.set()
    assert panel.run().wait(10) == 8 and "<p>42</p>" not in own(panel) and panel.message == ""


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
def test_results_stay_until_another_run_has_its_own(ends: str) -> None:
    panel = finished()
    panel.give([] if ends == "cancelled" else object())
    panel.run()
    assert "<p>42</p>" in own(panel), "a run that has only begun"
    panel.cancel() if ends == "cancelled" else panel.go.set()
    with pytest.raises((Cancelled, TypeError)):
        panel.wait(10)
    assert "<p>42</p>" in own(panel) and panel.run_words.startswith("Run: 21, ")
    how = "was cancelled" if ends == "cancelled" else "failed"
    assert f"The run after it {how}: these results are kept." in panel.run_words
    assert "number" in panel.run_words and "was 21" in panel.run_words
    panel.give(3)
    panel.go.set()
    panel.run().wait(10)
    assert "<p>6</p>" in own(panel) and "kept" not in panel.run_words and panel.run_words.startswith("Run: 3, ")


def test_results_say_when_the_settings_are_no_longer_theirs() -> None:
    panel = finished()
    assert re.fullmatch(r"Run: 21, \d\d:\d\d\.", panel.run_words)
    panel.give(22)
    assert panel.run_words.endswith("settings changed since this run: number 22, was 21") and "number 22" in own(panel)
    panel.give(21)
    assert "changed" not in panel.run_words
    panel.give(EVIL)
    assert "&lt;img" in own(panel)


def test_a_first_result_takes_the_last_ones_away_before_the_end() -> None:
    class InParts(Doubling):
        def _double(self, cancel: threading.Event) -> int:
            self._supersede()
            self._supersede()
            return super()._double(cancel)

        def _finished(self, job: Job[int]) -> None:
            self.ended = job.state

    panel = InParts()
    panel.shown.value = "<p>of before</p>"
    panel.run()
    until(lambda: not panel.shown.value)
    assert panel.busy and panel.run_words.startswith("Run: 21, ")
    panel.cancel()
    with pytest.raises(Cancelled):
        panel.wait(10)
    assert panel.ended == "cancelled" and panel.message == "As asked." and "kept" not in panel.run_words


def test_the_seconds_of_the_last_run() -> None:
    panel = Doubling()
    assert panel.elapsed is None
    panel.run()
    job = panel.job
    assert job is not None and panel.elapsed is not None
    panel.go.set()
    panel.wait(10)
    assert panel.elapsed == job.seconds
    panel.give(5000)
    with pytest.raises(ValueError, match="Give less"):
        panel.run().wait(10)
    assert panel.elapsed == job.seconds, "what did not start took no time"
