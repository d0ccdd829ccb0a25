"""How long an edit takes: guessed from the model's speed, then measured by phase, by a clock that a test holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.helpers.paced import Clock
from tests.helpers.panels import FACTS, FRANCE, tiny
from tests.helpers.reader import harmless
from workbench.editing.methods.table import RECIPES, Recipe
from workbench.types import FactSet
from workbench.widgets.edit import timeline
from workbench.widgets.edit.timeline import (
    BASE,
    GUESSED,
    MEASURED,
    PROBE,
    REMEMBERED,
    SECONDS,
    Phase,
    Speeds,
    Timeline,
    phases_of,
    probe_seconds,
    prompts_of,
)
from workbench.widgets.shared.stepper import PhaseRow, stepper
from workbench.widgets.shared.timing import Span, duration

RECIPE = Recipe(steps=(10, 20))


def followed(*, chooses: bool = True, control: bool = False) -> tuple[Timeline, Speeds, Clock]:
    """A run of 10 and 20 steps and 40 prompts, on a model as fast as that of the guesses."""
    clock, speeds = Clock(), Speeds(lambda: PROBE)
    phases = phases_of(RECIPE, chooses=chooses, prompts=40, random_control=control)
    return Timeline(phases, speeds, clock), speeds, clock


def test_the_phases_of_a_run() -> None:
    one, *_ = followed()
    assert [(row.name, row.state) for row in one.rows()] == [
        ("prepare", "next"), ("unlearn", "next"), ("learn", "next"), ("evaluate", "next"),
    ]  # fmt: skip
    names = [phase.name for phase in phases_of(RECIPE, chooses=False, prompts=40, random_control=True)]
    assert names[4:] == ["random control", "evaluate it"]
    learning = phases_of(RECIPES["learn-only"], chooses=False, prompts=40)
    assert [phase.amount for phase in learning] == [1, 36, (BASE + 1) * 40] and learning[0].kind == "retain"


def test_before_a_first_run_it_is_guessed_from_the_speed_of_the_model() -> None:
    slow = Speeds(lambda: 3 * PROBE)
    step = Phase(name="learn", kind="step", amount=20)
    assert slow.span(step) == Span(3 * 20 * SECONDS["step"] * GUESSED[0], 3 * 20 * SECONDS["step"] * GUESSED[1])
    prepare = Phase(name="prepare", kind="choose", amount=1)
    assert slow.span(prepare).low == pytest.approx(3 * SECONDS["choose"] * REMEMBERED), "the model may remember"
    both = slow.total([step, prepare])
    assert both == slow.span(step) + slow.span(prepare)


def test_what_was_measured_is_taken_from_then_on() -> None:
    one, speeds, clock = followed()
    one.at("prepare")
    clock.now = 30
    one.at("unlearn", 0, 10)
    clock.now = 50
    one.at("unlearn", 10, 10)
    one.at("learn", 0, 20)
    assert speeds.measured == {"choose": 30, "step": 2}
    learn = Phase(name="learn", kind="step", amount=20)
    assert speeds.span(learn) == Span(40 * MEASURED[0], 40 * MEASURED[1])
    prompt = Phase(name="evaluate", kind="prompt", amount=96)
    guessed = 96 * SECONDS["prompt"] * 2 / SECONDS["step"]
    assert speeds.span(prompt) == Span(guessed * GUESSED[0], guessed * GUESSED[1]), "the rest as fast as the steps"
    clock.now = 90
    one.at("learn", 20, 20)
    one.at("evaluate", 0, 96)
    clock.now = 138
    one.at("evaluate", 96, 96, "model 3 of 3: 40 of 40 prompts")
    one.end()
    assert speeds.measured["prompt"] == pytest.approx(0.5)
    again = Timeline(phases_of(RECIPE, chooses=True, prompts=40), speeds, clock)
    again.at("prepare")
    clock.now = 139
    again.at("unlearn", 0, 10)
    assert speeds.measured["choose"] == 30, "a second time the model remembers; another fact it does not"


def test_elapsed_and_remaining_time_of_each_phase() -> None:
    one, _, clock = followed()
    one.at("prepare")
    clock.now = 20
    now = one.rows()[0]
    guessed = Span(SECONDS["choose"] * REMEMBERED, SECONDS["choose"] * GUESSED[1]).after(20)
    assert now.time == f"20 s, {guessed.words} left" and now.done is None
    one.at("unlearn", 0, 10)
    clock.now = 32
    one.at("unlearn", 4, 10)
    assert one.words == "unlearn 4 of 10" and one.phase == "unlearn"
    done, now, learn, evaluate = one.rows()
    assert (done.state, done.time) == ("done", "20 s") and (now.done, now.total) == (4, 10)
    assert now.time == f"12 s, {Span(18 * MEASURED[0], 18 * MEASURED[1]).words} left", "six steps of three seconds"
    assert (learn.state, evaluate.state) == ("next", "next")
    assert one.foot == f"32 s so far, {one.left().words} left."
    later, slower = Span(20 * 3 * MEASURED[0], 20 * 3 * MEASURED[1]), 3 / SECONDS["step"]
    assert learn.time == later.words, "as fast as those so far"
    asked = 96 * SECONDS["prompt"] * slower
    expected = Span(18 * MEASURED[0], 18 * MEASURED[1]) + later + Span(asked * GUESSED[0], asked * GUESSED[1])
    assert (one.left().low, one.left().high) == pytest.approx((expected.low, expected.high))
    one.at("evaluate", 0, 96, "model 1 of 3: 0 of 40 prompts")
    assert [row.name for row in one.rows()] == ["prepare", "unlearn", "evaluate"], "what was left out does not wait"
    assert one.words == "evaluate model 1 of 3: 0 of 40 prompts"
    one.end()
    assert one.words == "" and one.left() == Span() and all(row.state == "done" for row in one.rows())


def test_a_second_fit_comes_before_the_evaluation() -> None:
    one, speeds, clock = followed(control=True)
    for name, total in (("prepare", 0), ("unlearn", 10), ("learn", 20)):
        one.at(name, 0, total)
        clock.now += total
        one.at(name, total, total)
    one.again(replace(RECIPE, steps=(10, 40)))
    one.at("unlearn again", 0, 10)
    waiting = [(row.name, row.state) for row in one.rows()][3:]
    assert waiting == [
        ("unlearn again", "now"), ("learn again", "next"), ("evaluate", "next"), ("random control", "next"),
        ("evaluate it", "next"),
    ]  # fmt: skip
    learn = next(row for row in one.rows() if row.name == "learn again")
    assert learn.time == Span(40 * MEASURED[0], 40 * MEASURED[1]).words and speeds.measured["step"] == 1


def test_an_early_stop_does_not_make_steps_look_slow() -> None:
    one, speeds, clock = followed()
    one.at("unlearn", 0, 10)
    clock.now = 8
    one.at("unlearn", 4, 10)
    one.at("learn", 0, 20)
    assert speeds.measured["step"] == 2


def test_what_is_asked_at_most() -> None:
    one = FactSet([FRANCE], name="one")
    own = len(FRANCE.training_questions) + len(FRANCE.heldout) + 1 + len(FRANCE.cloze_paraphrases)
    assert prompts_of(one, FACTS, 1) == own + 2
    assert prompts_of(one, FACTS, None) == prompts_of(one, FACTS, 1000) == own + len(FACTS) - 1
    assert prompts_of(one, None, 40) == own + 80


def test_the_probe_runs_the_model_and_leaves_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before, clock = tiny().fingerprint, iter([0.0, 3.0, 10.0, 12.0])
    monkeypatch.setattr(timeline.time, "perf_counter", lambda: next(clock))
    assert probe_seconds(tiny()) == 2.0, "the faster of two"
    monkeypatch.undo()
    assert tiny().fingerprint == before


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0, 0, "under 5 s"),
        (1, 5, "under 5 s"),
        (0, 12, "about 5 to 10 s"),
        (14, 38, "about 15 to 40 s"),
        (29, 31, "about 30 s"),
        (40, 99, "about 40 to 100 s"),
        (60, 190, "about 1 to 3 min"),
        (95, 100, "about 1.5 min"),
        (10, 130, "about 0.5 to 2 min"),
        (200, 400, "about 3 to 7 min"),
    ],
)
def test_a_span_in_words(low: float, high: float, words: str) -> None:
    assert Span(low, high).words == words


def test_durations() -> None:
    assert (duration(0.2), duration(61), duration(89.2)) == ("1 s", "61 s", "1 min 30 s")


def test_a_stepper_says_which_phase_is_which_without_colours() -> None:
    evil = "<img src=x onerror=alert(1)>"
    rows = [
        PhaseRow(name="prepare", state="done", time="47 s"),
        PhaseRow(name=evil, state="now", words="2 of 4", time=evil, done=2, total=4),
        PhaseRow(name="evaluate", state="next", time="about 1 min"),
    ]
    read = harmless(stepper(rows, evil))
    assert read.named("aria-current") == ["step"] and read.named("value") == ["2"] and read.named("max") == ["4"]
    assert "done: prepare47 s" in read.said and "then: evaluateabout 1 min" in read.said
    assert stepper([]) == "" and "value=" not in stepper([replace(rows[1], done=None)])
